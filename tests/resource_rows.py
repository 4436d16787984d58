# SPDX-License-Identifier: Apache-2.0
"""What the tables of a resource contain, given the rows of the API, worked out another way than the package does."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

from airflow_provider_chartmogul.api.resources import DATE, JSON, TIME, Table, column_name


def table_values(rows: list[dict[str, Any]], table: Table) -> list[dict[str, Any]]:
    """Return the values that a table has for rows, worked out another way than the package does."""
    return [{column_name(key): _value(row, key, kind) for key, kind in table.columns.items()} for row in rows]


def _value(row: dict[str, Any], key: str, kind: str) -> Any:
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None or (value == "" and kind != "string"):
        return None
    if kind == JSON:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if kind == TIME:
        return datetime.fromisoformat(value).astimezone(UTC)
    if kind == DATE:
        return date.fromisoformat(value)
    if kind == "float64":
        return float(value)
    if kind == "int64":
        return int(value)
    return value


def table_rows(rows: list[dict[str, Any]], table: Table) -> list[dict[str, Any]]:
    """Return the rows of a table of a resource, given the resource's rows."""
    if not table.rows_key:
        return rows
    return [{table.parent_key: row["uuid"], **item} for row in rows for item in row[table.rows_key]]


def csv_text(value: Any) -> str:
    """Return a value of a table as it stands in CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return str(value)
