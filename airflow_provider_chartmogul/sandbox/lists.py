# SPDX-License-Identifier: Apache-2.0
"""The lists of the sandbox's API: pages of rows from the company's books, and changes while clients walk them.

All methods are thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

from airflow_provider_chartmogul.sandbox.company.books import Books
from airflow_provider_chartmogul.sandbox.company.clock import to_seconds, with_milliseconds
from airflow_provider_chartmogul.sandbox.error_responses import bad_request
from airflow_provider_chartmogul.sandbox.list_changes import ListChanges, original, renew_row
from airflow_provider_chartmogul.sandbox.list_faults import PageFaults
from airflow_provider_chartmogul.sandbox.listing import Listing, encode_cursor
from airflow_provider_chartmogul.sandbox.resources.catalog import LISTS
from airflow_provider_chartmogul.sandbox.resources.customers import customer_id
from airflow_provider_chartmogul.sandbox.resources.definition import ListDefinition, Query, Record, Row, is_set
from airflow_provider_chartmogul.sandbox.resources.metrics import METRICS_BY_PATH, metrics_body
from airflow_provider_chartmogul.sandbox.resources.plans import account_body
from airflow_provider_chartmogul.sandbox.resources.subscriptions import subscription_rows

_MAX_CACHED_LISTINGS = 50
_SECOND = 1_000_000


class Lists:
    """The lists of one account.

    `lock` protects the company's books too, which are computed when a list is first used.

    :param get_books: returns the company's books as of the present.
    :param metrics_time_zone: the time zone of the days of metrics.
    """

    def __init__(self, get_books: Callable[[], Books], metrics_time_zone: tzinfo) -> None:
        self._get_books = get_books
        self._metrics_time_zone = metrics_time_zone
        self.lock = threading.RLock()
        self._changes = {name: ListChanges() for name in LISTS}
        self._listings: dict[tuple[Any, ...], Listing] = {}
        self._listed_books: Books | None = None

    def rows(self, resource: str, query: Query) -> list[Row]:
        """Return all rows of a resource; see `Account.rows`.

        :raises ValueError: for an unknown resource.
        """
        with self.lock:
            if resource == "account":
                return [account_body(query)]
            if resource == "metrics":
                entries: list[Row] = self.metrics("all", query)["entries"]
                return entries
            if resource == "subscriptions":
                customers = [row["uuid"] for row in self._rows(LISTS["customers"], query)]
                return [
                    {"customer_uuid": customer, **row}
                    for customer in customers
                    for row in self.subscriptions(customer) or ()
                ]
            if resource == "plan_group_plans":
                groups = [row["uuid"] for row in self.rows("plan_groups", {})]
                return [
                    {"plan_group_uuid": group, **row}
                    for group in groups
                    for row in self._rows(LISTS[resource], {**query, "plan_group_uuid": group})
                ]
            if resource not in LISTS:
                known = ", ".join(("account", *LISTS, "subscriptions", "metrics"))
                raise ValueError(f"unknown resource: {resource!r}; known resources: {known}")
            return self._rows(LISTS[resource], query)

    def subscriptions(self, customer: str) -> list[Row] | None:
        """Return the subscriptions of the customer with this UUID, oldest first; `None` for an unknown customer."""
        with self.lock:
            books = self._get_books()
            party = books.party_by_uuid.get(customer)
            if party is None:
                return [] if self.has_row("customers", customer) else None
            is_deleted = customer_id(party) in self._changes["customers"].deleted
            return None if is_deleted else subscription_rows(books, party.number)

    def metrics(self, path: str, query: Query) -> Row:
        """Return the body of `/metrics/…`.

        :param path: the last part of the path, a key of `METRICS_BY_PATH`.
        :raises ApiErrorResponse: 400 for a missing or malformed parameter.
        """
        with self.lock:
            return metrics_body(self._get_books(), METRICS_BY_PATH[path], query, time_zone=self._metrics_time_zone)

    def page(self, name: str, query: Query, *, page_size: int, faults: PageFaults) -> Row:
        """Return the body of a page.

        :param name: a name of the catalog.
        :param query: the request's query parameters, with those of its path.
        :param page_size: the default and the maximum of `per_page`.
        :param faults: the faults that hit the request.
        :raises ApiErrorResponse: 400 for a malformed parameter.
        """
        definition = LISTS[name]
        if not definition.is_paged:
            rows = [] if "empty-list" in faults else self._rows(definition, query)
            return {definition.root: faults.change_rows(rows)}
        per_page = min(page_size, read_number(query, "per_page", page_size))
        page = read_number(query, "page", 1)
        cursor = query.get("cursor", "")
        with self.lock:
            books = self._get_books()
            listing = self._listing(definition, books, query)
            start = listing.position_after(cursor) if cursor else (page - 1) * per_page
            start, end = faults.change_bounds(start, start + per_page)
            records = listing.records[start:end]
            rows = [self._create_row(definition, books, record, query) for record in records]
            self._change_during_walk(definition, listing, start, end, faults)
        pages = max(1, -(-len(listing) // per_page))
        has_more = end < len(listing)
        values: Row = {
            "cursor": encode_cursor(records[-1]) if records else None,
            "has_more": has_more,
            "per_page": per_page,
            "page": page,
            "current_page": page,
            "total_pages": pages,
            "meta": {
                "next_key": records[-1].id if has_more and records else None,
                "prev_key": None,
                "before_key": with_milliseconds(int(datetime.now(UTC).timestamp() * 1_000_000)),
                "page": page,
                "total_pages": pages,
            },
        }
        keys = ("cursor", "has_more") if cursor else definition.first_page
        body = {definition.root: faults.change_rows(rows), **{key: values[key] for key in keys}}
        return faults.change_page(body, cursor)

    def create_row(self, name: str) -> Row:
        """Create a row that resembles the newest one of a list, and return it. A new customer is a lead.

        :raises ValueError: for an empty list.
        """
        definition = LISTS[name]
        with self.lock:
            books = self._get_books()
            records = self._records(definition, books)
            if not records:
                raise ValueError(f"cannot create a row in {name}, since it has no row that the new one could resemble")
            record = self._changes[name].create(definition, records)
            self._listings.clear()
            return self._create_row(definition, books, record, {})

    def delete_row(self, name: str, identity: int | str) -> None:
        """Delete a row. Rows that refer to it stay.

        :param identity: the row's `uuid`, `task_uuid` or, for a subscription event, `id`.
        :raises ValueError: if the list has no such row.
        """
        with self.lock:
            self._changes[name].deleted.add(self._find(name, identity).id)
            self._listings.clear()

    def move_customer(self, uuid: str, customer_since: datetime) -> None:
        """Change a customer's `customer-since`, and with it its position in the list.

        :param customer_since: the new value; without a time zone it is UTC.
        :raises ValueError: for an unknown customer.
        """
        with self.lock:
            self._move(self._find("customers", uuid), to_seconds(customer_since) * _SECOND)

    def has_row(self, name: str, identity: int | str) -> bool:
        """Return whether a list has this row."""
        try:
            self._find(name, identity)
        except ValueError:
            return False
        return True

    def _rows(self, definition: ListDefinition, query: Query) -> list[Row]:
        with self.lock:
            books = self._get_books()
            listing = self._listing(definition, books, query)
            return [self._create_row(definition, books, record, query) for record in listing.records]

    def _find(self, name: str, identity: int | str) -> Record:
        definition = LISTS[name]
        with self.lock:
            books = self._get_books()
            for record in self._records(definition, books):
                if self._create_row(definition, books, record, {})[definition.identity] == identity:
                    return record
        raise ValueError(f"{name} has no row whose {definition.identity} is {identity!r}")

    def _records(self, definition: ListDefinition, books: Books) -> list[Record]:
        return self._changes[definition.name].apply(definition.records(books))

    def _listing(self, definition: ListDefinition, books: Books, query: Query) -> Listing:
        if books is not self._listed_books:
            self._listings.clear()
            self._listed_books = books
        filters = {name: query[name] for name in definition.filters if name in query}
        with_disabled = is_set(query, "with_disabled")
        validation_type = query.get("validation_type", "valid")
        key = (definition.name, with_disabled, validation_type, *sorted(filters.items()))
        if key not in self._listings:
            if len(self._listings) >= _MAX_CACHED_LISTINGS:
                self._listings.clear()
            records = (
                record
                for record in self._records(definition, books)
                if (with_disabled or not record.disabled)
                and (validation_type == "all" or record.invalid == (validation_type == "invalid"))
                and self._matches(definition, books, record, filters)
            )
            self._listings[key] = Listing(records, oldest_first=definition.oldest_first)
        return self._listings[key]

    def _matches(self, definition: ListDefinition, books: Books, record: Record, filters: Query) -> bool:
        if not filters:
            return True
        row = self._create_row(definition, books, record, {})
        source = original(record)
        return all(definition.filters[name](books, source, row, value) for name, value in filters.items())

    def _create_row(self, definition: ListDefinition, books: Books, record: Record, query: Query) -> Row:
        return renew_row(definition, record, definition.create_row(books, original(record), query))

    def _change_during_walk(
        self, definition: ListDefinition, listing: Listing, start: int, end: int, faults: PageFaults
    ) -> None:
        """Apply the faults that change a list after a page of it has been created."""
        if "row-created" in faults and len(listing):
            self.create_row(definition.name)
        if "row-deleted" in faults and end < len(listing):
            self._changes[definition.name].deleted.add(listing.records[end].id)
            self._listings.clear()
        if "customer-moved" in faults:
            customers = [record for record in listing.records if record.created is not None]
            if faults.option("customer-moved", "to") == "earlier":
                # The next record moves before this page, so that the walk misses it.
                if 0 <= start < end < len(customers):
                    self._move(customers[end], (customers[start].created or 0) - _SECOND)
            elif start < len(customers) - 1:
                # This page's first record moves to the end, so that the walk meets it again.
                self._move(customers[start], (customers[-1].created or 0) + _SECOND)

    def _move(self, record: Record, created: int) -> None:
        self._changes["customers"].moved[record.id] = created
        self._listings.clear()


def read_number(query: Query, name: str, default: int) -> int:
    """Return a query parameter that is a positive number.

    :raises ApiErrorResponse: 400 for another value.
    """
    value = query.get(name, str(default))
    if not value.isascii() or not value.isdecimal() or int(value) < 1:
        raise bad_request(f'Parameter "{name}" is malformed', name)
    return int(value)
