# SPDX-License-Identifier: Apache-2.0
"""Tests the pages of the examples in Airflow 3's UI: the graph of a run, and the form that starts a backfill."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import RealAirflow
from tests.browser.pages import Airflow3Page

DAG_ID = "example_backfill"


@pytest.mark.usefixtures("connection")
def test_graph_shows_the_three_tasks_of_a_run(
    airflow: RealAirflow, airflow_page: Airflow3Page, picture: Callable[[Page | Locator, str], None]
) -> None:
    airflow.wait_for_dag("example_activities_export")
    day = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)
    run_id = airflow.trigger("example_activities_export", logical_date=day[1], data_interval=day)
    airflow.unpause("example_activities_export")
    run = airflow.wait_for_run("example_activities_export", run_id, timeout=400)
    assert run["state"] == "success", airflow.task_instances("example_activities_export", run_id)

    airflow_page.page.set_viewport_size({"width": 1280, "height": 720})
    airflow_page.show_run("example_activities_export", run_id, ["create_export", "wait_for_export", "transfer"])

    picture(airflow_page.page, "example-dag")


@pytest.mark.usefixtures("connection")
def test_form_starts_a_backfill(
    airflow: RealAirflow,
    airflow_page: Airflow3Page,
    sandbox: Sandbox,
    lake: Path,
    picture: Callable[[Page | Locator, str], None],
) -> None:
    airflow.wait_for_dag(DAG_ID)
    form = airflow_page.trigger_form(DAG_ID)
    form.field("First day").fill("2025-04-01")
    form.field("End").fill("2026-01-01")
    form.choose("Window", "quarter")
    form.choose("Activity types", "new_biz")
    form.choose("Activity types", "churn")
    picture(form.root, "backfill-form")
    form.submit()
    [triggered] = airflow.runs(DAG_ID)
    run_id = triggered["dag_run_id"]
    run = airflow.wait_for_run(DAG_ID, run_id, timeout=500)

    assert run["state"] == "success", airflow.task_instances(DAG_ID, run_id)
    assert run["conf"] == {
        "start": "2025-04-01",
        "end": "2026-01-01",
        "every": "quarter",
        "activity_types": ["new_biz", "churn"],
        "if_exists": "overwrite",
    }
    quarters = [datetime(2025, 4, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC)]
    ends = [*quarters[1:], datetime(2026, 1, 1, tzinfo=UTC)]
    names = []
    for start, end in zip(quarters, ends, strict=True):
        for activity_type in ("new_biz", "churn"):
            names.append(f"{start:%Y-%m-%d} to {end:%Y-%m-%d} {activity_type}")
            name = f"{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz"
            with gzip.open(lake / "backfill" / activity_type / name, "rt", newline="") as file:
                rows = list(csv.DictReader(file))
            assert rows
            assert rows == sandbox.expected_rows(start, end, activity_type)
    assert len(list((lake / "backfill").rglob("*.csv.gz"))) == 6
    exports = [ti for ti in airflow.task_instances(DAG_ID, run_id) if ti["task_id"] == "export"]
    assert sorted(ti["rendered_map_index"] for ti in exports) == sorted(names)
    airflow_page.page.set_viewport_size({"width": 1280, "height": 720})
    airflow_page.show_mapped(DAG_ID, run_id, "export", names)
    picture(airflow_page.page, "backfill-run")
