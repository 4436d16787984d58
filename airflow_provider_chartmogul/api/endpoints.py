# SPDX-License-Identifier: Apache-2.0
"""
The endpoints this package uses, one function each; the lists of resources are in ``resources`` and ``pagination``.

Source: https://dev.chartmogul.com/reference and recorded responses.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow_provider_chartmogul.api.exports import (
    ActivitiesExport,
    ExportRequest,
    validate_activity_type,
    validate_export_id,
)
from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_json_object


def ping() -> ApiRequest[dict[str, Any]]:
    """``GET /ping``: ``{"data": "pong!"}`` with a valid key, 401 otherwise."""
    return ApiRequest("GET", "/ping", parse_json_object)


def get_account() -> ApiRequest[dict[str, Any]]:
    """``GET /account``: ``name``, ``currency``, ``time_zone``, ``week_start_on``."""
    return ApiRequest("GET", "/account", parse_json_object)


def get_activities_export(export_id: str) -> ApiRequest[ActivitiesExport]:
    """
    ``GET /activities_export/{id}``.

    :raises InvalidExportIdError: if the ID cannot be part of a path
    """
    return ApiRequest("GET", f"/activities_export/{validate_export_id(export_id)}", _parse_export)


def create_activities_export(request: ExportRequest) -> ApiRequest[ActivitiesExport]:
    """
    ``POST /activities_export``. Open ends, and a type of ``None``, are left out of the body.

    :param request: its times are sent in UTC, rounded down to seconds; those without a time zone are taken as UTC
    :raises ValueError: for an unknown activity type
    """
    body = {
        "start-date": request.start and _format_time(request.start),
        "end-date": request.end and _format_time(request.end),
        "type": validate_activity_type(request.activity_type),
    }
    body = {name: value for name, value in body.items() if value is not None}
    return ApiRequest("POST", "/activities_export", _parse_export, body=body)


def _parse_export(response: ApiResponse) -> ActivitiesExport:
    return ActivitiesExport.from_response(parse_json_object(response))


def _format_time(value: datetime) -> str:
    value = (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")
