# SPDX-License-Identifier: Apache-2.0
"""Command line of the package: ``python -m airflow_provider_chartmogul check``."""

from __future__ import annotations

import sys

from airflow_provider_chartmogul.check.command import main

if __name__ == "__main__":
    sys.exit(main())
