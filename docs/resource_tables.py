# SPDX-License-Identifier: Apache-2.0
"""
Write the tables of ``resources.md`` from the catalogue: ``python docs/resource_tables.py``.

The tables are between comments in the page, so that it reads the same here and on GitHub. A test fails if they are
outdated.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from airflow_provider_chartmogul.api.resources import JSON, RESOURCES, Resource, Table, column_name

PAGE = Path(__file__).with_name("resources.md")


def resource_table() -> str:
    """Return a row for each resource."""
    rows = [
        (
            f"`{resource.name}`",
            f"`{resource.path}`",
            _codes(table.name for table in resource.tables),
            _requests(resource),
            _codes(name for name in resource.query_params if name not in resource.default_params),
            ", ".join(_parameter(name, value) for name, value in resource.default_params.items()),
        )
        for resource in RESOURCES.values()
    ]
    header = ("resource", "path", "tables", "requests", "`query_params`", "sent by default")
    return _markdown([header, *rows])


def column_tables() -> str:
    """Return a section with the columns of each table."""
    return "\n".join(
        f"### `{table.name}`\n\n{_columns(table)}" for resource in RESOURCES.values() for table in resource.tables
    )


def _columns(table: Table) -> str:
    key = f"Primary key: {_codes(table.primary_key)}." if table.primary_key else "One row."
    rows = [(_column(key), _type(column_type)) for key, column_type in table.columns.items()]
    return f"{key}\n\n" + _markdown([("column", "type"), *rows])


def _column(key: str) -> str:
    name = column_name(key)
    return f"`{name}`" if name == key else f"`{name}` (`{key}`)"


def _type(column_type: str) -> str:
    return "JSON text" if column_type == JSON else f"`{column_type}`"


def _parameter(name: str, value: str) -> str:
    """Return a parameter as code. A list is several pieces, since one would be wider than the page."""
    return f"`{name}` with {_codes(value.split(','))}" if "," in value else f"`{name}={value}`"


def _requests(resource: Resource) -> str:
    if resource.parent:
        return f"one or more for each of the `{resource.parent}`"
    return "one for each 200 rows" if resource.is_paged else "one"


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"


def with_tables(page: str) -> str:
    """Return the text of the page with its tables replaced."""
    for name, text in (("resources", resource_table()), ("columns", column_tables())):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{PAGE} has no place for the tables, between {begin} and {end}")
        page = f"{before}{begin}\n\n{text}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
