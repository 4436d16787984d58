# SPDX-License-Identifier: Apache-2.0
"""
Requests about the account itself.

Source: https://dev.chartmogul.com/reference and recorded responses.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.api.responses import parse_json_object


def ping() -> ApiRequest[dict[str, Any]]:
    """``GET /ping``: ``{"data": "pong!"}`` with a valid key, 401 otherwise."""
    return ApiRequest("GET", "/ping", parse_json_object)


def get_account() -> ApiRequest[dict[str, Any]]:
    """``GET /account``: ``name``, ``currency``, ``time_zone``, ``week_start_on``."""
    return ApiRequest("GET", "/account", parse_json_object)
