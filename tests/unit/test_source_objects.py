# SPDX-License-Identifier: Apache-2.0
"""The source of a load is read in all of its forms, in the order of its objects' age; mistakes are explained."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.exceptions import DestinationError, ObjectStorageError, SourceError
from airflow_provider_chartmogul.warehouse.source_objects import SourceBatch, SourceObject, parse_source

LOG = logging.getLogger("test")


def export(name: str = "x", day: int = 1, **changes: Any) -> dict[str, Any]:
    """Return XCom `object` of an export."""
    return {
        "uri": f"s3://b/{name}.csv.gz",
        "resource": "activities",
        "table": "activities",
        "format": "csv.gz",
        "query_params": None,
        "interval_start": f"2024-01-{day:02}T00:00:00+00:00",
        "interval_end": f"2024-01-{day + 1:02}T00:00:00+00:00",
        "activity_type": None,
        "export_id": f"e-{day}",
        "exported_at": f"2024-02-{day:02}T00:00:00+00:00",
        "extracted_at": None,
        "modified_at": None,
        "chartmogul_conn_id": "chartmogul_default",
        **changes,
    }


def walk(table: str = "invoices", day: int = 1, **changes: Any) -> dict[str, Any]:
    """Return XCom `object` of a snapshot."""
    return export(
        f"{table}-{day}",
        day,
        resource="invoices",
        table=table,
        interval_start=None,
        interval_end=None,
        export_id=None,
        exported_at=None,
        extracted_at=f"2024-02-{day:02}T00:00:00+00:00",
        **changes,
    )


def parse(source: object, conn_id: str | None = None) -> list[SourceBatch]:
    return parse_source(source, object_storage_conn_id=conn_id, log=LOG)


def uris(source: object) -> list[list[str]]:
    return [[one.uri for one in batch.objects] for batch in parse(source)]


class LazySequence(Sequence[Any]):
    """A sequence that is no list, as Airflow gives the outputs of mapped tasks."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]


@pytest.mark.parametrize(
    "source", [None, "", "  ", "null", "None", "[]", [], {}, LazySequence(), [None, None], [[], None], "{}"]
)
def test_nothing_is_no_batch(source: object) -> None:
    assert parse(source) == []


@pytest.mark.parametrize(
    "form",
    [
        lambda one: one,
        lambda one: {"activities": one},
        lambda one: [one],
        lambda one: [{"activities": one}],
        lambda one: LazySequence(None, one),
        lambda one: iter([one]),
        json.dumps,
        lambda one: json.dumps([one]),
        lambda one: json.dumps({"activities": one}),
        # What a template renders without the filter tojson.
        str,
        lambda one: f" {[one]} ",
    ],
)
def test_every_form_of_one_object(form: Any) -> None:
    (batch,) = parse(form(export()), "lake")
    (one,) = batch.objects
    assert one == SourceObject("s3://b/x.csv.gz", export(), "lake")
    assert (one.resource, one.table, one.format) == ("activities", "activities", "csv.gz")
    assert one.as_of == batch.as_of == datetime(2024, 2, 1, tzinfo=UTC)
    assert one.window == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    assert (one.conn_id, one.export_id, one.activity_type) == ("chartmogul_default", "e-1", None)
    assert one.query_params == {}
    assert one.stored.conn_id == "lake"


def test_batches_come_in_the_order_of_their_age() -> None:
    assert uris([export("c", 3), export("a", 1), export("b", 2)]) == [
        ["s3://b/a.csv.gz"],
        ["s3://b/b.csv.gz"],
        ["s3://b/c.csv.gz"],
    ]


def test_objects_of_a_walk_are_one_batch_with_the_main_table_first() -> None:
    tables = ("invoice_transactions", "invoice_line_items", "invoices")
    main_first = [[f"s3://b/{table}-1.csv.gz" for table in ("invoices", "invoice_line_items", "invoice_transactions")]]
    assert uris({table: walk(table) for table in tables}) == main_first
    assert uris([walk(table) for table in tables]) == main_first, "as a prefix lists them"


def test_two_walks_are_two_batches() -> None:
    tables = ("invoices", "invoice_line_items")
    found = uris([{table: walk(table, day) for table in tables} for day in (2, 1)])
    assert found == [[f"s3://b/{table}-{day}.csv.gz" for table in tables] for day in (1, 2)]


def test_objects_of_two_accounts_are_two_batches() -> None:
    assert len(parse([walk(), walk("invoice_line_items", chartmogul_conn_id="other")])) == 2
    assert len(parse([walk(), walk("invoice_line_items", query_params={"data_source_uuid": "d"})])) == 2


def test_objects_that_existed_before_belong_together_if_they_were_given_together() -> None:
    old = {
        table: {**walk(table), "extracted_at": None, "modified_at": f"2024-02-0{day}T00:00:00+00:00"}
        for day, table in ((1, "invoice_line_items"), (2, "invoices"))
    }
    (batch,) = parse(old)
    assert batch.as_of == datetime(2024, 2, 2, tzinfo=UTC)
    assert len(parse(list(old.values()))) == 2


def test_the_same_object_twice_is_loaded_once() -> None:
    assert len(parse([export(), export(), {"activities": export()}])) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"interval_end": "2024-01-03T00:00:00+00:00"},
        {"interval_start": None},
        {"activity_type": "churn"},
        {"chartmogul_conn_id": "other"},
        # A transfer that kept the object of another window.
        {
            "interval_start": "2023-12-31T00:00:00+00:00",
            "exported_at": None,
            "modified_at": "2024-02-01T00:00:00+00:00",
        },
    ],
)
def test_two_transfers_to_one_destination_are_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"several transfers have s3://b/x\.csv\.gz as their object"):
        parse([export(), export(**changes)])


def test_other_content_under_the_same_name_and_age_is_not_left_out() -> None:
    assert len(parse([export(sha256="a"), export(sha256="b"), export(sha256="a")])) == 2


def test_the_same_export_in_two_formats_is_two_batches() -> None:
    assert uris([export(), export("y")]) == [["s3://b/x.csv.gz"], ["s3://b/y.csv.gz"]]


@pytest.mark.parametrize("known", ["exported_at", "extracted_at", "modified_at"])
def test_age_is_the_first_time_that_is_known(known: str) -> None:
    times = {"exported_at": None, "extracted_at": None, "modified_at": "2030-01-01T00:00:00+00:00"}
    times[known] = "2024-05-01T02:00:00+02:00"
    (batch,) = parse(export(**times))
    assert batch.as_of == datetime(2024, 5, 1, tzinfo=UTC)


def test_open_window() -> None:
    (batch,) = parse(export(interval_start=None))
    assert batch.objects[0].window == (None, datetime(2024, 1, 2, tzinfo=UTC))
    (batch,) = parse(export(interval_start=None, interval_end=None))
    assert batch.objects[0].window == (None, None)


def test_snapshot_has_no_window() -> None:
    assert parse(walk())[0].objects[0].window is None


def test_window_of_metrics_contains_the_dates_of_its_rows_in_every_time_zone() -> None:
    """Midnight in New York is five o'clock in UTC, and the row of that day is dated by the day alone."""
    metrics = {
        **walk(),
        "resource": "metrics",
        "table": "metrics",
        "interval_start": "2024-01-01T05:00:00+00:00",
        "interval_end": "2024-01-03T05:00:00+00:00",
        "start_date": "2024-01-01",
        "end_date": "2024-01-02",
    }
    (batch,) = parse(metrics)
    assert batch.objects[0].window == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "not 7"),
        (b"{}", "not b'{}'"),
        ("activities.csv", "not 'activities.csv'"),
        ("{'uri': ", "looks like JSON, but is not"),
        ("LazyXComSequence([1 item])", "not 'LazyXComSequence"),
        ("[s3://b/x.csv]", "looks like JSON, but is not"),
        ({"rows": 7}, "not a dictionary with the keys 'rows'"),
        ([{"rows": 7}], "not a dictionary with the keys 'rows'"),
        ({"activities": export(), "rows": 7}, "not a dictionary with the keys 'activities', 'rows'"),
        ([7], "not 7"),
    ],
)
def test_malformed_source_is_explained(source: object, message: str) -> None:
    with pytest.raises(SourceError) as raised:
        parse(source)
    assert message in str(raised.value)
    assert str(raised.value).startswith("source is the XCom 'object' or 'objects' of a transfer")


def test_error_shows_no_signed_url() -> None:
    with pytest.raises(DestinationError, match=r"https://files.example.com/x.csv\?…' has a '\?'") as raised:
        parse("https://files.example.com/x.csv?X-Amz-Signature=secret")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resource": None}, "has None as resource"),
        ({"resource": "gadgets"}, "is from the resource 'gadgets', which this version does not know"),
        ({"table": "invoices"}, "holds the table 'invoices', but activities has only activities"),
        ({"format": None}, "has None as format"),
        ({"exported_at": None}, "has none of exported_at, extracted_at, modified_at"),
        ({"exported_at": "yesterday"}, "has 'yesterday' as exported_at, which is not a time in ISO 8601"),
        ({"interval_start": 5}, "has 5 as interval_start, which is not a time"),
        ({"query_params": "a=b"}, "has 'a=b' as query_params, which is not a dictionary"),
    ],
)
def test_malformed_metadata_is_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=r"s3://b/x\.csv\.gz") as raised:
        parse(export(**changes))
    assert message in str(raised.value)


def test_mistake_in_the_last_object_is_found_before_the_first_is_loaded() -> None:
    def objects() -> Iterator[dict[str, Any]]:
        yield export()
        yield export("y", exported_at="never")

    with pytest.raises(SourceError, match="never"):
        parse(objects())


def test_object_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ObjectStorageError, match=r"could not read file://.*x\.parquet"):
        parse(f"{tmp_path}/x.parquet")


def test_prefix_without_objects_is_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert parse(f"file://{tmp_path}/") == []
    assert parse(f"{tmp_path}/not-there/") == []
    assert f"There are no objects below file://{tmp_path}/" in caplog.text


def test_connection_in_the_uri_contradicts_another(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="object_storage_conn_id is 'lake'"):
        parse(f"file://other@{tmp_path}/x.csv", "lake")
