# SPDX-License-Identifier: Apache-2.0
"""The task that creates an export: which window it requests, and what it rejects before it sends a request."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.task_runner import render, run_task

DAY = {"data_interval_start": pendulum.datetime(2024, 1, 1), "data_interval_end": pendulum.datetime(2024, 1, 2)}
NO_WIDTH = {name: pendulum.datetime(2024, 1, 2) for name in DAY}


def create(**parameters: Any) -> CreateActivitiesExportOperator:
    return CreateActivitiesExportOperator(task_id="create", **parameters)


@pytest.mark.parametrize(
    ("parameters", "context", "window"),
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
def test_window_of_request(
    parameters: dict[str, Any], context: dict[str, Any], window: tuple[str | None, str | None], sandbox: Sandbox
) -> None:
    export_id = run_task(create(**parameters), **context).value

    (export,) = sandbox.exports
    assert export.id == export_id
    assert (export.params.get("start_date"), export.params.get("end_date")) == window


def test_activity_type_of_request(sandbox: Sandbox) -> None:
    run_task(create(activity_type="churn"), **DAY)
    assert sandbox.exports[0].params["activity_type"] == "churn"


@pytest.mark.parametrize(
    ("rendered", "context", "message"),
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
def test_invalid_value_raises_before_a_request(
    rendered: dict[str, Any], context: dict[str, Any], message: str, sandbox: Sandbox
) -> None:
    with pytest.raises(AirflowFailException) as raised:
        run_task(render(create(), **rendered), **context)
    assert message in str(raised.value)
    assert sandbox.requests == []
