# SPDX-License-Identifier: Apache-2.0
"""Extract the rows of a resource's other tables, which are nested in the rows of the main table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_chartmogul.api.resources import Table


def nested_rows(row: Mapping[str, Any], table: Table) -> list[dict[str, Any]]:
    """Return the rows of a nested table, each with the key of its row in the main table."""
    nested = row.get(table.rows_key)
    items = [nested] if isinstance(nested, dict) else nested if isinstance(nested, list) else []
    key, uuid = table.parent_key, row.get("uuid")
    return [item if item.get(key) is not None else {**item, key: uuid} for item in items if isinstance(item, dict)]
