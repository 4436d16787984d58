# SPDX-License-Identifier: Apache-2.0
"""Rows of `/notes`, `/customer_notes`, `/opportunities` and `/tasks`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.books import Books
from airflow_provider_chartmogul.sandbox.company.clock import DAY, with_milliseconds
from airflow_provider_chartmogul.sandbox.company.identity import choose, pick
from airflow_provider_chartmogul.sandbox.company.people import AUTHORS, OWNERS
from airflow_provider_chartmogul.sandbox.resources.contacts import contact_uuid, contacts
from airflow_provider_chartmogul.sandbox.resources.definition import (
    ListDefinition,
    Query,
    Record,
    Row,
    equals,
    is_set,
    on_or_after,
    on_or_before,
)
from airflow_provider_chartmogul.sandbox.resources.entities import Entity, entities

_TEXTS = ("This is a call", 'Asked for a discount, "as usual"\nCall back', "値上げについて", "Überweisung kommt")

# Stage, forecast category and likelihood of winning.
_STAGES = (("Discovery", "pipeline", 30), ("Evaluation", "best_case", 50), ("Closed Won", "committed", 100))


class _Note(NamedTuple):
    """A note; `contact` is the UUID of its contact, `None` for a note on a customer."""

    entity: Entity
    contact: str | None


def _updated(entity: Entity, as_of: int) -> int:
    """Return when an entity was last edited, in microseconds: a quarter of them some time after their creation."""
    edited = entity.created + (1 + pick(20 * DAY, *entity.names, "edited")) * 1_000_000
    return edited if pick(4, *entity.names, "is edited") == 0 and edited < as_of * 1_000_000 else entity.created


def _customer_note_records(books: Books) -> list[Record]:
    return [
        Record(note.created, f"note_{note.uuid}", _Note(note, None))
        for note in entities(books, "note", limit=5, days=600)
    ]


def _note_records(books: Books) -> list[Record]:
    on_contacts = [
        Record(contact.created, f"note_{contact.uuid}", _Note(contact, contact_uuid(contact)))
        for contact in contacts(books)
        if pick(6, *contact.names, "note") == 0
    ]
    return [*_customer_note_records(books), *on_contacts]


def _create_note(books: Books, record: Record, query: Query) -> Row:
    note: _Note = record.source
    party = note.entity.party
    # The recorded keys of /customer_notes, and those that the official clients' tests of /notes add.
    return {
        "uuid": record.id,
        "customer_uuid": party.uuid if note.contact is None else None,
        "associated_object": "customer" if note.contact is None else "contact",
        "associated_object_uuid": party.uuid if note.contact is None else note.contact,
        **_text(note.entity, books),
    }


def _create_customer_note(books: Books, record: Record, query: Query) -> Row:
    note: _Note = record.source
    return {"uuid": record.id, "customer_uuid": note.entity.party.uuid, **_text(note.entity, books)}


def _text(note: Entity, books: Books) -> Row:
    is_call = pick(3, *note.names, "call") == 0
    return {
        "type": "call" if is_call else "note",
        "text": choose(_TEXTS, *note.names, "text"),
        "call_duration": 60 * (1 + pick(30, *note.names, "duration")) if is_call else 0,
        "author": choose(AUTHORS, *note.names, "author"),
        "created_at": with_milliseconds(note.created),
        "updated_at": with_milliseconds(_updated(note, books.as_of)),
    }


def _has_author(books: Books, record: Record, row: Row, value: str) -> bool:
    return bool(row["author"].endswith(f"({value})"))


def _opportunity_records(books: Books) -> list[Record]:
    return [
        Record(opportunity.created, opportunity.uuid, opportunity)
        for opportunity in entities(books, "opportunity", limit=4, days=900)
    ]


def _create_opportunity(books: Books, record: Record, query: Query) -> Row:
    opportunity: Entity = record.source
    names = opportunity.names
    stage, category, likelihood = choose(_STAGES, *names, "stage")
    close_date = datetime.fromtimestamp(opportunity.created // 1_000_000, UTC).date() + timedelta(
        days=10 + pick(90, *names, "close")
    )
    custom = {"from_campaign": pick(2, *names, "campaign") == 0, "Seats": 5 + pick(100, *names, "seats")}
    return {
        "uuid": record.id,
        "customer_uuid": opportunity.party.uuid,
        "owner": choose(OWNERS, *names, "owner"),
        "pipeline": choose(("New Business", "Renewals"), *names, "pipeline"),
        "pipeline_stage": stage,
        "estimated_close_date": close_date.isoformat(),
        "currency": choose(("EUR", "USD"), *names, "currency"),
        "amount_in_cents": 10_000 * (1 + pick(50, *names, "amount")),
        "type": choose(("recurring", "one-time"), *names, "type"),
        "forecast_category": category,
        "win_likelihood": likelihood,
        "custom": custom if pick(4, *names, "custom") else {},
        "created_at": with_milliseconds(opportunity.created),
        "updated_at": with_milliseconds(_updated(opportunity, books.as_of)),
    }


def _task_records(books: Books) -> list[Record]:
    return [Record(task.created, task.uuid, task) for task in entities(books, "task", limit=4, days=1200)]


def _create_task(books: Books, record: Record, query: Query) -> Row:
    task: Entity = record.source
    names = task.names
    due = (task.created // (DAY * 1_000_000) + 5 + pick(60, *names, "due")) * DAY
    completed = (due - pick(3 * DAY, *names, "completed")) * 1_000_000
    is_completed = pick(2, *names, "is completed") == 0 and completed < books.as_of * 1_000_000
    return {
        "task_uuid": record.id,
        "customer_uuid": task.party.uuid,
        "task_details": choose(_TEXTS, *names, "details"),
        "assignee": choose(OWNERS, *names, "assignee"),
        "due_date": with_milliseconds(due * 1_000_000),
        "completed_at": with_milliseconds(completed) if is_completed else None,
        "created_at": with_milliseconds(task.created),
        "updated_at": with_milliseconds(completed if is_completed else _updated(task, books.as_of)),
    }


def _is_completed(books: Books, record: Record, row: Row, value: str) -> bool:
    return (row["completed_at"] is not None) == is_set({"completed": value}, "completed")


NOTES = ListDefinition(
    name="notes",
    path="/notes",
    root="entries",
    records=_note_records,
    create_row=_create_note,
    filters={
        "customer_uuid": equals("customer_uuid"),
        "contact_uuid": lambda books, record, row, value: record.source.contact == value,
        "type": equals("type"),
        "author_email": _has_author,
    },
)

CUSTOMER_NOTES = ListDefinition(
    name="customer_notes",
    path="/customer_notes",
    root="entries",
    records=_customer_note_records,
    create_row=_create_customer_note,
    filters={"customer_uuid": equals("customer_uuid"), "type": equals("type"), "author_email": _has_author},
)

OPPORTUNITIES = ListDefinition(
    name="opportunities",
    path="/opportunities",
    root="entries",
    records=_opportunity_records,
    create_row=_create_opportunity,
    filters={
        **{name: equals(name) for name in ("customer_uuid", "owner", "pipeline", "pipeline_stage")},
        "estimated_close_date_on_or_after": on_or_after("estimated_close_date"),
        "estimated_close_date_on_or_before": on_or_before("estimated_close_date"),
    },
)

TASKS = ListDefinition(
    name="tasks",
    path="/tasks",
    root="entries",
    records=_task_records,
    create_row=_create_task,
    filters={
        "customer_uuid": equals("customer_uuid"),
        "assignee": equals("assignee"),
        "due_date_on_or_after": on_or_after("due_date"),
        "due_date_on_or_before": on_or_before("due_date"),
        "completed": _is_completed,
    },
    identity="task_uuid",
)
