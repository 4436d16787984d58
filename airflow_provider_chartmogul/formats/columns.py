# SPDX-License-Identifier: Apache-2.0
"""The columns of a table: those of the catalogue, and those that ``column_types`` adds or changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_chartmogul.api.resources import JSON, TEXT, Table, column_name
from airflow_provider_chartmogul.exceptions import ColumnTypesError


@dataclass(frozen=True)
class Column:
    """
    A column.

    :param name: its name
    :param key: the API's key, with dots between nested keys
    :param type_name: the name of an Arrow type, or ``JSON``
    :param source: for a value inside a JSON column, the key of that column
    """

    name: str
    key: str
    type_name: str
    source: str | None = None

    @property
    def path(self) -> str:
        """The path of the value inside the JSON column."""
        return self.key.removeprefix(f"{self.source}.")


def list_columns(table: Table, column_types: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """
    Return the columns of a table, those that ``column_types`` adds last.

    :param column_types: names of types. A key is a declared column, by its name or the API's key, which gets this type;
        or a path below a JSON column, such as ``attributes.custom.CAC``, which becomes a column of its own
    :raises ColumnTypesError: for an unknown column, and for two that have the same name
    """
    if column_types is not None and not isinstance(column_types, Mapping):
        raise ColumnTypesError(f"column_types is a dictionary of types by column, not {column_types!r}")
    columns = {column_name(key): Column(column_name(key), key, type_name) for key, type_name in table.columns.items()}
    given: dict[str, str] = {}
    for key, type_name in (column_types or {}).items():
        column = _find_column(table, key, type_name)
        if column.name in given or (column.source and column.name in columns):
            other = given.get(column.name, column.name)
            raise ColumnTypesError(f"column_types: {key!r} and {other!r} are both the column {column.name}")
        given[column.name] = key
        columns[column.name] = column
    return tuple(columns.values())


def _find_column(table: Table, key: Any, type_name: str) -> Column:
    for declared, declared_type in table.columns.items():
        if key in (declared, column_name(declared)):
            # JSON is text already.
            kept = JSON if declared_type == JSON and str(type_name).strip() == TEXT else type_name
            return Column(column_name(declared), declared, kept)
        if declared_type == JSON and isinstance(key, str) and key.startswith(f"{declared}.") and key != f"{declared}.":
            name = re.sub(r"\W+", "_", column_name(key)).lower().strip("_")
            return Column(name, key, type_name, source=declared)
    json_keys = [declared for declared, declared_type in table.columns.items() if declared_type == JSON]
    below = f", or a path below {', '.join(json_keys)}" if json_keys else ""
    raise ColumnTypesError(
        f"column_types: {table.name} has no column {key!r}. Give one of {', '.join(table.column_types)}{below}"
    )


def look_up(value: Any, path: str) -> Any:
    """
    Return a value inside an object, by the path of its keys.

    :param path: keys with dots between them; a key may contain dots itself
    :return: ``None`` where there is no such value
    """
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    key, dot, rest = path.partition(".")
    return look_up(value.get(key), rest) if dot else None
