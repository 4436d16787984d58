# SPDX-License-Identifier: Apache-2.0
"""The sandbox's company: subscription activities computed from a seed, and the CSV and zip made of them.

Nothing here knows the time or does I/O. A `Company` is a function of its seed and its number of customers;
the same window of it gives the same rows, byte for byte, whenever and however often it is asked for, until
somebody changes its history with `Company.amend`.

The company is founded on 2018-01-01 and is computed up to 2040-01-01 (UTC). Half of its customers arrive
in the first year, the other half evenly over the rest. An active customer changes its number of seats about
once a week, leaves now and then (about one activity in seventeen) and nearly always comes back within some
weeks. With the default of 500 customers that is about 20 to 60 activities on any day from 2019 on.
"""

from __future__ import annotations

import csv
import io
import random
import uuid
import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

FOUNDED = datetime(2018, 1, 1, tzinfo=UTC)
"""Nothing happens before this moment."""

HORIZON = datetime(2040, 1, 1, tzinfo=UTC)
"""Nothing happens at or after this moment."""

ACTIVITY_TYPES = ("new_biz", "reactivation", "expansion", "contraction", "churn")
"""The values of `type`, as the API has them."""

CSV_NAME = "activities.csv"
"""The name of the only member of the zip."""

_NEW_BIZ, _REACTIVATION, _EXPANSION, _CONTRACTION, _CHURN = range(len(ACTIVITY_TYPES))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400
_FIRST_YEAR = 365 * _DAY
_ARRIVE_IN_FIRST_YEAR = 0.5
_DAYS_BETWEEN_CHANGES = 7.0
_SHARE_OF_CHURN = 0.06
_SHARE_GONE_FOR_GOOD = 0.01
_MOST_SEATS = 200

_NAMESPACE = uuid.UUID("5f0d0c0e-6c6f-5c5a-9a54-0c1d6f2b7a11")

# (plan_external_id, name, cents per seat and month). All whole cents, so that MRR needs no rounding.
_PLANS = (
    ("starter-monthly", "Starter", 900),
    ("growth-monthly", "Growth", 2_900),
    ("growth-annual", "Growth, yearly", 2_400),
    ("scale-annual", "Scale, yearly", 7_900),
)

_WORDS = (
    "Acorn", "Beacon", "Copper", "Dovetail", "Ember", "Fjord", "Granite", "Harbour", "Indigo", "Juniper",
    "Keystone", "Lantern", "Meridian", "Nimbus", "Orchard", "Pinnacle", "Quarry", "Riverside", "Summit",
    "Tundra", "Umber", "Vertex", "Willow", "Yonder", "Zephyr",
)  # fmt: skip

# Names that a CSV reader has to get right: commas, quotes, letters outside ASCII. Every company with a few
# customers has all of them, since they are taken in turn.
_NAME_SHAPES = (
    "{0} {1} Ltd",
    "{0}, {1} & Partners",
    'The "{0}" {1} Company',
    "Société {0} Céleste",
    "{0} Systems",
    "Müller & Söhne {0} GmbH",
    "{0} 株式会社",
    "{0} {1}, Inc.",
    "Łódź {0} Sp. z o.o.",
    "{0} O'{1}",
)


class Activity(NamedTuple):
    """One row of an export. The fields are the columns, in their order.

    `date` is ISO 8601 with a time of day, in UTC (`+00:00`), to the second. Amounts are whole cents:
    `activity_mrr` is the customer's MRR after the activity, `activity_mrr_movement` by how much the activity
    changed it. `customer_external_id` is text with leading zeros.
    """

    uuid: str
    date: str
    type: str
    customer_uuid: str
    customer_external_id: str
    customer_name: str
    description: str
    activity_mrr: int
    activity_mrr_movement: int
    activity_arr: int
    currency: str
    currency_sign: str
    subscription_external_id: str
    plan_external_id: str
    billing_connector_uuid: str

    def as_text(self) -> dict[str, str]:
        """The row as `csv.DictReader` gives it: every value text, keyed by column."""
        return {column: str(value) for column, value in zip(COLUMNS, self, strict=True)}

    @classmethod
    def from_text(cls, row: Mapping[str, object]) -> Activity:
        """The row that `as_text` gives, or one changed by hand: `{**row, "date": "2024-01-02T12:00:00Z"}`.

        :param row: a value for each column; a date without a time zone is UTC.
        :raises ValueError: for a column that is missing or unknown, a type the API does not have, and a date or
            an amount that is none.
        """
        if row.keys() != set(COLUMNS):
            wrong = ", ".join(sorted(row.keys() ^ set(COLUMNS)))
            raise ValueError(f"an activity has each of {', '.join(COLUMNS)}, and no other column; see {wrong}")
        if row["type"] not in ACTIVITY_TYPES:
            raise ValueError(f"no such activity type: {row['type']!r}; it is one of {', '.join(ACTIVITY_TYPES)}")
        values: dict[str, Any] = {column: str(value) for column, value in row.items()}
        for column in ("activity_mrr", "activity_mrr_movement", "activity_arr"):
            values[column] = int(values[column])
        date = datetime.fromisoformat(values["date"])
        values["date"] = datetime.fromtimestamp(_seconds(date), UTC).isoformat()
        return cls(**values)


COLUMNS: tuple[str, ...] = Activity._fields
"""The header of the CSV."""


class Company:
    """A small SaaS company whose activities can be asked for by window of time.

    Making one costs nothing; the first question computes all of its activities (about a second for 500
    customers), which later questions, also of other objects with the same seed and size, find ready.

    :param seed: any whole number; another seed is another company.
    :param customers: how many customers it has in all, from its founding to `HORIZON`; 0 or more.
    :raises ValueError: for a negative number of customers.
    """

    def __init__(self, seed: int = 1, customers: int = 500) -> None:
        if customers < 0:
            raise ValueError(f"customers must be 0 or more, not {customers}")
        self.seed = seed
        self.customers = customers
        # One attribute for both, so that whoever reads them in another thread sees them change at once.
        self._amendments: tuple[list[Activity], frozenset[str]] = ([], frozenset())

    def __repr__(self) -> str:
        return f"Company(seed={self.seed}, customers={self.customers})"

    def activities(self, start: datetime | None, end: datetime, activity_type: str | None = None) -> Iterator[Activity]:
        """The activities with start <= date < end, by date.

        :param start: the window's first moment; None means from the founding. Any time zone; a datetime
            without one is UTC.
        :param end: the moment at which the window is over, the same way. One before `start` gives nothing.
        :param activity_type: only activities of this type; None means all of them.
        :raises ValueError: for a type that is none of `ACTIVITY_TYPES`.
        """
        kind = None
        if activity_type is not None:
            if activity_type not in ACTIVITY_TYPES:
                raise ValueError(f"no such activity type: {activity_type!r}; it is one of {', '.join(ACTIVITY_TYPES)}")
            kind = ACTIVITY_TYPES.index(activity_type)
        # Not a generator itself, so that a wrong type is an error here and not at the first row.
        return self._rows(start, end, kind)

    def amend(self, *, added: Iterable[Mapping[str, object]] = (), removed: Iterable[str] = ()) -> None:
        """Change history, as people do who correct their books: activities are added, also in the past, and removed.

        What is removed goes first, so that one activity in both is edited. It holds for this object alone.

        :param added: rows as `Activity.from_text` takes them.
        :param removed: values of `uuid`; one that no activity has changes nothing.
        :raises ValueError: for a row that makes no sense; then nothing has changed.
        """
        rows = [Activity.from_text(row) for row in added]
        gone = frozenset(removed)
        before, already_gone = self._amendments
        # An activity of the ledger that was edited stays out of it; one that was added before goes for good.
        kept = [row for row in before if row.uuid not in gone]
        self._amendments = (sorted([*kept, *rows], key=attrgetter("date")), already_gone | gone)

    def _rows(self, start: datetime | None, end: datetime, kind: int | None) -> Iterator[Activity]:
        added, removed = self._amendments
        if not added and not removed:
            return self._ledger_rows(start, end, kind)
        ours = (row for row in self._ledger_rows(start, end, kind) if row.uuid not in removed)
        first, last = (None if start is None else _seconds(start)), _seconds(end)
        theirs = (
            row
            for row in added
            if (kind is None or row.type == ACTIVITY_TYPES[kind])
            and (first is None or first <= _seconds(datetime.fromisoformat(row.date)))
            and _seconds(datetime.fromisoformat(row.date)) < last
        )
        # Dates are text of one length and one time zone: their order is that of time.
        return merge(ours, theirs, key=attrgetter("date"))

    def _ledger_rows(self, start: datetime | None, end: datetime, kind: int | None) -> Iterator[Activity]:
        ledger = _ledger(self.seed, self.customers)
        first = 0 if start is None else bisect_left(ledger.times, _seconds(start))
        last = bisect_left(ledger.times, _seconds(end))
        for place in islice(ledger.order, first, max(first, last)):
            if kind is None or ledger.kind[place] == kind:
                yield ledger.row(place)


def to_csv(rows: Iterable[Activity]) -> bytes:
    """The rows as CSV with a header: UTF-8, commas, quotes where needed, lines ended by a line feed."""
    return b"".join(_csv_pieces(rows))


def to_zip(rows: Iterable[Activity]) -> bytes:
    """The rows as a zip with one deflated member, `CSV_NAME`. Equal rows make equal bytes."""
    # The time, the system and the mode would otherwise come from the clock and the machine.
    member = zipfile.ZipInfo(CSV_NAME, date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3
    member.external_attr = 0o644 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open(member, "w") as file:
        for piece in _csv_pieces(rows):
            file.write(piece)
    return buffer.getvalue()


def _csv_pieces(rows: Iterable[Activity], rows_a_piece: int = 2_000) -> Iterator[bytes]:
    """The CSV in pieces, so that all of history is never in memory as text."""
    remaining = iter(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    while True:
        writer.writerows(islice(remaining, rows_a_piece))
        piece = text.getvalue()
        if not piece:
            return
        yield piece.encode()
        text.seek(0)
        text.truncate()


def _seconds(moment: datetime) -> int:
    """The first whole second at or after `moment`, from the epoch: activities fall on whole seconds."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = aware - _EPOCH
    return since.days * _DAY + since.seconds + (1 if since.microseconds else 0)


class _Event(NamedTuple):
    at: int
    kind: int
    mrr: int
    movement: int
    plan: int
    subscription: int


class _Ledger:
    """All activities of a company, as columns of numbers: some 50 bytes each, not a kilobyte.

    Rows are made from them when asked for. The columns hold one customer after the other; `order` says
    where the activities are by date, and `times` are their dates in that order, for bisection.
    """

    def __init__(self, seed: int, customers: int) -> None:
        self.company = f"{seed}/{customers}"
        # Four digits make '0042'; there are more only where the customers are that many.
        self.digits = max(4, len(str(customers)))
        self.billing_connector_uuid = str(uuid.uuid5(_NAMESPACE, f"{self.company}/billing connector"))
        self.names: list[str] = []
        self.customer_uuids: list[str] = []
        self.customer = array("I")
        self.number = array("I")
        self.kind = array("B")
        self.mrr = array("q")
        self.movement = array("q")
        self.plan = array("B")
        self.subscription = array("I")
        at = array("q")
        for customer in range(customers):
            rng = random.Random(f"{self.company}/{customer}")
            self.names.append(_name(rng, customer))
            self.customer_uuids.append(f"cus_{uuid.uuid5(_NAMESPACE, f'{self.company}/{customer}')}")
            arrival = _arrival((customer + rng.random()) / customers)
            for number, event in enumerate(_life(rng, arrival)):
                at.append(event.at)
                self.customer.append(customer)
                self.number.append(number)
                self.kind.append(event.kind)
                self.mrr.append(event.mrr)
                self.movement.append(event.movement)
                self.plan.append(event.plan)
                self.subscription.append(event.subscription)
        # The sort is stable: of activities in the same second, the earlier customer's comes first.
        self.order = array("I", sorted(range(len(at)), key=at.__getitem__))
        self.times = array("q", (at[place] for place in self.order))
        self.at = at

    def row(self, place: int) -> Activity:
        customer = self.customer[place]
        number = self.number[place]
        external_id = str(customer + 1).zfill(self.digits)
        mrr = self.mrr[place]
        plan_external_id, plan_name, price = _PLANS[self.plan[place]]
        movement = self.movement[place]
        kind = self.kind[place]
        return Activity(
            uuid=str(uuid.uuid5(_NAMESPACE, f"{self.company}/{customer}/{number}")),
            date=datetime.fromtimestamp(self.at[place], UTC).isoformat(),
            type=ACTIVITY_TYPES[kind],
            customer_uuid=self.customer_uuids[customer],
            customer_external_id=external_id,
            customer_name=self.names[customer],
            description=_description(kind, plan_name, mrr // price, movement // price, customer + number),
            activity_mrr=mrr,
            activity_mrr_movement=movement,
            activity_arr=12 * mrr,
            currency="EUR",
            currency_sign="€",
            subscription_external_id=f"sub-{external_id}-{self.subscription[place]}",
            plan_external_id=plan_external_id,
            billing_connector_uuid=self.billing_connector_uuid,
        )


@lru_cache(maxsize=4)
def _ledger(seed: int, customers: int) -> _Ledger:
    return _Ledger(seed, customers)


# Of random.Random only random() is used below: it is the one method whose numbers Python promises to keep
# from version to version, and nothing here goes through the C library's logarithms, which differ too.


def _below(rng: random.Random, limit: int) -> int:
    """A whole number from 0 up to, not including, `limit`."""
    return int(rng.random() * limit)


def _name(rng: random.Random, customer: int) -> str:
    shape = _NAME_SHAPES[customer % len(_NAME_SHAPES)]
    return shape.format(_WORDS[_below(rng, len(_WORDS))], _WORDS[_below(rng, len(_WORDS))])


def _arrival(share: float) -> int:
    """When the customer arrives that has `share` (0 to 1) of all customers before it, in epoch seconds."""
    founded, horizon = _seconds(FOUNDED), _seconds(HORIZON)
    if share < _ARRIVE_IN_FIRST_YEAR:
        return founded + int(_FIRST_YEAR * share / _ARRIVE_IN_FIRST_YEAR)
    later = (share - _ARRIVE_IN_FIRST_YEAR) / (1 - _ARRIVE_IN_FIRST_YEAR)
    return founded + _FIRST_YEAR + int((horizon - founded - _FIRST_YEAR) * later)


def _life(rng: random.Random, arrival: int) -> Iterator[_Event]:
    """One customer's activities in order: new_biz, then changes, churn and reactivation, to the horizon."""
    horizon = _seconds(HORIZON)
    at = arrival
    subscription = 0
    seats = 0
    plan = 0
    price = 0
    kind = _NEW_BIZ
    while at < horizon:
        before = seats * price
        if kind in (_NEW_BIZ, _REACTIVATION):
            # Whoever comes back does so with a new subscription, perhaps to another plan.
            subscription += 1
            plan = _below(rng, len(_PLANS))
            price = _PLANS[plan][2]
            seats = 1 + _below(rng, 20)
        elif kind == _EXPANSION:
            seats += 1 + _below(rng, 5)
        elif kind == _CONTRACTION:
            seats -= 1 + _below(rng, min(5, seats - 1))
        else:
            seats = 0
        yield _Event(at, kind, seats * price, seats * price - before, plan, subscription)
        if kind == _CHURN:
            if rng.random() < _SHARE_GONE_FOR_GOOD:
                return
            kind = _REACTIVATION
            at += int(_DAY * (5 + 25 * rng.random()))
            continue
        at += int(_DAY * _DAYS_BETWEEN_CHANGES * (0.1 + 1.8 * rng.random()))
        draw = rng.random()
        if draw < _SHARE_OF_CHURN:
            kind = _CHURN
        elif seats == 1 or (draw < (1 + _SHARE_OF_CHURN) / 2 and seats < _MOST_SEATS):
            kind = _EXPANSION
        else:
            kind = _CONTRACTION


def _description(kind: int, plan: str, seats: int, change: int, turn: int) -> str:
    if kind == _NEW_BIZ:
        text = f"{plan}: subscribed with {seats} seats"
    elif kind == _REACTIVATION:
        text = f"{plan}: came back with {seats} seats"
    elif kind == _CHURN:
        text = f"{plan}: cancelled {-change} seats"
    else:
        text = f"{plan}: from {seats - change} to {seats} seats"
    # What people type into a note field, and what breaks readers that split a file at its line ends.
    if turn % 7 == 3:
        text += '\nNote: agreed by phone, "as discussed"'
    return text
