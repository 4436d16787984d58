# SPDX-License-Identifier: Apache-2.0
"""
All that is known of ChartMogul's API, with no I/O and no Airflow.

What a request looks like, what an answer means, which failure may be retried and after how long. The errors are in
``errors``, how a wait goes on or ends in ``waiting``. The two transports (``hooks.sync_client`` on a worker,
``hooks.async_client`` in a triggerer) only send and sleep, so that both modes decide the same. Facts are from
ChartMogul's API reference (https://dev.chartmogul.com/reference) and from recorded answers; where they disagree, both
are accepted.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from airflow_provider_chartmogul.errors import (
    AuthenticationError as AuthenticationError,
)
from airflow_provider_chartmogul.errors import (
    ChartMogulError as ChartMogulError,
)
from airflow_provider_chartmogul.errors import (
    ConnectionSettingsError as ConnectionSettingsError,
)
from airflow_provider_chartmogul.errors import (
    ExportExpiredError as ExportExpiredError,
)
from airflow_provider_chartmogul.errors import (
    ExportFailedError as ExportFailedError,
)
from airflow_provider_chartmogul.errors import (
    ExportNotFinishedError as ExportNotFinishedError,
)
from airflow_provider_chartmogul.errors import (
    HTTPStatusError as HTTPStatusError,
)
from airflow_provider_chartmogul.errors import (
    InvalidExportIdError as InvalidExportIdError,
)
from airflow_provider_chartmogul.errors import (
    InvalidRequestError as InvalidRequestError,
)
from airflow_provider_chartmogul.errors import (
    NoAnswerError as NoAnswerError,
)
from airflow_provider_chartmogul.errors import (
    NotFoundError as NotFoundError,
)
from airflow_provider_chartmogul.errors import (
    OutageError as OutageError,
)
from airflow_provider_chartmogul.errors import (
    PermissionDeniedError as PermissionDeniedError,
)
from airflow_provider_chartmogul.errors import (
    RateLimitError as RateLimitError,
)
from airflow_provider_chartmogul.errors import (
    RequestFailedError as RequestFailedError,
)
from airflow_provider_chartmogul.errors import (
    ServerError as ServerError,
)
from airflow_provider_chartmogul.errors import (
    UnexpectedAnswerError as UnexpectedAnswerError,
)
from airflow_provider_chartmogul.errors import (
    UnusableExportError as UnusableExportError,
)

DEFAULT_BASE_URL = "https://api.chartmogul.com"
API_VERSION = "v1"

ACTIVITY_TYPES = ("new_biz", "reactivation", "expansion", "contraction", "churn")

#: An error shows at most this many characters of what the server said.
MESSAGE_LIMIT = 500

#: An answer of the API is a few hundred bytes; what is longer than this is none of its answers.
MAX_ANSWER_BYTES = 1_000_000

_MAX_BACKOFF_SECONDS = 60.0
_MAX_RETRY_AFTER_SECONDS = 3600.0

_EXPORT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_NO_VALUE = frozenset({"none", "null", "nan", "undefined"})
#: A URL's query, wherever it stands in a text: escaped, without a scheme, cut at its end.
_QUERY = re.compile(r"\?[\w.~%-]+(?:=|%3D)[^\s\"'<>\\]*", re.IGNORECASE)
_SIGNED = re.compile(r"((?:signature|credential|security-token)(?:=|%3D))[^\s&\"'<>\\]+", re.IGNORECASE)


_STATUS_ERRORS: dict[int, type[HTTPStatusError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: RequestFailedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: InvalidRequestError,
    429: RateLimitError,
}


class ExportStatus(Enum):
    """Where an export is. ``SUCCEEDED`` stands for both words the API has for it."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, word: str) -> ExportStatus:
        """
        Read the API's word for a status.

        The reference says ``successful``, every recording ``succeeded``: both are done. A word nobody has
        seen yet is ``UNKNOWN``, and means 'not done yet'.
        """
        word = word.strip().lower()
        if word == "successful":
            return cls.SUCCEEDED
        try:
            return cls(word)
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """Whether the status will not change any more."""
        return self in (ExportStatus.SUCCEEDED, ExportStatus.FAILED)


@dataclass(frozen=True)
class ActivitiesExport:
    """
    An activities export as the API tells of it.

    ``start_date``, ``end_date`` and ``activity_type`` are the API's echo of what was asked for (None: open, or
    all types); times have a time zone. ``file_url`` is a presigned URL, valid for days and therefore a
    credential: it is in no ``repr``, and belongs in no log, XCom or exception.
    """

    id: str
    status: ExportStatus
    status_word: str
    file_url: str | None = field(default=None, repr=False)
    activity_type: str | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    #: What the answer says of the window or the type in a form that cannot be read. The field is None then, but the
    #: export is not open at that end, nor of all types.
    unreadable: tuple[str, ...] = ()

    def is_expired(self, now: datetime) -> bool:
        """Whether the file's time is over; after that ChartMogul may or may not give a fresh URL."""
        return self.expires_at is not None and self.expires_at <= now

    def asked_for(
        self, start_date: datetime | None, end_date: datetime | None, activity_type: str | None
    ) -> ActivitiesExport:
        """Fill in what the answer does not say, or not so that it can be read, from what was asked for."""
        return replace(
            self,
            start_date=self.start_date or start_date,
            end_date=self.end_date or end_date,
            activity_type=self.activity_type or activity_type,
            unreadable=(),
        )

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> ActivitiesExport:
        """
        Read an export out of an answer; unknown keys are ignored, and missing ones are None.

        :raises UnexpectedAnswerError: when the answer has no usable ID or no status
        """
        status_word = answer.get("status")
        if not isinstance(status_word, str) or not status_word.strip():
            raise UnexpectedAnswerError("ChartMogul's answer about an activities export has no status")
        try:
            export_id = validate_export_id(answer.get("id"))
        except InvalidExportIdError as error:
            raise UnexpectedAnswerError("ChartMogul's answer about an activities export has no usable ID") from error
        outer = answer.get("params")
        inner = outer.get("params") if isinstance(outer, Mapping) else None
        params: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
        file_url = answer.get("file_url")
        said = {
            "start_date": params.get("start_date", params.get("start-date")),
            "end_date": params.get("end_date", params.get("end-date")),
            "activity_type": params.get("activity_type") or params.get("type"),
        }
        start_date, end_date = _parse_time(said["start_date"]), _parse_time(said["end_date"])
        activity_type = said["activity_type"] if isinstance(said["activity_type"], str) else None
        read = {"start_date": start_date, "end_date": end_date, "activity_type": activity_type}
        return cls(
            id=export_id,
            status=ExportStatus.parse(status_word),
            status_word=status_word.strip(),
            file_url=file_url if isinstance(file_url, str) and file_url else None,
            activity_type=activity_type,
            start_date=start_date,
            end_date=end_date,
            unreadable=tuple(name for name, value in said.items() if value not in (None, "") and read[name] is None),
            created_at=_parse_time(answer.get("created_at")),
            expires_at=_parse_time(answer.get("expires_at")),
        )


def _parse_time(value: object) -> datetime | None:
    """Read a time in any of the forms the API echoes; what cannot be read is None."""
    if not isinstance(value, str):
        return None
    # '2020-01-01 00:00:00 +0000' is one of the recorded forms; fromisoformat wants no space before the offset.
    text = re.sub(r"\s+([+-]\d\d:?\d\d)$", r"\1", value.strip().replace(" UTC", "Z"))
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        return None


def validate_export_id(value: object) -> str:
    """
    Give an export ID back that may become part of a path.

    :raises InvalidExportIdError: when it is empty, the text of a missing value, or has other characters than
        letters, digits, ``-`` and ``_``
    """
    if isinstance(value, str):
        text = value.strip()
        if _EXPORT_ID.fullmatch(text) and text.lower() not in _NO_VALUE:
            return text
    shown = "is empty" if value in (None, "") else f"cannot be {without_queries(str(value))[:60]!r}"
    raise InvalidExportIdError(
        f"export_id {shown}. It is what CreateActivitiesExportOperator returns, "
        "usually given as export_id=create.output; look at that task's XCom."
    )


def validate_activity_type(value: object) -> str | None:
    """
    Give an activity type back that the API knows; None is all of them.

    :raises ValueError: naming the allowed ones
    """
    if value is None:
        return None
    if isinstance(value, str) and value in ACTIVITY_TYPES:
        return value
    raise ValueError(
        f"activity_type cannot be {value!r}: it is one of {', '.join(ACTIVITY_TYPES)}, "
        "or None (or left out) for all of them"
    )


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


def without_queries(text: str) -> str:
    """Take the queries of URLs out of a text: that is where a presigned URL holds its signature."""
    return _SIGNED.sub(r"\1...", _QUERY.sub("?...", text))


def read_answer(status: int, headers: Mapping[str, str], body: bytes, *, api_key: str, now: datetime) -> dict[str, Any]:
    """
    Turn an answer into its JSON object, or into the error it stands for.

    :param headers: the answer's headers, looked up without regard to case
    :param api_key: the key that was sent; an error never shows it, even where a server echoes it
    :param now: the present time, for a ``Retry-After`` that is a date
    :raises HTTPStatusError: for an error status
    :raises UnexpectedAnswerError: for a success that holds no JSON object, and for a redirect
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
        raise UnexpectedAnswerError(f"ChartMogul answered {status}, but with {size} that are no JSON object{looks}")
    if 300 <= status < 400:
        raise UnexpectedAnswerError(
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
    text = without_queries(" ".join(text.split()))
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


def may_repeat(request: ApiRequest, error: ChartMogulError) -> bool:
    """
    Whether the same request may be sent again after this error.

    A POST is repeated only where it cannot have been acted on: after 429, and after a connection that could
    not be made. Two POSTs make two exports.
    """
    if not error.transient:
        return False
    if request.repeatable:
        return True
    return isinstance(error, RateLimitError) or (isinstance(error, NoAnswerError) and not error.sent)


def retry_delay(failures: int, error: ChartMogulError) -> float:
    """
    Seconds to wait after so many failures in a row (from 1).

    What the server asked for in ``Retry-After``, and a little more so that not all come back at once; else
    exponential from one second to a minute, with jitter (half of it fixed, half of it drawn). An asked-for time that
    is over already, as a date is where the clocks differ, says nothing of how long.
    """
    asked = getattr(error, "retry_after", None)
    if asked:
        return float(asked) + random.uniform(0.0, 1.0)
    ceiling = min(_MAX_BACKOFF_SECONDS, 2.0 ** min(failures - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)
