# SPDX-License-Identifier: Apache-2.0
"""Which columns of a table leave ChartMogul: ``columns`` and ``exclude_columns``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_chartmogul.api.resources import Table, column_name
from airflow_provider_chartmogul.exceptions import InvalidResourceError

#: The column of unknown keys, and of values that do not fit the type of their column.
EXTRA = "_extra"
#: The column that says when a row was extracted.
EXTRACTED_AT = "_extracted_at"


class ColumnSelection:
    """
    The columns of a table that are kept.

    A name is that of a column (``customer_since``), the API's key for it (``customer-since``), or the name of an object
    that is flattened (``address``), which stands for all of its columns. Columns that identify a row are kept always.

    What is not a declared column goes with ``_extra``: unknown keys are kept unless ``exclude_columns`` names it, and
    with ``columns`` only if that names it. Whatever an object contains is dropped where all of its columns are left
    out, and so is a value that stands in its place where one of them is, since nothing says what it contains.

    :param table: the table
    :param columns: the columns to keep; ``None`` keeps all
    :param exclude_columns: the columns to leave out, instead of ``columns``
    :param other_tables: the other tables of the resource. A name may be that of a column of any of them; it counts for
        each table that has it
    :raises InvalidResourceError: for an unknown column, naming the known ones; if ``exclude_columns`` names a column
        that identifies a row; if both are given; for what is not a list of names
    """

    def __init__(
        self,
        table: Table,
        columns: Iterable[str] | None = None,
        exclude_columns: Iterable[str] | None = None,
        *,
        other_tables: Sequence[Table] = (),
    ) -> None:
        kept, excluded = _check_names("columns", columns), _check_names("exclude_columns", exclude_columns)
        if kept is not None and excluded is not None:
            raise InvalidResourceError("columns and exclude_columns cannot be given together")
        self.table = table
        #: Tables whose rows are nested in the rows of this one.
        self.nested_tables = tuple(other for other in other_tables if other.rows_key and not table.rows_key)
        all_tables = (table, *(other for other in other_tables if other.name != table.name))
        _check_known(kept or (), (EXTRA, EXTRACTED_AT), all_tables)
        _check_known(excluded or (), (EXTRA,), all_tables)
        identifying = {*table.primary_key, *([table.parent_key] if table.parent_key else [])}
        #: Whether rows stay as they are.
        self.keeps_all = kept is None and not excluded
        #: Whether unknown keys are kept.
        self.keeps_unknown = EXTRA in kept if kept is not None else EXTRA not in (excluded or ())
        #: Whether the table has the column ``_extra``. Without unknown keys, it is for values that do not fit.
        self.has_extra = EXTRA not in (excluded or ())
        #: The keys of the API whose columns are kept, in the catalogue's order.
        self.keys = tuple(table.columns)
        if kept is not None:
            listed = identifying.union(*(_find_keys(table, name) for name in kept))
            self.keys = tuple(key for key in table.columns if key in listed)
        elif excluded:
            self.keys = tuple(key for key in table.columns if not _is_excluded(table, key, excluded, identifying))
        #: The names of columns that are left out, whatever an unknown key that means them is spelled like.
        self._left_out = {column_name(key) for key in table.columns if key not in self.keys}
        self._is_kept: dict[str, bool] = {}
        self._objects: dict[str, dict[str, bool]] = {}
        for key in table.columns:
            name, _, inner = key.partition(".")
            if inner:
                self._objects.setdefault(name, {})[inner] = key in self.keys
            else:
                self._is_kept[key] = key in self.keys
        #: The keys of flattened objects, by the key of the object.
        self.object_keys = {name: frozenset(inner_keys) for name, inner_keys in self._objects.items()}
        #: The keys of a row that are known: of columns, kept or not, of flattened objects and of nested rows.
        self.known_keys = frozenset(
            (*self._is_kept, *self._objects, *(nested.rows_key for nested in self.nested_tables))
        )
        self._nested = {
            nested.rows_key: ColumnSelection(
                nested, kept, excluded, other_tables=[other for other in all_tables if other.name != nested.name]
            )
            for nested in self.nested_tables
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the declared columns that are kept, in the catalogue's order."""
        return tuple(map(column_name, self.keys))

    def keeps_object(self, name: str) -> bool:
        """Tell whether all columns of a flattened object are kept."""
        return all(self._objects[name].values())

    def keeps_unknown_key(self, key: str) -> bool:
        """Tell whether an unknown key is kept, which is not another spelling of a column that is left out."""
        return self.keeps_unknown and column_name(key) not in self._left_out

    def keeps_unknown_in(self, name: str) -> bool:
        """Tell whether unknown keys of a flattened object are kept."""
        return self.keeps_unknown and any(self._objects[name].values())

    def filter_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as the API sent it, without what is not kept; rows that are nested in it are filtered, too."""
        return dict(self._filter(row))

    def _filter(self, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, value in row.items():
            if nested := self._nested.get(key):
                if value is None:
                    yield key, None
                elif isinstance(value, list):
                    yield key, [nested.filter_row(item) for item in value if isinstance(item, dict)]
            elif inner_keys := self._objects.get(key):
                if isinstance(value, dict) and any(inner_keys.values()):
                    yield (
                        key,
                        {
                            inner: item
                            for inner, item in value.items()
                            if (inner_keys[inner] if inner in inner_keys else self.keeps_unknown_key(f"{key}.{inner}"))
                        },
                    )
                elif self.keeps_object(key) or (value is None and any(inner_keys.values())):
                    yield key, value
            elif self._is_kept[key] if key in self._is_kept else self.keeps_unknown_key(key):
                yield key, value


def _check_names(parameter: str, names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidResourceError(f"{parameter} is a list of column names, not {names!r}")
    names = tuple(names)
    if not names and parameter == "columns":
        raise InvalidResourceError("columns is empty: name the columns to keep, or leave it out to keep all")
    return names


def _check_known(names: Iterable[str], added: Sequence[str], tables: Sequence[Table]) -> None:
    for name in names:
        if name in added or any(_find_keys(table, name) for table in tables):
            continue
        known = dict.fromkeys(column for table in tables for column in table.column_types)
        raise InvalidResourceError(f"{tables[0].name} has no column {name!r}; it has {', '.join(known)}, {EXTRA}")


def _is_excluded(table: Table, key: str, excluded: Iterable[str], identifying: Iterable[str]) -> bool:
    """
    Tell whether a key's column is left out.

    :raises InvalidResourceError: for one that identifies a row
    """
    is_excluded = any(key in _find_keys(table, name) for name in excluded)
    if is_excluded and key in identifying:
        raise InvalidResourceError(f"exclude_columns: {column_name(key)} identifies a row of {table.name}, and stays")
    return is_excluded


def _find_keys(table: Table, name: object) -> tuple[str, ...]:
    """Return the keys that a name of the user's stands for."""
    return tuple(
        key for key in table.columns if name in (key, column_name(key)) or ("." in key and name == key.split(".")[0])
    )
