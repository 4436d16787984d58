# SPDX-License-Identifier: Apache-2.0
"""The parameters of a load that do not depend on the warehouse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_chartmogul.exceptions import TransferSettingsError

DELETES = ("hard", "soft")

#: Names that may be ``None``.
_OPTIONAL_NAMES = ("schema", "uuid_column", "account_column")
_NAMES = ("table", "date_column", "type_column", *_OPTIONAL_NAMES)


@dataclass(frozen=True)
class LoadSettings:
    """
    The parameters of a load that do not depend on the warehouse.

    :param table: the target's name, with ``{table}`` for the table in the catalogue
    :param date_column: the column with an activity's date
    :param uuid_column: the column that identifies an activity; ``None`` only replaces windows
    :param type_column: the column with an activity's type
    :param account_column: a column that the load fills with the Airflow connection of the ChartMogul account
    :param column_types: Arrow types by column, for objects that do not declare them
    :param deletes: what happens to rows that a snapshot lacks: ``hard`` deletes them, ``soft`` marks them
    :param allow_empty: whether a snapshot without rows may replace rows
    :raises TransferSettingsError: for an invalid value
    """

    table: str = "chartmogul_{table}"
    date_column: str = "date"
    uuid_column: str | None = "uuid"
    type_column: str = "type"
    account_column: str | None = None
    column_types: Mapping[str, str] | None = None
    deletes: str = "hard"
    allow_empty: bool = False

    def __post_init__(self) -> None:
        check_names(vars(self))
        check_deletes(self.deletes)
        if self.column_types is not None and not isinstance(self.column_types, Mapping):
            raise TransferSettingsError("column_types must be a dictionary of Arrow types by column")


def check_names(given: Mapping[str, Any]) -> None:
    """
    Check names of tables and columns.

    :param given: parameters by name; those that are not names are ignored
    :raises TransferSettingsError: for an empty name, and for a placeholder that does not exist
    """
    for name in _NAMES:
        value = given.get(name, "-")
        if value is None and name in _OPTIONAL_NAMES:
            continue
        if not is_name(value):
            raise TransferSettingsError(f"{name} must be a name, not {value!r}: check the template that it is from")
    if set("{}") & set(str(given.get("table", "")).replace("{table}", "")):
        raise TransferSettingsError(f"table {given['table']!r} has a placeholder other than {{table}}")


def is_name(value: object) -> bool:
    """Return whether a value is a name, and not the text that a template renders for a missing value."""
    return isinstance(value, str) and value.strip().lower() not in ("", "none", "null")


def check_deletes(value: object) -> None:
    """
    Check the parameter ``deletes``.

    :raises TransferSettingsError: for an unknown value
    """
    if value not in DELETES:
        raise TransferSettingsError(f"deletes cannot be {value!r}: it is one of {', '.join(DELETES)}")


def check_load_options(value: object) -> None:
    """
    Check the parameter ``load_options``.

    :raises TransferSettingsError: for a value that is not a dictionary, and for any option, since the warehouses of
        this version have none
    """
    if value is not None and not isinstance(value, Mapping):
        raise TransferSettingsError(f"load_options is a dictionary of options for a warehouse, not {value!r}")
    if value:
        raise TransferSettingsError(f"load_options has {', '.join(map(str, value))}, but this warehouse has no options")
