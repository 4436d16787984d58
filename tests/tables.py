# SPDX-License-Identifier: Apache-2.0
"""Reads tables in DuckDB and PostgreSQL in the form of the sandbox's expected rows, and compares the two."""

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
    """Return a table's rows in the form of the sandbox's expected rows, sorted. NULL becomes the empty string."""
    return sorted_rows(
        {
            name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else (value or "")
            for name, value in zip(columns, row, strict=True)
        }
        for row in rows
    )


def duckdb_rows(database: Path | str, table: str, columns: Sequence[str]) -> list[Row]:
    """Return all rows of a table in a DuckDB file."""
    with duckdb.connect(str(database), read_only=True) as connection:
        return as_expected_rows(columns, connection.execute(_select(table, columns)).fetchall())


def postgres_rows(uri: str, table: str, columns: Sequence[str]) -> list[Row]:
    """Return all rows of a table in PostgreSQL."""
    with psycopg.connect(uri) as connection:
        return as_expected_rows(columns, connection.execute(_select(table, columns)).fetchall())


def _select(table: str, columns: Sequence[str]) -> Any:
    names = ", ".join(f'"{column}"' for column in columns)
    return f"SELECT {names} FROM {table}"


def within(rows: Iterable[Row], start: datetime, end: datetime) -> list[Row]:
    """Return the rows in a half-open window. Dates are compared as strings, since all have the same format, in UTC."""
    return [row for row in rows if start.isoformat() <= row["date"] < end.isoformat()]


def difference(rows: Iterable[Row], expected_rows: Iterable[Row]) -> list[tuple[str, Row]]:
    """Return the rows that differ as ``("unexpected", row)`` or ``("missing", row)``, duplicates included."""
    actual, expected = (Counter(tuple(row.items()) for row in some) for some in (rows, expected_rows))
    return [
        (kind, dict(row))
        for kind, counts in (("unexpected", actual - expected), ("missing", expected - actual))
        for row in counts.elements()
    ]
