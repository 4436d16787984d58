# SPDX-License-Identifier: Apache-2.0
"""Which values fit which type, and what becomes of them; a value never depends on its neighbours."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_chartmogul.api.resources import BOOLEAN, DATE, INTEGER, JSON, NUMBER, TEXT, TIME, get_resource
from airflow_provider_chartmogul.exceptions import ColumnTypesError
from airflow_provider_chartmogul.formats.column_values import Converter, converter_for
from airflow_provider_chartmogul.formats.columns import Column, list_columns, look_up

HALF_PAIR = "\ud800"
INFINITY = json.loads("1e400")

#: By type: values that fit, with what they become.
FITTING: dict[str, list[tuple[Any, Any]]] = {
    TEXT: [
        ("Zoë", "Zoë"),
        ("", ""),
        (" 7 ", " 7 "),
        ("a\0b\nc", "a\0b\nc"),
        (7, "7"),
        (-7.5, "-7.5"),
        (1e300, "1e+300"),
        (2**70, str(2**70)),
    ],
    INTEGER: [
        (7, 7),
        (0, 0),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (7.0, 7),
        (-1e15, -(10**15)),
        ("7", 7),
        ("-12", -12),
        ("7.0", 7),
        ("1e3", 1000),
        ("", None),
    ],
    NUMBER: [
        (7, 7.0),
        (7.5, 7.5),
        (-0.17, -0.17),
        (2**53, 2.0**53),
        (2**60, 2.0**60),
        ("7", 7.0),
        ("7.5", 7.5),
        ("12.50", 12.5),
        ("", None),
    ],
    BOOLEAN: [(True, True), (False, False), ("", None)],
    DATE: [("2024-02-29", date(2024, 2, 29)), ("1900-01-01", date(1900, 1, 1)), ("", None)],
    TIME: [
        ("2016-01-01T12:00:00+00:00", datetime(2016, 1, 1, 12, tzinfo=UTC)),
        ("2015-11-01T00:00:00.000Z", datetime(2015, 11, 1, tzinfo=UTC)),
        ("2023-09-30T23:00:00Z", datetime(2023, 9, 30, 23, tzinfo=UTC)),
        ("2023-09-30T23:00:00-04:00", datetime(2023, 10, 1, 3, tzinfo=UTC)),
        ("2023-09-30T23:00:00.123456+05:30", datetime(2023, 9, 30, 17, 30, 0, 123456, tzinfo=UTC)),
        ("2023-09-30T23:00:00.5-0400", datetime(2023, 10, 1, 3, 0, 0, 500000, tzinfo=UTC)),
        ("2023-09-30T23:00:00.1200000Z", datetime(2023, 9, 30, 23, 0, 0, 120000, tzinfo=UTC)),
        ("2023-09-30 23:00:00 +0000", datetime(2023, 9, 30, 23, tzinfo=UTC)),
        ("2023-09-30 23:00:00 UTC", datetime(2023, 9, 30, 23, tzinfo=UTC)),
        ("2023-09-30T23:00Z", datetime(2023, 9, 30, 23, tzinfo=UTC)),
        ("2023-09-30T23Z", datetime(2023, 9, 30, 23, tzinfo=UTC)),
        ("2023-09-30T23:00:00+05", datetime(2023, 9, 30, 18, tzinfo=UTC)),
        ("2023-09-30T23:00:00", datetime(2023, 9, 30, 23, tzinfo=UTC)),
        ("2023-09-30", datetime(2023, 9, 30, tzinfo=UTC)),
        ("", None),
    ],
    JSON: [
        ({"Größe": [1, None, True]}, '{"Größe":[1,null,true]}'),
        ({}, "{}"),
        ([], "[]"),
        (["a,b", '"'], r'["a,b","\""]'),
        ("text", '"text"'),
        (0, "0"),
        (False, "false"),
        (HALF_PAIR, r'"\ud800"'),
        ([INFINITY], '["Infinity"]'),
        ("", None),
    ],
    "large_string": [("7", "7"), (7, "7")],
    "int8": [(127, 127), ("-128", -128)],
    "uint16": [(65535, 65535), (0, 0)],
    "uint64": [(2**64 - 1, 2**64 - 1)],
    "float32": [(0.5, 0.5), ("7", 7.0)],
    "timestamp[s]": [("2023-09-30T23:00:00.000Z", datetime(2023, 9, 30, 23)), ("2023-09-30", datetime(2023, 9, 30))],
    "timestamp[ms, tz=Europe/Berlin]": [("2023-09-30T23:00:00.5Z", datetime(2023, 9, 30, 23, 0, 0, 500000, UTC))],
    "timestamp[us]": [("2023-09-30T23:00:00-04:00", datetime(2023, 10, 1, 3))],
    "decimal128(5, 2)": [
        (1, Decimal("1.00")),
        (-1.25, Decimal("-1.25")),
        ("123.40", Decimal("123.40")),
        ("1e2", Decimal("100.00")),
        ("", None),
    ],
    "decimal128(20, 19)": [("0.1234567890123456789", Decimal("0.1234567890123456789"))],
}

#: By type: values that do not fit.
MISFITTING: dict[str, list[Any]] = {
    TEXT: [True, False, ["a"], [], {"a": 1}, {}, HALF_PAIR, INFINITY],
    INTEGER: [
        *(True, False, [], {}, [7], "seven", " 7", "7 ", "+7", "007", "0x7", "1_000", "\u0667", "7.5", "1e-1", "NaN"),
        *(7.5, 2**63, -(2**63) - 1, 1e19, INFINITY, str(2**63), "1e400", "9" * 5000),
    ],
    NUMBER: [
        *(True, [], {}, "seven", "NaN", "Infinity", " 7", "7,5", "1e400", "0.10000000000000000001"),
        *(2**53 + 1, str(2**53 + 1), 10**400, INFINITY, -INFINITY),
    ],
    BOOLEAN: [0, 1, 1.0, "true", "yes", [], {}],
    DATE: [
        *("2023-02-29", "2024-1-31", "20240131", "2024-W05-3", "2024-01-31T00:00:00Z", "31.01.2024", " 2024-01-31"),
        *(20240131, True, [], {}),
    ],
    TIME: [
        *("2023-02-29T00:00:00Z", "2023-09-30T24:00:00Z", "2023-09-30T23:00:60Z", "yesterday", " 2023-09-30"),
        *("2023-09-30T23:00:00.1234567Z", "2023-09-30T", "23:00:00Z", "2023-09-30Z", "2023-273", "20230930T230000Z"),
        *("9999-12-31T23:59:59-24:00", 1696114800, 1.5, True, [], {}),
    ],
    "int8": [128, "-129"],
    "uint16": [-1, 65536],
    "uint64": [2**64, -1],
    "float32": [1e39, "1e39"],
    "timestamp[s]": ["2023-09-30T23:00:00.5Z"],
    "timestamp[ns, tz=UTC]": ["0001-01-01T00:00:00Z", "9999-01-01"],
    "decimal128(5, 2)": [1.255, "1.255", 1234, "seven", "NaN", "Infinity", True, INFINITY, [], "1e999999999"],
}


def converter_of(type_name: str) -> Converter:
    return converter_for(Column("column", "column", type_name))


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(type_name, value, id=f"{type_name}-{value!r:.30}")
        for type_name in table
        for value in table[type_name]
    ]


@pytest.mark.parametrize(("type_name", "case"), cases(FITTING))
def test_value_that_fits_is_converted(type_name: str, case: tuple[Any, Any]) -> None:
    value, expected = case
    array, misfits = converter_of(type_name).convert([value, None])
    assert array.to_pylist() == [expected, None]
    assert not misfits


@pytest.mark.parametrize(("type_name", "value"), cases(MISFITTING))
def test_value_that_does_not_fit_is_null_and_reported(type_name: str, value: Any) -> None:
    array, misfits = converter_of(type_name).convert([None, value])
    assert array.to_pylist() == [None, None]
    assert list(misfits) == [1]


@pytest.mark.parametrize("type_name", FITTING)
def test_value_does_not_depend_on_its_neighbours(type_name: str) -> None:
    converter = converter_of(type_name)
    fitting = FITTING[type_name]
    misfitting = MISFITTING.get(type_name, [])
    values = [*(value for value, _ in fitting), None, *misfitting]
    array, misfits = converter.convert(values)
    assert array.type == converter.column_type
    assert array.to_pylist() == [*(expected for _, expected in fitting), None, *[None] * len(misfitting)]
    assert list(misfits) == list(range(len(fitting) + 1, len(values)))


@pytest.mark.parametrize("type_name", FITTING)
def test_no_values_and_nulls_have_the_column_s_type(type_name: str) -> None:
    converter = converter_of(type_name)
    for values in ([], [None, None]):
        array, misfits = converter.convert(values)
        assert (array.to_pylist(), array.type, list(misfits)) == (values, converter.column_type, [])


def test_type_name_json_is_not_the_user_s() -> None:
    column = Column("attributes_custom_cac", "attributes.custom.CAC", JSON, source="attributes.custom")
    with pytest.raises(ColumnTypesError, match=r"^column_types: 'json' for column .* is not the name of an Arrow type"):
        converter_for(column)


@pytest.mark.parametrize("type_name", ["binary", "time64[us]", "date64", "duration[s]", "null"])
def test_types_without_a_meaning_for_json_are_refused(type_name: str) -> None:
    with pytest.raises(ColumnTypesError, match="for column 'column' is not supported; use string"):
        converter_of(type_name)


CUSTOMERS = get_resource("customers").main_table


def test_columns_are_the_catalogue_s_and_then_those_of_column_types() -> None:
    columns = list_columns(
        CUSTOMERS, {"attributes.custom.CAC": "int64", "customer-since": "timestamp[s]", "mrr": "int32"}
    )
    assert [column.name for column in columns] == [*CUSTOMERS.column_types, "attributes_custom_cac"]
    types = {column.key: column.type_name for column in columns}
    changed = {"customer-since": "timestamp[s]", "mrr": "int32", "attributes.custom.CAC": "int64"}
    assert types == {**CUSTOMERS.columns, **changed}


@pytest.mark.parametrize("key", ["attributes.tags", "attributes_tags"])
def test_json_column_stays_json_as_a_string(key: str) -> None:
    columns = {column.key: column.type_name for column in list_columns(CUSTOMERS, {key: "string"})}
    assert columns == CUSTOMERS.columns


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("attributes.custom.CAC", "attributes_custom_cac"),
        ("attributes.custom.Sales Region (2024)", "attributes_custom_sales_region_2024"),
        ("attributes.clearbit.company.metrics.employees", "attributes_clearbit_company_metrics_employees"),
        ("attributes.custom.Größe", "attributes_custom_größe"),
    ],
)
def test_name_of_a_column_for_a_value_inside_json(key: str, name: str) -> None:
    assert list_columns(CUSTOMERS, {key: "string"})[-1].name == name


@pytest.mark.parametrize(
    ("column_types", "message"),
    [
        (
            {"mmr": "int64"},
            r"customers has no column 'mmr'\. Give one of id, .*, or a path below attributes\.custom",
        ),
        ({"attributes": "string"}, "customers has no column 'attributes'"),
        ({"address.street": "string"}, "customers has no column 'address.street'"),
        ({"attributes.custom.": "string"}, r"customers has no column 'attributes\.custom\.'"),
        ({"_extra": "string"}, "customers has no column '_extra'"),
        ({7: "string"}, "customers has no column 7"),
        (
            {"attributes.custom.CAC": "int64", "attributes.custom.cac": "int64"},
            "'attributes.custom.cac' and 'attributes.custom.CAC' are both the column attributes_custom_cac",
        ),
        (
            {"customer-since": "string", "customer_since": "string"},
            "'customer_since' and 'customer-since' are both the column customer_since",
        ),
        (["mrr"], "column_types is a dictionary of types by column, not "),
    ],
)
def test_unknown_and_colliding_columns_are_refused(column_types: Any, message: str) -> None:
    with pytest.raises(ColumnTypesError, match=message):
        list_columns(CUSTOMERS, column_types)


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"b.c": 1}}, "a.b.c", 1),
        ({"a": 1}, "b", None),
        ({"a": 1}, "a.b", None),
        ({"a": None}, "a.b", None),
        ([{"a": 1}], "a", None),
        (None, "a", None),
    ],
)
def test_value_inside_json_is_found_by_its_path(value: Any, path: str, found: Any) -> None:
    assert look_up(value, path) == found


def test_arrow_types_of_the_catalogue() -> None:
    types = {type_name: str(converter_of(type_name).column_type) for type_name in (TEXT, INTEGER, NUMBER, DATE, TIME)}
    assert types == {
        TEXT: str(pa.string()),
        INTEGER: str(pa.int64()),
        NUMBER: str(pa.float64()),
        DATE: str(pa.date32()),
        TIME: str(pa.timestamp("us", "UTC")),
    }
