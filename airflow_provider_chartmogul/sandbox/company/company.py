# SPDX-License-Identifier: Apache-2.0
"""A small SaaS company, a function of its seed and its number of customers.

A window always has the same activities, byte for byte, unless `Company.amend` changed the history. Nothing here reads
the clock or does I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from heapq import merge
from itertools import islice
from operator import attrgetter

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES, Activity, check_activity_type
from airflow_provider_chartmogul.sandbox.company.books import Books
from airflow_provider_chartmogul.sandbox.company.clock import to_seconds
from airflow_provider_chartmogul.sandbox.company.history import history
from airflow_provider_chartmogul.sandbox.company.ledger import Ledger

_Amendments = tuple[list[Activity], frozenset[str]]


class Company:
    """A company and its activities.

    Creating one is cheap: the history is computed at first use and shared by equal companies of the process.

    :param seed: any whole number; selects one company.
    :param customers: the number of customers up to the horizon, 0 or more.
    :raises ValueError: for a negative number of customers.
    """

    def __init__(self, seed: int = 1, customers: int = 500) -> None:
        if customers < 0:
            raise ValueError(f"customers must be 0 or more, not {customers}")
        self.seed = seed
        self.customers = customers
        # One attribute for both, so that a reader in another thread sees them change at once.
        self._amendments: _Amendments = ([], frozenset())
        self._ledger: tuple[_Amendments, Ledger] | None = None
        self._books: Books | None = None

    def __repr__(self) -> str:
        return f"Company(seed={self.seed}, customers={self.customers})"

    def activities(self, start: datetime | None, end: datetime, activity_type: str | None = None) -> Iterator[Activity]:
        """Return the activities of a window, by date.

        :param start: the start of the window, inclusive; `None` for the founding. Without a time zone it is UTC.
        :param end: the end of the window, exclusive, likewise. An end before the start gives no rows.
        :param activity_type: one of `ACTIVITY_TYPES`; `None` for all of them.
        :raises ValueError: for an unknown type.
        """
        # Not a generator function, so that the check runs at the call instead of at the first row.
        if activity_type is not None:
            check_activity_type(activity_type)
        added, removed = self._amendments
        computed = self._computed_activities(start, end, activity_type)
        if not added and not removed:
            return computed
        kept = (row for row in computed if row.uuid not in removed)
        first, last = (None if start is None else to_seconds(start)), to_seconds(end)
        amended = (
            row
            for row in added
            if activity_type in (None, row.type)
            and (first is None or first <= to_seconds(datetime.fromisoformat(row.date)))
            and to_seconds(datetime.fromisoformat(row.date)) < last
        )
        # Dates are text of one length and one time zone, so that they sort by time.
        return merge(kept, amended, key=attrgetter("date"))

    def amend(self, *, added: Iterable[Mapping[str, object]] = (), removed: Iterable[str] = ()) -> None:
        """Remove activities from this company's history, then add others; see `Account.amend`.

        :raises ValueError: for an invalid row; nothing is changed then.
        """
        added_rows = [Activity.from_text(row) for row in added]
        removed_uuids = frozenset(removed)
        previously_added, previously_removed = self._amendments
        kept = [row for row in previously_added if row.uuid not in removed_uuids]
        self._amendments = (
            sorted([*kept, *added_rows], key=attrgetter("date")),
            previously_removed | removed_uuids,
        )

    def books(self, as_of: datetime, *, two_currencies: bool = False) -> Books:
        """Return the company's books as of a moment, with the amendments; a moment without a time zone is UTC.

        Not thread-safe.
        """
        amendments = self._amendments
        if self._ledger is None or self._ledger[0] is not amendments:
            added, removed = amendments
            self._ledger = (amendments, Ledger(history(self.seed, self.customers), added, removed))
        ledger = self._ledger[1]
        seconds = to_seconds(as_of)
        books = self._books
        is_current = books is not None and books.ledger is ledger and books.as_of == seconds
        if books is None or not is_current or books.two_currencies != two_currencies:
            books = self._books = Books(ledger, seconds, two_currencies=two_currencies)
        return books

    def _computed_activities(
        self, start: datetime | None, end: datetime, activity_type: str | None
    ) -> Iterator[Activity]:
        computed = history(self.seed, self.customers)
        type_number = None if activity_type is None else ACTIVITY_TYPES.index(activity_type)
        first = 0 if start is None else bisect_left(computed.times, to_seconds(start))
        last = bisect_left(computed.times, to_seconds(end))
        for index in islice(computed.order, first, max(first, last)):
            if type_number is None or computed.type[index] == type_number:
                yield computed.row(index)
