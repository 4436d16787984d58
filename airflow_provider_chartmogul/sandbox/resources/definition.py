# SPDX-License-Identifier: Apache-2.0
"""What a list of the API consists of: its path, its records and rows, its filters, and the shape of its pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_provider_chartmogul.sandbox.company.books import Books

Row = dict[str, Any]
Query = Mapping[str, str]

WITH_CURSOR = ("cursor", "has_more")
WITH_PAGES = ("current_page", "total_pages", "cursor", "has_more")


class Record(NamedTuple):
    """An entry of a list, from which its row is created.

    * `created`: its position in the list, in microseconds since 1970: when it was created; for customers,
      `customer-since`, which is `None` for leads
    * `id`: its identity in cursors, which also orders records of the same time
    * `source`: what the row is created from
    * `disabled`, `invalid`: whether the list omits it by default
    """

    created: int | None
    id: int | str
    source: Any
    disabled: bool = False
    invalid: bool = False


Filter = Callable[[Books, Record, Row, str], bool]


@dataclass(frozen=True)
class ListDefinition:
    """A list of the API.

    :param name: the resource's name, which is also the route's name and the place of faults.
    :param path: the path below `/v1`. A path parameter is one of the filters.
    :param root: the key of the rows in a page.
    :param records: returns all records; they need not be sorted.
    :param create_row: creates a record's row, under the request's query parameters.
    :param filters: by query parameter; a filter returns whether a row matches the parameter's value.
    :param first_page: the keys of a first page beside the rows, in order; a later page has `cursor` and `has_more`.
    :param oldest_first: whether the list is in ascending order, records without a time last. Others are newest first.
    :param is_paged: whether the list has pages. One without has no cursor either.
    :param identity: the key of a row's identity.
    :param parent: the list whose rows have the path parameter as their UUID.
    """

    name: str
    path: str
    root: str
    records: Callable[[Books], list[Record]]
    create_row: Callable[[Books, Record, Query], Row]
    filters: Mapping[str, Filter] = field(default_factory=dict)
    first_page: tuple[str, ...] = WITH_CURSOR
    oldest_first: bool = False
    is_paged: bool = True
    identity: str = "uuid"
    parent: str | None = None


def equals(key: str) -> Filter:
    """Return a filter that compares the text of a row's value."""
    return lambda books, record, row, value: row[key] is not None and str(row[key]) == value


def on_or_after(key: str) -> Filter:
    """Return a filter that compares the dates with which a row's value and the parameter's value begin."""
    return lambda books, record, row, value: row[key] is not None and row[key][:10] >= value[:10]


def on_or_before(key: str) -> Filter:
    """Return a filter that compares the dates with which a row's value and the parameter's value begin."""
    return lambda books, record, row, value: row[key] is not None and row[key][:10] <= value[:10]


def is_set(query: Query, name: str) -> bool:
    """Return whether a boolean query parameter is `true`."""
    return query.get(name, "").lower() == "true"


def with_disabled_keys(row: Row, disabled: bool, disabled_at: str) -> Row:
    """Return a row with the keys that `with_disabled=true` adds."""
    return {
        **row,
        "disabled": disabled,
        "disabled_at": disabled_at if disabled else None,
        "disabled_by": "ben@example.com" if disabled else None,
    }
