# SPDX-License-Identifier: Apache-2.0
"""
The compared ways to load an export, one per process: ``python -m bench.load_variants NAME WAREHOUSE OBJECT DATABASE``.

Imports and set-up happen before the measurement starts, which is printed as in ``bench.transfer_variants``. Each load
replaces the rows of the window in the table ``activities``, after it has checked that every row has a UUID of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_provider_chartmogul.sandbox.company.activities import COLUMNS
from bench.transfer_variants import TaskInstance, Transfer, measure

TABLE = "activities"

#: The window of the export, in which all of its rows are.
WINDOW = ("2018-01-01T00:00:00+00:00", "2038-01-01T00:00:00+00:00")

#: When ChartMogul created the export.
EXPORTED_AT = "2025-01-01T00:00:00+00:00"

_CONN_ID = "postgres_bench"
_READ_BYTES = 1 << 20

_MOMENT = "TIMESTAMP WITH TIME ZONE"
_IN_WINDOW = f"date >= '{WINDOW[0]}' AND date < '{WINDOW[1]}'"


def create_table(text_type: str) -> str:
    """Return the statement that creates the table."""
    columns = ", ".join(f"{name} {_MOMENT if name == 'date' else text_type}" for name in COLUMNS)
    return f"CREATE TABLE IF NOT EXISTS {TABLE} ({columns}, _loaded_at {_MOMENT})"


def bare_duckdb(path: Path, database: str) -> Transfer:
    """Return an import that DuckDB's own reader does."""
    import duckdb

    if path.suffix == ".parquet":
        rows = f"read_parquet('{path}')"
    else:
        rows = f"read_csv('{path}', header = true, all_varchar = true)"

    def load() -> None:
        with duckdb.connect(database) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(
                f"CREATE TEMPORARY TABLE staged AS SELECT * REPLACE (CAST(date AS {_MOMENT}) AS date) FROM {rows}"
            )
            _replace_window(lambda sql: connection.execute(sql).fetchall())

    return load


def bare_postgres(path: Path, database: str) -> Transfer:
    """Return an import by COPY into a temporary table."""
    import psycopg
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    def texts() -> Iterator[bytes]:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    sink = pa.BufferOutputStream()
                    pa_csv.write_csv(batch, sink, pa_csv.WriteOptions(include_header=False))
                    yield sink.getvalue().to_pybytes()
            return
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as text:
            text.readline()
            while chunk := text.read(_READ_BYTES):
                yield chunk

    def load() -> None:
        with psycopg.connect(database, options="-c TimeZone=UTC", autocommit=True) as connection:
            cursor = connection.cursor()
            columns = ", ".join(f"{name} {_MOMENT if name == 'date' else 'TEXT'}" for name in COLUMNS)
            cursor.execute(f"CREATE TEMPORARY TABLE staged ({columns})")
            with cursor.copy("COPY staged FROM STDIN (FORMAT csv)") as copy:
                for chunk in texts():
                    copy.write(chunk)

            def execute(sql: str) -> list[Any]:
                cursor.execute(sql)
                return cursor.fetchall() if sql.startswith("SELECT") else []

            _replace_window(execute)

    return load


def _replace_window(execute: Callable[[str], list[Any]]) -> None:
    """Check the staged UUIDs, and replace the rows of the window."""
    if execute("SELECT 1 FROM staged WHERE uuid IS NULL OR uuid = '' OR date IS NULL LIMIT 1"):
        raise ValueError("a row has no UUID or no date")
    if execute("SELECT uuid FROM staged GROUP BY uuid HAVING count(*) > 1 LIMIT 1"):
        raise ValueError("a UUID is there twice")
    columns = ", ".join(COLUMNS)
    execute("BEGIN")
    execute(f"DELETE FROM {TABLE} WHERE {_IN_WINDOW}")
    execute(f"INSERT INTO {TABLE} ({columns}, _loaded_at) SELECT {columns}, now() FROM staged WHERE {_IN_WINDOW}")
    execute("COMMIT")


def package(path: Path, *, warehouse_conn_id: str | None = None, duckdb_path: str | None = None) -> Transfer:
    """Return the operator's load as a worker runs it."""
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    from airflow_provider_chartmogul.formats import table_readers  # noqa: F401 - the operator imports it in execute()
    from airflow_provider_chartmogul.storage.object_storage import StoredObject
    from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator
    from airflow_provider_chartmogul.warehouse import load as _load  # noqa: F401
    from airflow_provider_chartmogul.warehouse import source_objects  # noqa: F401

    if duckdb_path is not None:
        import_module("duckdb")
        import_module("airflow_provider_chartmogul.warehouse.duckdb")
    else:
        import_module("airflow.providers.postgres.hooks.postgres")
        import_module("airflow_provider_chartmogul.warehouse.postgres")
    uri = f"file://{path}"
    source: dict[str, Any] = {
        "uri": uri,
        "format": path.name.removeprefix("activities."),
        "bytes": path.stat().st_size,
        "sha256": path.with_name(f"{path.name}.sha256").read_text(),
        "resource": "activities",
        "table": TABLE,
        "interval_start": WINDOW[0],
        "interval_end": WINDOW[1],
        "activity_type": None,
        "export_id": "bench",
        "exported_at": EXPORTED_AT,
        "chartmogul_conn_id": "chartmogul_default",
    }
    task = ObjectStorageToWarehouseOperator(
        task_id="load", source=source, table=TABLE, warehouse_conn_id=warehouse_conn_id, duckdb_path=duckdb_path
    )
    StoredObject.parse(uri).prepare()
    get_hook_lineage_collector()
    context: Any = {"ti": TaskInstance(), "task": task}

    def load() -> None:
        task.execute(context)

    return load


def package_duckdb(path: Path, database: str) -> Transfer:
    return package(path, duckdb_path=database)


def package_postgres(path: Path, database: str) -> Transfer:
    os.environ[f"AIRFLOW_CONN_{_CONN_ID.upper()}"] = database
    return package(path, warehouse_conn_id=_CONN_ID)


VARIANTS: dict[tuple[str, str], Callable[[Path, str], Transfer]] = {
    ("bare", "duckdb"): bare_duckdb,
    ("package", "duckdb"): package_duckdb,
    ("bare", "postgres"): bare_postgres,
    ("package", "postgres"): package_postgres,
}


def main() -> None:
    name, warehouse, path, database = sys.argv[1:]
    # Airflow logs to standard output, which has to carry the measurement alone.
    output, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(measure(VARIANTS[name, warehouse](Path(path), database))), file=output)


if __name__ == "__main__":
    main()
