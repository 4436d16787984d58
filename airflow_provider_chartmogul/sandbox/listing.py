# SPDX-License-Identifier: Apache-2.0
"""A list's records in their order, and the cursors that lead through it.

As recorded, a cursor is the base64 of the last row's time and identity, joined by `&`. The page after it starts with
the next record in the list's order, even if the row itself has been deleted.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from airflow_provider_chartmogul.sandbox.company.clock import with_nanoseconds
from airflow_provider_chartmogul.sandbox.error_responses import bad_request
from airflow_provider_chartmogul.sandbox.resources.definition import Record


class Listing:
    """Records in the order of a list.

    :param records: the records, in any order.
    :param oldest_first: whether the order is ascending, records without a time last; otherwise it is newest first.
    """

    def __init__(self, records: Iterable[Record], *, oldest_first: bool) -> None:
        self.records = sorted(records, key=_key, reverse=not oldest_first)
        self._oldest_first = oldest_first
        self._ascending_keys = [_key(record) for record in (self.records if oldest_first else self.records[::-1])]

    def __len__(self) -> int:
        return len(self.records)

    def position_after(self, cursor: str) -> int:
        """Return the index of the first record after a cursor.

        :raises ApiErrorResponse: 400 for a cursor that is not one of this list.
        """
        key = self._decode(cursor)
        if key is None:
            return 0
        if self._oldest_first:
            return bisect_right(self._ascending_keys, key)
        return len(self.records) - bisect_left(self._ascending_keys, key)

    def _decode(self, cursor: str) -> tuple[Any, ...] | None:
        try:
            text = base64.b64decode(cursor, validate=True).decode()
            time, record_id, *_ = text.split("&")
            if not time and not record_id:
                return None
            created = None if not time else int(datetime.fromisoformat(f"{time[:19]}+00:00").timestamp()) * 1_000_000
            if created is not None:
                created += int(time[20:26])
            has_numbers = bool(self.records) and isinstance(self.records[0].id, int)
            return _key(Record(created, int(record_id) if has_numbers else record_id, None))
        except (ValueError, binascii.Error):
            raise bad_request('Parameter "cursor" is malformed', "cursor") from None


def encode_cursor(record: Record) -> str:
    """Return the cursor for the page after a record."""
    return _encode(f"{'' if record.created is None else with_nanoseconds(record.created)}&{record.id}")


def vary_cursor(cursor: str) -> str:
    """Return another cursor for the same position; an empty one stands for the start of the list."""
    return _encode(f"{base64.b64decode(cursor).decode() or '&'}&0")


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _key(record: Record) -> tuple[Any, ...]:
    return (record.created is None, record.created or 0, record.id)
