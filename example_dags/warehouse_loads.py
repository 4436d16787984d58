# SPDX-License-Identifier: Apache-2.0
"""
Load exported objects into DuckDB and PostgreSQL, idempotently.

Copy this file next to the DAGs that import it. ChartMogul's activities change after the fact, so a load never appends.
In one transaction, it does one of two things:

* *Replace the window*: delete the table's rows inside the window, then insert the file's rows.
* *Merge*: delete the table's rows that the window no longer contains, insert new rows, and update existing ones.

Given the name of the column that identifies an activity, both also find the activity under another date. Both give the
same table when they run twice.

The window is half-open: ``start`` is inclusive, ``end`` exclusive. Only the file's rows inside the window are loaded,
because ChartMogul does not document whether the end of an export's window is inclusive. Every column is text except the
date, which has a time zone. Columns that the table lacks are added to it. Column names are parameters, because
ChartMogul does not document the layout of its CSV.
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

# `execute(sql)` returns a cursor, as the connections of DuckDB and psycopg do.
Execute = Callable[[str], Any]


class LoadError(ValueError):
    """The file cannot be loaded. The table is unchanged."""


def load_into_duckdb(
    database: str, uri: str, table: str, *, object_storage_conn_id: str | None = None, **options: Any
) -> dict[str, int]:
    """
    Load an object into a DuckDB database.

    DuckDB allows a single writer: run one task at a time, with ``max_active_tis_per_dag=1`` or a pool.

    :param database: path of the database file, which is created if it does not exist
    :param uri: URI of the ``.csv``, ``.csv.gz`` or ``.parquet`` object, as the operator returns it
    :param table: the table, ``name`` or ``schema.name``, which is created if it does not exist
    :param object_storage_conn_id: the Airflow connection to read the object with; ``None`` uses the credentials of the
        environment
    :param options: passed to ``load_window``
    :returns: the number of rows that were ``deleted`` from the table, ``loaded`` from the file, and ignored because
        they are ``outside`` the window
    :raises LoadError: if the file cannot be loaded
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
            return load_window(connection.execute, table, columns, **options)


def load_into_postgres(
    connection: Any, uri: str, table: str, *, object_storage_conn_id: str | None = None, **options: Any
) -> dict[str, int]:
    """
    Load an object into PostgreSQL, like ``load_into_duckdb``. Merging needs PostgreSQL 15 or later.

    :param connection: a connection of psycopg 2 or 3, such as ``PostgresHook(…).get_conn()``; it is closed at the end
    """
    with local_copy(uri, object_storage_conn_id) as path, closing(connection), _transaction(connection):
        columns = header_of(path)
        cursor = connection.cursor()

        def execute(sql: str) -> Any:
            cursor.execute(sql)
            return cursor

        execute("SET LOCAL TimeZone = 'UTC'")
        # Windows with a lookback overlap. Of two concurrent loads, neither would delete what the other inserts.
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
        return load_window(execute, table, columns, **options)


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
    Load the staged rows into the table. Runs within the caller's transaction.

    :param start: start of the window, inclusive; ``None`` means no start. Times without a time zone are UTC
    :param end: end of the window, exclusive; ``None`` means no end
    :param date_column: the column with an activity's date
    :param uuid_column: the column that identifies an activity. ``None`` replaces the window alone; an activity whose
        date has moved into the window is then in the table twice, if another load has inserted it elsewhere
    :param merge: with ``uuid_column``, update existing rows and insert new ones. ``False`` replaces the window, and
        first deletes rows with the file's UUIDs from the whole table
    :param part: which part of the window the file contains, as values by column, such as ``{"type": "churn"}`` for an
        export of one type, or ``{"account": "acme"}``. Other rows of the table are left alone, except for the same
        activity under another value of one of the file's columns. A column that the file lacks is filled with the value
    :param loaded_at_column: a column for the time at which a row was loaded or updated, which shows whether loads still
        run, for example to dbt's ``source freshness``; ``None`` adds no such column
    """
    part = {column: value for column, value in (part or {}).items() if value is not None}
    for column in filter(None, (date_column, uuid_column)):
        if column not in columns:
            raise LoadError(f"the file has no column {column!r}; it has {', '.join(columns)}")
    if loaded_at_column in columns:
        raise LoadError(f"the file has a column {loaded_at_column!r} of its own: choose another loaded_at_column")
    date, uuid = quoted(date_column), quoted(uuid_column or "")
    bounds = [f"{date} >= {_moment(start)}"] if start else []
    bounds += [f"{date} < {_moment(end)}"] if end else []
    part_conditions = [f"{quoted(column)} = {_text(value)}" for column, value in part.items()]
    window = " AND ".join([*bounds, *part_conditions]) or "TRUE"
    # The UUID identifies an activity even if its type has changed, but only within one account.
    same = [f".{uuid} = w.{uuid}"]
    same += [f".{quoted(column)} = {_text(value)}" for column, value in part.items() if column not in columns]

    (staged, with_date, with_uuid, unique) = execute(
        f"SELECT count(*), count({date}), "
        + (f"count({uuid}), count(DISTINCT {uuid})" if uuid_column else "0, 0")
        + f" FROM {STAGED}"
    ).fetchone()
    if with_date < staged:
        raise LoadError(f"{staged - with_date} of the file's {staged} rows have no value in column {date_column!r}")
    if uuid_column and unique < staged:
        raise LoadError(
            f"column {uuid_column!r} does not identify the file's {staged} rows: {staged - with_uuid} have no value, "
            f"and there are {unique} distinct values"
        )

    for column in set(part) & set(columns):
        (others,) = execute(
            f"SELECT count(*) FROM {STAGED} WHERE {quoted(column)} IS DISTINCT FROM {_text(part[column])}"
        ).fetchone()
        if others:
            raise LoadError(
                f"{others} of the file's {staged} rows have another {column!r} than {part[column]!r}, the value in "
                "'part': they would not be loaded"
            )

    names = [*columns, *(column for column in part if column not in columns)]
    expressions = {column: f"CAST({_text(value)} AS TEXT)" for column, value in part.items() if column not in columns}
    expressions[date_column] = f"CAST({date} AS TIMESTAMP WITH TIME ZONE)"
    if loaded_at_column:
        names.append(loaded_at_column)
        expressions[loaded_at_column] = "CURRENT_TIMESTAMP"
    values = ", ".join(f"{expressions.get(name, quoted(name))} AS {quoted(name)}" for name in names)
    execute(f"CREATE TEMP TABLE {WINDOW} AS SELECT * FROM (SELECT {values} FROM {STAGED}) AS typed WHERE {window}")
    (loaded,) = execute(f"SELECT count(*) FROM {WINDOW}").fetchone()

    target = ".".join(quoted(name) for name in table.split("."))
    execute(f"CREATE TABLE IF NOT EXISTS {target} ({date} TIMESTAMP WITH TIME ZONE)")
    existing = {column[0] for column in execute(f"SELECT * FROM {target} LIMIT 0").description}
    for name in names:
        if name not in existing:
            kind = "TIMESTAMP WITH TIME ZONE" if name == loaded_at_column else "TEXT"
            execute(f"ALTER TABLE {target} ADD COLUMN {quoted(name)} {kind}")

    # Counted first, because not every driver returns the number of rows that a statement has changed.
    in_file = f"EXISTS (SELECT 1 FROM {WINDOW} AS w WHERE {' AND '.join(target + condition for condition in same)})"
    obsolete = window
    if uuid_column:
        obsolete = f"{window} AND NOT {in_file}" if merge else f"({window}) OR {in_file}"
    (deleted,) = execute(f"SELECT count(*) FROM {target} WHERE {obsolete}").fetchone()
    execute(f"DELETE FROM {target} WHERE {obsolete}")
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
    Return a query for the MRR movements by type in the month of a day, as a quick check after a load.

    :param day: any time in the month (UTC)
    :param movement_column: the column with the change in MRR
    :returns: SQL that selects the type, the number of activities, and the sum of their movements
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
    """Copy an object from any storage that Airflow can reach to a temporary local file."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    source = ObjectStoragePath(uri, conn_id=object_storage_conn_id)
    with tempfile.TemporaryDirectory(prefix="chartmogul-load-") as folder:
        path = Path(folder, source.name)
        with source.open("rb") as reading, path.open("wb") as writing:
            shutil.copyfileobj(reading, writing, 1 << 20)
        yield path


def header_of(path: Path) -> list[str]:
    """Return the column names of a file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)
    with _as_csv(path) as file:
        for row in csv.reader(piece.decode("utf-8-sig") for piece in file):
            return row
    raise LoadError(f"{path.name} is empty: it has no header")


def _as_csv(path: Path) -> IO[bytes]:
    """Open a CSV, gzipped CSV or Parquet file as CSV."""
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
    """Quote the name of a column or table."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _utc(value: str | datetime) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _moment(value: str | datetime) -> str:
    return f"CAST('{_utc(value).isoformat()}' AS TIMESTAMP WITH TIME ZONE)"
