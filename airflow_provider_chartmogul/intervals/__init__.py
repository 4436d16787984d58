# SPDX-License-Identifier: Apache-2.0
"""
Find the window of time that a task exports.

``interval``         the window of a task: from its parameters, or from its run
``partition_keys``   the window of a run that has a partition key, and the key of a window
``split``            a range of dates as windows, for mapped tasks
``times``            parsing times and time zones
``durations``        parsing durations, and adding them by the calendar
"""

from airflow_provider_chartmogul.intervals.split import split_interval

__all__ = ["split_interval"]
