# SPDX-License-Identifier: Apache-2.0
"""
Loads of exported objects into DuckDB and PostgreSQL that can be repeated.

Copy this file next to the DAGs that import it. ChartMogul's activities change after the fact, so that a load never
appends. In one transaction it either *replaces the window* (what the table has of it goes, the file's rows inside
it come) or *merges*: what the window no longer has goes, what is new comes, and what was there is updated. Given the
name of the column that identifies an activity, either finds it also where it stood under another date. Either leaves
the same table behind when it runs twice.

The window is half-open, from ``start`` up to and without ``end``, and only the file's rows inside it are taken:
whether an export holds its window's end is documented nowhere. Every column is text, but for the date, which is
kept with its time zone; columns that the table does not have yet are added to it. Names of columns are yours to
give, as the layout of ChartMogul's file is not documented.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

STAGED = "chartmogul_staged"
WINDOW = "chartmogul_window"

# `execute(sql)` gives a cursor, as DuckDB's and psycopg's connections do.
Execute = Callable[[str], Any]


class LoadError(ValueError):
    """The file cannot be loaded as asked; the table is as it was."""


def load_into_duckdb(
    database: str, uri: str, table: str, *, object_storage_conn_id: str | None = None, **how: Any
) -> dict[str, int]:
    """
    Load an object into a DuckDB database, which is made where there is none.

    DuckDB lets one process write at a time: let one task run at once (``max_active_tis_per_dag=1``, or a pool).

    :param database: the database's file
    :param uri: the object, ``.csv``, ``.csv.gz`` or ``.parquet``: what the operator returns
    :param table: the table, ``name`` or ``schema.name``; it is made where there is none
    :param object_storage_conn_id: the Airflow connection to read the object with; None: none is needed
    :param how: see ``load_window``
    :returns: how many rows were ``deleted`` (or updated), ``loaded``, and left out as ``outside`` the window
    :raises LoadError: for a file that cannot be loaded as asked
    """
    import duckdb

    Path(database).parent.mkdir(parents=True, exist_ok=True)
    with local_copy(uri, object_storage_conn_id) as path, closing(duckdb.connect(database)) as connection:
        columns = header_of(path)
        read = f"read_parquet({_text(path)})"
        if path.suffix != ".parquet":
            types = ", ".join(f"{_text(column)}: 'VARCHAR'" for column in columns)
            read = (
                f"read_csv({_text(path)}, columns = {{{types}}}, auto_detect = false, header = true, "
                """delim = ',', quote = '"', escape = '"')"""
            )
        connection.execute("SET TimeZone = 'UTC'")
        with _transaction(connection, begin=True):
            as_text = ", ".join(f"CAST({quoted(column)} AS VARCHAR) AS {quoted(column)}" for column in columns)
            connection.execute(f"CREATE TEMP TABLE {STAGED} AS SELECT {as_text} FROM {read}")
            return load_window(connection.execute, table, columns, **how)


def load_into_postgres(
    connection: Any, uri: str, table: str, *, object_storage_conn_id: str | None = None, **how: Any
) -> dict[str, int]:
    """
    Load an object into PostgreSQL (to merge: 15 or later), as ``load_into_duckdb`` does.

    :param connection: ``PostgresHook(…).get_conn()``: psycopg's of version 2 or 3; it is closed at the end
    """
    with local_copy(uri, object_storage_conn_id) as path, closing(connection), _transaction(connection):
        columns = header_of(path)
        cursor = connection.cursor()

        def execute(sql: str) -> Any:
            cursor.execute(sql)
            return cursor

        execute("SET LOCAL TimeZone = 'UTC'")
        # Windows with a lookback overlap. Of two loads at a time, neither would delete what the other inserts.
        execute(f"SELECT pg_advisory_xact_lock(hashtext({_text(table)}))")
        execute(f"CREATE TEMP TABLE {STAGED} ({', '.join(f'{quoted(column)} TEXT' for column in columns)})")
        copy = f"COPY {STAGED} FROM STDIN (FORMAT csv, HEADER true)"
        with _as_csv(path) as file:
            if hasattr(cursor, "copy_expert"):
                cursor.copy_expert(copy, file)
            else:
                with cursor.copy(copy) as sink:
                    while piece := file.read(1 << 20):
                        sink.write(piece)
        return load_window(execute, table, columns, **how)


def load_window(
    execute: Execute,
    table: str,
    columns: list[str],
    *,
    start: str | datetime | None,
    end: str | datetime | None,
    date_column: str = "date",
    uuid_column: str | None = None,
    merge: bool = True,
    part: Mapping[str, str] | None = None,
    loaded_at_column: str | None = None,
) -> dict[str, int]:
    """
    Bring the staged file's rows into the table. Runs within the caller's transaction.

    :param start: first moment of the window; None: from the beginning. Times without a time zone are UTC
    :param end: the moment at which it is over, not included; None: no end
    :param date_column: the column with an activity's date
    :param uuid_column: the column that identifies an activity. None: the window alone is replaced, and an activity that
        was moved into it from outside, where another load has it, is there twice
    :param merge: with ``uuid_column``: update what is there, insert what is new. False: replace the window, and take
        what the file has from wherever else it stands
    :param part: what the file stands for, where that is not the whole window: values by column, such as
        ``{"type": "churn"}`` for an export of one type, or ``{"account": "acme"}``. No other row of the table is
        touched, but for the same activity under another value of a column of the file. A column that the file does not
        have is filled with its value
    :param loaded_at_column: a column for when a row was loaded, or updated: by it one sees whether loads still come,
        as dbt's ``source freshness`` does. None: none
    """
    part = {column: value for column, value in (part or {}).items() if value is not None}
    for column in filter(None, (date_column, uuid_column)):
        if column not in columns:
            raise LoadError(f"the file has no column {column!r}; it has {', '.join(columns)}")
    if loaded_at_column in columns:
        raise LoadError(f"the file has a column {loaded_at_column!r} of its own: give loaded_at_column another name")
    date, uuid = quoted(date_column), quoted(uuid_column or "")
    inside = [f"{date} >= {_moment(start)}"] if start else []
    inside += [f"{date} < {_moment(end)}"] if end else []
    ours = [f"{quoted(column)} = {_text(value)}" for column, value in part.items()]
    window = " AND ".join([*inside, *ours]) or "TRUE"
    # An activity is itself whatever the file says of it now, a type too; but not another account's.
    same = [f".{uuid} = w.{uuid}"]
    same += [f".{quoted(column)} = {_text(value)}" for column, value in part.items() if column not in columns]

    (staged, dated, named, unique) = execute(
        f"SELECT count(*), count({date}), "
        + (f"count({uuid}), count(DISTINCT {uuid})" if uuid_column else "0, 0")
        + f" FROM {STAGED}"
    ).fetchone()
    if dated < staged:
        raise LoadError(f"{staged - dated} of the file's {staged} rows have nothing in column {date_column!r}")
    if uuid_column and unique < staged:
        raise LoadError(
            f"column {uuid_column!r} does not identify the file's {staged} rows: {staged - named} have nothing in it, "
            f"and there are {unique} different values"
        )

    for column in set(part) & set(columns):
        (others,) = execute(
            f"SELECT count(*) FROM {STAGED} WHERE {quoted(column)} IS DISTINCT FROM {_text(part[column])}"
        ).fetchone()
        if others:
            raise LoadError(
                f"{others} of the file's {staged} rows have another {column!r} than {part[column]!r}, which the file "
                "stands for: none of them would be loaded"
            )

    names = [*columns, *(column for column in part if column not in columns)]
    given = {column: f"CAST({_text(value)} AS TEXT)" for column, value in part.items() if column not in columns}
    given[date_column] = f"CAST({date} AS TIMESTAMP WITH TIME ZONE)"
    if loaded_at_column:
        names.append(loaded_at_column)
        given[loaded_at_column] = "CURRENT_TIMESTAMP"
    values = ", ".join(f"{given.get(name, quoted(name))} AS {quoted(name)}" for name in names)
    execute(f"CREATE TEMP TABLE {WINDOW} AS SELECT * FROM (SELECT {values} FROM {STAGED}) AS typed WHERE {window}")
    (loaded,) = execute(f"SELECT count(*) FROM {WINDOW}").fetchone()

    target = ".".join(quoted(name) for name in table.split("."))
    execute(f"CREATE TABLE IF NOT EXISTS {target} ({date} TIMESTAMP WITH TIME ZONE)")
    there = {column[0] for column in execute(f"SELECT * FROM {target} LIMIT 0").description}
    for name in names:
        if name not in there:
            kind = "TIMESTAMP WITH TIME ZONE" if name == loaded_at_column else "TEXT"
            execute(f"ALTER TABLE {target} ADD COLUMN {quoted(name)} {kind}")

    # Counted first: not every driver tells how many rows a statement has changed.
    found = f"EXISTS (SELECT 1 FROM {WINDOW} AS w WHERE {' AND '.join(target + condition for condition in same)})"
    gone = window
    if uuid_column:
        gone = f"{window} AND NOT {found}" if merge else f"({window}) OR {found}"
    (deleted,) = execute(f"SELECT count(*) FROM {target} WHERE {gone}").fetchone()
    execute(f"DELETE FROM {target} WHERE {gone}")
    every = ", ".join(quoted(name) for name in names)
    if uuid_column and merge:
        execute(
            f"MERGE INTO {target} AS t USING {WINDOW} AS w ON {' AND '.join('t' + condition for condition in same)} "
            f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{quoted(name)} = w.{quoted(name)}' for name in names)} "
            f"WHEN NOT MATCHED THEN INSERT ({every}) VALUES ({', '.join(f'w.{quoted(name)}' for name in names)})"
        )
    else:
        execute(f"INSERT INTO {target} ({every}) SELECT {every} FROM {WINDOW}")
    execute(f"DROP TABLE {WINDOW}")
    execute(f"DROP TABLE {STAGED}")
    return {"deleted": deleted, "loaded": loaded, "outside": staged - loaded}


def movements_sql(
    table: str,
    day: str | datetime,
    *,
    date_column: str = "date",
    type_column: str = "type",
    movement_column: str = "activity_mrr_movement",
) -> str:
    """
    Write the query for MRR movements by type, in the month (UTC) of a day: what one looks at after a load.

    :param day: any moment of the month
    :param movement_column: by how much an activity changed the MRR
    :returns: SQL that gives type, number of activities, and the sum of their movements
    """
    first = _utc(day).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    target, date, kind = ".".join(map(quoted, table.split("."))), quoted(date_column), quoted(type_column)
    return (
        f"SELECT {kind}, count(*) AS activities, sum(CAST({quoted(movement_column)} AS DECIMAL(18, 2))) AS movement "
        f"FROM {target} WHERE {date} >= {_moment(first)} AND {date} < {_moment(following)} "
        f"GROUP BY {kind} ORDER BY {kind}"
    )


@contextmanager
def local_copy(uri: str, object_storage_conn_id: str | None = None) -> Iterator[Path]:
    """An object of any storage that Airflow can reach, as a local file that is gone afterwards."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    source = ObjectStoragePath(uri, conn_id=object_storage_conn_id)
    with tempfile.TemporaryDirectory(prefix="chartmogul-load-") as folder:
        path = Path(folder, source.name)
        with source.open("rb") as reading, path.open("wb") as writing:
            shutil.copyfileobj(reading, writing, 1 << 20)
        yield path


def header_of(path: Path) -> list[str]:
    """Read the names of a file's columns."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)
    with _as_csv(path) as file:
        for row in csv.reader(piece.decode("utf-8-sig") for piece in file):
            return row
    raise LoadError(f"{path.name} is empty: it has no header")


def _as_csv(path: Path) -> IO[bytes]:
    """Open a file as CSV, whatever it is."""
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    if path.suffix == ".csv":
        return path.open("rb")
    if path.suffix != ".parquet":
        raise LoadError(f"{path.name} is neither .csv, .csv.gz nor .parquet")
    import pyarrow.csv
    import pyarrow.parquet

    converted = tempfile.TemporaryFile()  # noqa: SIM115, the caller closes it
    with pyarrow.parquet.ParquetFile(path) as file, pyarrow.csv.CSVWriter(converted, file.schema_arrow) as writer:
        for batch in file.iter_batches():
            writer.write(batch)
    converted.seek(0)
    return converted


@contextmanager
def _transaction(connection: Any, *, begin: bool = False) -> Iterator[None]:
    if begin:
        connection.begin()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def quoted(name: str) -> str:
    """Quote the name of a column or a table."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _utc(value: str | datetime) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _moment(value: str | datetime) -> str:
    return f"CAST('{_utc(value).isoformat()}' AS TIMESTAMP WITH TIME ZONE)"
