# SPDX-License-Identifier: Apache-2.0
"""
Tests of the examples' loads into DuckDB and PostgreSQL: with and without UUIDs, every format, and failures.

The tests compare the whole table with the sandbox's expected rows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import psycopg2
import pytest

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from tests.integration.task_runner import run_task
from tests.postgres import postgres_server
from tests.tables import Row, as_expected_rows, sorted_rows

sys.path.insert(0, str(Path(__file__).parents[2] / "example_dags"))  # as Airflow adds the DAGs folder

import warehouse_loads
from warehouse_loads import LoadError, load_into_duckdb, load_into_postgres, movements_sql

JANUARY = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
WEEK = datetime(2024, 1, 8, tzinfo=UTC), datetime(2024, 1, 15, tzinfo=UTC)
FORMATS = ("csv", "csv.gz", "parquet")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as uri:
        yield uri


class Warehouse:
    """A table ``activities`` in DuckDB or PostgreSQL."""

    def __init__(self, load: Callable[..., dict[str, int]], query: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self._load, self.query = load, query

    def load(self, uri: str, window: tuple[Any, Any] = JANUARY, **options: Any) -> dict[str, int]:
        return self._load(uri, "activities", start=window[0], end=window[1], **options)

    def rows(self, columns: list[str], table: str = "activities") -> list[Row]:
        """Return the table's rows in the form of the sandbox's expected rows."""
        names = ", ".join(f'"{column}"' for column in columns)
        return as_expected_rows(columns, self.query(f"SELECT {names} FROM {table}"))


@pytest.fixture(params=["duckdb", "psycopg", "psycopg2"])
def warehouse(request: pytest.FixtureRequest, server: str, tmp_path: Path) -> Warehouse:
    if request.param == "duckdb":
        database = str(tmp_path / "new" / "activities.duckdb")

        def query(sql: str) -> list[tuple[Any, ...]]:
            with duckdb.connect(database, read_only=True) as connection:
                return connection.execute(sql).fetchall()

        return Warehouse(lambda *args, **options: load_into_duckdb(database, *args, **options), query)
    driver = {"psycopg": psycopg, "psycopg2": psycopg2}[request.param]
    with psycopg.connect(server) as connection:
        connection.execute("DROP TABLE IF EXISTS activities")

    def query_postgres(sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(server) as connection:
            return connection.execute(sql).fetchall()

    def load(*args: Any, **options: Any) -> dict[str, int]:
        return load_into_postgres(driver.connect(server), *args, **options)

    return Warehouse(load, query_postgres)


with_and_without_uuids = pytest.mark.parametrize("uuid_column", [None, "uuid"], ids=["replacing", "merging"])


@pytest.fixture
def export(sandbox: Sandbox, tmp_path: Path) -> Callable[..., str]:
    def write(window: tuple[datetime, datetime] = JANUARY, file_format: str = "csv.gz", **parameters: Any) -> str:
        destination = (
            f"file://{tmp_path}/{{interval_start:%m-%d}}_{{interval_end:%m-%d}}_{{activity_type}}.{file_format}"
        )
        operator = ActivitiesToObjectStorageOperator(
            task_id="export", interval_start=window[0], interval_end=window[1], destination=destination, **parameters
        )
        return str(run_task(operator).value)

    return write


def change_history(sandbox: Sandbox) -> None:
    """Remove, edit, move and add activities inside and outside ``WEEK``."""
    before, within, after = (
        sandbox.expected_rows(datetime(2024, 1, day, tzinfo=UTC), datetime(2024, 1, day + 1, tzinfo=UTC))
        for day in (3, 10, 20)
    )
    sandbox.amend(
        removed=[row["uuid"] for row in (*within[:4], before[0], before[1], after[0])],
        added=[
            {**within[0], "description": "edited, 'as they say'"},
            {**within[1], "date": "2024-01-20T10:00:00+00:00"},  # out of the week
            {**before[0], "date": "2024-01-11T10:00:00+00:00"},  # into it
            {**within[5], "uuid": "new", "date": "2024-01-08T00:00:00+00:00", "customer_name": "O'Neil"},
            {**within[5], "uuid": "last", "date": "2024-01-31T23:59:59+00:00", "description": "100 %, two\nlines"},
        ],
    )


@with_and_without_uuids
@pytest.mark.parametrize("file_format", FORMATS)
def test_repeated_loads_match_the_expected_rows(
    file_format: str, uuid_column: str | None, warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    expected_rows = sandbox.expected_rows(*JANUARY)
    for deleted in (0, len(expected_rows) if uuid_column is None else 0):
        counts = warehouse.load(export(file_format=file_format), uuid_column=uuid_column)
        assert counts == {"deleted": deleted, "loaded": len(expected_rows), "outside": 0}
        assert warehouse.rows(list(expected_rows[0])) == sorted_rows(expected_rows)

    change_history(sandbox)
    assert sandbox.expected_rows(*JANUARY) != expected_rows
    warehouse.load(export(file_format=file_format), uuid_column=uuid_column)
    assert warehouse.rows(list(expected_rows[0])) == sorted_rows(sandbox.expected_rows(*JANUARY))


@with_and_without_uuids
def test_only_rows_inside_the_window_are_loaded(
    uuid_column: str | None, warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    """A file may contain activities at the end of its window and beyond it."""
    expected_rows = sandbox.expected_rows(*JANUARY)
    at_the_bounds = [
        {**expected_rows[0], "uuid": name, "date": moment.isoformat()} for name, moment in zip("ab", WEEK, strict=True)
    ]
    sandbox.amend(added=at_the_bounds)
    everything = export()
    counts = warehouse.load(everything, WEEK, uuid_column=uuid_column)
    inside = sandbox.expected_rows(*WEEK)
    assert counts == {"deleted": 0, "loaded": len(inside), "outside": len(expected_rows) + 2 - len(inside)}
    loaded = warehouse.rows(list(expected_rows[0]))
    assert loaded == sorted_rows(inside)
    assert "a" in {row["uuid"] for row in loaded}
    assert "b" not in {row["uuid"] for row in loaded}
    # The ends of a window may be strings, as in XCom, which are UTC without a time zone. None is unbounded.
    warehouse.load(everything, ("2024-01-08", None), uuid_column=uuid_column)
    warehouse.load(everything, (None, "2024-01-08T00:00:00"), uuid_column=uuid_column)
    assert warehouse.rows(list(expected_rows[0])) == sorted_rows(sandbox.expected_rows(*JANUARY))


@pytest.mark.parametrize("merge", [True, False], ids=["merging", "replacing"])
def test_activity_moved_into_the_window_is_not_duplicated(
    merge: bool, warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    warehouse.load(export(), uuid_column="uuid", merge=merge)
    change_history(sandbox)
    for _ in range(2):
        warehouse.load(export(WEEK), WEEK, uuid_column="uuid", merge=merge)
    columns = list(sandbox.expected_rows(*WEEK)[0])
    loaded = warehouse.rows(columns)
    assert [row for row in loaded if "2024-01-08" <= row["date"] < "2024-01-15"] == sorted_rows(
        sandbox.expected_rows(*WEEK)
    )
    assert len({row["uuid"] for row in loaded}) == len(loaded)


@pytest.mark.parametrize("merge", [True, False], ids=["merging", "replacing"])
def test_activity_whose_type_changed_is_not_duplicated(
    merge: bool, warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    options: dict[str, Any] = {"uuid_column": "uuid", "merge": merge}
    for account in ("europe", "america"):
        warehouse.load(export(), part={"account": account}, **options)
    changed = next(row for row in sandbox.expected_rows(*JANUARY) if row["type"] == "expansion")
    before = sandbox.expected_rows(*JANUARY)
    sandbox.amend(removed=[changed["uuid"]], added=[{**changed, "type": "contraction"}])
    contractions = export(activity_type="contraction")
    warehouse.load(contractions, part={"account": "europe", "type": "contraction"}, **options)
    expected = [{**row, "account": "america"} for row in before]
    expected += [{**row, "account": "europe"} for row in sandbox.expected_rows(*JANUARY)]
    key = lambda row: (row["account"], row["uuid"])  # noqa: E731
    assert sorted(warehouse.rows([*before[0], "account"]), key=key) == sorted(expected, key=key)


def test_file_with_rows_of_another_type_is_refused(
    warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    """None of its rows would be loaded, for example if the file spelled types otherwise than the API."""
    warehouse.load(export())
    with pytest.raises(LoadError, match="have another 'type' than 'lost', the value in 'part'"):
        warehouse.load(export(activity_type="churn"), part={"type": "lost"})
    expected_rows = sandbox.expected_rows(*JANUARY)
    assert warehouse.rows(list(expected_rows[0])) == sorted_rows(expected_rows)


@with_and_without_uuids
def test_load_of_a_part_leaves_the_rest_of_the_window_alone(
    uuid_column: str | None, warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    expected_rows = sandbox.expected_rows(*JANUARY)
    for account in ("europe", "america"):
        warehouse.load(export(), uuid_column=uuid_column, part={"account": account})
    change_history(sandbox)
    warehouse.load(export(activity_type="churn"), uuid_column=uuid_column, part={"account": "europe", "type": "churn"})
    changed = sandbox.expected_rows(*JANUARY)
    expected = [{**row, "account": "america"} for row in expected_rows]
    expected += [{**row, "account": "europe"} for row in expected_rows if row["type"] != "churn"]
    expected += [{**row, "account": "europe"} for row in changed if row["type"] == "churn"]
    key = lambda row: (row["account"], row["uuid"])  # noqa: E731
    assert sorted(warehouse.rows([*expected_rows[0], "account"]), key=key) == sorted(expected, key=key)


@with_and_without_uuids
def test_export_without_rows_empties_its_window(
    uuid_column: str | None, warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    warehouse.load(export(), uuid_column=uuid_column)
    sandbox.amend(removed=[row["uuid"] for row in sandbox.expected_rows(*WEEK)])
    counts = warehouse.load(export(WEEK), WEEK, uuid_column=uuid_column)
    assert counts["loaded"] == 0 < counts["deleted"]
    remaining = sandbox.expected_rows(*JANUARY)
    assert warehouse.rows(list(remaining[0])) == sorted_rows(remaining)


def test_column_names_are_quoted_and_new_columns_added(warehouse: Warehouse, tmp_path: Path) -> None:
    file = tmp_path / "odd.csv"
    file.write_text('Activity "ID",it\'s when\n1,2024-01-02 03:04:05\n2,2024-01-02T03:04:05+02:00\n')
    options = {"date_column": "it's when", "uuid_column": 'Activity "ID"'}
    warehouse.load(f"file://{file}", **options)
    file.write_text('extra,it\'s when,"Activity ""ID"""\n,2024-01-03,2\nx,2024-01-03,3\n')
    counts = warehouse.load(f"file://{file}", **options)
    assert counts == {"deleted": 1, "loaded": 2, "outside": 0}
    rows = warehouse.query('SELECT "Activity ""ID""", "it\'s when", extra FROM activities ORDER BY 1')
    assert [(uuid, date.astimezone(UTC).isoformat(), extra) for uuid, date, extra in rows] == [
        ("2", "2024-01-03T00:00:00+00:00", None),
        ("3", "2024-01-03T00:00:00+00:00", "x"),
    ]


@with_and_without_uuids
def test_loaded_at_column_is_updated_in_the_window(
    uuid_column: str | None, warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    """dbt's freshness depends on this column."""
    options = {"uuid_column": uuid_column, "loaded_at_column": "_loaded_at"}
    expected_rows = sandbox.expected_rows(*JANUARY)
    everything = export()
    # The first load creates the table without the column.
    warehouse.load(everything, uuid_column=uuid_column)
    warehouse.load(everything, **options)
    ((first, last, count),) = warehouse.query(
        "SELECT min(_loaded_at), max(_loaded_at), count(_loaded_at) FROM activities"
    )
    assert first == last
    assert count == len(expected_rows)
    warehouse.load(export(WEEK), WEEK, **options)
    (updated,) = warehouse.query(f"SELECT count(*) FROM activities WHERE _loaded_at > '{last.isoformat()}'")
    assert updated == (len(sandbox.expected_rows(*WEEK)),)
    assert warehouse.rows(list(expected_rows[0])) == sorted_rows(expected_rows)
    with pytest.raises(LoadError, match="a column 'uuid' of its own"):
        warehouse.load(everything, loaded_at_column="uuid")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("uuid,when\n1,2024-01-02\n", "the file has no column 'date'; it has uuid, when"),
        ("id,date\n1,2024-01-02\n", "the file has no column 'uuid'; it has id, date"),
        ("uuid,date\n1,2024-01-02\n2,\n", "1 of the file's 2 rows have no value in column 'date'"),
        ("uuid,date\n1,2024-01-02\n1,2024-01-03\n", "'uuid' does not identify the file's 2 rows"),
        ("uuid,date\n1,2024-01-02\n,2024-01-03\n", "1 have no value"),
        ("", "is empty: it has no header"),
        ("uuid,date\n1,2024-01-02\n2,not a date\n", "not a date"),
        ("uuid,date\n1,2024-01-02\n2,2024-01-03,more\n", ""),
    ],
    ids=[
        "no date column",
        "no uuid column",
        "missing date",
        "duplicate uuid",
        "missing uuid",
        "empty file",
        "invalid date",
        "invalid CSV",
    ],
)
def test_refused_file_leaves_the_table_unchanged(
    content: str, message: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("uuid,date\n1,2024-01-02\n")
    warehouse.load(f"file://{file}", uuid_column="uuid")
    file.write_text(content)
    with pytest.raises((LoadError, duckdb.Error, psycopg.Error, psycopg2.Error)) as caught:
        warehouse.load(f"file://{file}", uuid_column="uuid")
    assert message in str(caught.value)
    assert warehouse.query("SELECT uuid FROM activities") == [("1",)]


@with_and_without_uuids
def test_interrupted_load_is_rolled_back(
    uuid_column: str | None,
    warehouse: Warehouse,
    sandbox: Sandbox,
    export: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected_rows = sandbox.expected_rows(*JANUARY)
    warehouse.load(export(), uuid_column=uuid_column)
    change_history(sandbox)
    uri = export()
    load_window = warehouse_loads.load_window

    def interrupted(*args: Any, **options: Any) -> Any:
        load_window(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(warehouse_loads, "load_window", interrupted)
    with pytest.raises(KeyboardInterrupt):
        warehouse.load(uri, uuid_column=uuid_column)
    assert warehouse.rows(list(expected_rows[0])) == sorted_rows(expected_rows)


@with_and_without_uuids
def test_concurrent_loads_of_overlapping_windows_in_postgres(
    uuid_column: str | None, server: str, sandbox: Sandbox, export: Callable[..., str]
) -> None:
    """Without a lock, neither of two loads would see the other's rows, and both would insert them."""
    with psycopg.connect(server) as connection:
        connection.execute("DROP TABLE IF EXISTS overlapping")
    windows = [(JANUARY[0] + timedelta(days=day), JANUARY[0] + timedelta(days=day + 8)) for day in range(0, 24, 3)]
    uris = [export(window) for window in windows]
    errors: list[BaseException] = []

    def load(uri: str, window: tuple[datetime, datetime]) -> None:
        try:
            for _ in range(2):
                load_into_postgres(
                    psycopg.connect(server),
                    uri,
                    "overlapping",
                    start=window[0],
                    end=window[1],
                    uuid_column=uuid_column,
                )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load, args=(uri, window)) for uri, window in zip(uris, windows, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert errors == []
    with closing(psycopg.connect(server)) as connection:
        loaded = [row[0] for row in connection.execute("SELECT uuid FROM overlapping").fetchall()]
    assert sorted(loaded) == sorted(row["uuid"] for row in sandbox.expected_rows(windows[0][0], windows[-1][1]))


def test_movements_sql_sums_the_month(warehouse: Warehouse, sandbox: Sandbox, export: Callable[..., str]) -> None:
    around = datetime(2023, 12, 20, tzinfo=UTC), datetime(2024, 1, 20, tzinfo=UTC)
    warehouse.load(export(around), around)
    expected: dict[str, tuple[int, int]] = {}
    for row in sandbox.expected_rows(around[0], JANUARY[0]):
        count, movement = expected.get(row["type"], (0, 0))
        expected[row["type"]] = count + 1, movement + int(row["activity_mrr_movement"])
    rows = warehouse.query(movements_sql("activities", "2023-12-31T23:59:59+00:00"))
    assert {kind: (count, int(movement)) for kind, count, movement in rows} == expected
