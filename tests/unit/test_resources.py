# SPDX-License-Identifier: Apache-2.0
"""The catalogue of resources: its entries fit together, and queries are checked against them."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

import pytest

from airflow_provider_chartmogul.api.resources import JSON, RESOURCES, Resource, column_name, get_resource
from airflow_provider_chartmogul.exceptions import InvalidResourceError

ARROW_TYPES = {"string", "int64", "float64", "bool", "date32", "timestamp[us, tz=UTC]", JSON}


@pytest.mark.parametrize("resource", RESOURCES.values(), ids=RESOURCES)
def test_tables_of_a_resource_fit_together(resource: Resource) -> None:
    assert resource.main_table.name == resource.name
    for table in resource.tables:
        assert set(table.primary_key) <= set(table.columns)
        assert set(table.columns.values()) <= ARROW_TYPES
        assert len(table.column_types) == len(table.columns), "no two keys become one column"
        assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in table.column_types)
    for nested in resource.tables[1:]:
        assert nested.rows_key
        assert nested.parent_key in nested.columns
    if resource.parent:
        assert resource.parent in RESOURCES
        assert "{uuid}" in resource.path
        assert resource.parent_key in resource.main_table.columns


def test_table_names_are_unique() -> None:
    names = [table.name for resource in RESOURCES.values() for table in resource.tables]
    assert len(set(names)) == len(names)


def test_only_metrics_have_a_window() -> None:
    assert [name for name, resource in RESOURCES.items() if resource.has_window] == ["metrics"]


@pytest.mark.parametrize(
    ("key", "name"),
    [("customer-since", "customer_since"), ("address.city", "address_city"), ("mrr", "mrr")],
)
def test_columns_are_in_snake_case(key: str, name: str) -> None:
    assert column_name(key) == name


@pytest.mark.parametrize(
    ("resource", "query_params", "query"),
    [
        ("plans", None, {}),
        ("plans", {}, {}),
        ("invoices", None, {"with_disabled": "true", "validation_type": "all"}),
        (
            "invoices",
            {"validation_type": None, "with_disabled": False, "customer_uuid": "cus_1"},
            {"with_disabled": "false", "customer_uuid": "cus_1"},
        ),
        ("metrics", {"geo": ["US", "DE"], "interval": "month"}, {"interval": "month", "geo": "US,DE"}),
        (
            "subscription_events",
            {"event_date": date(2024, 1, 31), "effective_date": datetime(2024, 1, 31, 12), "with_disabled": None},
            {"event_date": "2024-01-31", "effective_date": "2024-01-31T12:00:00"},
        ),
    ],
)
def test_query_has_defaults_and_what_the_user_gives(resource: str, query_params: Any, query: dict[str, str]) -> None:
    assert get_resource(resource).build_query(query_params) == query


@pytest.mark.parametrize("name", ["cursor", "page", "per_page", "start-date", "stauts", 7])
@pytest.mark.parametrize("resource", RESOURCES)
def test_unknown_query_parameter_is_refused(resource: str, name: Any) -> None:
    with pytest.raises(InvalidResourceError, match=f"^{resource} has no query parameter '{name}'; it has "):
        get_resource(resource).build_query({name: "x"})


@pytest.mark.parametrize(
    "value", ["", " ", "None", "null", b"ab", {"a": 1}, [], ["Active", None], ["Active", "None"], object()]
)
def test_value_that_no_parameter_has_is_refused(value: Any) -> None:
    with pytest.raises(InvalidResourceError, match=r"^query_params: status cannot be .* check the template"):
        get_resource("customers").build_query({"status": value})


@pytest.mark.parametrize(
    ("value", "text"), [({"b", "a"}, "a,b"), (("b", "a"), "b,a"), (7, "7"), (0.5, "0.5"), (False, "false")]
)
def test_value_of_another_type_is_text(value: Any, text: str) -> None:
    assert get_resource("customers").build_query({"status": value}) == {"status": text}


@pytest.mark.parametrize("value", ["status=Active", ["status"], 7])
def test_query_params_must_be_a_dictionary(value: Any) -> None:
    with pytest.raises(InvalidResourceError, match=r"^query_params is a dictionary"):
        get_resource("customers").build_query(value)


@pytest.mark.parametrize("name", ["customer", "", None, 7, "Customers"])
def test_unknown_resource_is_refused_with_the_known_ones(name: Any) -> None:
    with pytest.raises(InvalidResourceError, match=r"there are account, data_sources, customers, .*metrics$") as raised:
        get_resource(name)
    assert raised.value.permanent


def test_activities_name_the_operator_for_them() -> None:
    with pytest.raises(InvalidResourceError, match="use ActivitiesToObjectStorageOperator"):
        get_resource("activities")
