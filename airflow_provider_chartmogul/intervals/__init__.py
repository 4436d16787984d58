# SPDX-License-Identifier: Apache-2.0
"""Which time a task covers: windows of runs and of partitions, and date ranges cut into windows."""

from airflow_provider_chartmogul.intervals.split import split_interval

__all__ = ["split_interval"]
