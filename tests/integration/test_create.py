# SPDX-License-Identifier: Apache-2.0
"""Making an export from a task: which window is asked for, and what is refused before a request is sent."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.task_runner import run_task

DAY = {"data_interval_start": pendulum.datetime(2024, 1, 1), "data_interval_end": pendulum.datetime(2024, 1, 2)}
NO_WIDTH = {name: pendulum.datetime(2024, 1, 2) for name in DAY}


def create(**told: Any) -> CreateActivitiesExportOperator:
    return CreateActivitiesExportOperator(task_id="create", **told)


@pytest.mark.parametrize(
    ("told", "context", "asked"),
    [
        ({}, DAY, ("2024-01-01 00:00:00 +0000", "2024-01-02 00:00:00 +0000")),
        ({"lookback": timedelta(days=7)}, DAY, ("2023-12-25 00:00:00 +0000", "2024-01-02 00:00:00 +0000")),
        ({"lookback": "P1D"}, NO_WIDTH, ("2024-01-01 00:00:00 +0000", "2024-01-02 00:00:00 +0000")),
        ({"interval_start": None, "interval_end": None}, {}, (None, None)),
        ({"interval_start": None}, DAY, (None, "2024-01-02 00:00:00 +0000")),
        ({"interval_start": "2023-06-01"}, DAY, ("2023-06-01 00:00:00 +0000", "2024-01-02 00:00:00 +0000")),
        (
            {"interval_start": date(2023, 6, 1), "interval_end": datetime(2023, 7, 1, 12, 30)},
            {},
            ("2023-06-01 00:00:00 +0000", "2023-07-01 12:30:00 +0000"),
        ),
        (
            {"interval_start": "2023-06-01T00:00:00+02:00", "interval_end": datetime(2023, 7, 1, tzinfo=UTC)},
            {},
            ("2023-05-31 22:00:00 +0000", "2023-07-01 00:00:00 +0000"),
        ),
        (
            {"partition_length": timedelta(days=1)},
            {"partition_key": "2024-03-30T00:00:00"},
            ("2024-03-30 00:00:00 +0000", "2024-03-31 00:00:00 +0000"),
        ),
        (
            {"partition_timezone": "Europe/Berlin"},
            {"partition_key": "2024-03"},
            ("2024-02-29 23:00:00 +0000", "2024-03-31 22:00:00 +0000"),
        ),
    ],
)
def test_the_window_that_is_asked_for(
    told: dict[str, Any], context: dict[str, Any], asked: tuple[str | None, str | None], sandbox: Sandbox
) -> None:
    export_id = run_task(create(**told), **context).value

    (made,) = sandbox.exports
    assert made.id == export_id
    assert (made.params.get("start_date"), made.params.get("end_date")) == asked


@pytest.mark.parametrize(
    ("told", "context", "says"),
    [
        ({}, {}, "no data interval"),
        ({}, NO_WIDTH, "no width"),
        ({}, {"data_interval_start": None, "data_interval_end": None}, "--logical-date"),
        ({}, {**DAY, "data_interval_end": DAY["data_interval_start"]}, "lookback"),
        ({"interval_start": "2024-02-01"}, DAY, "reversed"),
        ({"interval_start": "2024-01-01", "interval_end": "2024-01-01"}, {}, "empty"),
        ({"interval_start": "None"}, DAY, "interval_start=None"),
        ({"interval_end": ""}, DAY, "interval_end=None"),
        ({"interval_start": "yesterday"}, DAY, "interval_start cannot be 'yesterday'"),
        ({"interval_start": "now"}, DAY, "interval_start cannot be 'now'"),
        ({"lookback": timedelta(0)}, DAY, "lookback"),
        ({"lookback": "a week"}, DAY, "lookback"),
        ({"activity_type": "new"}, DAY, "new_biz, reactivation, expansion, contraction, churn"),
        ({"activity_type": "None"}, DAY, "activity_type"),
        ({"activity_type": ""}, DAY, "activity_type"),
        ({"partition_length": timedelta(days=1)}, {"partition_key": "de"}, "partition key"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_request(
    told: dict[str, Any], context: dict[str, Any], says: str, sandbox: Sandbox
) -> None:
    task = create()
    for name, value in told.items():  # as Airflow does with a rendered template; literals fail when the DAG is parsed
        setattr(task, name, value)
    with pytest.raises(AirflowFailException) as raised:
        run_task(task, **context)
    assert says in str(raised.value)
    assert sandbox.requests == []


def test_a_type(sandbox: Sandbox) -> None:
    run_task(create(activity_type="churn"), **DAY)
    assert sandbox.exports[0].params["activity_type"] == "churn"
