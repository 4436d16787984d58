# SPDX-License-Identifier: Apache-2.0
"""Tests the form of a ChartMogul connection in Airflow's UI: its fields, what it saves, and its test button."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import RealAirflow
from tests.browser.conftest import API_KEY
from tests.browser.pages import Airflow3Page, AirflowPage

EXTRAS = {
    "Timeout in seconds": "How long to wait for a connection, and for each response. Default: 30.",
    "Requests per second": "Limit of each process. All processes share the account's 40. Default: 10.",
    "Maximum connections": "Limit of each process. All processes share the account's 20. Default: 4.",
}


def test_form_has_the_connection_types_fields(
    airflow_page: AirflowPage, picture: Callable[[Page | Locator, str], None]
) -> None:
    form = airflow_page.new_connection("chartmogul_default", "ChartMogul")
    # Testing a connection requires one more field: the port in Airflow 3.3, the extra as JSON in Airflow 2.
    for_test = "Port" if isinstance(airflow_page, Airflow3Page) else "Extra"
    assert form.labels() == ["Description", "Base URL", "API key", for_test, *EXTRAS]
    assert {label: form.help(label) for label in EXTRAS} == EXTRAS
    picture(form.root, "connection-form-extras")
    expect(form.field("Base URL")).to_have_attribute("placeholder", "https://api.chartmogul.com")
    expect(form.field("Base URL")).to_have_value("")
    key = form.field("API key")
    key.press_sequentially(API_KEY)
    expect(key).to_have_value(API_KEY)
    expect(key).to_have_attribute("type", "password")
    picture(form.root, "connection-form")


def test_connection_test_reports_a_wrong_key(airflow_page: AirflowPage, sandbox: Sandbox) -> None:
    form = airflow_page.new_connection("chartmogul_wrong", "ChartMogul")
    form.fill({**airflow_page.address(sandbox.url), "API key": "a-key-that-is-wrong"})
    message = form.save_and_test()
    assert "refused the API key (401). Check the field 'API key'" in message
    assert "a-key-that-is-wrong" not in message

    form = airflow_page.edit_connection("chartmogul_wrong")
    form.fill({"API key": API_KEY})
    message = form.save_and_test()
    assert "accepts the API key" in message


def test_connection_test_reports_an_unreachable_host(airflow_page: AirflowPage) -> None:
    form = airflow_page.new_connection("chartmogul_nowhere", "ChartMogul")
    form.fill({**airflow_page.address("http://chartmogul.invalid:80"), "API key": API_KEY})
    message = form.save_and_test()
    assert "The host cannot be reached" in message
    assert "chartmogul.invalid" in message


@pytest.mark.usefixtures("connection")
def test_saved_values_are_shown_except_for_the_key(airflow_page: AirflowPage, sandbox: Sandbox) -> None:
    form = airflow_page.edit_connection("chartmogul_default")
    expect(form.field("Base URL")).to_have_value(sandbox.url)
    for label, value in {
        "Timeout in seconds": "20.5",
        "Requests per second": "20",
        "Maximum connections": "2",
    }.items():
        expect(form.field(label)).to_have_value(value)
    expect(form.field("API key")).to_have_attribute("type", "password")
    assert API_KEY not in form.field("API key").input_value()
    assert API_KEY not in airflow_page.page.content()


@pytest.mark.usefixtures("connection")
def test_example_runs_with_the_connection(airflow: RealAirflow, sandbox: Sandbox, lake: Path) -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    airflow.wait_for_dag("example_activities_export")
    run_id = airflow.trigger("example_activities_export", logical_date=day[1], data_interval=day)
    airflow.unpause("example_activities_export")

    run = airflow.wait_for_run("example_activities_export", run_id, timeout=400)

    assert run["state"] == "success", airflow.task_instances("example_activities_export", run_id)
    with zipfile.ZipFile(lake / "activities" / "2026-03-01.zip") as archive:
        [name] = archive.namelist()
        rows = list(csv.DictReader(io.StringIO(archive.read(name).decode(), newline="")))
    assert rows
    assert rows == sandbox.expected_rows(*day)
