# SPDX-License-Identifier: Apache-2.0
"""Describe requests to the API."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_chartmogul.api.exports import validate_activity_type, validate_export_id

DEFAULT_BASE_URL = "https://api.chartmogul.com"


API_VERSION = "v1"


@dataclass(frozen=True)
class ApiRequest:
    """
    A request to the API: method, path below the base URL, JSON body.

    ``repeatable`` says whether sending it twice does no more than sending it once.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None

    @property
    def repeatable(self) -> bool:
        return self.method == "GET"

    @property
    def data(self) -> bytes | None:
        """The body as it goes over the wire."""
        return None if self.body is None else json.dumps(self.body).encode()


def ping_request() -> ApiRequest:
    """``GET /ping``: 200 with a valid key, 401 otherwise."""
    return ApiRequest("GET", f"/{API_VERSION}/ping")


def account_request() -> ApiRequest:
    """``GET /account``: name, currency, time zone, first day of the week."""
    return ApiRequest("GET", f"/{API_VERSION}/account")


def get_activities_export_request(export_id: str) -> ApiRequest:
    """``GET /activities_export/{id}``."""
    return ApiRequest("GET", f"/{API_VERSION}/activities_export/{validate_export_id(export_id)}")


def create_activities_export_request(
    *, start_date: datetime | None, end_date: datetime | None, activity_type: str | None
) -> ApiRequest:
    """
    ``POST /activities_export``. The API's keys have hyphens; what is None is left out.

    Times go out in UTC, to the second where they have no fraction.
    """
    body: dict[str, str] = {}
    if start_date is not None:
        body["start-date"] = _wire_time(start_date)
    if end_date is not None:
        body["end-date"] = _wire_time(end_date)
    if (checked := validate_activity_type(activity_type)) is not None:
        body["type"] = checked
    return ApiRequest("POST", f"/{API_VERSION}/activities_export", body)


def _wire_time(value: datetime) -> str:
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    value = value.astimezone(UTC)
    return value.isoformat(timespec="milliseconds" if value.microsecond else "seconds").replace("+00:00", "Z")


def authorization_header(api_key: str) -> str:
    """HTTP Basic, with the API key as the user name and no password."""
    return "Basic " + base64.b64encode(f"{api_key}:".encode()).decode()
