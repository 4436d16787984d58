# SPDX-License-Identifier: Apache-2.0
"""
Every example that can run here, as the scheduler and people start it; each result is compared with the sandbox's rows.

``example_activities_export`` is in ``tests/system/test_real_airflow.py``, what needs a cloud's warehouse is not run.
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

from tests.system.crashes import wait_for as wait_within
from tests.system.examples.conftest import MARKS, PATIENCE, World
from tests.tables import Row, difference, within

pytestmark = MARKS

LOOKBACK = timedelta(days=7)

wait_for = partial(wait_within, every=0.5, patience=PATIENCE)


def rows_of(file: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode(), newline="")))


def file_of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def window_of(run: dict[str, Any], lookback: timedelta = LOOKBACK) -> tuple[datetime, datetime]:
    start, end = (datetime.fromisoformat(run[f"data_interval_{side}"]) for side in ("start", "end"))
    assert end - start == timedelta(days=1)
    return start - lookback, end


def wait_for_loads(world: World, events: Callable[[], list[dict[str, Any]]], objects: int) -> list[dict[str, Any]]:
    """Wait until the objects of so many events are loaded by ``example_asset_load``; give what the events say.

    It has nothing but the asset's events: the URIs of what it has loaded are theirs.
    """
    told: list[dict[str, Any]] = []

    def all_loaded() -> bool:
        told[:] = events()
        loads = world.loads()
        return loads is not None and len(told) >= objects and all(is_loaded(event, loads) for event in told)

    def is_loaded(event: dict[str, Any], loads: list[tuple[datetime, set[str]]]) -> bool:
        written, uri = datetime.fromisoformat(event["timestamp"]), event["extra"]["uri"]
        return any(began > written and uri in loaded for began, loaded in loads)

    wait_for(f"the loads of {objects} objects", all_loaded)
    assert len(told) == objects
    return [event["extra"] for event in told]


def loaded_by_event(world: World, dag_id: str, run_id: str, objects: int = 1) -> list[dict[str, Any]]:
    """Wait until the objects that a run has written are loaded; give what it has told of them."""
    return wait_for_loads(world, lambda: world.events_of(dag_id, run_id), objects)


def test_daily_and_the_load_that_its_asset_starts(world: World) -> None:
    world.unpause("example_asset_load")
    run = world.scheduled_run("example_daily")
    start, end = window_of(run)
    expected_rows = world.chartmogul.expected_rows(start, end)
    assert len(expected_rows) > 50

    (told,) = loaded_by_event(world, "example_daily", run["dag_run_id"])
    assert told == world.airflow.xcom("example_daily", run["dag_run_id"], "export", "object")
    assert told["uri"] == f"file://{world.lake}/daily/{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz"
    assert (told["rows"], told["interval_start"], told["interval_end"]) == (
        len(expected_rows),
        start.isoformat(),
        end.isoformat(),
    )
    assert difference(rows_of(file_of(told["uri"])), expected_rows) == []
    assert difference(within(world.duckdb_rows("activities_of_events"), start, end), expected_rows) == []


class BackfillForm:
    """One run of ``example_backfill``, with what was filled in."""

    DAG = "example_backfill"

    def __init__(self, world: World, **filled_in: Any) -> None:
        self._world = world
        world.unpause(self.DAG)
        self.run_id = world.airflow.trigger(self.DAG, conf=filled_in)
        self.most_at_once = 0

    def exports(self) -> list[dict[str, Any]]:
        """The mapped tasks by map index; also counts how many are at it at the same time."""
        found = [ti for ti in self._world.airflow.task_instances(self.DAG, self.run_id) if ti["task_id"] == "export"]
        busy = [ti for ti in found if ti["state"] in ("queued", "running", "deferred")]
        self.most_at_once = max(self.most_at_once, len(busy))
        return sorted(found, key=lambda ti: int(ti["map_index"]))

    def states(self) -> list[str | None]:
        return [ti["state"] for ti in self.exports()]

    def end(self) -> str:
        """Wait until the run is over; give its state."""
        run = self._world.airflow.wait_for_run(self.DAG, self.run_id, PATIENCE, on_change=lambda _: self._look())
        return str(run["state"])

    def _look(self) -> None:
        self.exports()


def test_backfill_of_windows_and_types_four_at_a_time(world: World) -> None:
    months = [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4)]
    types = ["churn", "expansion"]
    sandbox = world.chartmogul
    world.unpause("example_asset_load")
    made, usual = len(sandbox.exports), sandbox.export_seconds
    # None is done before it may be, so that as many as are let are under way.
    sandbox.export_seconds = 24 * 3600
    try:
        form = BackfillForm(world, start="2024-01-01", end="2024-04-01", every="month", activity_types=types)
        wait_for("four exports", lambda: form.states().count("deferred") == 4)
        assert len(form.exports()) == 6
        assert len(sandbox.exports) - made == 4
    finally:
        sandbox.export_seconds = usual
    assert form.end() == "success", form.states()
    assert form.most_at_once == 4
    assert len(sandbox.exports) - made == 6

    windows = [(start, end, kind) for start, end in pairwise(months) for kind in types]
    assert [ti["rendered_map_index"].split() for ti in form.exports()] == [
        [f"{start:%Y-%m-%d}", "to", f"{end:%Y-%m-%d}", kind] for start, end, kind in windows
    ]
    for start, end, kind in windows:
        file = world.lake / "backfill" / kind / f"{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz"
        expected_rows = sandbox.expected_rows(start, end, kind)
        assert expected_rows
        assert difference(rows_of(file), expected_rows) == []

    loaded_by_event(world, form.DAG, form.run_id, objects=6)
    # In a burst, of which Airflow gives but some to a run.
    burst = world.tell(world.events_of(form.DAG, form.run_id))
    wait_for_loads(world, lambda: burst, objects=6)
    expected_rows = [row for kind in types for row in sandbox.expected_rows(months[0], months[-1], kind)]
    assert difference(within(world.duckdb_rows("activities_of_events"), months[0], months[-1]), expected_rows) == []


def test_backfill_with_one_window_skipped_and_one_failed(world: World) -> None:
    """The others are as if nothing had been; clearing the one that failed mends it, and touches no other."""
    months = [datetime(2024, month, 1, tzinfo=UTC) for month in (5, 6, 7, 8, 9)]
    files = [
        world.lake / "backfill" / "all" / f"{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz" for start, end in pairwise(months)
    ]
    files[1].parent.mkdir(parents=True, exist_ok=True)
    files[1].write_bytes(b"was there before")
    with world.chartmogul.faulty("create:422;times=1") as (fault,):
        form = BackfillForm(world, start="2024-05-01", end="2024-09-01", every="month", if_exists="skip")
        assert form.end() == "failed"
        assert fault.hits == 1
    states = form.states()
    (failed,) = (index for index, state in enumerate(states) if state == "failed")
    assert failed != 1
    assert [state for index, state in enumerate(states) if index != failed] == [
        "skipped" if index == 1 else "success" for index in range(4) if index != failed
    ]
    assert "ChartMogul responded with 422" in world.airflow.task_log(form.DAG, form.run_id, "export", 1, failed)

    def right(index: int) -> bool:
        return rows_of(files[index]) == world.chartmogul.expected_rows(months[index], months[index + 1])

    others = [index for index in (0, 2, 3) if index != failed]
    assert not files[failed].exists()
    assert [right(index) for index in others] == [True, True]
    assert files[1].read_bytes() == b"was there before"

    def traces() -> list[tuple[Any, ...]]:
        exports = form.exports()
        return [
            (files[index].stat().st_mtime_ns, exports[index]["start_date"], exports[index]["try_number"])
            for index in (1, *others)
        ]

    untouched = traces()
    made = len(world.chartmogul.exports)
    world.airflow.clear(form.DAG, form.run_id, [("export", failed)])
    assert form.end() == "success", form.states()
    assert form.states() == ["success", "skipped", "success", "success"]
    assert right(failed)
    loaded_by_event(world, form.DAG, form.run_id, objects=3)
    assert len(world.chartmogul.exports) == made + 1
    assert traces() == untouched


def test_full_refresh_and_the_load_that_its_asset_starts(world: World) -> None:
    world.unpause("example_asset_load")
    run = world.scheduled_run("example_full_refresh")
    (told,) = loaded_by_event(world, "example_full_refresh", run["dag_run_id"])
    (export,) = (made for made in world.chartmogul.exports if made.id == told["export_id"])
    assert export.params == {}, "both ends are open"
    expected_rows = world.chartmogul.expected_rows(None, export.created_at)
    assert told["rows"] == len(expected_rows)
    assert told["uri"] == f"file://{world.lake}/all.csv.gz"
    assert difference(rows_of(file_of(told["uri"])), expected_rows) == []
    # All of the table is that export's: nothing of the windows that were loaded before it is there twice.
    assert difference(world.duckdb_rows("activities_of_events"), expected_rows) == []


def test_duckdb_and_postgres(world: World) -> None:
    world.unpause("example_duckdb", "example_postgres")
    for dag_id, rows in (
        ("example_duckdb", lambda: world.duckdb_rows("activities")),
        ("example_postgres", lambda: world.postgres_rows("public.activities")),
    ):
        run = world.scheduled_run(dag_id)
        start, end = window_of(run)
        expected_rows = world.chartmogul.expected_rows(start, end)
        assert difference(within(rows(), start, end), expected_rows) == []
        counts = world.airflow.xcom(dag_id, run["dag_run_id"], "load")
        assert counts == {"deleted": 0, "loaded": len(expected_rows), "outside": 0}
        # The month's movements, so that one sees in the log that it worked.
        log = world.airflow.task_log(dag_id, run["dag_run_id"], "load", 1)
        assert "expansion" in log


def test_accounts_side_by_side_and_one_with_a_wrong_key(world: World) -> None:
    dag_id, europe, america = "example_accounts", world.europe, world.america
    key, america.api_key = america.api_key, "another-key"
    try:
        world.unpause(dag_id)
        run_id = world.airflow.wait_for_scheduled_run(dag_id, PATIENCE)
        run = world.airflow.wait_for_run(dag_id, run_id, PATIENCE)
    finally:
        america.api_key = key
    start, end = window_of(run)

    def of(sandbox: Any, account: str) -> list[Row]:
        return [{**row, "account": account} for row in sandbox.expected_rows(start, end)]

    def table() -> list[Row]:
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
    assert difference(table(), of(europe, "chartmogul_europe")) == []

    made = len(europe.exports)
    world.airflow.clear(dag_id, run_id, [("account.export", 1), ("account.load", 1)], downstream=False)
    world.success(dag_id, run_id)
    both = of(europe, "chartmogul_europe") + of(america, "chartmogul_america")
    assert difference(table(), both) == []
    assert len(europe.exports) == made, "the account that was right is left alone"
    assert [
        ti["rendered_map_index"]
        for ti in world.airflow.task_instances(dag_id, run_id)
        if ti["task_id"] == "account.export"
    ] == [
        "chartmogul_europe",
        "chartmogul_america",
    ]
