# SPDX-License-Identifier: Apache-2.0
"""A file URL that the storage refuses: a fresh one is requested, and what a second refusal means for the export."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.api.exports import ActivitiesExport
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.transfers import END, START, create_export, csv_rows, transfer
from tests.stores import Store


def test_expired_url_is_renewed_once(sandbox: Sandbox, store: Store) -> None:
    sandbox.url_seconds = 0
    export_id = create_export()
    ChartMogulHook().get_activities_export(export_id)
    with pytest.raises(AirflowFailException, match=r"fresh one too.*clear the task that creates"):
        transfer(export_id, f"{store.base}/x.zip")
    polls = [request for request in sandbox.requests if request.method == "GET" and request.host == "api"]
    downloads = [request for request in sandbox.requests if request.host == "download"]
    assert (len(polls), len(downloads)) == (1 + 2, 2)
    assert store.list() == []


def test_fresh_url_is_downloaded(sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    get_activities_export = ChartMogulHook.get_activities_export
    exports: list[ActivitiesExport] = []

    def expired_the_first_time(hook: ChartMogulHook, export_id: str) -> ActivitiesExport:
        sandbox.url_seconds = 3600 if exports else 0
        exports.append(get_activities_export(hook, export_id))
        return exports[-1]

    export_id = create_export()
    monkeypatch.setattr(ChartMogulHook, "get_activities_export", expired_the_first_time)
    transfer(export_id, f"{store.base}/x.zip")
    assert csv_rows(store.read("x.zip")) == sandbox.expected_rows(START, END)
