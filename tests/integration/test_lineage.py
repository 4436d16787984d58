# SPDX-License-Identifier: Apache-2.0
"""What a transfer reports to Airflow: events of outlets, hook lineage, OpenLineage. No failure of it fails the task."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.lineage.entities import File, Table
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.common.compat.sdk import AirflowFailException, Asset, AssetAlias

from airflow_provider_chartmogul.lineage import reporting
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.storage.delivery import TransferResult
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator
from tests.integration.task_runner import TaskRun, run_task
from tests.integration.transfers import create_export
from tests.unit.values import run_python

METADATA_KEYS = {
    *("uri", "bucket", "key", "bytes", "sha256", "format", "rows", "columns", "modified_at"),
    *("resource", "table", "query_params", "extracted_at", "exported_at", "chartmogul_conn_id"),
    *("interval_start", "interval_end", "activity_type", "export_id", "start_date", "end_date"),
    *("column_types", "column_selection"),
}

ASSET, OTHER_ASSET, ALIAS = Asset("s3://lake/activities"), Asset("s3://lake/another"), AssetAlias("exports")


@pytest.fixture
def destination(sandbox: Sandbox, tmp_path: Path) -> str:
    return f"file://{tmp_path}/x.csv.gz"


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what has been logged, by whichever logger this Airflow's tasks have."""
    return lambda: capfd.readouterr().out + caplog.text


def new_transfer(destination: str, **parameters: Any) -> ActivitiesExportToObjectStorageOperator:
    return ActivitiesExportToObjectStorageOperator(
        task_id="t", export_id=create_export(), destination=destination, **parameters
    )


def new_events() -> Any:
    """Return Airflow's own accessors of outlet events."""
    try:
        return import_module("airflow.sdk.execution_time.context").OutletEventAccessors()
    except ImportError:  # Airflow 2
        return import_module("airflow.utils.context").OutletEventAccessors()


def transfer_with_outlets(destination: str, outlets: list[Any], events: Any) -> TaskRun:
    return run_task(new_transfer(destination, outlets=outlets), outlet_events=events)


def alias_events(events: Any, alias: AssetAlias) -> list[tuple[str, dict[str, Any]]]:
    """Return the URIs and extras of an alias's events."""
    if hasattr(events[alias], "asset_alias_events"):
        return [(event.dest_asset_key.uri, event.extra) for event in events[alias].asset_alias_events]
    # Airflow 2
    return [(event["dest_dataset_uri"], event["extra"]) for event in events[alias].dataset_alias_events]


# Events of outlets


def test_events_of_assets_have_the_metadata_as_extra(destination: str) -> None:
    events = new_events()
    run = transfer_with_outlets(destination, [ASSET, OTHER_ASSET], events)
    assert run.xcoms["object"].keys() == METADATA_KEYS
    assert run.xcoms["object"]["rows"] > 0
    assert [events[outlet].extra for outlet in (ASSET, OTHER_ASSET)] == [run.xcoms["object"]] * 2


def test_alias_gets_an_event_for_the_object(destination: str) -> None:
    events = new_events()
    run = transfer_with_outlets(destination, [ALIAS], events)
    assert alias_events(events, ALIAS) == [(Asset(destination).uri, run.xcoms["object"])]


if hasattr(Asset, "ref"):  # Airflow 3

    def test_event_of_a_reference_has_the_metadata_as_extra(destination: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The accessors resolve a reference by a request to Airflow's supervisor, which is not running here."""
        asset_key = import_module("airflow.sdk.definitions.asset").AssetUniqueKey.from_asset(ASSET)
        events = new_events()
        # Airflow 3.0 resolves a reference to the key alone, later versions to the key and the asset's extra.
        resolved = asset_key if airflow_version.startswith("3.0.") else (asset_key, {})
        monkeypatch.setattr(type(events), "_resolve_asset_ref", lambda self, reference: resolved)
        run = transfer_with_outlets(destination, [Asset.ref(name="activities")], events)
        assert events[ASSET].extra == run.xcoms["object"]


@pytest.mark.parametrize(
    "outlet",
    [
        File(url="s3://lake/x"),
        Table(database="d", cluster="c", name="t"),
        {"uri": "s3://lake/x"},
        None,
        object(),
    ],
    ids=lambda outlet: type(outlet).__name__,
)
def test_other_outlets_are_left_alone(outlet: Any, destination: str, log: Callable[[], str]) -> None:
    """And the assets beside them get their events."""
    events = new_events()
    run = transfer_with_outlets(destination, [ASSET, outlet, ALIAS], events)
    assert events[ASSET].extra == run.xcoms["object"]
    assert len(alias_events(events, ALIAS)) == 1
    assert "Could not report" not in log()


class Text(str):
    """As filters in templates and other providers' hooks return it."""

    __slots__ = ()


def test_odd_values_are_reported_as_plain_json(destination: str) -> None:
    """Airflow serialises results and events after the task has published the object."""
    events = new_events()
    operator = new_transfer(Text(destination), chartmogul_conn_id=Text("chartmogul_default"), outlets=[ASSET, ALIAS])
    run = run_task(operator, outlet_events=events)
    ((uri, extra),) = alias_events(events, ALIAS)
    assert type(uri) is str
    reported = [run.value, run.xcoms, events[ASSET].extra, extra]
    assert json.loads(json.dumps(reported)) == reported
    assert types_in(reported) <= {dict, list, str, int, type(None)}


def types_in(value: Any) -> set[type]:
    children = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return {type(value)}.union(*(types_in(child) for child in children))


class BrokenEvents:
    """Accessors that fail for one outlet."""

    def __init__(self, broken: Any) -> None:
        self.events = new_events()
        self.broken = broken

    def __getitem__(self, outlet: Any) -> Any:
        if outlet == self.broken:
            raise RuntimeError("the API server is down")
        return self.events[outlet]


def test_failed_event_is_logged_and_fails_nothing(destination: str, log: Callable[[], str]) -> None:
    broken = BrokenEvents(ASSET)
    run = transfer_with_outlets(destination, [ASSET, OTHER_ASSET], broken)
    assert run.value == destination
    assert broken.events[OTHER_ASSET].extra == run.xcoms["object"]
    assert f"Could not report the event of outlet {ASSET!r} to Airflow (RuntimeError: the API server is down)" in log()


def test_missing_accessors_are_logged_and_fail_nothing(destination: str, log: Callable[[], str]) -> None:
    run = run_task(new_transfer(destination, outlets=[ASSET]))
    assert run.value == destination
    assert "(KeyError: 'outlet_events')" in log()


# Partition keys of events

BERLIN = SimpleNamespace(timetable=SimpleNamespace(timezone=ZoneInfo("Europe/Berlin")))

if hasattr(new_events()[ASSET], "partition_keys"):  # Airflow 3.3 and later

    def test_events_have_no_partition_key_by_default(destination: str) -> None:
        events = new_events()
        run_task(new_transfer(destination, outlets=[ASSET, ALIAS]), outlet_events=events)
        assert events[ASSET].partition_keys == events[ALIAS].partition_keys == set()

    @pytest.mark.parametrize(
        ("context", "key"),
        [
            ({}, "2024-01-01T00:00:00"),
            ({"dag": BERLIN}, "2024-01-01T01:00:00"),
            ({"dag": SimpleNamespace(timetable=None)}, "2024-01-01T00:00:00"),
        ],
        ids=["without DAG", "timetable with a time zone", "timetable without a time zone"],
    )
    def test_emit_partitions_gives_events_the_start_of_the_window(
        context: dict[str, Any], key: str, destination: str, log: Callable[[], str]
    ) -> None:
        events = new_events()
        operator = new_transfer(destination, outlets=[ASSET, OTHER_ASSET, ALIAS], emit_partitions=True)
        run = run_task(operator, outlet_events=events, **context)
        assert events[ASSET].partition_keys == events[OTHER_ASSET].partition_keys == {key}
        assert events[ASSET].extra == run.xcoms["object"]
        assert len(alias_events(events, ALIAS)) == 1
        assert "Could not report" not in log()

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_emit_partitions_in_one_task(deferrable: bool, destination: str) -> None:
        events = new_events()
        operator = ActivitiesToObjectStorageOperator(
            task_id="t",
            destination=destination,
            interval_start="2024-05-08T22:00:00Z",
            interval_end="2024-05-09T22:00:00Z",
            partition_timezone="Europe/Berlin",
            poke_interval=0.1,
            deferrable=deferrable,
            outlets=[ASSET],
            emit_partitions=True,
        )
        run_task(operator, outlet_events=events)
        assert events[ASSET].partition_keys == {"2024-05-09T00:00:00"}

    def test_emit_partitions_of_metrics(tmp_path: Path, sandbox: Sandbox) -> None:
        events = new_events()
        operator = ChartMogulToObjectStorageOperator(
            task_id="t",
            resource="metrics",
            destination=f"file://{tmp_path}/metrics.csv",
            interval_start="2024-05-09",
            interval_end="2024-05-10",
            outlets=[ASSET],
            emit_partitions=True,
        )
        run_task(operator, outlet_events=events)
        assert events[ASSET].partition_keys == {"2024-05-09T00:00:00"}

    def test_emit_partitions_also_reports_an_object_that_already_existed(destination: str) -> None:
        Path(destination.removeprefix("file://")).write_bytes(b"there")
        events = new_events()
        operator = new_transfer(destination, if_exists="reuse", outlets=[ASSET], emit_partitions=True)
        run_task(operator, outlet_events=events)
        assert events[ASSET].partition_keys == {"2024-01-01T00:00:00"}

    def test_partitioned_run_keeps_its_own_key(destination: str) -> None:
        """Airflow gives it to the events of all tasks of the run."""
        events = new_events()
        operator = new_transfer(destination, outlets=[ASSET], emit_partitions=True)
        run = run_task(operator, outlet_events=events, partition_key="europe")
        assert events[ASSET].partition_keys == set()
        assert events[ASSET].extra == run.xcoms["object"]

    def test_emit_partitions_rejects_a_window_without_start(tmp_path: Path, destination: str) -> None:
        export_id = create_export(start_date=None)
        operator = ActivitiesExportToObjectStorageOperator(
            task_id="t", export_id=export_id, destination=destination, emit_partitions=True
        )
        with pytest.raises(AirflowFailException, match="emit_partitions needs a window with a start"):
            run_task(operator, outlet_events=new_events())
        assert list(tmp_path.iterdir()) == []


# Hook lineage


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A collector that collects; Airflow's does only where a plugin reads it."""
    module = import_module(sdk.get_hook_lineage_collector.__module__)
    collector = module.HookLineageCollector()
    monkeypatch.setattr(sdk, "get_hook_lineage_collector", lambda: collector)
    monkeypatch.setattr(reporting, "_is_lineage_read", lambda: True)
    return collector


def test_collector_gets_input_and_output(sandbox: Sandbox, collector: Any, destination: str) -> None:
    run_task(new_transfer(destination))
    collected = get_hook_lineage_collector().collected_assets
    assert [entry.asset.uri for entry in collected.inputs] == [f"chartmogul://127.0.0.1:{sandbox.port}/activities"]
    assert [entry.asset.uri for entry in collected.outputs] == [destination]


def test_object_that_already_existed_has_no_lineage(collector: Any, destination: str) -> None:
    Path(destination.removeprefix("file://")).write_bytes(b"there")
    run_task(new_transfer(destination, if_exists="reuse"))
    collected = get_hook_lineage_collector().collected_assets
    assert list(collected.inputs) == list(collected.outputs) == []


def test_failing_collector_is_logged_and_fails_nothing(
    destination: str, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str]
) -> None:
    def fail() -> Any:
        raise RuntimeError("no collector")

    monkeypatch.setattr(sdk, "get_hook_lineage_collector", fail)
    monkeypatch.setattr(reporting, "_is_lineage_read", lambda: True)
    events = new_events()
    run = transfer_with_outlets(destination, [ASSET], events)
    assert run.value == destination
    assert events[ASSET].extra == run.xcoms["object"]
    assert "Could not report the lineage to Airflow (RuntimeError: no collector)" in log()


PLUGIN = """
from airflow.providers.common.compat.sdk import AirflowPlugin, HookLineageReader

class ReaderPlugin(AirflowPlugin):
    name = "reader"
    hook_lineage_readers = [HookLineageReader]
"""

PROGRAM = """
import json, sys
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.task_runner import run_task

export_id, destination = sys.argv[1:]
run_task(ActivitiesExportToObjectStorageOperator(task_id="t", export_id=export_id, destination=destination))
loaded = [name for name in ("airflow.providers.amazon.aws", "boto3") if name in sys.modules]

from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

collected = get_hook_lineage_collector().collected_assets
uris = [entry.asset.uri for entry in [*collected.inputs, *collected.outputs]]
print(json.dumps([loaded, uris]))
"""


def test_lineage_that_no_plugin_reads_loads_no_other_providers(destination: str, tmp_path: Path) -> None:
    """Airflow's collector imports the assets of all providers when it is created."""
    printed = run_python(PROGRAM, create_export(), destination, AIRFLOW__CORE__PLUGINS_FOLDER=str(tmp_path))
    assert json.loads(printed.splitlines()[-1]) == [[], []]


def test_reader_of_a_plugin_gets_input_and_output(sandbox: Sandbox, destination: str, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "reader.py").write_text(PLUGIN)
    printed = run_python(PROGRAM, create_export(), destination, AIRFLOW__CORE__PLUGINS_FOLDER=str(plugins))
    _, uris = json.loads(printed.splitlines()[-1])
    assert uris == [f"chartmogul://127.0.0.1:{sandbox.port}/activities", destination]


# OpenLineage


def test_openlineage_gets_the_datasets(sandbox: Sandbox, destination: str) -> None:
    from airflow.providers.openlineage.extractors.manager import ExtractorManager

    operators: list[ActivitiesExportToObjectStorageOperator] = []
    run = run_task(new_transfer(destination), on_start=operators.append)

    extractor = ExtractorManager()._get_extractor(operators[0])
    assert extractor is not None, "OpenLineage does not call the operator's own method"
    lineage = extractor.extract_on_complete(run.ti)

    inputs = [(dataset.namespace, dataset.name) for dataset in lineage.inputs]
    assert inputs == [(f"chartmogul://127.0.0.1:{sandbox.port}", "activities")]
    (output,) = lineage.outputs
    assert (output.namespace, output.name) == ("file", destination.removeprefix("file://"))
    metadata = run.xcoms["object"]
    assert [field.name for field in output.facets["schema"].fields] == metadata["columns"]
    statistics = output.outputFacets["outputStatistics"]
    assert (statistics.rowCount, statistics.size) == (metadata["rows"], metadata["bytes"])


@pytest.mark.parametrize(
    ("uri", "bucket", "namespace"),
    [("s3://b/a/x.zip", "b", "s3://b"), ("gcs://b/a/x.zip", "b", "gs://b"), ("abfs://c/a/x.zip", "c", "abfss://c")],
)
def test_openlineage_names_of_stores(uri: str, bucket: str, namespace: str) -> None:
    from airflow_provider_chartmogul.lineage.openlineage import operator_lineage

    metadata = {"uri": uri, "bucket": bucket, "key": "a/x.zip", "columns": None, "rows": None, "bytes": 7}
    (output,) = operator_lineage([TransferResult(metadata, "chartmogul://api.chartmogul.com/activities")]).outputs
    assert (output.namespace, output.name, output.facets) == (namespace, "a/x.zip", {})


def test_openlineage_gets_nothing_without_a_transfer() -> None:
    operator = ActivitiesExportToObjectStorageOperator(task_id="t", export_id="e", destination="s3://b/x.zip")
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert (lineage.inputs, lineage.outputs) == ([], [])
