# SPDX-License-Identifier: Apache-2.0
"""Tables of rows: one schema whatever the rows are, no value lost, and the same values in Parquet and CSV."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.api.resources import (
    BOOLEAN,
    DATE,
    INTEGER,
    JSON,
    NUMBER,
    RESOURCES,
    TEXT,
    TIME,
    Table,
    column_name,
    get_resource,
)
from airflow_provider_chartmogul.exceptions import ColumnTypesError
from airflow_provider_chartmogul.formats.column_selection import ColumnSelection
from airflow_provider_chartmogul.formats.tables import TableWriter, check_column_types
from tests.resource_rows import csv_text

EXTRACTED_AT = datetime(2026, 3, 1, 12, 30, 15, 250000, tzinfo=UTC)
FORMATS = ["parquet", "csv", "csv.gz"]

TABLES = [table for resource in RESOURCES.values() for table in resource.tables]
CUSTOMERS = get_resource("customers").main_table
INVOICES = get_resource("invoices").main_table

ARROW_TYPES = {
    TEXT: pa.string(),
    INTEGER: pa.int64(),
    NUMBER: pa.float64(),
    BOOLEAN: pa.bool_(),
    DATE: pa.date32(),
    TIME: pa.timestamp("us", "UTC"),
    JSON: pa.string(),
}

Row = dict[str, Any]


def write(path: Path, pages: list[list[Row]], table: Table = CUSTOMERS, **parameters: Any) -> TableWriter:
    """Write pages in the format that the file's name ends with."""
    parameters.setdefault("selection", ColumnSelection(table))
    output_format = path.name.partition(".")[2]
    with TableWriter(path, output_format=output_format, table=table, extracted_at=EXTRACTED_AT, **parameters) as writer:
        for page in pages:
            writer.write(page, [])
    return writer


def read_parquet(path: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def read_csv(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def write_rows(tmp_path: Path, rows: list[Row], table: Table = CUSTOMERS, **parameters: Any) -> list[Row]:
    """Write rows as a Parquet file, and return what it holds."""
    path = tmp_path / "rows.parquet"
    write(path, [rows], table, **parameters)
    return read_parquet(path)


def extra_of(row: Row) -> Row | None:
    return None if row["_extra"] is None else json.loads(row["_extra"])


# The schema


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_schema_is_the_catalogue_s_without_rows(tmp_path: Path, table: Table) -> None:
    path = tmp_path / "rows.parquet"
    writer = write(path, [], table)
    expected = {name: ARROW_TYPES[type_name] for name, type_name in table.column_types.items()}
    schema = pq.read_schema(path)
    assert list(zip(schema.names, schema.types, strict=True)) == [
        *expected.items(),
        ("_extra", pa.string()),
        ("_extracted_at", pa.timestamp("us", "UTC")),
    ]
    assert writer.columns == {
        **{name: TEXT if type_name == JSON else type_name for name, type_name in table.column_types.items()},
        "_extra": TEXT,
        "_extracted_at": TIME,
    }
    assert pq.read_metadata(path).num_rows == writer.rows == 0


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_csv_has_a_header_without_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    columns = write(path, []).columns
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    assert next(csv.reader([text])) == list(columns)


@pytest.mark.parametrize("value", ["text", 7, 7.5, True, None, "", [], {}, ["a"], {"a": 1}], ids=repr)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_schema_does_not_depend_on_the_rows(tmp_path: Path, table: Table, value: Any) -> None:
    for name, page in {
        "columns.parquet": [{key.split(".")[0]: value for key in table.columns}],
        "inner.parquet": [nest(dict.fromkeys(table.columns, value))],
        "unknown.parquet": [{"new": value}, {}],
    }.items():
        write(tmp_path / name, [page], table)
        write(tmp_path / "none.parquet", [], table)
        assert pq.read_schema(tmp_path / name) == pq.read_schema(tmp_path / "none.parquet")


@pytest.mark.parametrize("output_format", FORMATS)
def test_same_rows_give_the_same_file(tmp_path: Path, output_format: str) -> None:
    rows = [{"uuid": f"cus_{number}", "mrr": number} for number in range(50)]
    first, second = tmp_path / f"a.{output_format}", tmp_path / f"b.{output_format}"
    write(first, [rows])
    write(second, [rows])
    assert first.read_bytes() == second.read_bytes()


def nest(values: Row) -> Row:
    """A row with these values, by the keys of the catalogue."""
    row: Row = {}
    for key, value in values.items():
        name, _, inner = key.partition(".")
        if inner:
            row.setdefault(name, {})[inner] = value
        else:
            row[key] = value
    return row


# Rows


def test_row_of_a_customer(tmp_path: Path) -> None:
    customer = {
        "id": 7,
        "uuid": "cus_1",
        "name": 'Zoë, "Z"',
        "customer-since": "2024-01-31T00:00:00-04:00",
        "attributes": {"custom": {"CAC": 5}, "clearbit": {}, "tags": ["a"], "hubspot": {"vip": True}},
        "lead_created_at": "2024-01-30T00:00:00.000Z",
        "address": {"country": "Germany", "state": None, "city": "", "address_zip": "1"},
        "mrr": 100,
        "segment": "large",
    }
    (row,) = write_rows(tmp_path, [customer])
    assert {name: value for name, value in row.items() if value is not None} == {
        "id": 7,
        "uuid": "cus_1",
        "name": 'Zoë, "Z"',
        "customer_since": datetime(2024, 1, 31, 4, tzinfo=UTC),
        "attributes_custom": '{"CAC":5}',
        "attributes_clearbit": "{}",
        "attributes_tags": '["a"]',
        "lead_created_at": datetime(2024, 1, 30, tzinfo=UTC),
        "address_country": "Germany",
        "address_city": "",
        "address_address_zip": "1",
        "mrr": 100,
        "_extra": '{"segment":"large","attributes.hubspot":{"vip":true}}',
        "_extracted_at": EXTRACTED_AT,
    }


def test_extraction_time_is_stored_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    local = datetime.fromisoformat("2026-03-01T07:30:15.250-05:00")
    selection = ColumnSelection(CUSTOMERS)
    with TableWriter(path, output_format="parquet", table=CUSTOMERS, extracted_at=local, selection=selection) as writer:
        writer.write([{}])
    assert read_parquet(path)[0]["_extracted_at"] == EXTRACTED_AT


def test_unknown_keys_and_misfits_go_to_extra_under_the_api_s_keys(tmp_path: Path) -> None:
    writer = write(
        tmp_path / "rows.parquet",
        [
            [
                {"uuid": "1", "customer-since": "yesterday", "mrr": 1.5},
                {"uuid": "2", "address": {"city": ["Berlin"], "street": None}, "mrr": 1},
                {"uuid": "3", "mrr": 2**63, "new": None},
                {"uuid": "4"},
            ],
            [{"uuid": "5", "new": []}],
        ],
    )
    rows = read_parquet(tmp_path / "rows.parquet")
    assert [extra_of(row) for row in rows] == [
        {"customer-since": "yesterday", "mrr": 1.5},
        {"address.city": ["Berlin"], "address.street": None},
        {"mrr": 2**63, "new": None},
        None,
        {"new": []},
    ]
    assert [row["mrr"] for row in rows] == [None, 1, None, None, None]
    assert writer.extra_keys == {"customer-since": 1, "mrr": 2, "address.city": 1, "address.street": 1, "new": 2}
    assert writer.rows == 5


@pytest.mark.parametrize(
    ("value", "extra"),
    [
        (None, None),
        ("", None),
        ("Berlin", {"address": "Berlin"}),
        ([], {"address": []}),
        ([{"city": "Berlin"}], {"address": [{"city": "Berlin"}]}),
        (0, {"address": 0}),
        (False, {"address": False}),
    ],
)
def test_value_in_place_of_an_object_goes_to_extra_whole(tmp_path: Path, value: Any, extra: Row | None) -> None:
    first, second, third = write_rows(tmp_path, [{"address": value}, {"address": {"city": "Paris"}}, {}])
    assert [first[f"address_{key}"] for key in ("city", "country", "state", "address_zip")] == [None] * 4
    assert (extra_of(first), extra_of(second), extra_of(third)) == (extra, None, None)
    assert second["address_city"] == "Paris"


@pytest.mark.parametrize("value", ["\ud800", {"a": json.loads("1e400")}, {"\udfff": ["é"]}], ids=ascii)
def test_extra_is_valid_json_in_utf_8(tmp_path: Path, value: Any) -> None:
    (row,) = write_rows(tmp_path, [{"uuid": "1", "new": value}])
    row["_extra"].encode()
    read = json.loads(row["_extra"], parse_constant=pytest.fail)["new"]
    assert read == value or read == {"a": "Infinity"}


def test_nested_rows_are_not_unknown_keys(tmp_path: Path) -> None:
    rows = [
        {"uuid": "1", "line_items": [{"uuid": "li_1"}], "transactions": []},
        {"uuid": "2", "line_items": None, "transactions": ["cash"]},
        {"uuid": "3"},
        {"uuid": "4", "line_items": {"uuid": "li_2"}, "transactions": ""},
    ]
    selection = ColumnSelection(INVOICES, other_tables=get_resource("invoices").tables)
    written = write_rows(tmp_path, rows, INVOICES, selection=selection)
    assert [extra_of(row) for row in written] == [None, {"transactions": ["cash"]}, None, None]


# Settings


def test_column_types_add_columns_for_values_inside_json(tmp_path: Path) -> None:
    rows = [
        {"uuid": "1", "attributes": {"custom": {"CAC": 5, "vip": True}}},
        {"uuid": "2", "attributes": {"custom": {"CAC": "a lot"}}},
        {"uuid": "3", "attributes": {"custom": {"CAC": ""}}},
        {"uuid": "4", "attributes": {"custom": ["CAC"]}},
        {"uuid": "5", "attributes": None},
    ]
    column_types = {"attributes.custom.CAC": "int64", "attributes.custom.vip": "bool", "mrr": "decimal128(12, 2)"}
    check_column_types(CUSTOMERS, column_types)
    path = tmp_path / "rows.parquet"
    columns = write(path, [rows], column_types=column_types).columns
    assert list(columns.items())[-4:-2] == [("attributes_custom_cac", "int64"), ("attributes_custom_vip", "bool")]
    assert columns["mrr"] == "decimal128(12, 2)"
    schema = pq.read_schema(path)
    assert schema.names == list(columns)
    assert schema.field("mrr").type == pa.decimal128(12, 2)
    written = read_parquet(path)
    assert [row["attributes_custom_cac"] for row in written] == [5, None, None, None, None]
    assert [row["attributes_custom_vip"] for row in written] == [True, None, None, None, None]
    assert [extra_of(row) for row in written] == [None, {"attributes.custom.CAC": "a lot"}, None, None, None]
    assert [row["attributes_custom"] for row in written] == [
        *('{"CAC":5,"vip":true}', '{"CAC":"a lot"}', '{"CAC":""}', '["CAC"]', None)
    ]


@pytest.mark.parametrize(
    "column_types",
    [{"mrr": "money"}, {"mrr": "binary"}, {"mmr": "int64"}, {"mrr": None}, {"attributes.custom.CAC": "json"}],
)
def test_column_types_are_checked_before_a_file_is_written(tmp_path: Path, column_types: Any) -> None:
    with pytest.raises(ColumnTypesError):
        check_column_types(CUSTOMERS, column_types)
    with pytest.raises(ColumnTypesError):
        write(tmp_path / "rows.parquet", [], column_types=column_types)
    assert not list(tmp_path.iterdir())


def test_excluded_columns_leave_no_trace(tmp_path: Path) -> None:
    secret = "Ada Lovelace"
    rows = [
        {"uuid": "1", "name": secret, "email": [secret], "address": {"city": secret, "country": secret}},
        {"uuid": "2", "mrr": "much", "address": secret, "new": "kept"},
        {"uuid": "3", "attributes": {"custom": {"CAC": 5, "name": secret}, "clearbit": {"name": secret}}},
    ]
    selection = ColumnSelection(
        CUSTOMERS, exclude_columns=["name", "email", "address", "attributes.custom", "attributes_clearbit"]
    )
    parameters: Any = {"selection": selection, "column_types": {"attributes.custom.CAC": "int64"}}
    for output_format in FORMATS:
        path = tmp_path / f"rows.{output_format}"
        columns = write(path, [rows], **parameters).columns
        assert {"name", "email", "address_city", "attributes_custom"}.isdisjoint(columns)
        written = read_parquet(path) if output_format == "parquet" else read_csv(path)
        assert secret not in str(written)
        assert [extra_of(row) if row["_extra"] else None for row in written] == [
            *(None, {"new": "kept", "mrr": "much"}, None)
        ]
        assert str(written[2]["attributes_custom_cac"]) == "5"


def test_listed_columns_are_the_only_ones(tmp_path: Path) -> None:
    rows = [{"uuid": "1", "mrr": "much", "name": "Ada", "new": 1}]
    listed, with_unknown = (
        write_rows(tmp_path, rows, selection=ColumnSelection(CUSTOMERS, columns))[0]
        for columns in (["mrr"], ["mrr", "_extra"])
    )
    assert list(listed) == list(with_unknown) == ["uuid", "mrr", "_extra", "_extracted_at"]
    assert extra_of(listed) == {"mrr": "much"}, "the value of a listed column is not lost"
    assert extra_of(with_unknown) == {"mrr": "much", "new": 1}


def test_extra_can_be_excluded(tmp_path: Path) -> None:
    selection = ColumnSelection(CUSTOMERS, exclude_columns=["_extra"])
    writer = write(tmp_path / "rows.parquet", [[{"uuid": "1", "new": 1, "mrr": "much"}]], selection=selection)
    (row,) = read_parquet(tmp_path / "rows.parquet")
    assert list(row) == list(writer.columns) == [*CUSTOMERS.column_types, "_extracted_at"]


# The files


def test_row_groups_hold_ten_thousand_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    generator = random.Random(7)
    sizes = [200] * 60 + [1] * 300 + [generator.randrange(400) for _ in range(50)] + [25_000]
    numbers = iter(range(sum(sizes)))
    write(path, [[{"id": next(numbers)} for _ in range(size)] for size in sizes])
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert set(groups[:-1]) == {10_000}
    assert sum(groups) == sum(sizes)
    assert [row["id"] for row in read_parquet(path)] == list(range(sum(sizes)))
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_csv_is_quoted_and_tells_null_from_empty_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    table = Table("things", {"uuid": TEXT, "count": INTEGER, "ratio": NUMBER, "at": TIME, "on": DATE, "is": BOOLEAN})
    write(
        path,
        [
            [
                {"uuid": 'a"b,\r\nc', "count": 7, "ratio": 0.1, "at": "2024-01-31T01:00:00+01:00", "is": True},
                {"uuid": "", "on": "2024-01-31", "new": ["é"]},
                {},
            ]
        ],
        table,
    )
    extracted_at = '"2026-03-01T12:30:15.250000Z"'
    assert path.read_bytes().decode() == (
        '"uuid","count","ratio","at","on","is","_extra","_extracted_at"\n'
        f'"a""b,\r\nc",7,0.1,"2024-01-31T00:00:00.000000Z",,true,,{extracted_at}\n'
        f'"",,,,2024-01-31,,"{{""new"":[""é""]}}",{extracted_at}\n'
        f",,,,,,,{extracted_at}\n"
    )


def test_times_with_other_zones_are_in_utc_in_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    column_types = {
        "customer-since": "timestamp[ms, tz=Europe/Berlin]",
        "lead_created_at": "timestamp[s]",
        "free_trial_started_at": "timestamp[ns, tz=UTC]",
    }
    write(path, [[dict.fromkeys(column_types, "2024-01-31T01:00:00+01:00")]], column_types=column_types)
    (row,) = read_csv(path)
    assert [row["customer_since"], row["lead_created_at"], row["free_trial_started_at"]] == [
        *("2024-01-31T00:00:00.000Z", "2024-01-31T00:00:00", "2024-01-31T00:00:00.000000000Z")
    ]


@pytest.mark.parametrize("output_format", FORMATS)
def test_file_can_be_closed_twice(tmp_path: Path, output_format: str) -> None:
    path = tmp_path / f"rows.{output_format}"
    selection = ColumnSelection(CUSTOMERS)
    with TableWriter(
        path, output_format=output_format, table=CUSTOMERS, extracted_at=EXTRACTED_AT, selection=selection
    ) as writer:
        writer.write([{"uuid": "1"}])
        writer.close()
        assert len(read_parquet(path) if output_format == "parquet" else read_csv(path)) == 1


def test_failure_closes_the_file(tmp_path: Path) -> None:
    for output_format in FORMATS:
        path = tmp_path / f"rows.{output_format}"
        with pytest.raises(RuntimeError, match="stopped"):
            write(path, FailingPages())  # type: ignore[arg-type]
        path.unlink()


class FailingPages(list[Any]):
    def __iter__(self) -> Any:
        yield [{"uuid": "1"}]
        raise RuntimeError("stopped")


# No value is lost

texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
times = st.builds(
    lambda time, form: time.strftime("%Y-%m-%dT%H:%M:%S") + form,
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.sampled_from(["Z", "+00:00", ".000Z", ".123456Z", "-04:00", ".5+05:30", ""]),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    TEXT: texts,
    INTEGER: st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9).map(str) | st.integers(-9, 9).map(float),
    NUMBER: numbers | st.floats(allow_nan=False, allow_infinity=False).map(str),
    BOOLEAN: st.booleans(),
    DATE: st.dates().map(date.isoformat),
    TIME: times | st.dates().map(date.isoformat),
    JSON: anything,
}


@st.composite
def rows_of(draw: st.DrawFn, table: Table) -> list[Row]:
    """Rows with most values of the right type, some of another, some keys missing, and some that are unknown."""
    columns = {key: VALUES[type_name] | st.none() | st.just("") for key, type_name in table.columns.items()}
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        keys = draw(st.lists(st.sampled_from(list(columns)), max_size=5, unique=True))
        row = nest({key: draw(columns[key]) for key in keys})
        for key in draw(st.lists(st.sampled_from(list(columns)), max_size=2)):
            row[key.split(".")[0]] = draw(anything)
        for item in (row, *(value for value in row.values() if isinstance(value, dict))):
            item.update(draw(st.dictionaries(st.sampled_from(["new", "Größe", "x-y"]), anything, max_size=1)))
        rows.append(row)
    return rows


def is_same(type_name: str, value: Any, written: Any) -> bool:
    """Tell whether a column holds a value of the API, which may be in another form."""
    if isinstance(written, bool) or isinstance(value, bool):
        return written is value
    if type_name == TEXT:
        return bool(written == (value if isinstance(value, str) else json.dumps(value)))
    if type_name in (INTEGER, NUMBER):
        return bool(written == value) if not isinstance(value, str) else Decimal(str(written)) == Decimal(value)
    if type_name == DATE:
        return bool(written.isoformat() == value)
    time = datetime.fromisoformat(value)
    return bool(written == (time if time.tzinfo else time.replace(tzinfo=UTC)))


def assert_nothing_is_lost(table: Table, row: Row, written: Row) -> None:
    extra = extra_of(written) or {}
    flattened = {key.partition(".")[0] for key in table.columns if "." in key}
    values: Row = {}
    for key, value in row.items():
        if key in flattened and isinstance(value, dict):
            values |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            values[key] = value
    for key, value in values.items():
        if key in extra:
            assert extra.pop(key) == value
            assert key not in table.columns or written[column_name(key)] is None
        elif key in flattened or table.columns[key] == JSON:
            column = None if key in flattened else written[column_name(key)]
            assert value in (None, "") if column is None else json.loads(column) == value
        elif written[column_name(key)] is None:
            assert value is None or (value == "" and table.columns[key] != TEXT)
        else:
            assert is_same(table.columns[key], value, written[column_name(key)])
    assert extra == {}, "nothing else is in there"
    absent = {column_name(key) for key in table.columns if key not in values}
    assert all(written[name] is None for name in absent)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TABLES).flatmap(lambda table: st.tuples(st.just(table), rows_of(table))))
def test_no_value_is_lost(table_and_rows: tuple[Table, list[Row]]) -> None:
    table, rows = table_and_rows
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write(path, [rows], table)
        written = read_parquet(path)
        for row, written_row in zip(rows, written, strict=True):
            assert_nothing_is_lost(table, row, written_row)
        for name in ("rows.csv", "rows.csv.gz"):
            path = Path(folder) / name
            write(path, [rows], table)
            for text_row, written_row in zip(read_csv(path), written, strict=True):
                assert_same_values(text_row, written_row)


def assert_same_values(text_row: dict[str, str], written: Row) -> None:
    assert list(text_row) == list(written)
    for name, value in written.items():
        if isinstance(value, float):
            assert float(text_row[name]) == value
        else:
            assert text_row[name] == csv_text(value)
