# SPDX-License-Identifier: Apache-2.0
"""Tell which parameters of a task are known, and can be checked, when the DAG is parsed."""

from __future__ import annotations

from datetime import date, timedelta

from airflow.providers.common.compat.sdk import BaseOperator


def is_literal(value: object) -> bool:
    """Return whether a parameter has its value when the DAG is parsed: it is neither a template nor an XCom."""
    if isinstance(value, str):
        return not any(mark in value for mark in ("{{", "{%", "{#"))
    return isinstance(value, (bytes, int, float, date, timedelta))


def is_declared(task: BaseOperator) -> bool:
    """
    Return whether a task stands in the DAG as it is: its literals were written there.

    Otherwise Airflow creates it on the worker, out of a mapped task and the values of XComs.
    """
    return not task.has_dag() or task.dag.task_dict.get(task.task_id) is task
