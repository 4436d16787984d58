# SPDX-License-Identifier: Apache-2.0
"""What a move tells of where data came from and went: Airflow's hook lineage collector, and OpenLineage."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.storage.delivery import TransferResult
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.task_runner import run_task
from tests.integration.transfers import create_export


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A collector that collects, as Airflow has one where a plugin reads it."""
    module = import_module(sdk.get_hook_lineage_collector.__module__)
    running = module.HookLineageCollector()
    monkeypatch.setattr(sdk, "get_hook_lineage_collector", lambda: running)
    return running


def mover(destination: str, **told: Any) -> ActivitiesExportToObjectStorageOperator:
    return ActivitiesExportToObjectStorageOperator(
        task_id="move", export_id=create_export(), destination=destination, **told
    )


def test_input_and_output_reach_the_collector(sandbox: Sandbox, collector: Any, tmp_path: Path) -> None:
    ran = run_task(mover(f"file://{tmp_path}/x.csv.gz"))
    collected = get_hook_lineage_collector().collected_assets
    assert [entry.asset.uri for entry in collected.inputs] == [f"chartmogul://127.0.0.1:{sandbox.port}/activities"]
    assert [entry.asset.uri for entry in collected.outputs] == [ran.value]


def test_what_was_there_already_is_no_move(sandbox: Sandbox, collector: Any, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"there")
    operator = mover(f"file://{tmp_path}/x.zip", if_exists="reuse")
    run_task(operator)
    collected = get_hook_lineage_collector().collected_assets
    assert list(collected.inputs) == list(collected.outputs) == []


def test_the_events_of_outlets_carry_the_facts(sandbox: Sandbox, tmp_path: Path) -> None:
    """All that XCom has, in Airflow's own accessors, which keep extras by outlet."""
    try:
        accessors = import_module("airflow.sdk.execution_time.context")
    except ImportError:  # Airflow 2
        accessors = import_module("airflow.utils.context")
    outlets, events = [Asset("s3://lake/activities"), Asset("s3://lake/another")], accessors.OutletEventAccessors()

    ran = run_task(mover(f"file://{tmp_path}/x.csv.gz", outlets=outlets), outlet_events=events)

    assert ran.xcoms["object"]["rows"] > 0
    assert ran.xcoms["object"].keys() == {
        *("uri", "bucket", "key", "bytes", "sha256", "format", "rows", "columns"),
        *("interval_start", "interval_end", "activity_type", "export_id", "exported_at", "chartmogul_conn_id"),
        *("resource", "table", "query_params", "extracted_at", "modified_at"),
    }
    assert [events[outlet].extra for outlet in outlets] == [ran.xcoms["object"]] * 2


def test_openlineage_gets_the_datasets(sandbox: Sandbox, tmp_path: Path) -> None:
    from airflow.providers.openlineage.extractors.manager import ExtractorManager

    running: list[ActivitiesExportToObjectStorageOperator] = []
    ran = run_task(mover(f"file://{tmp_path}/x.csv.gz"), on_start=running.append)

    extractor = ExtractorManager()._get_extractor(running[0])
    assert extractor is not None, "OpenLineage takes the operator's own word"
    lineage = extractor.extract_on_complete(ran.ti)

    assert [(d.namespace, d.name) for d in lineage.inputs] == [(f"chartmogul://127.0.0.1:{sandbox.port}", "activities")]
    (output,) = lineage.outputs
    assert (output.namespace, output.name) == ("file", f"{tmp_path}/x.csv.gz")
    facts = ran.xcoms["object"]
    assert [field.name for field in output.facets["schema"].fields] == facts["columns"]
    statistics = output.outputFacets["outputStatistics"]
    assert (statistics.rowCount, statistics.size) == (facts["rows"], facts["bytes"])


@pytest.mark.parametrize(
    ("uri", "bucket", "namespace"),
    [("s3://b/a/x.zip", "b", "s3://b"), ("gcs://b/a/x.zip", "b", "gs://b"), ("abfs://c/a/x.zip", "c", "abfss://c")],
)
def test_stores_have_openlineage_s_names(uri: str, bucket: str, namespace: str) -> None:
    from airflow_provider_chartmogul.lineage.openlineage import operator_lineage

    facts = {"uri": uri, "bucket": bucket, "key": "a/x.zip", "columns": None, "rows": None, "bytes": 7}
    (output,) = operator_lineage([TransferResult(facts, "chartmogul://api.chartmogul.com/activities")]).outputs
    assert (output.namespace, output.name, output.facets) == (namespace, "a/x.zip", {})


def test_nothing_moved_gives_openlineage_nothing() -> None:
    operator = ActivitiesExportToObjectStorageOperator(task_id="m", export_id="e", destination="s3://b/x.zip")
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert (lineage.inputs, lineage.outputs) == ([], [])
