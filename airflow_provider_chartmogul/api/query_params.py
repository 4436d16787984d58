# SPDX-License-Identifier: Apache-2.0
"""The values of query parameters, as users write them and as the API reads them."""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow_provider_chartmogul.exceptions import InvalidResourceError


def format_query_param(name: str, value: Any) -> str:
    """
    Return a query parameter's value as text.

    :param name: the parameter
    :param value: text, a number, a date, ``True``, ``False``, or a list of these, which is joined by commas
    :raises InvalidResourceError: for anything else, and for the text that an empty template leaves
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)) and value:
        return ",".join(format_query_param(name, item) for item in value)
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str) and value.strip().lower() not in ("", "none", "null"):
        return value
    raise InvalidResourceError(
        f"query_params: {name} cannot be {value!r:.60}. It is text, a number, a date, True or False, or a list of "
        "these, and None leaves it out. If it came out of a template, check the template"
    )
