# SPDX-License-Identifier: Apache-2.0
"""The name of an object, as a template whose placeholders the source of the data fills in."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.storage.object_storage import StoredObject


class _PlaceholderFormatter(string.Formatter):
    """Formats a time without a format specification as ISO 8601's basic form, which has no colon."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return str(format(value, format_spec or ("%Y%m%dT%H%M%SZ" if isinstance(value, datetime) else "")))


@dataclass(frozen=True)
class Destination:
    """
    The full name of an object, such as ``s3://bucket/{interval_start:%Y-%m-%d}.parquet``.

    :param template: the name, with placeholders in the syntax of ``str.format``
    :param known_placeholders: the placeholders that the source of the data has values for
    :param conn_id: the object storage's Airflow connection, unless the name contains it
    :raises TransferSettingsError: for an empty name, an unknown placeholder or a malformed one
    """

    template: str
    known_placeholders: tuple[str, ...]
    conn_id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.template, str) or not self.template.strip():
            raise TransferSettingsError("destination is empty: give the full name of an object, such as s3://bucket/…")
        try:
            fields = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise TransferSettingsError(
                f"destination {self.template!r} has a brace that is not closed: {error}"
            ) from error
        if any("{" in (spec or "") for _, _, spec, _ in fields):
            raise TransferSettingsError(f"destination {self.template!r} has a brace inside a placeholder")
        if unknown := sorted(self.placeholders.difference(self.known_placeholders)):
            raise TransferSettingsError(
                f"destination {self.template!r} has the unknown placeholder {{{unknown[0]}}}; the known ones are "
                + ", ".join(f"{{{name}}}" for name in self.known_placeholders)
            )

    @classmethod
    def parse(cls, destination: object, known_placeholders: tuple[str, ...], conn_id: str | None) -> Destination:
        """Read an operator's ``destination``: text, an ``ObjectStoragePath`` or a ``pathlib.Path``."""
        # The text of an ObjectStoragePath contains its connection.
        template = str(destination) if hasattr(destination, "joinpath") else destination
        return cls(template, known_placeholders, conn_id)  # type: ignore[arg-type]

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """The placeholders in the template."""
        return frozenset(name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None)

    def check_values(self, values: Mapping[str, Any]) -> None:
        """
        Check that no placeholder of the template lacks its value.

        :param values: values of placeholders, not necessarily of all; ``None`` where there is none for this object
        :raises TransferSettingsError: for a placeholder without a value
        """
        for name in sorted(self.placeholders.intersection(values)):
            if values[name] is None:
                raise TransferSettingsError(
                    f"destination {self.template!r} has {{{name}}}, but {name} is None for this task: remove the "
                    f"placeholder, or give the task {name}"
                )

    def fill(self, values: Mapping[str, Any]) -> StoredObject:
        """
        Fill in the placeholders.

        :param values: a value for each known placeholder; ``None`` where there is none for this object
        :raises TransferSettingsError: for a placeholder without a value, or a format that does not fit its value
        :raises DestinationError: if the result is not the full name of one object
        """
        self.check_values(values)
        try:
            name = _PlaceholderFormatter().vformat(self.template, (), values)
        except (ValueError, TypeError) as error:
            raise TransferSettingsError(
                f"destination {self.template!r} cannot be filled in: {error}; the format of a time looks like "
                "{interval_start:%Y-%m-%d}"
            ) from error
        return StoredObject.parse(name, self.conn_id)

    def example(self) -> StoredObject:
        """Return an object with made-up values, to check the destination before the real ones are known."""
        day = datetime(2024, 1, 1, tzinfo=UTC)
        times = ("interval_start", "interval_end", "extracted_at")
        return self.fill({name: day if name in times else "example" for name in self.known_placeholders})
