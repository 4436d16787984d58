# SPDX-License-Identifier: Apache-2.0
"""The settings of a sandbox that can be changed while it runs, and their valid values."""

from __future__ import annotations

import math
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MAX_URL_SECONDS = 604_800
"""Seven days, the longest that S3 signs a URL for."""

MAX_PAGE_SIZE = 200
"""The API's own maximum of `per_page`."""

SETTINGS = (
    "export_seconds",
    "outcome",
    "url_seconds",
    "fresh_urls",
    "requests_per_second",
    "max_connections",
    "page_size",
)
"""The names of the settings."""


def check_setting(name: str, value: Any) -> None:
    """Check that a setting can have this value.

    :raises ValueError: for an invalid value or an unknown name; the message names the setting.
    """
    is_int = type(value) is int
    if name == "export_seconds":
        valid, expected = type(value) in (int, float) and math.isfinite(value) and value >= 0, "0 or more"
    elif name == "url_seconds":
        valid, expected = is_int and 0 <= value <= MAX_URL_SECONDS, f"a whole number from 0 to {MAX_URL_SECONDS}"
    elif name in ("requests_per_second", "max_connections"):
        valid, expected = value is None or (is_int and value >= 0), "a whole number of 0 or more, or None for no limit"
    elif name == "page_size":
        valid, expected = is_int and 1 <= value <= MAX_PAGE_SIZE, f"a whole number from 1 to {MAX_PAGE_SIZE}"
    elif name == "fresh_urls":
        valid, expected = type(value) is bool, "true or false"
    elif name == "outcome":
        valid, expected = isinstance(value, str) and value != "", "a non-empty string"
    else:
        raise ValueError(f"unknown setting: {name}; known settings: {', '.join(SETTINGS)}")
    if not valid:
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def read_time_zone(name: str, value: str) -> tzinfo:
    """Return the time zone of this name. UTC needs no database of time zones.

    :param name: the parameter's name, for the message.
    :raises ValueError: for an unknown time zone.
    """
    if value == "UTC":
        return UTC
    try:
        return ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"{name} must be a time zone such as Europe/Berlin, not {value!r}") from None
