# SPDX-License-Identifier: Apache-2.0
"""Silences the sandbox's request log, so that the system tests print only their own progress and figures."""

from __future__ import annotations

import logging

import airflow_provider_chartmogul.sandbox  # noqa: F401 - loads Airflow, which configures logging

logging.getLogger("airflow_provider_chartmogul.sandbox").setLevel(logging.WARNING)
