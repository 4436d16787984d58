# SPDX-License-Identifier: Apache-2.0
"""Check the parameters of a transfer that are literals, when the DAG is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.operators.literals import is_literal
from airflow_provider_chartmogul.storage.delivery import (
    check_dictionary,
    check_if_exists,
    check_output_format,
    choose_format,
)
from airflow_provider_chartmogul.storage.destination import Destination


def check_object_settings(
    given: Mapping[str, Any], placeholders: tuple[str, ...], formats: Mapping[str, str]
) -> tuple[Destination | None, str | None]:
    """
    Check the parameters that say where and how an object is published.

    :param given: parameters by name; those that a mapped task gets later are missing
    :param placeholders: the placeholders of a destination that the source has values for
    :param formats: the formats that the source can produce, by suffix
    :return: the destination and the format; ``None`` for what only the worker knows
    :raises TransferSettingsError: for an invalid parameter
    :raises DestinationError: if the destination is not the full name of one object
    """
    known = {name: value for name, value in given.items() if _is_known(value)}
    if "if_exists" in known:
        check_if_exists(known["if_exists"])
    check_dictionary(known.get("upload_options"), "upload_options", "options for put_file")
    check_dictionary(known.get("column_types"), "column_types", "Arrow types by column")
    check_output_format(known.get("output_format"), formats)
    if "destination" not in known:
        return None, known.get("output_format")
    destination = Destination.parse(known["destination"], placeholders, known.get("object_storage_conn_id"))
    if destination.example().scheme == "file" and known.get("upload_options"):
        raise TransferSettingsError("upload_options are for object stores; file:// has none")
    if "output_format" not in known:
        return destination, None
    return destination, choose_format(destination, formats, known["output_format"])


def _is_known(value: object) -> bool:
    """Return whether a value is neither a template nor an XCom; templates inside a dictionary do not count."""
    is_path = hasattr(value, "joinpath")
    return value is None or is_path or isinstance(value, (Mapping, list, tuple)) or is_literal(value)
