# SPDX-License-Identifier: Apache-2.0
"""Rows of DuckDB and PostgreSQL tables in the form of the sandbox's rows, and the difference between the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg

Row = dict[str, str]


def sorted_rows(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["date"], row["uuid"]))


def as_expected_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Row]:
    """A table's rows as the sandbox gives them, sorted; NULL is the empty text."""
    return sorted_rows(
        {
            name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else (value or "")
            for name, value in zip(columns, row, strict=True)
        }
        for row in rows
    )


def duckdb_rows(database: Path | str, table: str, columns: Sequence[str]) -> list[Row]:
    """All rows of a table in a DuckDB file."""
    with duckdb.connect(str(database), read_only=True) as connection:
        return as_expected_rows(columns, connection.execute(_select(table, columns)).fetchall())


def postgres_rows(uri: str, table: str, columns: Sequence[str]) -> list[Row]:
    """All rows of a table in PostgreSQL."""
    with psycopg.connect(uri) as connection:
        return as_expected_rows(columns, connection.execute(_select(table, columns)).fetchall())


def _select(table: str, columns: Sequence[str]) -> Any:
    names = ", ".join(f'"{column}"' for column in columns)
    return f"SELECT {names} FROM {table}"


def within(rows: Iterable[Row], start: datetime, end: datetime) -> list[Row]:
    """The rows of a half-open window. All dates are texts of one form, in UTC, so that their order is that of time."""
    return [row for row in rows if start.isoformat() <= row["date"] < end.isoformat()]


def difference(rows: Iterable[Row], expected_rows: Iterable[Row]) -> list[tuple[str, Row]]:
    """The rows that only one has, or has more often: each is ``("too many", row)`` or ``("missing", row)``."""
    has, wants = (Counter(tuple(row.items()) for row in some) for some in (rows, expected_rows))
    return [
        (what, dict(row))
        for what, left in (("too many", has - wants), ("missing", wants - has))
        for row in left.elements()
    ]
