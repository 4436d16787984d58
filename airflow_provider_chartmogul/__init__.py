# SPDX-License-Identifier: Apache-2.0
"""ChartMogul for Airflow."""

__version__ = "0.1.0"
