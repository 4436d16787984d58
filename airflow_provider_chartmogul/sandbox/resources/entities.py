# SPDX-License-Identifier: Apache-2.0
"""The entities that belong to a customer or lead, such as its contacts: their numbers and creation times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.books import Books, Party
from airflow_provider_chartmogul.sandbox.company.clock import DAY
from airflow_provider_chartmogul.sandbox.company.identity import entity_uuid, pick


class Entity(NamedTuple):
    """An entity of a party, such as its second contact: `number` counts from 1, `created` is in microseconds."""

    kind: str
    party: Party
    number: int
    uuid: str
    created: int

    @property
    def names(self) -> tuple[object, ...]:
        """The names for arbitrary choices."""
        return (self.kind, self.party.uuid, self.number)


def entities(books: Books, kind: str, *, limit: int, days: int) -> Iterator[Entity]:
    """Yield the entities of one kind that were created before the books' moment.

    :param kind: such as `contact`.
    :param limit: a party has fewer than this many.
    :param days: they are created within this many days after the party became known.
    """
    for party in books.parties:
        for number in range(1, 1 + pick(limit, books.company, kind, party.number)):
            names = (books.company, kind, party.number, number)
            seconds = party.known_at + pick(days * DAY, *names, "created")
            if seconds < books.as_of:
                created = seconds * 1_000_000 + pick(1_000_000, *names, "microseconds")
                yield Entity(kind, party, number, entity_uuid(*names), created)
