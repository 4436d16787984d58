# SPDX-License-Identifier: Apache-2.0
"""Turn a response into the result of its request, or into an error."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from airflow_provider_chartmogul.api.redaction import MESSAGE_LIMIT, redact_urls
from airflow_provider_chartmogul.api.requests import ApiRequest, authorization_header
from airflow_provider_chartmogul.api.retries import RETRIED_STATUSES
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    HTTPStatusError,
    InvalidRequestError,
    NoResponseError,
    NotFoundError,
    PermissionDeniedError,
    RequestFailedError,
    ServerError,
    UnexpectedResponseError,
)

T = TypeVar("T")

_MAX_RETRY_AFTER_SECONDS = 3600.0

_STATUS_ERRORS: dict[int, type[HTTPStatusError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: RequestFailedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: InvalidRequestError,
    **RETRIED_STATUSES,
}


@dataclass(frozen=True)
class ApiResponse:
    """
    A response as it came. Its ``repr`` hides the body, which may hold the signed URL of an export.

    :param headers: looked up without regard to case
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def parse_response(request: ApiRequest[T], response: ApiResponse, *, api_key: str, now: datetime) -> T:
    """
    Return the parsed result of a request, or raise the error that the response stands for.

    :param api_key: the key that was sent; no error shows it, even if the server echoes it
    :param now: the current time, for a ``Retry-After`` that is a date
    :raises HTTPStatusError: for an error status
    :raises NoResponseError: for a response of the proxy
    :raises UnexpectedResponseError: for a redirect, and for a successful response that ``request`` cannot parse
    """
    status = response.status
    is_success = 200 <= status < 300
    message = "" if is_success else _shorten(error_message(response.body), api_key)
    # Some tools show the variables of a traceback.
    del api_key
    if is_success:
        return request.parse(response)
    if 300 <= status < 400:
        raise UnexpectedResponseError(
            f"the server responded with {status}, a redirect, which is not followed; check the connection's host"
        )
    if status == 407:
        raise NoResponseError(f"no response from ChartMogul: {proxy_refusal(status)}", sent=False)
    error = _STATUS_ERRORS.get(status, ServerError if status >= 500 else HTTPStatusError)
    raise error(status, message, retry_after=parse_retry_after(response.headers.get("Retry-After"), now))


def parse_json_object(response: ApiResponse) -> dict[str, Any]:
    """
    Parse a response whose body is a JSON object.

    :raises UnexpectedResponseError: if it is not one
    """
    try:
        content = json.loads(response.body)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content
    raise unexpected_body(response, "a JSON object")


def unexpected_body(response: ApiResponse, expected: str) -> UnexpectedResponseError:
    """Return the error for a successful response whose body is not what was expected."""
    hint = " (it looks like HTML)" if response.body.lstrip()[:1] == b"<" else ""
    return UnexpectedResponseError(
        f"ChartMogul responded with {response.status}, but its {len(response.body)} bytes are not {expected}{hint}"
    )


def proxy_refusal(status: int) -> str:
    """Describe the status of a proxy that refused a request, without the proxy's text, which may quote credentials."""
    hint = " (its user name or password is missing or wrong)" if status == 407 else ""
    return f"the proxy responded with {status}{hint}"


def error_message(body: bytes) -> str:
    """
    Return ChartMogul's own message from the body of an error.

    Five shapes have been recorded: ``{"code","message","param"}``, ``{"error"}``, ``{"errors":{…}}``,
    ``{"field":[…],"error_details":[…]}``, and text or HTML.
    """
    text = body.decode("utf-8", "replace").strip()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return (title.group(1) if title else text).strip() or "(no text)"
    if not isinstance(content, dict):
        return text
    if isinstance(content.get("message"), str):
        param = content.get("param")
        return f"{content['message']} (parameter {param})" if param else str(content["message"])
    if isinstance(content.get("error"), str):
        return str(content["error"])
    errors = content.get("errors", {k: v for k, v in content.items() if k != "error_details"})
    if isinstance(errors, dict) and errors:
        return "; ".join(f"{name}: {_join(problem)}" for name, problem in errors.items())
    return text


def _join(problem: object) -> str:
    return ", ".join(map(str, problem)) if isinstance(problem, list) else str(problem)


def _shorten(text: str, api_key: str) -> str:
    text = redact_urls(" ".join(text.split()))
    if api_key:
        for secret in (authorization_header(api_key).removeprefix("Basic "), api_key):
            text = text.replace(secret, "***")
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """
    Parse a ``Retry-After`` header, seconds or an HTTP date (RFC 9110, 10.2.3), into seconds from ``now``.

    Longer times are reduced to an hour. ``None`` means that there is no usable header.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # A number of 400 digits does not fit into a float.
        return min(float(value[:12]), _MAX_RETRY_AFTER_SECONDS)
    try:
        at = email.utils.parsedate_to_datetime(value)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return min(max(0.0, (at - now).total_seconds()), _MAX_RETRY_AFTER_SECONDS)
    except (ValueError, OverflowError):
        return None
