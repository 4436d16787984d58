# SPDX-License-Identifier: Apache-2.0
"""Turn a response into its JSON object, or into the error that it stands for."""

from __future__ import annotations

import contextlib
import email.utils
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_provider_chartmogul.api.redaction import MESSAGE_LIMIT, redact_urls
from airflow_provider_chartmogul.api.requests import authorization_header
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    HTTPStatusError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestFailedError,
    ServerError,
    UnexpectedResponseError,
)

#: An answer of the API is a few hundred bytes; what is longer than this is none of its answers.
MAX_RESPONSE_BYTES = 1_000_000


_MAX_RETRY_AFTER_SECONDS = 3600.0


_STATUS_ERRORS: dict[int, type[HTTPStatusError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: RequestFailedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: InvalidRequestError,
    429: RateLimitError,
}


def parse_response(
    status: int, headers: Mapping[str, str], body: bytes, *, api_key: str, now: datetime
) -> dict[str, Any]:
    """
    Turn an answer into its JSON object, or into the error it stands for.

    :param headers: the answer's headers, looked up without regard to case
    :param api_key: the key that was sent; an error never shows it, even where a server echoes it
    :param now: the present time, for a ``Retry-After`` that is a date
    :raises HTTPStatusError: for an error status
    :raises UnexpectedResponseError: for a success that holds no JSON object, and for a redirect
    """
    answer: object = None
    said, size = "", f"{len(body)} bytes"
    if not 200 <= status < 300:
        said = _shorten(error_message(body), api_key)
    else:
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(body)
    looks = " (they look like HTML)" if body.lstrip()[:1] == b"<" else ""
    # What is raised from here has a traceback, and there are tools that show variables with it: the key, and the URL
    # of the file, which half an answer may hold.
    del api_key, body
    if isinstance(answer, dict):
        return answer
    if 200 <= status < 300:
        raise UnexpectedResponseError(f"ChartMogul answered {status}, but with {size} that are no JSON object{looks}")
    if 300 <= status < 400:
        raise UnexpectedResponseError(
            f"the server answered {status}, a redirect, which is not followed; check the connection's host"
        )
    cls = _STATUS_ERRORS.get(status, ServerError if status >= 500 else HTTPStatusError)
    raise cls(status, said, retry_after=parse_retry_after(headers.get("Retry-After"), now))


def error_message(body: bytes) -> str:
    """
    ChartMogul's own words in an error's body.

    Five shapes have been seen: ``{"code","message","param"}``, ``{"error"}``, ``{"errors":{…}}``,
    ``{"field":[…],"error_details":[…]}``, and text or HTML.
    """
    text = body.decode("utf-8", "replace").strip()
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return (title.group(1) if title else text).strip() or "(no text)"
    if not isinstance(answer, dict):
        return text
    if isinstance(answer.get("message"), str):
        param = answer.get("param")
        return f"{answer['message']} (parameter {param})" if param else str(answer["message"])
    if isinstance(answer.get("error"), str):
        return str(answer["error"])
    errors = answer.get("errors", {k: v for k, v in answer.items() if k != "error_details"})
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
    Read a ``Retry-After`` header, seconds or an HTTP date (RFC 9110, 10.2.3), as seconds from ``now``.

    At most an hour: what asks for more is asked again sooner.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Digits are cut: a number of 400 of them is no float any more.
        return min(float(value[:12]), _MAX_RETRY_AFTER_SECONDS)
    try:
        at = email.utils.parsedate_to_datetime(value)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return min(max(0.0, (at - now).total_seconds()), _MAX_RETRY_AFTER_SECONDS)
    except (ValueError, OverflowError):
        return None
