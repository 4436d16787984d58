# SPDX-License-Identifier: Apache-2.0
"""Rows of `/contacts`."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_chartmogul.sandbox.company.billing import data_source_uuid
from airflow_provider_chartmogul.sandbox.company.books import Books
from airflow_provider_chartmogul.sandbox.company.identity import pick
from airflow_provider_chartmogul.sandbox.company.people import person
from airflow_provider_chartmogul.sandbox.resources.definition import ListDefinition, Query, Record, Row, equals
from airflow_provider_chartmogul.sandbox.resources.entities import Entity, entities

_NOTES = 'Heading\nBody, with a comma\n"Footer"'


def contacts(books: Books) -> Iterator[Entity]:
    """Yield the contacts."""
    return entities(books, "contact", limit=4, days=90)


def contact_uuid(contact: Entity) -> str:
    """Return a contact's UUID."""
    return f"con_{contact.uuid}"


def contact_external_id(contact: Entity) -> str:
    """Return a contact's external ID."""
    return f"contact-{contact.party.external_id}-{contact.number}"


def _records(books: Books) -> list[Record]:
    return [Record(contact.created, contact_uuid(contact), contact) for contact in contacts(books)]


def _create_row(books: Books, record: Record, query: Query) -> Row:
    contact: Entity = record.source
    party = contact.party
    is_known = pick(5, *contact.names, "known") > 0
    somebody = person(*contact.names)
    handle = f"{party.number}-{contact.number}"
    return {
        "uuid": record.id,
        "customer_uuid": party.uuid,
        "customer_external_id": party.external_id,
        "data_source_uuid": data_source_uuid(books.company, party.data_source),
        "position": contact.number,
        "first_name": somebody.first_name if is_known else None,
        "last_name": somebody.last_name if is_known else None,
        "title": "CTO" if is_known else None,
        "email": f"contact-{handle}@example.com",
        "phone": f"+49 221 {party.number:04}{contact.number}" if is_known else None,
        "linked_in": f"https://linkedin.com/in/{handle}" if is_known else None,
        "twitter": f"https://twitter.com/{handle}" if is_known else None,
        "notes": 'Heading\nBody, with a comma\n"Footer"'
        if is_known and pick(3, *contact.names, "notes") == 0
        else None,
        "custom": {"Toggle": False, "Seniority": 1 + contact.number} if pick(2, *contact.names, "custom") else {},
    }


CONTACTS = ListDefinition(
    name="contacts",
    path="/contacts",
    root="entries",
    records=_records,
    create_row=_create_row,
    filters={
        **{name: equals(name) for name in ("customer_uuid", "data_source_uuid", "email", "customer_external_id")},
        # The recorded rows do not show the external ID.
        "external_id": lambda books, record, row, value: contact_external_id(record.source) == value,
    },
)
