# SPDX-License-Identifier: Apache-2.0
"""An activity as a row of an export, and the CSV and zip file that an export consists of."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from airflow_provider_chartmogul.sandbox.company.clock import to_seconds

ACTIVITY_TYPES = ("new_biz", "reactivation", "expansion", "contraction", "churn")
"""The API's activity types."""

CSV_NAME = "activities.csv"
"""The name of the zip file's only member."""

_AMOUNTS = ("activity_mrr", "activity_mrr_movement", "activity_arr")


class Activity(NamedTuple):
    """A row of an export. The fields are the columns, in order.

    * `date`: ISO 8601 with a time of day, in UTC (`+00:00`), in whole seconds
    * `activity_mrr`: the customer's MRR after the activity, in cents
    * `activity_mrr_movement`: the change of the customer's MRR, in cents
    * `activity_arr`: twelve times `activity_mrr`
    * `customer_external_id`: text with leading zeros
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
        """Return the row as `csv.DictReader` does: all values text, by column."""
        return {column: str(value) for column, value in zip(COLUMNS, self, strict=True)}

    @classmethod
    def from_text(cls, row: Mapping[str, object]) -> Activity:
        """Read a row in the form of `as_text`, or an edited one: `{**row, "date": "2024-01-02T12:00:00Z"}`.

        :param row: a value for each column. A date without a time zone is UTC.
        :raises ValueError: for a missing or unknown column, an unknown type, and an invalid date or amount.
        """
        if row.keys() != set(COLUMNS):
            wrong = ", ".join(sorted(row.keys() ^ set(COLUMNS)))
            raise ValueError(f"an activity has exactly the columns {', '.join(COLUMNS)}; missing or unknown: {wrong}")
        check_activity_type(row["type"])
        values: dict[str, Any] = {column: str(value) for column, value in row.items()}
        for column in _AMOUNTS:
            values[column] = int(values[column])
        date = datetime.fromisoformat(values["date"])
        values["date"] = datetime.fromtimestamp(to_seconds(date), UTC).isoformat()
        return cls(**values)


COLUMNS: tuple[str, ...] = Activity._fields
"""The CSV's header."""


def check_activity_type(activity_type: object) -> None:
    """Check that the API has this activity type.

    :raises ValueError: if not; the message lists the API's types.
    """
    if activity_type not in ACTIVITY_TYPES:
        raise ValueError(f"unknown activity type: {activity_type!r}; it must be one of {', '.join(ACTIVITY_TYPES)}")


def to_csv(rows: Iterable[Activity]) -> bytes:
    """Return the rows as CSV with a header: UTF-8, commas, quotes where needed, line feeds."""
    return b"".join(_csv_chunks(rows))


def to_zip(rows: Iterable[Activity]) -> bytes:
    """Return the rows as a zip file with one deflated CSV. Equal rows give equal bytes."""
    # Fixed values instead of the current time, and this machine's system and file mode.
    member = zipfile.ZipInfo(CSV_NAME, date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3
    member.external_attr = 0o644 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open(member, "w") as file:
        for chunk in _csv_chunks(rows):
            file.write(chunk)
    return buffer.getvalue()


def _csv_chunks(rows: Iterable[Activity], rows_per_chunk: int = 2_000) -> Iterator[bytes]:
    """Yield the CSV in chunks, so that a long history is never in memory as text."""
    remaining = iter(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    while True:
        writer.writerows(islice(remaining, rows_per_chunk))
        chunk = text.getvalue()
        if not chunk:
            return
        yield chunk.encode()
        text.seek(0)
        text.truncate()
