# SPDX-License-Identifier: Apache-2.0
"""
Activities exports: what a task requests, and what ChartMogul responds.

Facts are from the API reference (https://dev.chartmogul.com/reference) and from recorded responses. Where the two
disagree, both forms are accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NoReturn

from airflow_provider_chartmogul.api.redaction import redact_urls
from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_json_object
from airflow_provider_chartmogul.exceptions import (
    InvalidExportIdError,
    UnexpectedResponseError,
)

ACTIVITY_TYPES = ("new_biz", "reactivation", "expansion", "contraction", "churn")


_EXPORT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_NO_VALUE = frozenset({"none", "null", "nan", "undefined"})


class ExportStatus(StrEnum):
    """The status of an export. ``SUCCEEDED`` stands for both words that the API uses for it."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, word: str) -> ExportStatus:
        """
        Return the status for the API's word.

        The reference has ``successful`` where every recorded response has ``succeeded``. An unfamiliar word is
        ``UNKNOWN``, and counts as 'not finished yet'.
        """
        word = word.strip().lower()
        if word == "successful":
            return cls.SUCCEEDED
        try:
            return cls(word)
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_terminal(self) -> bool:
        """Whether the status is not going to change any more."""
        return self in (ExportStatus.SUCCEEDED, ExportStatus.FAILED)


@dataclass(frozen=True)
class ExportRequest:
    """
    What an activities export is to contain.

    :param start: start of the window, with a time zone; ``None`` begins with the first activity
    :param end: end of the window, with a time zone; ``None`` ends when the export is created
    :param activity_type: one of ``ACTIVITY_TYPES``; ``None`` exports all types
    """

    start: datetime | None = None
    end: datetime | None = None
    activity_type: str | None = None

    def __str__(self) -> str:
        start = self.start.isoformat() if self.start else "the beginning"
        end = self.end.isoformat() if self.end else "now"
        return f"{self.activity_type or 'all'} activities from {start} to {end}"

    def serialize(self) -> dict[str, str | None]:
        """Return the request as values that every Airflow passes on unchanged; see ``deserialize``."""
        return {
            "start": self.start.isoformat() if self.start else None,
            "end": self.end.isoformat() if self.end else None,
            "activity_type": self.activity_type,
        }

    @classmethod
    def deserialize(cls, data: Mapping[str, str | None]) -> ExportRequest:
        """Read what ``serialize`` returned."""
        start, end = data["start"], data["end"]
        return cls(
            datetime.fromisoformat(start) if start else None,
            datetime.fromisoformat(end) if end else None,
            data["activity_type"],
        )

    def fingerprint(self, *account: str) -> str:
        """
        Return a digest that equal requests to the same account share.

        :param account: what identifies the account; not its key, which may be rotated
        """
        return hashlib.sha256(json.dumps([*account, self.serialize()]).encode()).hexdigest()


@dataclass(frozen=True)
class ActivitiesExport:
    """
    An activities export as the API describes it.

    ``start_date``, ``end_date`` and ``activity_type`` are the API's echo of the request, ``None`` for an open end or
    all types. All times have a time zone. ``file_url`` is a presigned URL that is valid for days, and therefore a
    credential: ``repr`` hides it, and it belongs in no log, XCom or exception.
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
    #: Names of fields that the response has in an unknown form. They are ``None`` too, but do not mean an open end or
    #: all types.
    unreadable: tuple[str, ...] = ()

    def serialize(self) -> NoReturn:
        """
        Refuse to become an XCom, which is where Airflow calls this.

        :raises TypeError: always
        """
        raise TypeError(
            "an ActivitiesExport cannot be an XCom, because its file_url is a credential: return its id instead, and "
            "call get_activities_export(id) in the task that needs the export"
        )

    def is_expired(self, now: datetime) -> bool:
        """Whether the file URL has expired. ChartMogul may or may not return a fresh one after that."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def request(self) -> ExportRequest:
        """The window and type as the API echoes them; ``unreadable`` names what it does not cover."""
        return ExportRequest(self.start_date, self.end_date, self.activity_type)

    @classmethod
    def from_response(cls, content: Mapping[str, Any]) -> ActivitiesExport:
        """
        Parse an export. Unknown keys are ignored, missing ones are ``None``.

        :raises UnexpectedResponseError: if the response has no usable ID or no status
        """
        status_word = content.get("status")
        if not isinstance(status_word, str) or not status_word.strip():
            raise UnexpectedResponseError("ChartMogul's response about an activities export has no status")
        try:
            export_id = validate_export_id(content.get("id"))
        except InvalidExportIdError as error:
            raise UnexpectedResponseError(
                "ChartMogul's response about an activities export has no usable ID"
            ) from error
        outer = content.get("params")
        inner = outer.get("params") if isinstance(outer, Mapping) else None
        params: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
        file_url = content.get("file_url")
        echo = {
            "start_date": params.get("start_date", params.get("start-date")),
            "end_date": params.get("end_date", params.get("end-date")),
            "activity_type": params.get("activity_type") or params.get("type"),
        }
        request: dict[str, Any] = {
            "start_date": _parse_time(echo["start_date"]),
            "end_date": _parse_time(echo["end_date"]),
            "activity_type": echo["activity_type"] if isinstance(echo["activity_type"], str) else None,
        }
        return cls(
            id=export_id,
            status=ExportStatus.parse(status_word),
            status_word=status_word.strip(),
            file_url=file_url if isinstance(file_url, str) and file_url else None,
            created_at=_parse_time(content.get("created_at")),
            expires_at=_parse_time(content.get("expires_at")),
            unreadable=tuple(name for name, value in echo.items() if value not in (None, "") and request[name] is None),
            **request,
        )


def _parse_time(value: object) -> datetime | None:
    """Parse a time in any of the recorded forms; return ``None`` for any other."""
    if not isinstance(value, str):
        return None
    # One recorded form is '2020-01-01 00:00:00 +0000'; fromisoformat does not accept the space before the offset.
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
    Return an export ID that may become part of a path.

    :raises InvalidExportIdError: if the value is empty, the text of a missing value, or has characters other than
        letters, digits, ``-`` and ``_``
    """
    if isinstance(value, str):
        text = value.strip()
        if _EXPORT_ID.fullmatch(text) and text.lower() not in _NO_VALUE:
            return text
    shown = "is empty" if value in (None, "") else f"cannot be {redact_urls(str(value))[:60]!r}"
    raise InvalidExportIdError(
        f"export_id {shown}. It is the value that CreateActivitiesExportOperator returns, usually passed as "
        "export_id=create.output; check that task's XCom."
    )


def validate_activity_type(value: object) -> str | None:
    """
    Return an activity type that the API knows, or ``None`` for all types.

    :param value: one of ``ACTIVITY_TYPES``; ``None`` or ``all``, which a template can return, exports all types
    :raises ValueError: for any other value
    """
    if value is None or value == "all":
        return None
    if isinstance(value, str) and value in ACTIVITY_TYPES:
        return value
    raise ValueError(
        f"activity_type cannot be {value!r}: it is one of {', '.join(ACTIVITY_TYPES)}, or 'all' or None for all of them"
    )


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
