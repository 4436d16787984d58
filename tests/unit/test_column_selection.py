# SPDX-License-Identifier: Apache-2.0
"""``columns`` and ``exclude_columns``: which names they take, and what is left of a row."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_chartmogul.api.resources import RESOURCES, Table, get_resource
from airflow_provider_chartmogul.exceptions import InvalidResourceError
from airflow_provider_chartmogul.formats.column_selection import ColumnSelection

CUSTOMERS = get_resource("customers").main_table
INVOICES, LINE_ITEMS, TRANSACTIONS = get_resource("invoices").tables

CUSTOMER = {
    "id": 7,
    "uuid": "cus_1",
    "name": "Ada",
    "customer-since": "2024-01-31T00:00:00+00:00",
    "attributes": {"tags": ["a"], "custom": {"CAC": 5}, "hubspot": {"vip": True}},
    "address": {"city": "Berlin", "country": "Germany", "state": None, "address_zip": "1", "street": "Ring 1"},
    "mrr": 100,
    "segment": "large",
}


def selection_of(
    table: Table = CUSTOMERS, columns: Any = None, exclude_columns: Any = None, **settings: Any
) -> ColumnSelection:
    return ColumnSelection(table, columns, exclude_columns, **settings)


@pytest.mark.parametrize("exclude_columns", [None, [], ()])
def test_without_settings_everything_is_kept(exclude_columns: Any) -> None:
    for resource in RESOURCES.values():
        for table in resource.tables:
            selection = selection_of(table, None, exclude_columns, other_tables=resource.tables)
            assert selection.keeps_all
            assert selection.keys == tuple(table.columns)
            assert selection.names == tuple(table.column_types)
    assert selection_of(CUSTOMERS).filter_row(CUSTOMER) == CUSTOMER


@pytest.mark.parametrize("name", ["customer_since", "customer-since"])
def test_columns_go_by_name_or_by_key_of_the_api(name: str) -> None:
    assert selection_of(columns=[name]).names == ("uuid", "customer_since")
    assert "customer_since" not in selection_of(exclude_columns=[name]).names


def test_columns_keep_the_order_of_the_catalogue() -> None:
    assert selection_of(columns=("mrr", "name", "uuid")).names == ("uuid", "name", "mrr")


def test_columns_that_identify_a_row_are_always_kept() -> None:
    assert selection_of(columns=["mrr"]).names == ("uuid", "mrr")
    assert selection_of(LINE_ITEMS, ["type"]).names == ("invoice_uuid", "uuid", "type")


@pytest.mark.parametrize(
    ("table", "name"),
    [(CUSTOMERS, "uuid"), (LINE_ITEMS, "invoice_uuid"), (get_resource("tasks").main_table, "task_uuid")],
)
def test_columns_that_identify_a_row_cannot_be_excluded(table: Table, name: str) -> None:
    with pytest.raises(InvalidResourceError, match=f"{name} identifies a row of {table.name}, and stays"):
        selection_of(table, exclude_columns=[name])


@pytest.mark.parametrize("parameter", ["columns", "exclude_columns"])
@pytest.mark.parametrize("name", ["nme", "", None, 7, ["name"], "attributes.custom.CAC", "line_items"])
def test_unknown_column_is_refused_with_the_known_ones(parameter: str, name: Any) -> None:
    with pytest.raises(InvalidResourceError, match=r"^customers has no column .*; it has id, uuid, .*owner, _extra$"):
        selection_of(**{parameter: [name]})


def test_time_of_extraction_cannot_be_excluded() -> None:
    assert selection_of(columns=["mrr", "_extracted_at"]).names == ("uuid", "mrr")
    with pytest.raises(InvalidResourceError, match="customers has no column '_extracted_at'"):
        selection_of(exclude_columns=["_extracted_at"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": "name"}, "^columns is a list of column names, not 'name'$"),
        ({"exclude_columns": 7}, "^exclude_columns is a list of column names, not 7$"),
        ({"columns": []}, "^columns is empty"),
        ({"columns": ["name"], "exclude_columns": ["mrr"]}, "cannot be given together"),
    ],
)
def test_malformed_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidResourceError, match=message):
        selection_of(**settings)


def test_excluded_columns_are_removed_from_the_row() -> None:
    selection = selection_of(exclude_columns=["name", "attributes_custom", "address.city"])
    assert not selection.keeps_all
    assert selection.filter_row(CUSTOMER) == {
        "id": 7,
        "uuid": "cus_1",
        "customer-since": "2024-01-31T00:00:00+00:00",
        "attributes": {"tags": ["a"], "hubspot": {"vip": True}},
        "address": {"country": "Germany", "state": None, "address_zip": "1", "street": "Ring 1"},
        "mrr": 100,
        "segment": "large",
    }


def test_listed_columns_are_all_that_is_left_of_the_row() -> None:
    selection = selection_of(columns=["name", "attributes.tags"])
    assert selection.filter_row(CUSTOMER) == {"uuid": "cus_1", "name": "Ada", "attributes": {"tags": ["a"]}}
    assert selection.has_extra, "for values that do not fit"


def test_unknown_keys_stay_with_columns_if_extra_is_listed() -> None:
    assert selection_of(columns=["_extra", "address.city"]).filter_row(CUSTOMER) == {
        "uuid": "cus_1",
        "address": {"city": "Berlin", "street": "Ring 1"},
        "segment": "large",
    }


def test_excluding_extra_drops_unknown_keys() -> None:
    selection = selection_of(exclude_columns=["_extra"])
    assert not selection.has_extra
    assert set(CUSTOMER) - set(selection.filter_row(CUSTOMER)) == {"segment"}
    assert "street" not in selection.filter_row(CUSTOMER)["address"]


def test_name_of_an_object_stands_for_all_its_columns() -> None:
    assert selection_of(columns=["address"]).names == (
        *("uuid", "address_country", "address_state", "address_city", "address_address_zip"),
    )
    excluded = selection_of(exclude_columns=["address", "attributes"])
    assert set(excluded.filter_row(CUSTOMER)) == {"id", "uuid", "name", "customer-since", "mrr", "segment"}


@pytest.mark.parametrize("value", ["Ring 1, Berlin", ["Berlin"], 7])
def test_value_in_place_of_an_object_is_dropped_if_one_of_its_columns_is_excluded(value: Any) -> None:
    row = {"uuid": "cus_1", "address": value}
    assert selection_of(exclude_columns=["address_city"]).filter_row(row) == {"uuid": "cus_1"}
    assert selection_of(exclude_columns=["name"]).filter_row(row) == row


def test_object_that_is_null_stays_null() -> None:
    row = {"uuid": "cus_1", "address": None}
    assert selection_of(exclude_columns=["address_city"]).filter_row(row) == row
    assert selection_of(exclude_columns=["address"]).filter_row(row) == {"uuid": "cus_1"}


def test_columns_of_all_tables_of_a_resource_count_for_each_that_has_them() -> None:
    tables = (INVOICES, LINE_ITEMS, TRANSACTIONS)
    row = {
        "uuid": "inv_1",
        "external_id": "1",
        "currency": "EUR",
        "line_items": [{"uuid": "li_1", "external_id": "2", "description": "Ada's seat", "new": 1}],
        "transactions": [{"uuid": "tr_1", "external_id": "3"}],
    }
    excluded = selection_of(INVOICES, None, ["external_id", "description"], other_tables=tables)
    assert excluded.filter_row(row) == {
        "uuid": "inv_1",
        "currency": "EUR",
        "line_items": [{"uuid": "li_1", "new": 1}],
        "transactions": [{"uuid": "tr_1"}],
    }
    listed = selection_of(INVOICES, ["currency", "description"], other_tables=tables)
    assert listed.filter_row(row) == {
        "uuid": "inv_1",
        "currency": "EUR",
        "line_items": [{"uuid": "li_1", "description": "Ada's seat"}],
        "transactions": [{"uuid": "tr_1"}],
    }
    assert "description" not in selection_of(LINE_ITEMS, None, ["description"], other_tables=tables).names
    with pytest.raises(InvalidResourceError, match="invoices has no column 'descripion'"):
        selection_of(INVOICES, None, ["descripion"], other_tables=tables)


def test_nested_rows_of_an_unknown_shape_are_dropped_if_columns_are_excluded() -> None:
    selection = selection_of(INVOICES, None, ["description"], other_tables=(LINE_ITEMS, TRANSACTIONS))
    row = {"uuid": "inv_1", "line_items": ["Ada's seat", {"uuid": "li_1"}], "transactions": "none"}
    assert selection.filter_row(row) == {"uuid": "inv_1", "line_items": [{"uuid": "li_1"}]}
    assert selection.filter_row({"uuid": "inv_1", "line_items": None}) == {"uuid": "inv_1", "line_items": None}


def test_other_spelling_of_an_excluded_column_is_left_out() -> None:
    customers = get_resource("customers").main_table
    selection = ColumnSelection(customers, exclude_columns=["customer_since", "address"])
    row = {"uuid": "c1", "customer_since": "S1", "address.city": "S2", "address_city": "S3", "new": 1}
    assert selection.filter_row(row) == {"uuid": "c1", "new": 1}
