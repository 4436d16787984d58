# SPDX-License-Identifier: Apache-2.0
"""Changes of lists while clients walk them: rows that were created or deleted, and customers that moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.identity import entity_uuid
from airflow_provider_chartmogul.sandbox.resources.definition import ListDefinition, Record, Row

_SECOND = 1_000_000


class _CreatedFrom(NamedTuple):
    """The source of a created record: the record that it resembles."""

    record: Record


@dataclass
class ListChanges:
    """The changes of one list.

    * `created`: records that were created
    * `deleted`: the IDs of records that were deleted
    * `moved`: the new times of records that moved
    """

    created: list[Record] = field(default_factory=list)
    deleted: set[int | str] = field(default_factory=set)
    moved: dict[int | str, int] = field(default_factory=dict)

    def apply(self, records: list[Record]) -> list[Record]:
        """Return the records as they are after the changes."""
        return [
            record._replace(created=self.moved.get(record.id, record.created))
            for record in (*records, *self.created)
            if record.id not in self.deleted
        ]

    def create(self, definition: ListDefinition, records: list[Record]) -> Record:
        """Create a record that resembles the newest one of a list, and is newer. A new customer is a lead.

        :param records: the list's records with the changes; at least one.
        """
        newest = max(records, key=lambda record: (record.created or 0, record.id))
        # A lead has no time, so it comes last in the list of customers.
        created = None if definition.name == "customers" else (newest.created or 0) + _SECOND
        record_id: int | str
        if isinstance(newest.id, int):
            record_id = max(int(record.id) for record in records) + 1
        else:
            prefix, separator, _ = newest.id.rpartition("_")
            record_id = f"{prefix}{separator}{entity_uuid('created', newest.id)}"
        record = Record(created, record_id, _CreatedFrom(newest))
        self.created.append(record)
        return record


def original(record: Record) -> Record:
    """Return the record with the source of the record that it resembles, if it was created from one."""
    while isinstance(record.source, _CreatedFrom):
        record = record._replace(source=record.source.record.source)
    return record


def renew_row(definition: ListDefinition, record: Record, row: Row) -> Row:
    """Return a created record's row with identities of its own, its children's too. Other rows are left alone."""
    if not isinstance(record.source, _CreatedFrom):
        return row
    row = _renew(row, record.id)
    row[definition.identity] = record.id if definition.identity == "id" else row[definition.identity]
    if definition.name == "customers":
        row |= {"status": "New Lead", "customer-since": None, "mrr": 0, "arr": 0, "external_ids": [row["external_id"]]}
    return row


def _renew(row: Row, record_id: int | str) -> Row:
    renewed = dict(row)
    for key in ("uuid", "task_uuid"):
        if key in row and row[key] != record_id:
            prefix, separator, _ = row[key].rpartition("_")
            renewed[key] = f"{prefix}{separator}{entity_uuid('created', record_id, row[key])}"
    if row.get("external_id"):
        renewed["external_id"] = f"{row['external_id']}-created-{record_id}"
    for key in ("line_items", "transactions"):
        if key in row:
            renewed[key] = [_renew(child, record_id) for child in row[key]]
    return renewed
