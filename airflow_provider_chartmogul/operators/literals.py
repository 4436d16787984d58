# SPDX-License-Identifier: Apache-2.0
"""Find out which parameters of a task can be checked when the DAG is parsed."""

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
    Return whether a task is declared in the DAG file, so that its literals were written there.

    Otherwise Airflow creates it on the worker from a mapped task and the values of XComs.
    """
    return not task.has_dag() or task.dag.task_dict.get(task.task_id) is task
