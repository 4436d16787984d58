# SPDX-License-Identifier: Apache-2.0
"""What system tests print is for the person who runs them: figures and progress, not a line for each request."""

from __future__ import annotations

import logging

import airflow_provider_chartmogul.sandbox  # noqa: F401, which loads Airflow, which sets up logging

logging.getLogger("airflow_provider_chartmogul.sandbox").setLevel(logging.WARNING)
