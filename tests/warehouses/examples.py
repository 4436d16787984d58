# SPDX-License-Identifier: Apache-2.0
"""
Runs the warehouse examples' DAGs against stand-ins for BigQuery and Redshift.

Neither is the real service. Each class describes what it runs unchanged and what it replaces.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import importlib.util
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import psycopg
import pytest
import sqlglot
from sqlglot import exp

from tests.integration.task_runner import FakeTaskInstance, TaskRun, run_task
from tests.stores import Store
from tests.tables import Row, as_expected_rows

EXAMPLES = Path(__file__).parents[2] / "example_dags" / "warehouses"
NAMES = ("bigquery", "redshift")


def load_example(name: str) -> Any:
    """Import an example's file, as Airflow does, and return its DAG."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"example_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag


class Run:
    """
    A run of an example's DAG. The export is created and transferred, and the other tasks receive its XComs.

    :param day: start of the data interval, which is one day
    :param destination: the value of the examples' Airflow variables for the destination
    :param params: values of the DAG's params
    """

    def __init__(self, dag: Any, day: datetime, destination: str, **params: Any) -> None:
        self.dag = dag
        self.params = {**dag.params.dump(), **params}
        self._ti = FakeTaskInstance()
        variables = {f"chartmogul_{store}_destination": destination for store in ("gcs", "s3")}
        self._context = {"ti": self, "params": self.params, "var": {"value": variables}}
        self.exported: TaskRun = run_task(
            self.task("export"), data_interval_start=day, data_interval_end=day + timedelta(days=1)
        )

    @property
    def object(self) -> dict[str, Any]:
        """The XCom ``object`` of the export."""
        return dict(self.exported.xcoms["object"])

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        assert task_ids == "export"
        return self.exported.xcoms[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ti, name)

    def task(self, task_id: str) -> Any:
        """Return a task with rendered templates."""
        task = copy.deepcopy(self.dag.get_task(task_id))
        task.render_template_fields(self._context)
        return task

    def execute(self, task_id: str) -> None:
        """Execute a task unchanged."""
        self.task(task_id).execute(self._context)


class Warehouse(ABC):
    """An empty stand-in for a warehouse."""

    name: ClassVar[str]
    #: The tasks between the export and the teardown, in order.
    tasks: ClassVar[tuple[str, ...]]

    def __init__(self, store: Store) -> None:
        self.store = store
        self.dag = load_example(self.name)

    def run(self, day: datetime, **params: Any) -> Run:
        """Run the export and return the run, whose other tasks have not been executed."""
        return Run(self.dag, day, self.store.base, **params)

    def load(self, day: datetime, **params: Any) -> Run:
        """Run the whole DAG for one day."""
        run = self.run(day, **params)
        for task_id in (*self.tasks, "drop"):
            self.execute(run, task_id)
        return run

    @abstractmethod
    def execute(self, run: Run, task_id: str) -> None: ...

    @abstractmethod
    def query(self, sql: str) -> list[tuple[Any, ...]]: ...

    @abstractmethod
    def change(self, sql: str) -> None: ...

    @abstractmethod
    def tables(self) -> list[str]:
        """Return the names of all tables."""

    #: The table's name in queries.
    table = "activities"

    def rows(self, columns: Iterable[str]) -> list[Row]:
        names = list(columns)
        selected = ", ".join(f'"{name}"' for name in names)
        return as_expected_rows(names, self.query(f"SELECT {selected} FROM {self.table}"))


class BigQuery(Warehouse):
    """
    DuckDB, which runs the operators' rendered SQL, translated from BigQuery's dialect by sqlglot.

    Not covered: BigQuery's jobs, transactions and permissions.
    """

    name = "bigquery"
    tasks = ("stage", "check", "load")
    table = "chartmogul.activities"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("CREATE SCHEMA chartmogul")

    def execute(self, run: Run, task_id: str) -> None:
        task = run.task(task_id)
        if task_id == "stage":
            self._stage(task)
        elif task_id == "check":
            (row,) = self._script(task.sql)
            assert all(row), "the check fails"
        elif task_id == "load":
            self._script(task.configuration["query"]["query"])
        else:
            self.connection.execute(f"DROP TABLE IF EXISTS {task.deletion_dataset_table}")

    def _stage(self, task: Any) -> None:
        (key,) = task.source_objects
        assert task.bucket == getattr(self.store, "bucket", "")
        assert (task.source_format, task.write_disposition) == ("PARQUET", "WRITE_TRUNCATE")
        table = pyarrow_table(self.store.read(key))
        self.connection.register("parquet", table)
        self.connection.execute(
            f"CREATE OR REPLACE TABLE {task.destination_project_dataset_table} AS SELECT * FROM parquet"
        )

    def _script(self, script: str) -> list[Any]:
        rows: list[Any] = []
        try:
            for statement in sqlglot.parse(script, dialect="bigquery"):
                assert statement is not None
                for part in single_actions(statement):
                    rows = self.connection.execute(part.sql("duckdb")).fetchall()
        except BaseException:
            # BigQuery rolls back a script that fails within a transaction.
            with contextlib.suppress(duckdb.TransactionException):
                self.connection.rollback()
            raise
        return rows

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def change(self, sql: str) -> None:
        self.connection.execute(sql)

    def tables(self) -> list[str]:
        return [name for (name,) in self.query("SELECT table_name FROM duckdb_tables() ORDER BY 1")]


def single_actions(statement: exp.Expression) -> Iterator[exp.Expression]:
    """Split an ALTER with several actions, since DuckDB adds one column per statement."""
    if not isinstance(statement, exp.Alter):
        yield statement
        return
    for action in statement.args["actions"]:
        single = statement.copy()
        single.set("actions", [action.copy()])
        yield single


def pyarrow_table(content: bytes) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(io.BytesIO(content))


class Redshift(Warehouse):
    """
    PostgreSQL, from which Redshift is derived. Airflow's hook for PostgreSQL runs the operators' SQL unchanged.

    The function GETDATE is added, and PostgreSQL's COPY loads the operator's object. Not covered: Redshift's COPY with
    its options and role, and Redshift's transactions.
    """

    name = "redshift"
    tasks = ("create", "stage", "check", "load")

    def __init__(self, store: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(store)
        self.server = server
        monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT_DEFAULT", server)
        self.change("DROP SCHEMA public CASCADE")
        self.change("CREATE SCHEMA public")
        self.change("CREATE FUNCTION getdate() RETURNS timestamptz LANGUAGE sql AS 'SELECT clock_timestamp()'")

    def change(self, sql: str) -> None:
        with psycopg.connect(self.server) as connection:
            connection.execute(sql)

    def execute(self, run: Run, task_id: str) -> None:
        if task_id != "stage":
            run.execute(task_id)
            return
        task = run.task(task_id)
        assert task.s3_bucket == getattr(self.store, "bucket", "")
        assert (task.copy_options, task.method) == (["CSV", "GZIP", "IGNOREHEADER 1", "EMPTYASNULL"], "REPLACE")
        with psycopg.connect(self.server) as connection, connection.cursor() as cursor:
            target = f"{task.schema}.{task.table}"
            cursor.execute(f"DELETE FROM {target}")
            with cursor.copy(f"COPY {target} FROM STDIN (FORMAT csv, HEADER)") as copy_in:
                copy_in.write(gzip.decompress(self.store.read(task.s3_key)))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server) as connection:
            return connection.execute(sql).fetchall()

    def tables(self) -> list[str]:
        return [
            name
            for (name,) in self.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        ]
