# SPDX-License-Identifier: Apache-2.0
"""
What a load does to a table, and what it refuses: test cases for every warehouse.

``tests/integration/test_warehouse.py`` runs them over DuckDB and a real PostgreSQL. A module that runs them provides a
fixture ``warehouse``, a ``WarehouseUnderTest`` without tables.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_chartmogul.api.resources import get_resource
from airflow_provider_chartmogul.formats.column_selection import ColumnSelection
from airflow_provider_chartmogul.formats.tables import TableWriter
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator
from tests.integration.task_runner import run_task

EXPORT_FORMATS = ("csv", "csv.gz", "zip", "parquet")
TABLE_FORMATS = ("csv", "csv.gz", "parquet")
RAW_FORMATS = ("jsonl", "jsonl.gz")

TABLE = "chartmogul_activities"

TIME = "timestamp[us, tz=UTC]"


def day(number: int) -> datetime:
    """Return the start of a day of January 2024, in UTC."""
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number - 1)


JANUARY = day(1), day(32)


class WarehouseUnderTest(ABC):
    """An empty warehouse, and how the operator reaches it."""

    #: The operator's parameters that name the warehouse.
    parameters: Mapping[str, Any]

    def load(self, source: Any, **parameters: Any) -> dict[str, dict[str, Any]]:
        """Run the operator and return its result."""
        return run_load(source, **{**self.parameters, **parameters})

    @abstractmethod
    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; its time zone is UTC."""

    @abstractmethod
    def change(self, sql: str) -> None:
        """Execute a statement, as a user would."""

    def rows(self, columns: str, table: str = TABLE) -> list[tuple[Any, ...]]:
        """Return some columns of all rows, sorted by the first; times as text in UTC."""
        return sorted(
            (
                tuple(value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value for value in row)
                for row in self.query(f"SELECT {columns} FROM {table}")
            ),
            key=repr,
        )

    def activities(self) -> dict[str, str]:
        """Return the date of each activity in the table; fails if one is there twice."""
        rows = self.rows("uuid, date")
        assert len({uuid for uuid, _ in rows}) == len(rows), "a UUID is there twice"
        return {uuid: moment[:10] for uuid, moment in rows}

    def columns(self, table: str = TABLE) -> list[str]:
        """Return the names of the table's columns in lower case."""
        found = self.query(
            f"SELECT lower(column_name) FROM information_schema.columns WHERE lower(table_name) = '{table.lower()}'"
        )
        return sorted(name for (name,) in found)

    def tables(self) -> list[str]:
        """Return the names of all tables in lower case."""
        found = self.query(
            "SELECT lower(table_name) FROM information_schema.tables "
            "WHERE lower(table_schema) NOT IN ('information_schema', 'pg_catalog')"
        )
        return sorted(name for (name,) in found)


def run_load(source: Any, **parameters: Any) -> dict[str, dict[str, Any]]:
    """Run the operator and return its result."""
    value = run_task(ObjectStorageToWarehouseOperator(task_id="load", source=source, **parameters)).value
    assert isinstance(value, dict)
    return value


class Objects:
    """
    Objects as the transfers leave them: a file, and its metadata as in XCom ``object``.

    :param folder: where the files are
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def export(
        self,
        content: str | Sequence[tuple[str, str, str]],
        window: tuple[datetime | None, datetime | None] = JANUARY,
        *,
        as_of: datetime | int = 40,
        activity_type: str | None = None,
        file_format: str = "csv",
        account: str = "chartmogul_default",
    ) -> dict[str, Any]:
        """
        Write an activities export.

        :param content: the CSV, or rows of UUID, day of January 2024 and type
        :param as_of: when ChartMogul created it, also as a day's number
        """
        if not isinstance(content, str):
            content = "uuid,date,type\n" + "".join(
                f"{uuid},{day(int(number)).isoformat()},{kind}\n" for uuid, number, kind in content
            )
        moment = as_of if isinstance(as_of, datetime) else day(as_of)
        return self._write(
            _encode(content, file_format),
            file_format,
            resource="activities",
            table="activities",
            interval_start=window[0] and window[0].isoformat(),
            interval_end=window[1] and window[1].isoformat(),
            activity_type=activity_type,
            export_id=f"export-{moment:%d}",
            exported_at=moment.isoformat(),
            chartmogul_conn_id=account,
        )

    def snapshot(
        self,
        resource: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        as_of: int = 40,
        file_format: str = "parquet",
        account: str = "chartmogul_default",
        query_params: Mapping[str, Any] | None = None,
        **metadata: Any,
    ) -> dict[str, dict[str, Any]]:
        """
        Write the objects of a walk, and return their metadata by table, as in XCom ``objects``.

        :param rows: the rows of the API, with nested ones where the resource has them
        """
        found = get_resource(resource)
        if file_format in RAW_FORMATS:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            content = {found.main_table.name: _encode(text, file_format)}
        else:
            content = {table.name: self._table(table, rows, file_format, day(as_of)) for table in found.tables}
        return {
            name: self._write(
                data,
                file_format,
                resource=resource,
                table=name,
                interval_start=metadata.get("interval_start"),
                interval_end=metadata.get("interval_end"),
                activity_type=None,
                export_id=None,
                exported_at=None,
                query_params=query_params,
                extracted_at=day(as_of).isoformat(),
                chartmogul_conn_id=account,
            )
            for name, data in content.items()
        }

    def _table(self, table: Any, rows: Sequence[Mapping[str, Any]], file_format: str, moment: datetime) -> bytes:
        path = self._folder / "table"
        writer = TableWriter(
            path,
            output_format=file_format,
            table=table,
            extracted_at=moment,
            selection=ColumnSelection(table),
        )
        nested = [
            {table.parent_key: row["uuid"], **item} if table.parent_key else item
            for row in rows
            for item in (row.get(table.rows_key, []) if table.rows_key else [row])
        ]
        with writer:
            writer.write([{key: value for key, value in row.items() if not isinstance(value, list)} for row in nested])
        return path.read_bytes()

    def _write(self, content: bytes, file_format: str, **metadata: Any) -> dict[str, Any]:
        self._count += 1
        path = self._folder / f"{metadata['table']}-{self._count}.{file_format}"
        path.write_bytes(content)
        return {
            "uri": f"file://{path}",
            "bucket": "",
            "key": str(path),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "format": file_format,
            "rows": None,
            "columns": None,
            "query_params": None,
            "extracted_at": None,
            "modified_at": None,
            **metadata,
        }


def _encode(text: str, file_format: str) -> bytes:
    data = text.encode()
    if file_format.endswith(".gz"):
        return gzip.compress(data)
    if file_format == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("activities.csv", data)
        return buffer.getvalue()
    if file_format == "parquet":
        header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
        columns = list(zip(*rows, strict=True)) or [()] * len(header)
        buffer = io.BytesIO()
        table = pa.table({name: pa.array(values, pa.string()) for name, values in zip(header, columns, strict=True)})
        pq.write_table(table, buffer)
        return buffer.getvalue()
    return data


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    folder = tmp_path / "objects"
    folder.mkdir()
    return Objects(folder)


def counts(result: Mapping[str, Mapping[str, Any]], table: str = TABLE) -> dict[str, Any]:
    """Return what a load did to a table, without what is zero."""
    return {name: value for name, value in result[table].items() if value}


class TestWindowLoads:
    @pytest.mark.parametrize("file_format", EXPORT_FORMATS)
    def test_window_is_replaced(self, file_format: str, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        first = objects.export(
            [("a", "2", "churn"), ("b", "3", "new_biz"), ("c", "4", "churn")], file_format=file_format
        )
        assert counts(warehouse.load(first)) == {"inserted": 3}
        second = objects.export([("a", "2", "churn"), ("d", "5", "churn")], as_of=41, file_format=file_format)
        assert counts(warehouse.load(second)) == {"inserted": 2, "deleted": 3}
        assert warehouse.rows("uuid, date, type") == [
            ("a", "2024-01-02T00:00:00+00:00", "churn"),
            ("d", "2024-01-05T00:00:00+00:00", "churn"),
        ]
        assert warehouse.tables() == ["_chartmogul_loads", TABLE], "the staging table is dropped"

    def test_same_object_gives_same_table(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        export = objects.export([("a", "2", "churn"), ("b", "3", "churn")])
        for expected in ({"inserted": 2}, {"inserted": 2, "deleted": 2}, {"inserted": 2, "deleted": 2}):
            assert counts(warehouse.load(export)) == expected
            assert warehouse.activities() == {"a": "2024-01-02", "b": "2024-01-03"}
        assert len(warehouse.query("SELECT * FROM _chartmogul_loads")) == 1

    def test_window_is_half_open(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("before", "7", "x"), ("end", "10", "x")]))
        week = objects.export([("s", "8", "x"), ("late", "10", "x"), ("early", "7", "x")], (day(8), day(10)), as_of=41)
        assert counts(warehouse.load(week)) == {"inserted": 1, "outside": 2}
        assert warehouse.activities() == {"before": "2024-01-07", "end": "2024-01-10", "s": "2024-01-08"}

    def test_open_window_replaces_everything(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "2", "x")]))
        assert counts(warehouse.load(objects.export([("b", "3", "x")], (None, None), as_of=41))) == {
            "inserted": 1,
            "deleted": 1,
        }
        assert len(warehouse.query("SELECT * FROM _chartmogul_loads")) == 1, "the older load is dropped"

    def test_row_whose_date_changed_moves(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "2", "x"), ("b", "20", "x")]))
        warehouse.load(objects.export([("b", "9", "x")], (day(8), day(15)), as_of=41))
        assert warehouse.activities() == {"a": "2024-01-02", "b": "2024-01-09"}

    def test_without_uuid_column_windows_are_replaced_alone(
        self, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        warehouse.load(objects.export([("a", "2", "x"), ("b", "20", "x")]), uuid_column=None)
        warehouse.load(
            objects.export([("b", "9", "x"), ("b", "9", "x")], (day(8), day(15)), as_of=41), uuid_column=None
        )
        assert [uuid for (uuid,) in warehouse.rows("uuid")] == ["a", "b", "b", "b"]

    @pytest.mark.parametrize("file_format", EXPORT_FORMATS)
    @pytest.mark.parametrize("content", ["", "uuid,date,type\n"], ids=["no header", "header only"])
    def test_object_without_rows_empties_its_window(
        self, content: str, file_format: str, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        empty = objects.export(content, (day(8), day(15)), as_of=41, file_format=file_format)
        assert counts(warehouse.load(empty)) == {}, "into a table that does not exist"
        warehouse.load(objects.export([("a", "2", "x"), ("b", "9", "x")]))
        assert warehouse.activities() == {"a": "2024-01-02"}, "the older export has nothing in that week"
        warehouse.load(objects.export([("a", "2", "x"), ("b", "9", "x")], as_of=42))
        again = objects.export(content, (day(8), day(15)), as_of=43, file_format=file_format)
        assert counts(warehouse.load(again)) == {"deleted": 1}
        assert warehouse.activities() == {"a": "2024-01-02"}

    def test_export_of_one_type_leaves_other_types_alone(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "2", "churn"), ("b", "3", "new_biz"), ("c", "4", "churn")]))
        churn = objects.export([("a", "2", "churn")], as_of=41, activity_type="churn")
        assert counts(warehouse.load(churn)) == {"inserted": 1, "deleted": 2}
        assert set(warehouse.activities()) == {"a", "b"}

    def test_activity_whose_type_changed_is_not_doubled(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "2", "churn"), ("b", "3", "new_biz")]))
        warehouse.load(objects.export([("b", "3", "churn")], as_of=41, activity_type="churn"))
        assert warehouse.rows("uuid, type") == [("b", "churn")]

    def test_load_of_one_type_protects_that_type_alone(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("new", "2", "churn")], as_of=45, activity_type="churn"))
        older = objects.export([("old", "2", "churn"), ("b", "3", "new_biz")], as_of=44)
        assert counts(warehouse.load(older)) == {"inserted": 1, "superseded": 1}
        assert set(warehouse.activities()) == {"new", "b"}

    def test_sources_load_in_order_of_their_age(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        exports = [objects.export([(f"as of {number}", "2", "x")], as_of=number) for number in (43, 41, 42)]
        result = warehouse.load(iter([*exports, None]))
        assert counts(result) == {"inserted": 3, "deleted": 2}
        assert set(warehouse.activities()) == {"as of 43"}

    def test_source_may_be_json(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        export = objects.export([("a", "2", "x")])
        warehouse.load(json.dumps({"activities": export}))
        assert set(warehouse.activities()) == {"a"}

    @pytest.mark.parametrize("source", [None, [], "", {}, [None]])
    def test_nothing_in_source_skips_the_task(self, source: Any, warehouse: WarehouseUnderTest) -> None:
        with pytest.raises(AirflowSkipException):
            warehouse.load(source)

    def test_metrics_replace_their_days(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        window = {"interval_start": day(1).isoformat(), "interval_end": day(4).isoformat()}
        for as_of, mrr in ((40, 1), (41, 2)):
            rows = [{"date": f"2024-01-0{number}", "mrr": mrr * number} for number in (1, 2, 3)]
            warehouse.load(objects.snapshot("metrics", rows, as_of=as_of, **window))
        part = {"interval_start": day(2).isoformat(), "interval_end": day(3).isoformat()}
        result = warehouse.load(objects.snapshot("metrics", [{"date": "2024-01-02", "mrr": 9}], as_of=42, **part))
        assert counts(result, "chartmogul_metrics") == {"inserted": 1, "deleted": 1}
        assert warehouse.rows("date, mrr", "chartmogul_metrics") == [
            (date(2024, 1, 1), 2),
            (date(2024, 1, 2), 9),
            (date(2024, 1, 3), 6),
        ]


class TestOrderOfLoads:
    def test_late_retry_restores_nothing(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """A load that fails is retried after the next run's, whose window overlaps."""
        first = objects.export([("removed", "5", "x"), ("a", "2", "x")], (day(1), day(8)), as_of=8)
        second = objects.export([("b", "6", "x")], (day(4), day(11)), as_of=11)
        warehouse.load(second)
        assert counts(warehouse.load(first)) == {"inserted": 1, "superseded": 1}
        assert set(warehouse.activities()) == {"a", "b"}

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    def test_every_order_gives_the_same_table(
        self, order: tuple[int, ...], warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        exports = [
            objects.export([("a", "2", "x"), ("b", "5", "x"), ("c", "8", "x")], (day(1), day(10)), as_of=10),
            objects.export([("b2", "5", "x"), ("c", "8", "x"), ("d", "11", "x")], (day(4), day(13)), as_of=13),
            objects.export([("c2", "8", "x"), ("e", "14", "x")], (day(7), day(16)), as_of=16),
        ]
        for number in order:
            warehouse.load(exports[number])
        assert warehouse.activities() == {
            "a": "2024-01-02",
            "b2": "2024-01-05",
            "c2": "2024-01-08",
            "e": "2024-01-14",
        }

    def test_older_export_does_not_take_back_a_moved_row(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "20", "x")], (day(18), day(22)), as_of=45))
        older = objects.export([("a", "3", "x"), ("b", "4", "x")], (day(1), day(8)), as_of=44)
        assert counts(warehouse.load(older)) == {"inserted": 1, "superseded": 1}
        assert warehouse.activities() == {"a": "2024-01-20", "b": "2024-01-04"}

    def test_dropped_table_has_no_newer_loads(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """A new table has no rows that an older object could overwrite."""
        warehouse.load(objects.export([("new", "2", "x")], as_of=45))
        warehouse.load(objects.export([("other", "2", "x")], as_of=45), table="other")
        warehouse.load(objects.snapshot("plans", [{"uuid": "new"}], as_of=45))
        for table in (TABLE, "chartmogul_plans"):
            warehouse.change(f"DROP TABLE {table}")
        failing = objects.export([("bad", "2", "y")], as_of=44, activity_type="x")
        with pytest.raises(AirflowFailException, match="export of type 'x'"):
            warehouse.load(failing)
        older = objects.export([("old", "2", "x")], as_of=44, account="another")
        assert counts(warehouse.load(older)) == {"inserted": 1}
        warehouse.load(objects.snapshot("plans", [{"uuid": "old"}], as_of=44))
        assert warehouse.rows("uuid") == [("old",)]
        assert warehouse.rows("uuid", "chartmogul_plans") == [("old",)]
        # Other tables keep their loads.
        older = objects.export([("old", "2", "x")], as_of=44)
        assert counts(warehouse.load(older, table="other"), "other") == {"superseded": 1}

    def test_equally_old_object_loads_again(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "2", "x")], as_of=41))
        warehouse.load(objects.export([("b", "2", "x")], as_of=41))
        assert set(warehouse.activities()) == {"b"}


class TestAccounts:
    def test_account_column_separates_accounts(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        for account in ("europe", "america"):
            export = objects.export([("a", "2", "x"), ("b", "3", "x")], as_of=45, account=account)
            warehouse.load(export, account_column="account")
        changed = objects.export([("a", "9", "x")], as_of=46, account="europe")
        assert counts(warehouse.load(changed, account_column="account")) == {"inserted": 1, "deleted": 2}
        older = objects.export([("a", "2", "x"), ("c", "3", "x")], as_of=44, account="america")
        assert counts(warehouse.load(older, account_column="account")) == {"superseded": 2}
        assert [(account, uuid) for account, uuid in warehouse.rows("account, uuid")] == [
            ("america", "a"),
            ("america", "b"),
            ("europe", "a"),
        ]

    def test_other_account_is_refused_without_account_column(
        self, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        warehouse.load(objects.export([("a", "2", "x")], account="europe"))
        with pytest.raises(AirflowFailException, match=r"'europe', and this object is from 'america'.*account_column"):
            warehouse.load(objects.export([("b", "2", "x")], as_of=41, account="america"))
        with pytest.raises(
            AirflowFailException, match=r"(?i)account_column=None, and this load has account_column='acc'"
        ):
            warehouse.load(objects.export([("b", "2", "x")], as_of=41), account_column="acc")
        assert set(warehouse.activities()) == {"a"}

    @pytest.mark.parametrize("account", [None, ""])
    def test_object_without_an_account_is_refused(
        self, account: Any, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        """The column would be NULL, which no condition finds: each load would add the rows once more."""
        export = objects.export([("a", "2", "x")], account=account)
        plans = objects.snapshot("plans", [{"uuid": "p"}], account=account)
        for source in (export, plans):
            with pytest.raises(AirflowFailException, match="has no chartmogul_conn_id"):
                warehouse.load(source, account_column="account")
            warehouse.load(source)

    def test_snapshots_of_accounts(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        for account in ("europe", "america"):
            rows = [{"uuid": "p1", "name": account}, {"uuid": "p2", "name": account}]
            warehouse.load(objects.snapshot("plans", rows, account=account), account_column="account")
        later = objects.snapshot("plans", [{"uuid": "p1", "name": "new"}], as_of=41, account="europe")
        warehouse.load(later, account_column="account")
        assert warehouse.rows("account, uuid, name", "chartmogul_plans") == [
            ("america", "p1", "america"),
            ("america", "p2", "america"),
            ("europe", "p1", "new"),
        ]

    def test_other_query_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        customers = [{"uuid": "c1"}]
        warehouse.load(objects.snapshot("customers", customers, query_params={"status": "Active"}))
        with pytest.raises(AirflowFailException, match="Give each query a table of its own"):
            warehouse.load(objects.snapshot("customers", customers, as_of=41))
        warehouse.load(objects.snapshot("customers", customers, as_of=41), table="all_{table}")
        warehouse.load(objects.snapshot("customers", [], as_of=42, query_params={"status": "Active"}), allow_empty=True)
        assert warehouse.rows("uuid", "chartmogul_customers") == []
        assert warehouse.rows("uuid", "all_customers") == [("c1",)]

    def test_other_resource_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.snapshot("plans", [{"uuid": "p"}]), table="everything")
        with pytest.raises(AirflowFailException, match=r"was loaded from plans, and this object holds customers"):
            warehouse.load(objects.snapshot("customers", [{"uuid": "c"}]), table="everything")
        assert warehouse.rows("uuid", "everything") == [("p",)]


INVOICES = [
    {
        "uuid": "i1",
        "currency": "USD",
        "line_items": [{"uuid": "l1", "amount_in_cents": 100}, {"uuid": "l2", "amount_in_cents": 200}],
        "transactions": [{"uuid": "t1", "result": "successful"}],
    },
    {"uuid": "i2", "currency": "EUR", "line_items": [{"uuid": "l3", "amount_in_cents": 300}], "transactions": []},
]


class TestSnapshotLoads:
    @pytest.mark.parametrize("file_format", [*TABLE_FORMATS, *RAW_FORMATS])
    def test_rows_are_replaced(self, file_format: str, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        rows = [
            {"uuid": "p1", "name": 'Gold, "old"', "interval_count": 1},
            {"uuid": "p2", "name": "", "interval_count": None},
        ]
        warehouse.load(objects.snapshot("plans", rows, file_format=file_format))
        assert warehouse.rows("uuid, name, interval_count", "chartmogul_plans") == [
            ("p1", 'Gold, "old"', 1),
            ("p2", None, None),
        ]
        later = [{"uuid": "p1", "name": "Gold", "interval_count": 2}, {"uuid": "p3", "name": "Iron"}]
        result = warehouse.load(objects.snapshot("plans", later, as_of=41, file_format=file_format))
        assert counts(result, "chartmogul_plans") == {"inserted": 2, "deleted": 2}
        assert warehouse.rows("uuid, name, interval_count", "chartmogul_plans") == [
            ("p1", "Gold", 2),
            ("p3", "Iron", None),
        ]

    def test_older_snapshot_is_skipped(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.snapshot("plans", [{"uuid": "new"}], as_of=41))
        result = warehouse.load(objects.snapshot("plans", [{"uuid": "old"}], as_of=40))
        assert counts(result, "chartmogul_plans") == {"skipped": 1}
        assert warehouse.rows("uuid", "chartmogul_plans") == [("new",)]

    def test_empty_snapshot_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.snapshot("plans", [], as_of=40))
        warehouse.load(objects.snapshot("plans", [{"uuid": "p"}], as_of=41))
        empty = objects.snapshot("plans", [], as_of=42)
        with pytest.raises(AirflowFailException, match="allow_empty=True"):
            warehouse.load(empty)
        assert warehouse.rows("uuid", "chartmogul_plans") == [("p",)]
        assert counts(warehouse.load(empty, allow_empty=True), "chartmogul_plans") == {"deleted": 1}
        assert warehouse.rows("uuid", "chartmogul_plans") == []

    def test_soft_deletes_and_returns(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        def load(uuids: Iterable[str], as_of: int) -> list[tuple[Any, ...]]:
            warehouse.load(
                objects.snapshot("plans", [{"uuid": uuid, "name": f"as of {as_of}"} for uuid in uuids], as_of=as_of),
                deletes="soft",
                allow_empty=True,
            )
            return warehouse.rows("uuid, name, _deleted_at", "chartmogul_plans")

        gone = day(41).isoformat()
        assert load("ab", 40) == [("a", "as of 40", None), ("b", "as of 40", None)]
        assert load("a", 41) == [("a", "as of 41", None), ("b", "as of 40", gone)]
        assert load("a", 42) == [("a", "as of 42", None), ("b", "as of 40", gone)]
        assert load("abc", 43) == [(uuid, "as of 43", None) for uuid in "abc"]
        assert load("", 44) == [(uuid, "as of 43", day(44).isoformat()) for uuid in "abc"]

    def test_soft_deletes_in_a_table_of_any_name(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        for as_of, uuids in ((40, "ab"), (41, "a")):
            plans = objects.snapshot("plans", [{"uuid": uuid} for uuid in uuids], as_of=as_of)
            warehouse.load(plans, deletes="soft", table="staged_row")
        assert warehouse.rows("uuid, _deleted_at", "staged_row") == [("a", None), ("b", day(41).isoformat())]

    def test_empty_snapshot_is_refused_with_soft_deletes(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.snapshot("plans", [{"uuid": "p"}]), deletes="soft")
        with pytest.raises(AirflowFailException, match="allow_empty=True"):
            warehouse.load(objects.snapshot("plans", [], as_of=41), deletes="soft")
        assert warehouse.rows("uuid, _deleted_at", "chartmogul_plans") == [("p", None)]

    @pytest.mark.parametrize("file_format", ["parquet", "csv.gz", "jsonl"])
    def test_children_are_loaded_with_their_parents(
        self, file_format: str, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        def rows() -> list[list[tuple[Any, ...]]]:
            return [
                warehouse.rows("uuid, currency, _deleted_at", "chartmogul_invoices"),
                warehouse.rows("uuid, invoice_uuid, amount_in_cents, _deleted_at", "chartmogul_invoice_line_items"),
                warehouse.rows("uuid, invoice_uuid, result, _deleted_at", "chartmogul_invoice_transactions"),
            ]

        warehouse.load(objects.snapshot("invoices", INVOICES, file_format=file_format), deletes="soft")
        expected = [
            [("i1", "USD", None), ("i2", "EUR", None)],
            [("l1", "i1", 100, None), ("l2", "i1", 200, None), ("l3", "i2", 300, None)],
            [("t1", "i1", "successful", None)],
        ]
        assert rows() == expected
        fewer = [{"uuid": "i1", "currency": "USD", "line_items": [INVOICES[0]["line_items"][0]], "transactions": []}]  # type: ignore[index]
        warehouse.load(objects.snapshot("invoices", fewer, as_of=41, file_format=file_format), deletes="soft")
        gone = day(41).isoformat()
        assert rows() == [
            [("i1", "USD", None), ("i2", "EUR", gone)],
            [("l1", "i1", 100, None), ("l2", "i1", 200, gone), ("l3", "i2", 300, gone)],
            [("t1", "i1", "successful", gone)],
        ]
        warehouse.load(objects.snapshot("invoices", INVOICES, as_of=42, file_format=file_format), deletes="soft")
        assert rows() == expected

    def test_failure_in_a_child_leaves_all_tables_unchanged(
        self, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        warehouse.load(objects.snapshot("invoices", INVOICES))
        doubled = [{**INVOICES[1], "line_items": [{"uuid": "x"}, {"uuid": "x"}], "transactions": []}]
        with pytest.raises(AirflowFailException, match=r"(?i)uuid does not identify the rows"):
            warehouse.load(objects.snapshot("invoices", doubled, as_of=41))
        assert len(warehouse.rows("uuid", "chartmogul_invoices")) == 2
        assert len(warehouse.rows("uuid", "chartmogul_invoice_line_items")) == 3

    def test_tables_need_names_of_their_own(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        with pytest.raises(AirflowFailException, match=r"put \{table\} into the parameter table"):
            warehouse.load(objects.snapshot("invoices", INVOICES), table="invoices")

    def test_table_without_a_key_is_replaced(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        for deletes, name in (("hard", "Acme"), ("soft", "Acme Inc")):
            warehouse.load(
                objects.snapshot("account", [{"id": "a", "name": name}]), deletes=deletes, table=f"{deletes}_{{table}}"
            )
            warehouse.load(
                objects.snapshot("account", [{"id": "a", "name": "Later"}], as_of=41),
                deletes=deletes,
                table=f"{deletes}_{{table}}",
            )
            assert warehouse.rows("id, name", f"{deletes}_account") == [("a", "Later")]

    def test_key_of_several_columns(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        rows = [{"plan_group_uuid": group, "uuid": plan} for group in "gh" for plan in "pq"]
        warehouse.load(objects.snapshot("plan_group_plans", rows), deletes="soft")
        warehouse.load(objects.snapshot("plan_group_plans", rows[:3], as_of=41), deletes="soft")
        found = warehouse.rows("plan_group_uuid, uuid, _deleted_at", "chartmogul_plan_group_plans")
        assert [deleted_at for *_, deleted_at in found] == [None, None, None, day(41).isoformat()]


class TestColumns:
    def test_new_columns_are_added(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export("uuid,date\na,2024-01-02\n"))
        result = warehouse.load(objects.export("extra,Date,UUID\nx,2024-01-03,b\n", as_of=41))
        assert [name.lower() for name in result[TABLE]["columns_added"]] == ["extra"]
        result = warehouse.load(objects.export("uuid,date\nc,2024-01-02\n", (day(2), day(3)), as_of=42))
        assert result[TABLE]["columns_added"] == []
        assert warehouse.rows("uuid, extra") == [("b", "x"), ("c", None)]
        assert warehouse.columns() == ["_loaded_at", "date", "extra", "uuid"]

    def test_case_of_columns_does_not_matter(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export("uuid,date,Type\na,2024-01-02,x\n"))
        warehouse.load(objects.export("UUID,date,type\nb,2024-01-03,y\n", (day(3), day(4)), as_of=41))
        assert warehouse.rows("uuid, type") == [("a", "x"), ("b", "y")]

    def test_loaded_at_is_set(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        before = datetime.now(UTC)
        warehouse.load(objects.export([("a", "2", "x"), ("b", "3", "x")]))
        moments = {datetime.fromisoformat(moment) for (moment,) in warehouse.rows("_loaded_at")}
        assert len(moments) == 1
        assert before <= moments.pop() <= datetime.now(UTC)

    def test_names_are_quoted(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        export = objects.export('"Activity ""ID""",when it is\n1,2024-01-02 03:04:05\n')
        warehouse.load(export, date_column="when it is", uuid_column='Activity "ID"')
        found = warehouse.rows('"Activity ""ID""", "when it is"')
        assert found == [("1", "2024-01-02T03:04:05+00:00")]

    def test_columns_of_users_keep_their_type(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.change(
            f"CREATE TABLE {TABLE} (uuid VARCHAR(40), date TIMESTAMP, amount DECIMAL(18, 2), seats INTEGER, note TEXT)"
        )
        export = objects.export(
            "uuid,date,amount,seats,note\na,2024-01-02T01:00:00+02:00,12.50,3,x\nb,2024-01-03,,,\n", as_of=41
        )
        warehouse.load(export)
        found = warehouse.query(f"SELECT uuid, date, amount, seats, note FROM {TABLE} ORDER BY uuid")
        assert [(*row[:2], row[2] and str(row[2]), *row[3:]) for row in found] == [
            ("a", datetime(2024, 1, 1, 23), "12.50", 3, "x"),
            ("b", datetime(2024, 1, 3), None, None, None),
        ]
        again = objects.export("uuid,date,amount,seats,note\na,2024-01-02,1,2.5,\n", as_of=42)
        with pytest.raises(AirflowFailException, match=r"(?s)seats.*2\.5"):
            warehouse.load(again)
        again = objects.export("uuid,date,amount,seats,note\na,2024-01-02,many,2,\n", as_of=42)
        with pytest.raises(AirflowFailException, match=r"amount.*many"):
            warehouse.load(again)
        assert len(warehouse.rows("uuid")) == 2

    @pytest.mark.parametrize("sql_type", ["DECIMAL(18, 2)", "NUMERIC(18, 0)", "BIGINT"])
    def test_no_number_is_rounded(self, sql_type: str, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """Warehouses round silently, each in its own way."""
        warehouse.change(f"CREATE TABLE {TABLE} (uuid VARCHAR(40), date TIMESTAMP WITH TIME ZONE, amount {sql_type})")
        export = objects.export("uuid,date,amount\na,2024-01-02,12.345\n")
        with pytest.raises(AirflowFailException, match=r"'amount', row 1: '12\.345'"):
            warehouse.load(export)
        with pytest.raises(AirflowFailException, match=r"'amount', row 1: '12\.345'"):
            warehouse.load(export, column_types={"amount": "decimal128(18, 3)"})
        assert warehouse.rows("uuid") == []
        warehouse.load(objects.export("uuid,date,amount\na,2024-01-02,12\n"))
        assert warehouse.query(f"SELECT amount FROM {TABLE}") == [(12,)]

    def test_date_column_refuses_times_of_day(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """Warehouses themselves convert a time to its date without an error."""
        warehouse.change(f"CREATE TABLE {TABLE} (uuid VARCHAR(40), date TIMESTAMP WITH TIME ZONE, starts DATE)")
        late = "uuid,date,starts\na,2024-01-02,2024-01-02T03:04:05Z\n"
        message = r"(?i)'starts', row 1: .*; column 'starts' of table .*activities is DATE: change its type"
        for column_type in ("string", TIME):
            with pytest.raises(AirflowFailException, match=message):
                warehouse.load(objects.export(late), column_types={"starts": column_type})
        assert warehouse.rows("uuid") == []
        forms = ("2024-01-02", "2024-01-02T00:00:00+00:00", "2024-01-02T02:00:00+02:00", "")
        text = "".join(f"{number},2024-01-02,{form}\n" for number, form in enumerate(forms))
        warehouse.load(objects.export(f"uuid,date,starts\n{text}"))
        starts = [row[1] for row in sorted(warehouse.query(f"SELECT uuid, starts FROM {TABLE}"))]
        assert starts == [*[date(2024, 1, 2)] * 3, None]

    def test_column_types_of_new_columns(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        types = {"amount": "decimal128(18, 2)", "seats": "int64"}
        for file_format in EXPORT_FORMATS:
            table = f"t_{file_format.replace('.', '_')}"
            export = objects.export("uuid,date,amount,seats\na,2024-01-02,12.5,3\n", file_format=file_format)
            warehouse.load(export, table=table, column_types=types)
            [(amount, seats)] = warehouse.query(f"SELECT amount, seats FROM {table}")
            assert (str(amount), seats) == ("12.50", 3)

    def test_column_that_the_load_fills_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        with pytest.raises(AirflowFailException, match="column '_LOADED_AT' of its own"):
            warehouse.load(objects.export("uuid,date,_LOADED_AT\na,2024-01-02,x\n"))
        with pytest.raises(AirflowFailException, match="another name as account_column"):
            warehouse.load(objects.export("uuid,date,account\na,2024-01-02,x\n"), account_column="Account")

    @pytest.mark.parametrize("sql_type", ["VARCHAR(30)", "DATE", "INTEGER"])
    def test_date_column_of_another_type_is_refused(
        self, sql_type: str, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        warehouse.change(f"CREATE TABLE {TABLE} (uuid VARCHAR(40), date {sql_type})")
        with pytest.raises(AirflowFailException, match=r"(?i)'date'.*change its type"):
            warehouse.load(objects.export([("a", "2", "x")]))

    def test_dates_without_times_need_whole_days(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        types = {"date": "date32"}
        afternoon = objects.export("uuid,date\na,2024-01-02\n", (day(2) + timedelta(hours=12), day(3)))
        with pytest.raises(AirflowFailException, match="inside a day"):
            warehouse.load(afternoon, column_types=types)
        warehouse.load(objects.export("uuid,date\na,2024-01-02\n", (day(2), day(3))), column_types=types)
        assert warehouse.rows("uuid") == [("a",)]

    @pytest.mark.parametrize("time", ["15:30:00Z", "00:00:00.000001Z"])
    def test_time_that_a_date_would_lose_is_refused(
        self, time: str, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        warehouse.change("CREATE TABLE chartmogul_customers (uuid VARCHAR(40), customer_since DATE)")
        midnight = [{"uuid": "c", "customer-since": "2024-01-02T01:00:00+01:00"}]
        warehouse.load(objects.snapshot("customers", midnight))
        later = [{"uuid": "c", "customer-since": f"2024-01-03T{time}"}]
        with pytest.raises(AirflowFailException, match=r"'customer_since', row 1: '2024-01-03 .*type date"):
            warehouse.load(objects.snapshot("customers", later, as_of=41))
        [(since,)] = warehouse.query("SELECT CAST(customer_since AS VARCHAR(10)) FROM chartmogul_customers")
        assert since == "2024-01-02"

    def test_text_with_a_time_that_a_date_would_lose_is_refused(
        self, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        warehouse.change(f"CREATE TABLE {TABLE} (uuid VARCHAR(40), due DATE)")
        header = "uuid,date,due\n"
        warehouse.load(objects.export(f"{header}a,2024-01-02,2024-01-03\nb,2024-01-02,2024-01-04 00:00:00 UTC\n"))
        with pytest.raises(AirflowFailException, match="'due', row 1: '2024-01-03 10:00' is not a value of type date"):
            warehouse.load(objects.export(f"{header}a,2024-01-02,2024-01-03 10:00\n", as_of=41))
        assert [str(due) for _, due in warehouse.rows("uuid, due")] == ["2024-01-03", "2024-01-04"]

    def test_grants_and_defaults_stay(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """Never a swap: what the user gave the table stays."""
        warehouse.change(
            f"CREATE TABLE {TABLE} (uuid VARCHAR(40), date TIMESTAMP WITH TIME ZONE, mine INTEGER DEFAULT 7)"
        )
        for as_of in (40, 41):
            warehouse.load(objects.export([("a", "2", "x")], as_of=as_of))
        assert warehouse.rows("uuid, mine") == [("a", 7)]


class TestSpellings:
    def test_view_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """A view may hide the rows that a load replaces."""
        warehouse.load(objects.export([("a", "2", "x"), ("b", "3", "y")]), table="base")
        warehouse.change("CREATE VIEW visible AS SELECT * FROM base WHERE type = 'x'")
        for table in ("visible", "VISIBLE"):
            with pytest.raises(AirflowFailException, match=r"(?i)\.visible is a view"):
                warehouse.load(objects.export([("b", "3", "y")], as_of=41), table=table)
        assert [uuid for (uuid,) in warehouse.rows("uuid", "base")] == ["a", "b"]

    def test_schema_is_created(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "2", "x")]), schema="reporting")
        warehouse.load(objects.export([("b", "2", "x")], as_of=41), table="reporting.chartmogul_activities")
        assert warehouse.rows("uuid", f"reporting.{TABLE}") == [("b",)]
        assert len(warehouse.query("SELECT * FROM reporting._chartmogul_loads")) == 1

    def test_spelling_of_the_table_does_not_matter(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("new", "2", "x")], as_of=45))
        older = objects.export([("old", "2", "x")], as_of=44)
        for table in (TABLE.upper(), "Chartmogul_{table}"):
            assert warehouse.load(older, table=table)[table.replace("{table}", "activities")]["superseded"] == 1
        assert warehouse.rows("uuid") == [("new",)]

    def test_name_that_is_too_long_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """PostgreSQL would cut it, and load plans and customers into one table."""
        with pytest.raises(AirflowFailException, match=r"names in .* have at most \d+"):
            warehouse.load(objects.snapshot("plans", [{"uuid": "p"}]), table="é" * 130 + "_{table}")

    @pytest.mark.parametrize("table", ["a.b.c", "a.", '"a'])
    def test_malformed_name_is_refused(self, table: str, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        with pytest.raises(AirflowFailException, match="is not a name"):
            warehouse.load(objects.export([("a", "2", "x")]), table=table)

    def test_table_of_the_loads_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        for table in ("_chartmogul_loads", "_Chartmogul_LOADS"):
            with pytest.raises(AirflowFailException, match=r"(?i)_chartmogul_loads records the loads"):
                warehouse.load(objects.export([("a", "2", "x")]), table=table)

    def test_contradicting_schema_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        with pytest.raises(AirflowFailException, match="another schema than schema='x'"):
            warehouse.load(objects.export([("a", "2", "x")]), table="y.t", schema="x")


DATES = {
    "2020-05-06T01:00:00": "2020-05-06T01:00:00+00:00",
    "2020-05-06 01:00:00 +0000": "2020-05-06T01:00:00+00:00",
    "2020-05-06 01:00:00 UTC": "2020-05-06T01:00:00+00:00",
    "2020-05-06": "2020-05-06T00:00:00+00:00",
    "2020-05-06T01:00:00Z": "2020-05-06T01:00:00+00:00",
    "2020-05-06T01:00:00+02:00": "2020-05-05T23:00:00+00:00",
}


class TestSameTableFromEveryFormat:
    @pytest.mark.parametrize("file_format", EXPORT_FORMATS)
    def test_forms_of_dates(self, file_format: str, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        text = "uuid,date\n" + "".join(f"{number},{form}\n" for number, form in enumerate(DATES))
        warehouse.load(objects.export(text, (None, None), file_format=file_format))
        assert [moment for _, moment in warehouse.rows("uuid, date")] == list(DATES.values())

    @pytest.mark.parametrize("file_format", EXPORT_FORMATS)
    def test_empty_text_is_null(self, file_format: str, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        text = 'uuid,date,a,b\n1,2024-01-02,,""\n2,2024-01-03,"x, ""y""\nz","ä\\n"\n'
        warehouse.load(objects.export(text, file_format=file_format))
        assert warehouse.rows("uuid, a, b") == [("1", None, None), ("2", 'x, "y"\nz', "ä\\n")]

    @pytest.mark.parametrize("file_format", EXPORT_FORMATS)
    @pytest.mark.parametrize("value", ["", '""'])
    def test_missing_uuid_is_refused(
        self, value: str, file_format: str, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        with pytest.raises(AirflowFailException, match=r"(?i)1 of the 2 rows of .* have no value in column 'uuid'"):
            warehouse.load(objects.export(f"uuid,date\na,2024-01-02\n{value},2024-01-03\n", file_format=file_format))

    @pytest.mark.parametrize("ends", [("\r\n", "\n"), ("\n", "\r\n"), ("\r\n", "\r\n")], ids=repr)
    @pytest.mark.parametrize("file_format", ["csv", "csv.gz", "zip"])
    def test_line_ends(
        self, file_format: str, ends: tuple[str, str], warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        text = f"uuid,date,a{ends[0]}1,2024-01-02,x{ends[1]}2,2024-01-03,{ends[1]}"
        warehouse.load(objects.export(text, file_format=file_format))
        assert warehouse.rows("uuid, a") == [("1", "x"), ("2", None)]

    def test_bare_quotes_lose_no_row(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        rows = [f"{n},2024-01-02,{5 if n in (3, 7) else ''}{chr(34) if n in (3, 7) else ''} pipe" for n in range(12)]
        warehouse.load(objects.export("uuid,date,name\n" + "\n".join(rows) + "\n"))
        assert len(warehouse.rows("uuid")) == 12

    def test_header_with_an_empty_name(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export("uuid,date,\na,2024-01-02,x\n"))
        assert warehouse.rows("uuid") == [("a",)]
        [made_up] = set(warehouse.columns()) - {"uuid", "date", "_loaded_at"}
        assert warehouse.rows(f'"{made_up}"') == [("x",)]

    def test_trailing_blank_lines(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export("uuid,date\na,2024-01-02\n\n\n"))
        assert warehouse.rows("uuid") == [("a",)]

    def test_nul_characters(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export("uuid,date,name\na,2024-01-02,O\0Neil\n"))
        assert warehouse.rows("uuid, name") == [("a", "ONeil")]

    def test_byte_order_mark(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export("\ufeffuuid,date\na,2024-01-02\n"))
        assert warehouse.rows("uuid") == [("a",)]


class TestRefusedObjects:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("uuid,when\n1,2024-01-02\n", "has no column 'date'; it has uuid, when"),
            ("id,date\n1,2024-01-02\n", "has no column 'uuid'; it has id, date.*or None"),
            ("uuid,date\n1,2024-01-02\n2,\n", "(?i)1 of the 2 rows of .* have no value in column 'date'"),
            ("uuid,date\n1,2024-01-02\n1,2024-01-03\n", "(?i)'uuid' does not identify the rows .* 2 of them have '1'"),
            ("uuid,date\n1,2024-01-02\n2,not a date\n", "(?s)date.*not a date"),
            ("uuid,date\n1,2024-01-02\n2,2024-01-03,more\n", "CSV|column|field"),
            ("uuid,date,Type,type\n1,2024-01-02,a,b\n", "(?i)type"),
        ],
        ids=[
            *("no date column", "no uuid column", "missing date", "duplicate uuid", "invalid date", "invalid CSV"),
            "duplicate column",
        ],
    )
    def test_refused_object_leaves_the_table_unchanged(
        self, content: str, message: str, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        warehouse.load(objects.export("uuid,date\n1,2024-01-02\n"))
        with pytest.raises(AirflowFailException, match=message):
            warehouse.load(objects.export(content, as_of=41))
        assert warehouse.rows("uuid") == [("1",)]
        assert warehouse.columns() == ["_loaded_at", "date", "uuid"]
        assert warehouse.tables() == ["_chartmogul_loads", TABLE]

    def test_row_of_another_type_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        warehouse.load(objects.export([("a", "2", "churn")]))
        mixed = objects.export([("b", "2", "churn"), ("c", "2", "lost")], as_of=41, activity_type="churn")
        with pytest.raises(
            AirflowFailException, match=r"(?i)of type 'churn', but has a row with 'lost' in column 'type'"
        ):
            warehouse.load(mixed)
        untyped = objects.export("uuid,date\na,2024-01-02\n", as_of=41, activity_type="churn")
        with pytest.raises(AirflowFailException, match=r"has no column 'type'.*type_column"):
            warehouse.load(untyped)
        assert set(warehouse.activities()) == {"a"}

    def test_changed_object_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        export = objects.export([("a", "2", "x")])
        path = Path(export["key"])
        path.write_text(path.read_text().replace("a,", "b,"))
        with pytest.raises(AirflowFailException, match=r"(?i)clear the transfer"):
            warehouse.load(export)
        assert warehouse.tables() == []

    def test_object_from_the_future_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """It would be newer than all objects to come, so that the table would never change again."""
        soon = datetime.now(UTC) + timedelta(minutes=30)
        warehouse.load(objects.export([("a", "2", "x")], as_of=soon))
        with pytest.raises(AirflowFailException, match=r"which is in the future.*Check the clocks"):
            warehouse.load(objects.export([("b", "2", "x")], as_of=soon + timedelta(days=1)))
        assert set(warehouse.activities()) == {"a"}

    def test_kept_object_of_another_window_is_refused(self, warehouse: WarehouseUnderTest, objects: Objects) -> None:
        """With if_exists="reuse" and one destination for all runs, each run keeps the object of the first."""
        warehouse.load(objects.export([("a", "2", "x"), ("b", "3", "x")], as_of=40))
        kept = objects.export([("a", "2", "x")], (day(3), day(4)), as_of=41)
        kept = {**kept, "exported_at": None, "modified_at": kept["exported_at"], "sha256": None}
        with pytest.raises(AirflowFailException, match="none of its 1 rows is inside the window"):
            warehouse.load(kept)
        assert set(warehouse.activities()) == {"a", "b"}
        warehouse.load({**kept, "interval_start": day(2).isoformat()})
        assert set(warehouse.activities()) == {"a"}

    def test_one_refused_object_keeps_the_loads_before_it(
        self, warehouse: WarehouseUnderTest, objects: Objects
    ) -> None:
        good = objects.export([("a", "2", "x")], as_of=41)
        with pytest.raises(AirflowFailException):
            warehouse.load([objects.export("uuid,when\n", as_of=42), good])
        assert set(warehouse.activities()) == {"a"}
