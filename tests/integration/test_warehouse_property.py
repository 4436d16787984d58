# SPDX-License-Identifier: Apache-2.0
"""
Exports of a history that changes, loaded in any order: what the table must be after every load.

Windows overlap; rows are changed, added, removed and moved between the exports; loads are repeated, and some fail just
before they are committed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.exceptions import TaskCancelledError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.warehouse.duckdb import DuckDBSession
from airflow_provider_chartmogul.warehouse.load import load_batch
from airflow_provider_chartmogul.warehouse.settings import LoadSettings
from airflow_provider_chartmogul.warehouse.source_objects import parse_source
from tests.integration.test_warehouse_processes import Log
from tests.warehouse_cases import TABLE, Objects, day

UUIDS = "abcdef"
LAST_DAY = 8
TYPES = ("churn", "new_biz")

#: A row: its UUID, day, type and version.
Row = tuple[str, int, str, int]


@dataclass(frozen=True)
class Export:
    """An export: which days and type it covers, in [first, end), how old it is, and its rows."""

    as_of: int
    first: int
    end: int
    activity_type: str | None
    rows: frozenset[Row]

    def covers(self, row: Row) -> bool:
        return self.first <= row[1] < self.end and self.activity_type in (None, row[2])


@st.composite
def histories(draw: st.DrawFn, *, moves: bool) -> tuple[list[Export], list[tuple[int, bool]]]:
    """Draw exports of a changing history, and loads of them: a number, and whether the load fails."""
    state: dict[str, tuple[int, str, int]] = {}
    exports = []
    days = st.integers(1, LAST_DAY)
    for number in range(draw(st.integers(2, 5))):
        for uuid in draw(st.sets(st.sampled_from(UUIDS), max_size=4)):
            if uuid in state and draw(st.booleans()):
                del state[uuid]
            elif uuid in state and not moves:
                state[uuid] = (*state[uuid][:2], number)
            elif uuid not in state or moves:
                # Without moves, a UUID that returns does so where it was.
                place = (draw(days), draw(st.sampled_from(TYPES))) if moves else (1 + UUIDS.index(uuid), TYPES[0])
                state[uuid] = (*place, number)
        first = draw(st.integers(1, LAST_DAY))
        end = draw(st.integers(first + 1, LAST_DAY + 1))
        activity_type = draw(st.sampled_from([None, None, *TYPES]))
        export = Export(40 + number, first, end, activity_type, frozenset())
        rows = frozenset(row for row in ((uuid, *rest) for uuid, rest in state.items()) if export.covers(row))
        exports.append(Export(40 + number, first, end, activity_type, rows))
    order = draw(st.permutations(range(len(exports))))
    repeated = draw(st.lists(st.sampled_from(range(len(exports))), max_size=2))
    return exports, [(number, draw(st.integers(0, 4)) == 0) for number in [*order, *repeated]]


class FailingSession(DuckDBSession):
    """A session whose transactions fail instead of being committed."""

    def execute(self, sql: str) -> int:
        if sql == "COMMIT":
            raise TaskCancelledError("killed")
        return super().execute(sql)


class Table:
    """A table in a DuckDB file, and the exports that have been loaded into it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = str(folder / "x.duckdb")
        self._objects = Objects(folder)
        self._metadata: dict[int, Any] = {}
        self.loaded: set[Export] = set()

    def load(self, export: Export, *, fails: bool = False) -> None:
        if export.as_of not in self._metadata:
            text = "".join(f"{uuid},{day(at).isoformat()},{kind},{n}\n" for uuid, at, kind, n in export.rows)
            self._metadata[export.as_of] = self._objects.export(
                f"uuid,date,type,version\n{text}",
                (day(export.first), day(export.end)),
                as_of=export.as_of,
                activity_type=export.activity_type,
            )
        log = Log()
        [batch] = parse_source(self._metadata[export.as_of], object_storage_conn_id=None, log=log)
        session_class = FailingSession if fails else DuckDBSession

        def open_session() -> DuckDBSession:
            return session_class(self._path, None, lock_timeout=60, cancellation=Cancellation(), log=log)

        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            arguments: Any = (open_session, batch, LoadSettings(), Path(folder))
            if fails:
                with pytest.raises(TaskCancelledError):
                    load_batch(*arguments, task_name="t", cancellation=Cancellation(), log=log)
                return
            load_batch(*arguments, task_name="t", cancellation=Cancellation(), log=log)
        self.loaded.add(export)

    def rows(self) -> list[Row]:
        with duckdb.connect(self._path) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if not connection.execute(f"SELECT 1 FROM duckdb_tables() WHERE table_name = '{TABLE}'").fetchall():
                return []
            return connection.execute(
                f"SELECT uuid, CAST(day(date) AS INTEGER), type, CAST(version AS INTEGER) FROM {TABLE}"
            ).fetchall()

    def newest(self, row: Row) -> Export | None:
        """Return the newest loaded export that covers a row."""
        covering = [export for export in self.loaded if export.covers(row)]
        return max(covering, key=lambda export: export.as_of, default=None)


def check_invariants(table: Table) -> None:
    rows = table.rows()
    assert len({row[0] for row in rows}) == len(rows), f"a UUID is there twice: {rows}"
    for row in rows:
        newest = table.newest(row)
        assert newest is not None, f"{row} is from no export"
        assert row in newest.rows, f"{row} is not what the newest export of its moment says"
    for export in table.loaded:
        for row in export.rows - set(rows):
            if table.newest(row) is not export:
                continue
            newer = [other for other in table.loaded if other.as_of > export.as_of]
            assert any(row[0] == other[0] for export in newer for other in export.rows), f"{row} is missing"


def run_loads(exports: Sequence[Export], loads: Sequence[tuple[int, bool]], folder: Path) -> Table:
    table = Table(folder)
    for number, fails in loads:
        before = table.rows()
        table.load(exports[number], fails=fails)
        if fails:
            assert sorted(table.rows()) == sorted(before)
        else:
            check_invariants(table)
    return table


quick = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@quick
@given(history=histories(moves=True))
def test_table_is_right_after_every_load(history: tuple[list[Export], list[tuple[int, bool]]]) -> None:
    exports, loads = history
    with tempfile.TemporaryDirectory() as folder:
        table = run_loads(exports, loads, Path(folder))
        everything = Export(99, 1, LAST_DAY + 1, None, frozenset((uuid, 3, TYPES[0], 9) for uuid in UUIDS))
        table.load(everything)
        assert set(table.rows()) == everything.rows, "an export of everything leaves no difference"


@quick
@given(history=histories(moves=False))
def test_table_is_the_newest_export_of_each_moment(history: tuple[list[Export], list[tuple[int, bool]]]) -> None:
    """Where no row moves, in every order."""
    exports, loads = history
    with tempfile.TemporaryDirectory() as folder:
        table = run_loads(exports, loads, Path(folder))
        expected = {row for export in table.loaded for row in export.rows if table.newest(row) is export}
        assert set(table.rows()) == expected
