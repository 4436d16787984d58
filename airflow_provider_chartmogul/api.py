# SPDX-License-Identifier: Apache-2.0
"""
All that is known of ChartMogul's API, with no I/O and no Airflow.

What a request looks like, what an answer means, which failure may be retried and after how long, and how a
wait for an export goes on or ends. The two transports (``hooks.sync_client`` on a worker, ``hooks.async_client``
in a triggerer) only send and sleep, so that both modes decide the same. Facts are from ChartMogul's API
reference (https://dev.chartmogul.com/reference) and from recorded answers; where they disagree, both are
accepted.

The exceptions:

* ChartMogulError
  * ConnectionSettingsError      the Airflow connection cannot be used as it is
  * InvalidExportIdError         not something that may become part of a path
  * NoAnswerError                refused, reset, timed out: nothing that could be read came back
  * UnexpectedAnswerError        an answer came, but not one of ChartMogul's (HTML, half a JSON, a redirect)
  * HTTPStatusError              ChartMogul said no; ``status`` says which, ``message`` in its own words
    * InvalidRequestError        400, 422
    * AuthenticationError        401
    * RequestFailedError         402
    * PermissionDeniedError      403
    * NotFoundError              404
    * RateLimitError             429
    * ServerError                5xx
  * ExportFailedError            ChartMogul ended the export as failed
  * ExportNotFinishedError       the export is still being made
  * OutageError                  no success for longer than a wait was told to bear
"""

from __future__ import annotations

import base64
import email.utils
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, ClassVar, Protocol

DEFAULT_BASE_URL = "https://api.chartmogul.com"
API_VERSION = "v1"

ACTIVITY_TYPES = ("new_biz", "reactivation", "expansion", "contraction", "churn")

#: An error shows at most this many characters of what the server said.
MESSAGE_LIMIT = 500

#: An answer of the API is a few hundred bytes; what is longer than this is none of its answers.
MAX_ANSWER_BYTES = 1_000_000

FIRST_POLL_SECONDS = 1.0
_POLL_GROWTH = 1.5
_MAX_BACKOFF_SECONDS = 60.0
_MAX_RETRY_AFTER_SECONDS = 3600.0

_EXPORT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_NO_VALUE = frozenset({"none", "null", "nan", "undefined"})
#: A URL's query, wherever it stands in a text: escaped, without a scheme, cut at its end.
_QUERY = re.compile(r"\?[\w.~%-]+(?:=|%3D)[^\s\"'<>\\]*", re.IGNORECASE)
_SIGNED = re.compile(r"((?:signature|credential|security-token)(?:=|%3D))[^\s&\"'<>\\]+", re.IGNORECASE)


class ChartMogulError(Exception):
    """
    Something between this package and ChartMogul went wrong.

    ``permanent``: no retry of the task can help. ``transient``: it may well pass by itself within the same try.
    Neither: this try is lost, the task's own retries apply.
    """

    permanent: bool = False
    transient: bool = False


class ConnectionSettingsError(ChartMogulError):
    """The Airflow connection lacks something or holds something that cannot be used."""

    permanent = True


class InvalidExportIdError(ChartMogulError, ValueError):
    """An export ID that is empty, or that is not one."""

    permanent = True


class NoAnswerError(ChartMogulError):
    """
    Nothing came back that could be read.

    ``sent`` is False only where it is certain that the server never saw the request (the connection could not
    be made), so that even a POST may be repeated.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UnexpectedAnswerError(ChartMogulError):
    """An answer came, but not one of ChartMogul's: HTML where JSON should be, half a JSON, a redirect."""

    transient = True


class HTTPStatusError(ChartMogulError):
    """
    ChartMogul answered with an error status.

    ``status`` is the HTTP status, ``message`` what ChartMogul said, ``retry_after`` the seconds it asked to
    wait (None where it did not).
    """

    hint: ClassVar[str] = ""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        hint = f" {self.hint}" if self.hint else ""
        super().__init__(f"ChartMogul answered {status}: {message}{hint}")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class InvalidRequestError(HTTPStatusError):
    """400 or 422: a parameter is missing, malformed or makes no sense."""

    permanent = True
    hint = "(the parameters of the request are at fault; a retry cannot help)"


class AuthenticationError(HTTPStatusError):
    """401: the API key is missing or wrong."""

    permanent = True
    hint = "(check the API key: it belongs in the password field of the ChartMogul connection)"


class RequestFailedError(HTTPStatusError):
    """402: the parameters were valid, the request failed all the same."""


class PermissionDeniedError(HTTPStatusError):
    """403: the key may not do this, or the account's trial or plan has expired."""

    permanent = True
    hint = "(check that the account's plan is active and what the API key may do)"


class NotFoundError(HTTPStatusError):
    """404: there is no such export."""

    permanent = True
    hint = "(check the export ID, and that the connection is of the account that made the export)"


class RateLimitError(HTTPStatusError):
    """429: over 40 requests a second for the account, or over its compute-time budget."""

    transient = True


class ServerError(HTTPStatusError):
    """5xx: the server's fault, an outage, or over 20 parallel connections for the account (503)."""

    transient = True


class ExportFailedError(ChartMogulError):
    """ChartMogul ended the export as failed; only a new export can help."""

    permanent = True


class ExportNotFinishedError(ChartMogulError):
    """The export is not done yet."""


class OutageError(ChartMogulError):
    """There was no success for longer than the wait was told to bear."""


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
        activity_type = params.get("activity_type") or params.get("type")
        return cls(
            id=export_id,
            status=ExportStatus.parse(status_word),
            status_word=status_word.strip(),
            file_url=file_url if isinstance(file_url, str) and file_url else None,
            activity_type=activity_type if isinstance(activity_type, str) else None,
            start_date=_parse_time(params.get("start_date", params.get("start-date"))),
            end_date=_parse_time(params.get("end_date", params.get("end-date"))),
            created_at=_parse_time(answer.get("created_at")),
            expires_at=_parse_time(answer.get("expires_at")),
        )


def _parse_time(value: object) -> datetime | None:
    """Read a time in any of the forms the API echoes; what cannot be read is None, as nothing hangs on it."""
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
    if 200 <= status < 300:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        said = _shorten(body.decode("utf-8", "replace"), api_key)
        raise UnexpectedAnswerError(f"ChartMogul answered {status}, but not with a JSON object: {said!r}")
    if 300 <= status < 400:
        raise UnexpectedAnswerError(
            f"the server answered {status}, a redirect, which is not followed; check the connection's host"
        )
    cls = _STATUS_ERRORS.get(status, ServerError if status >= 500 else HTTPStatusError)
    raise cls(
        status,
        _shorten(error_message(body), api_key),
        retry_after=parse_retry_after(headers.get("Retry-After"), now),
    )


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
    exponential from one second to a minute, with jitter (half of it fixed, half of it drawn).
    """
    asked = getattr(error, "retry_after", None)
    if asked is not None:
        return float(asked) + random.uniform(0.0, 1.0)
    ceiling = min(_MAX_BACKOFF_SECONDS, 2.0 ** min(failures - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)


def poll_delay(looks: int, poll_interval: float) -> float:
    """
    Seconds until the next look after so many looks that found the export not done (from 1).

    Recorded exports were ready after 3 and 11 s, large ones after minutes: so the first wait is a second, each
    is half as long again as the one before, up to ``poll_interval``, with 10 % of jitter.
    """
    delay: float = min(poll_interval, FIRST_POLL_SECONDS * _POLL_GROWTH ** min(looks - 1, 40))
    return delay * random.uniform(0.9, 1.1)


class TaskLog(Protocol):
    """What is needed of a task's logger: Airflow's differ between its versions."""

    def info(self, message: str, /, *args: Any) -> Any: ...

    def warning(self, message: str, /, *args: Any) -> Any: ...


class ExportWait:
    """
    A wait for one export, without the sending and the sleeping.

    ``answered`` and ``failed`` take what a look brought and give the seconds until the next look; ``answered``
    gives None when the export is done. What ends the wait badly is raised. Times are seconds of any clock that
    does not jump (``time.monotonic``).

    :param poll_interval: seconds between looks, once they have grown to it
    :param max_failure_seconds: how long transient failures in a row are borne
    :param now: the present time
    :param log: what a person waiting wants to know goes here
    """

    #: While nothing changes, the log says so this often (seconds).
    REMINDER_SECONDS = 300.0

    def __init__(
        self,
        export_id: str,
        *,
        poll_interval: float,
        max_failure_seconds: float,
        now: float,
        log: TaskLog,
    ) -> None:
        self.export_id = export_id
        self.poll_interval = poll_interval
        self.max_failure_seconds = max_failure_seconds
        self.status_word: str | None = None
        self._log = log
        self._looks = 0
        self._failures = 0
        self._started = now
        self._failing_since = now
        self._last_said = now

    def answered(self, export: ActivitiesExport, now: float) -> float | None:
        """
        Take an answer; give the seconds until the next look, or None when the export is done.

        :raises ExportFailedError: when ChartMogul ended the export as failed
        """
        if self._failures:
            self._log.info("ChartMogul answers again after %.0f s", now - self._failing_since)
        self._failures = 0
        self._looks += 1
        self._say(export, now)
        if export.status is ExportStatus.SUCCEEDED:
            return None
        if export.status is ExportStatus.FAILED:
            raise ExportFailedError(
                f"ChartMogul could not make activities export {self.export_id}: its status is "
                f"'{export.status_word}'. A retry of this task cannot help: clear the task that creates the "
                "export and those after it, so that a new export is made."
            )
        return poll_delay(self._looks, self.poll_interval)

    def failed(self, error: ChartMogulError, now: float) -> float:
        """
        Take a failure; give the seconds until the next look.

        :raises ChartMogulError: the failure itself, when it will not pass by itself
        :raises OutageError: when nothing has succeeded for ``max_failure_seconds``
        """
        if not error.transient:
            raise error
        if not self._failures:
            # Not since the last success: between looks there may have been a long pause.
            self._failing_since = now
        self._failures += 1
        silent_for = now - self._failing_since
        if silent_for >= self.max_failure_seconds:
            raise OutageError(
                f"no look at activities export {self.export_id} has succeeded for {silent_for:.0f} s "
                f"(max_failure_seconds is {self.max_failure_seconds:.0f}); the last failure: {error}"
            )
        delay = retry_delay(self._failures, error)
        self._log.warning("Looking at export %s failed, next look in %.0f s: %s", self.export_id, delay, error)
        return delay

    def _say(self, export: ActivitiesExport, now: float) -> None:
        age = now - self._started
        if export.status_word != self.status_word:
            if export.status is ExportStatus.UNKNOWN:
                self._log.warning(
                    "Export %s has the status '%s', which this package does not know; it is taken for 'not done yet'",
                    export.id,
                    export.status_word,
                )
            else:
                self._log.info("Export %s is %s after %.0f s", export.id, export.status_word, age)
        elif now - self._last_said >= self.REMINDER_SECONDS:
            self._log.info("Export %s is still %s after %.0f s", export.id, export.status_word, age)
        else:
            return
        self.status_word = export.status_word
        self._last_said = now
