# SPDX-License-Identifier: Apache-2.0
"""
Parse the names of Arrow types, and convert text. This module imports pyarrow, so it is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_chartmogul.exceptions import ColumnTypesError

#: Patterns of times that Arrow does not parse, or not next to other forms, with their replacements.
_TIME_PATTERNS = (
    (r"^(\d{4}-\d\d-\d\d)$", r"\1T00:00:00Z"),
    (r"(:\d\d(?:\.\d+)?) *(?:UTC|GMT)$", r"\1Z"),
    (r"(:\d\d(?:\.\d+)?) +([+-]\d\d(?::?\d\d)?)$", r"\1\2"),
    (r"([T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)$", r"\1Z"),
)

_REMEDY = "give the column another type in column_types, such as string"

_CAST_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError)

#: Types whose name in ``column_types`` is not Arrow's.
_NAMES = {pa.float32(): "float32", pa.float64(): "float64", pa.date32(): "date32", pa.date64(): "date64"}


def parse_types(column_types: Mapping[str, str] | None) -> dict[str, pa.DataType]:
    """
    Parse ``column_types``, the names of Arrow types by column.

    :param column_types: names such as ``int64``, ``date32``, ``timestamp[us, tz=UTC]``, ``decimal128(18, 2)``
    :raises ColumnTypesError: for a name that is not an Arrow type's
    """
    return {column: _parse_type(column, name) for column, name in (column_types or {}).items()}


def _parse_type(column: str, name: object) -> pa.DataType:
    text = str(name).strip().replace(" ", "")
    try:
        if text.startswith("timestamp[") and text.endswith("]"):
            unit, _, zone = text.removeprefix("timestamp[")[:-1].partition(",tz=")
            return pa.timestamp(unit, zone or None)
        if text.startswith("decimal128(") and text.endswith(")"):
            precision, _, scale = text.removeprefix("decimal128(")[:-1].partition(",")
            return pa.decimal128(int(precision), int(scale or 0))
        return pa.type_for_alias(text)
    except (ValueError, TypeError) as error:
        raise ColumnTypesError(
            f"column_types: {name!r} for column {column!r} is not the name of an Arrow type, such as int64, float64, "
            "date32, timestamp[us, tz=UTC] or decimal128(18, 2)"
        ) from error


def type_name(column_type: pa.DataType) -> str:
    """Return the name of a type as ``column_types`` and the catalogue write it."""
    return _NAMES.get(column_type, str(column_type))


def cast_text(values: pa.Array, arrow_type: pa.DataType) -> pa.Array:
    """
    Convert text to a type. A time without a zone is in UTC, and a date is its midnight.

    :raises pyarrow.ArrowInvalid: for a value that does not fit
    """
    if not pa.types.is_timestamp(arrow_type):
        return pc.cast(values, arrow_type)
    try:
        return pc.cast(values, arrow_type)
    except pa.ArrowInvalid:
        # Arrow requires that either all values have a time zone or none has, and it parses fewer forms.
        for pattern, replacement in _TIME_PATTERNS:
            values = pc.replace_substring_regex(values, pattern, replacement)
        return pc.cast(pc.cast(values, pa.timestamp(arrow_type.unit, "UTC")), arrow_type)


def cast_column(
    column: str, values: pa.Array, column_type: pa.DataType, rows_before: int, remedy: str | None = None
) -> pa.Array:
    """
    Convert the values of a column. A time becomes a date only if it is a midnight in UTC.

    :param column: the name of the column
    :param rows_before: the number of rows before these values, for the error
    :param remedy: how to fix the error; ``None`` advises another type in ``column_types``
    :raises ColumnTypesError: for a value that does not fit, naming column, row and value
    """
    if values.type == column_type:
        return values
    try:
        return _cast_values(values, column_type)
    except _CAST_ERRORS as error:
        for position, value in enumerate(values):
            try:
                _cast_values(values.slice(position, 1), column_type)
            except _CAST_ERRORS:
                raise ColumnTypesError(
                    f"column {column!r}, row {rows_before + position + 1}: {str(value.as_py())[:80]!r} is not a value "
                    f"of type {column_type}; {remedy or _REMEDY}"
                ) from error
        raise ColumnTypesError(f"column {column!r} cannot be converted to {column_type}: {error}") from error


def _cast_values(values: pa.Array, column_type: pa.DataType) -> pa.Array:
    if pa.types.is_date32(column_type):
        return _cast_to_days(values)
    return cast_text(values, column_type) if pa.types.is_string(values.type) else pc.cast(values, column_type)


def _cast_to_days(values: pa.Array) -> pa.Array:
    """
    Convert text and times to dates, in UTC.

    :raises pyarrow.ArrowInvalid: for a time other than midnight, which Arrow itself would truncate
    """
    if pa.types.is_string(values.type):
        try:
            return pc.cast(values, pa.date32())
        except pa.ArrowInvalid:
            values = cast_text(values, pa.timestamp("us", "UTC"))
    if not pa.types.is_timestamp(values.type):
        return pc.cast(values, pa.date32())
    # A timestamp is a number since 1970 in UTC in any zone. Without a zone, Arrow needs no time zone database.
    in_utc = pc.cast(pc.cast(values, pa.int64()), pa.timestamp(values.type.unit))
    days = pc.cast(in_utc, pa.date32())
    if pc.any(pc.not_equal(pc.cast(days, in_utc.type), in_utc)).as_py():
        raise pa.ArrowInvalid("a time of day does not fit into a date")
    return days
