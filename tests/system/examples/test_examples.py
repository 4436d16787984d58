# SPDX-License-Identifier: Apache-2.0
"""
Tests the examples in a real Airflow, started by the schedule, by assets and by hand, against the expected rows.

``tests/system/test_real_airflow.py`` tests ``example_activities_export``. Examples for cloud warehouses are not run.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.system import crashes
from tests.system.examples.conftest import MARKS, RUN_SECONDS, World
from tests.tables import Row, difference, within

pytestmark = MARKS

LOOKBACK = timedelta(days=7)

wait_for = partial(crashes.wait_for, every=0.5, timeout=RUN_SECONDS)


def read_rows(file: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode(), newline="")))


def local_path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def window_of(run: dict[str, Any], lookback: timedelta = LOOKBACK) -> tuple[datetime, datetime]:
    start, end = (datetime.fromisoformat(run[f"data_interval_{side}"]) for side in ("start", "end"))
    assert end - start == timedelta(days=1)
    return start - lookback, end


def wait_for_loads(world: World, get_events: Callable[[], list[dict[str, Any]]], objects: int) -> list[dict[str, Any]]:
    """
    Wait until ``example_asset_load`` has loaded the objects of asset events, and return the events' extras.

    :param objects: number of events to wait for
    """
    events: list[dict[str, Any]] = []

    def all_loaded() -> bool:
        events[:] = get_events()
        loads = world.loads()
        return loads is not None and len(events) >= objects and all(is_loaded(event, loads) for event in events)

    def is_loaded(event: dict[str, Any], loads: list[tuple[datetime, set[str]]]) -> bool:
        created, uri = datetime.fromisoformat(event["timestamp"]), event["extra"]["uri"]
        return any(started > created and uri in loaded for started, loaded in loads)

    wait_for(f"the loads of {objects} objects", all_loaded)
    assert len(events) == objects
    return [event["extra"] for event in events]


def wait_for_loads_of_run(world: World, dag_id: str, run_id: str, objects: int = 1) -> list[dict[str, Any]]:
    """Wait until the objects that a run has written are loaded, and return the extras of its asset events."""
    return wait_for_loads(world, lambda: world.asset_events(dag_id, run_id), objects)


def test_daily_export_triggers_its_load(world: World) -> None:
    world.unpause("example_asset_load")
    run = world.scheduled_run("example_daily")
    start, end = window_of(run)
    expected_rows = world.chartmogul.expected_rows(start, end)
    assert len(expected_rows) > 50

    (metadata,) = wait_for_loads_of_run(world, "example_daily", run["dag_run_id"])
    assert metadata == world.airflow.xcom("example_daily", run["dag_run_id"], "export", "object")
    assert metadata["uri"] == f"file://{world.lake}/daily/{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz"
    assert (metadata["rows"], metadata["interval_start"], metadata["interval_end"]) == (
        len(expected_rows),
        start.isoformat(),
        end.isoformat(),
    )
    assert difference(read_rows(local_path(metadata["uri"])), expected_rows) == []
    assert difference(within(world.duckdb_rows("activities_of_events"), start, end), expected_rows) == []


class BackfillRun:
    """One run of ``example_backfill`` with the values of its form."""

    DAG_ID = "example_backfill"

    def __init__(self, world: World, **form_values: Any) -> None:
        self._world = world
        world.unpause(self.DAG_ID)
        self.run_id = world.airflow.trigger(self.DAG_ID, conf=form_values)
        self.max_active = 0

    def exports(self) -> list[dict[str, Any]]:
        """Return the mapped tasks by map index, and update the maximum of active ones."""
        instances = self._world.airflow.task_instances(self.DAG_ID, self.run_id)
        exports = [ti for ti in instances if ti["task_id"] == "export"]
        active = [ti for ti in exports if ti["state"] in ("queued", "running", "deferred")]
        self.max_active = max(self.max_active, len(active))
        return sorted(exports, key=lambda ti: int(ti["map_index"]))

    def states(self) -> list[str | None]:
        return [ti["state"] for ti in self.exports()]

    def wait(self) -> str:
        """Wait until the run has finished and return its state."""

        def update_max_active(_: Any) -> None:
            self.exports()

        run = self._world.airflow.wait_for_run(self.DAG_ID, self.run_id, RUN_SECONDS, on_change=update_max_active)
        return str(run["state"])


def test_backfill_exports_windows_and_types_four_at_a_time(world: World) -> None:
    months = [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4)]
    types = ["churn", "expansion"]
    sandbox = world.chartmogul
    world.unpause("example_asset_load")
    exports_before, export_seconds = len(sandbox.exports), sandbox.export_seconds
    # No export finishes, so that as many as allowed are active at once.
    sandbox.export_seconds = 24 * 3600
    try:
        backfill = BackfillRun(world, start="2024-01-01", end="2024-04-01", every="month", activity_types=types)
        wait_for("four deferred exports", lambda: backfill.states().count("deferred") == 4)
        assert len(backfill.exports()) == 6
        assert len(sandbox.exports) - exports_before == 4
    finally:
        sandbox.export_seconds = export_seconds
    assert backfill.wait() == "success", backfill.states()
    assert backfill.max_active == 4
    assert len(sandbox.exports) - exports_before == 6

    windows = [(start, end, activity_type) for start, end in pairwise(months) for activity_type in types]
    assert [ti["rendered_map_index"].split() for ti in backfill.exports()] == [
        [f"{start:%Y-%m-%d}", "to", f"{end:%Y-%m-%d}", activity_type] for start, end, activity_type in windows
    ]
    for start, end, activity_type in windows:
        file = world.lake / "backfill" / activity_type / f"{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz"
        expected_rows = sandbox.expected_rows(start, end, activity_type)
        assert expected_rows
        assert difference(read_rows(file), expected_rows) == []

    wait_for_loads_of_run(world, backfill.DAG_ID, backfill.run_id, objects=6)
    # Airflow assigns only some events of a burst to a run.
    burst = world.repeat_events(world.asset_events(backfill.DAG_ID, backfill.run_id))
    wait_for_loads(world, lambda: burst, objects=6)
    expected_rows = [row for name in types for row in sandbox.expected_rows(months[0], months[-1], name)]
    assert difference(within(world.duckdb_rows("activities_of_events"), months[0], months[-1]), expected_rows) == []


def test_clearing_a_failed_window_of_a_backfill_leaves_the_others_alone(world: World) -> None:
    """One window fails and one is skipped; the others succeed."""
    months = [datetime(2024, month, 1, tzinfo=UTC) for month in (5, 6, 7, 8, 9)]
    files = [
        world.lake / "backfill" / "all" / f"{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz" for start, end in pairwise(months)
    ]
    files[1].parent.mkdir(parents=True, exist_ok=True)
    files[1].write_bytes(b"existing object")
    with world.chartmogul.faulty("create:422;times=1") as (fault,):
        backfill = BackfillRun(world, start="2024-05-01", end="2024-09-01", every="month", if_exists="skip")
        assert backfill.wait() == "failed"
        assert fault.hits == 1
    states = backfill.states()
    (failed,) = (index for index, state in enumerate(states) if state == "failed")
    assert failed != 1
    assert [state for index, state in enumerate(states) if index != failed] == [
        "skipped" if index == 1 else "success" for index in range(4) if index != failed
    ]
    log = world.airflow.task_log(backfill.DAG_ID, backfill.run_id, "export", 1, failed)
    assert "ChartMogul responded with 422" in log

    def is_correct(index: int) -> bool:
        return read_rows(files[index]) == world.chartmogul.expected_rows(months[index], months[index + 1])

    others = [index for index in (0, 2, 3) if index != failed]
    assert not files[failed].exists()
    assert [is_correct(index) for index in others] == [True, True]
    assert files[1].read_bytes() == b"existing object"

    def fingerprints() -> list[tuple[Any, ...]]:
        exports = backfill.exports()
        return [
            (files[index].stat().st_mtime_ns, exports[index]["start_date"], exports[index]["try_number"])
            for index in (1, *others)
        ]

    before_clearing = fingerprints()
    exports_before = len(world.chartmogul.exports)
    world.airflow.clear(backfill.DAG_ID, backfill.run_id, [("export", failed)])
    assert backfill.wait() == "success", backfill.states()
    assert backfill.states() == ["success", "skipped", "success", "success"]
    assert is_correct(failed)
    wait_for_loads_of_run(world, backfill.DAG_ID, backfill.run_id, objects=3)
    assert len(world.chartmogul.exports) == exports_before + 1
    assert fingerprints() == before_clearing


def test_full_refresh_triggers_its_load(world: World) -> None:
    world.unpause("example_asset_load")
    run = world.scheduled_run("example_full_refresh")
    (metadata,) = wait_for_loads_of_run(world, "example_full_refresh", run["dag_run_id"])
    (export,) = (export for export in world.chartmogul.exports if export.id == metadata["export_id"])
    assert export.params == {}, "the window is not unbounded"
    expected_rows = world.chartmogul.expected_rows(None, export.created_at)
    assert metadata["rows"] == len(expected_rows)
    assert metadata["uri"] == f"file://{world.lake}/all.csv.gz"
    assert difference(read_rows(local_path(metadata["uri"])), expected_rows) == []
    # The load has replaced the rows of all windows that were loaded before.
    assert difference(world.duckdb_rows("activities_of_events"), expected_rows) == []


def test_daily_loads_into_duckdb_and_postgres(world: World) -> None:
    world.unpause("example_duckdb", "example_postgres")
    for dag_id, rows in (
        ("example_duckdb", lambda: world.duckdb_rows("chartmogul_activities")),
        ("example_postgres", lambda: world.postgres_rows("chartmogul_activities")),
    ):
        run = world.scheduled_run(dag_id)
        start, end = window_of(run)
        expected_rows = world.chartmogul.expected_rows(start, end)
        assert difference(within(rows(), start, end), expected_rows) == []
        (result,) = world.airflow.xcom(dag_id, run["dag_run_id"], "load").values()
        assert (result["inserted"], result["deleted"], result["outside"]) == (len(expected_rows), 0, 0)
        log = world.airflow.task_log(dag_id, run["dag_run_id"], "load", 1)
        assert f"{len(expected_rows)} rows inserted" in log


def test_account_with_a_wrong_key_does_not_affect_the_other(world: World) -> None:
    dag_id, europe, america = "example_accounts", world.europe, world.america
    key, america.api_key = america.api_key, "another-key"
    try:
        world.unpause(dag_id)
        run_id = world.airflow.wait_for_scheduled_run(dag_id, RUN_SECONDS)
        run = world.airflow.wait_for_run(dag_id, run_id, RUN_SECONDS)
    finally:
        america.api_key = key
    start, end = window_of(run)

    def expected_rows(sandbox: Any, account: str) -> list[Row]:
        return [{**row, "account": account} for row in sandbox.expected_rows(start, end)]

    def loaded_rows() -> list[Row]:
        return within(world.duckdb_rows("activities_of_accounts", "account"), start, end)

    assert run["state"] == "failed"
    states = world.states(dag_id, run_id)
    assert states == {
        ("account.export", 0): "success",
        ("account.load", 0): "success",
        ("account.export", 1): "failed",
        ("account.load", 1): "upstream_failed",
    }
    assert "No valid API key provided" in world.airflow.task_log(dag_id, run_id, "account.export", 1, 1)
    assert difference(loaded_rows(), expected_rows(europe, "chartmogul_europe")) == []

    exports_before = len(europe.exports)
    world.airflow.clear(dag_id, run_id, [("account.export", 1), ("account.load", 1)], downstream=False)
    world.wait_for_success(dag_id, run_id)
    of_both = expected_rows(europe, "chartmogul_europe") + expected_rows(america, "chartmogul_america")
    assert difference(loaded_rows(), of_both) == []
    assert len(europe.exports) == exports_before, "the other account was exported again"
    assert [
        ti["rendered_map_index"]
        for ti in world.airflow.task_instances(dag_id, run_id)
        if ti["task_id"] == "account.export"
    ] == [
        "chartmogul_europe",
        "chartmogul_america",
    ]
