# SPDX-License-Identifier: Apache-2.0
"""The faults of lists: how they change a page. `faults.py` describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_chartmogul.sandbox.active_faults import Hit
from airflow_provider_chartmogul.sandbox.listing import vary_cursor
from airflow_provider_chartmogul.sandbox.resources.definition import Row

_NUMBERS = (
    "amount_in_cents",
    "tax_amount_in_cents",
    "discount_amount_in_cents",
    "transaction_fees_in_cents",
    "quantity",
    "mrr",
    "arr",
)


class PageFaults:
    """The faults that hit a request for a list.

    :param hits: the hits by kind.
    """

    def __init__(self, hits: Mapping[str, Hit]) -> None:
        self._hits = hits

    def __contains__(self, kind: str) -> bool:
        return kind in self._hits

    def option(self, kind: str, name: str) -> Any:
        """Return an option of the fault of this kind; `None` where it is not set."""
        return getattr(self._hits[kind].fault, name)

    def change_bounds(self, start: int, end: int) -> tuple[int, int]:
        """Return which records a page has: from the first index to before the second."""
        if "empty-page" in self or "empty-list" in self:
            return start, start
        size = end - start
        if "repeated-row" in self:
            start = max(0, start - 1)
        if "short-page" in self:
            size = min(size, self.option("short-page", "rows") or max(1, size // 2))
        return start, start + size

    def change_rows(self, rows: list[Row]) -> list[Row]:
        """Return the rows with the faults that change values and keys."""
        if "new-key" in self:
            rows = [_with_new_key(row) for row in rows]
        if "blank-amounts" in self:
            rows = [_change_numbers(row, lambda value: "") for row in rows]
        if "other-types" in self:
            rows = [_with_other_types(row) for row in rows]
        return rows

    def change_page(self, body: Row, cursor: str) -> Row:
        """Return a page with the faults that change its cursor.

        :param cursor: the request's cursor; empty for the first page.
        """
        if "empty-list" in self:
            return {**body, "cursor": None, "has_more": False}
        if "empty-page" in self:
            return {**body, "cursor": vary_cursor(cursor), "has_more": True}
        if "stuck-cursor" in self:
            return {**body, "cursor": cursor or body["cursor"], "has_more": True}
        return body


def _with_new_key(row: Row) -> Row:
    changed = {**row, "new_key": {"since": 2027, "tags": ["a", "b"]}}
    for key in ("line_items", "transactions"):
        if key in changed:
            changed[key] = [_with_new_key(child) for child in changed[key]]
    return changed


def _with_other_types(row: Row) -> Row:
    changed = _change_numbers(row, lambda value: value if value is None else str(value))
    if changed.get("retracted_event_id"):
        changed["retracted_event_id"] = int(changed["retracted_event_id"])
    return changed


def _change_numbers(row: Row, change: Callable[[Any], Any]) -> Row:
    changed = {key: change(value) if key in _NUMBERS else value for key, value in row.items()}
    for key in ("line_items", "transactions"):
        if key in changed:
            changed[key] = [_change_numbers(child, change) for child in changed[key]]
    return changed
