# SPDX-License-Identifier: Apache-2.0
"""
Convert values of the API's JSON to Arrow arrays of a declared type, without changing a value.

A page's values of one column are converted at once. Only where that fails are they looked at one by one, to find those
that do not fit. This module imports pyarrow, so it is imported inside functions only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_chartmogul.api.resources import JSON
from airflow_provider_chartmogul.exceptions import ColumnTypesError
from airflow_provider_chartmogul.formats.arrow_types import parse_types
from airflow_provider_chartmogul.formats.columns import Column
from airflow_provider_chartmogul.formats.json_text import dump_json, dump_json_values

#: The type that times are read as, before they get the type of their column.
_TIME = pa.timestamp("us", "UTC")

_MAX_FLOAT32 = (2 - 2**-23) * 2.0**127

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
#: Date, time, fraction (to the microsecond) and zone in ISO 8601.
_ISO_8601 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}(?::[0-9]{2}(?::[0-9]{2})?)?)(?:(\.[0-9]{1,6})0*)?(?: ?(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)

#: What pyarrow raises for values that it does not convert.
_CONVERSION_ERRORS = (pa.ArrowException, OverflowError, TypeError, ValueError)

_NONE = type(None)


class Converter:
    """
    Convert the values of one column to arrays of its type.

    :param column_type: the type
    """

    #: What becomes null.
    empty_values: tuple[Any, ...] = (None, "")

    def __init__(self, column_type: pa.DataType) -> None:
        self.column_type = column_type

    def convert(self, values: Sequence[Any]) -> tuple[pa.Array, Sequence[int]]:
        """Return the values as an array, and the positions of those that do not fit, which are null in it."""
        try:
            if (array := self.convert_all(values)) is not None:
                return array, ()
        except _CONVERSION_ERRORS:
            pass
        fitting = [None if value in self.empty_values else self.fit(value) for value in values]
        misfits = [
            position
            for position, (value, fits) in enumerate(zip(values, fitting, strict=True))
            if fits is None and value not in self.empty_values
        ]
        return self.build(fitting), misfits

    def convert_all(self, values: Sequence[Any]) -> pa.Array | None:
        """Convert all values at once; return ``None``, or raise what pyarrow raises, unless all of them fit."""
        return None

    def fit(self, value: Any) -> Any:
        """Return a value as ``build`` takes it; ``None`` if it does not fit."""
        raise NotImplementedError

    def build(self, values: Sequence[Any]) -> pa.Array:
        """Return the array of values that fit."""
        return pa.array(values, self.column_type)


class _JsonConverter(Converter):
    def convert_all(self, values: Sequence[Any]) -> pa.Array:
        return self.build([None if text in ("null", '""') else text for text in dump_json_values(values)])


class _TextConverter(Converter):
    """Text and numbers fit, since some identifiers come as either."""

    empty_values = (None,)

    def convert_all(self, values: Sequence[Any]) -> pa.Array:
        return self.build(values)

    def fit(self, value: Any) -> str | None:
        if isinstance(value, str):
            return value if _is_unicode(value) else None
        return dump_json(value) if _is_finite_number(value) else None


class _IntegerConverter(Converter):
    def __init__(self, column_type: pa.DataType) -> None:
        super().__init__(column_type)
        bits = column_type.bit_width - pa.types.is_signed_integer(column_type)
        self._range = range(-(2**bits) if pa.types.is_signed_integer(column_type) else 0, 2**bits)

    def convert_all(self, values: Sequence[Any]) -> pa.Array | None:
        # pyarrow would cut off fractions.
        return self.build(values) if {int, _NONE}.issuperset(map(type, values)) else None

    def fit(self, value: Any) -> int | None:
        number = _to_number(value)
        if number is None or number != int(number) or int(number) not in self._range:
            return None
        return int(number)


class _FloatConverter(Converter):
    def convert_all(self, values: Sequence[Any]) -> pa.Array | None:
        if not {float, int, _NONE}.issuperset(map(type, values)):
            return None
        array = self.build(values)
        return array if pc.all(pc.is_finite(array), min_count=0).as_py() else None

    def fit(self, value: Any) -> float | None:
        number = _to_number(value)
        try:
            if number is None or float(number) != number:
                return None
        except OverflowError:
            return None
        # A user who chooses float32 accepts its precision, but not another magnitude.
        return float(number) if self.column_type.bit_width == 64 or abs(number) <= _MAX_FLOAT32 else None


class _BooleanConverter(Converter):
    def convert_all(self, values: Sequence[Any]) -> pa.Array | None:
        return self.build(values)

    def fit(self, value: Any) -> bool | None:
        return value if isinstance(value, bool) else None


class _DateConverter(Converter):
    def convert_all(self, values: Sequence[Any]) -> pa.Array:
        return pa.array(values, pa.string()).cast(self.column_type)

    def fit(self, value: Any) -> date | None:
        try:
            return date.fromisoformat(value) if isinstance(value, str) and _DATE.fullmatch(value) else None
        except ValueError:
            return None


class _TimeConverter(Converter):
    """A date is its midnight, and a time without a zone is in UTC, as ChartMogul reads them."""

    def convert_all(self, values: Sequence[Any]) -> pa.Array:
        return pa.array(values, pa.string()).cast(_TIME).cast(self.column_type)

    def fit(self, value: Any) -> datetime | None:
        match = _ISO_8601.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return None
        day, time, fraction, zone = match.groups(default="")
        try:
            local = datetime.fromisoformat(f"{day}T{time or '00:00'}{fraction}{zone.replace('UTC', 'Z') or 'Z'}")
            fitting = local.astimezone(UTC)
            self.build([fitting])
        except _CONVERSION_ERRORS:
            return None
        return fitting

    def build(self, values: Sequence[Any]) -> pa.Array:
        return pa.array(values, _TIME).cast(self.column_type)


class _DecimalConverter(Converter):
    def fit(self, value: Any) -> Decimal | None:
        if not (_NUMBER.fullmatch(value) if isinstance(value, str) else _is_finite_number(value)):
            return None
        try:
            fitting = Decimal(str(value))
            self.build([fitting])
        except (*_CONVERSION_ERRORS, ArithmeticError):
            return None
        return fitting


def converter_for(column: Column) -> Converter:
    """
    Return the converter for a column.

    :raises ColumnTypesError: for what is not the name of an Arrow type, or of one that has no converter
    """
    if column.type_name == JSON and not column.source:
        return _JsonConverter(pa.string())
    column_type = parse_types({column.key: column.type_name})[column.key]
    for is_type, converter in _CONVERTERS:
        if is_type(column_type):
            return converter(column_type)
    raise ColumnTypesError(
        f"column_types: the type {column.type_name!r} for column {column.key!r} is not supported; use string, bool, "
        "int64, float64, date32, timestamp[us, tz=UTC], decimal128(18, 2), or a narrower type of these"
    )


_CONVERTERS = (
    (pa.types.is_string, _TextConverter),
    (pa.types.is_large_string, _TextConverter),
    (pa.types.is_integer, _IntegerConverter),
    (pa.types.is_float32, _FloatConverter),
    (pa.types.is_float64, _FloatConverter),
    (pa.types.is_boolean, _BooleanConverter),
    (pa.types.is_date32, _DateConverter),
    (pa.types.is_timestamp, _TimeConverter),
    (pa.types.is_decimal128, _DecimalConverter),
)


def _to_number(value: Any) -> int | float | None:
    """Return a finite number, or the number that text stands for exactly; ``None`` for anything else."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        try:
            if match is None:
                return None
            if not any(match.groups()):
                return int(value)
            number = float(value)
            return number if Decimal(repr(number)) == Decimal(value) else None
        except (ValueError, ArithmeticError):
            return None
    return value if _is_finite_number(value) else None


def _is_finite_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
