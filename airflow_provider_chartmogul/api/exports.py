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

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from airflow_provider_chartmogul.api.redaction import redact_urls
from airflow_provider_chartmogul.exceptions import (
    InvalidExportIdError,
    UnexpectedResponseError,
)

ACTIVITY_TYPES = ("new_biz", "reactivation", "expansion", "contraction", "churn")


_EXPORT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_NO_VALUE = frozenset({"none", "null", "nan", "undefined"})


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
    def is_terminal(self) -> bool:
        """Whether the status will not change any more."""
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

    @property
    def request(self) -> ExportRequest:
        """The window and type as the API echoes them; ``unreadable`` names what it does not cover."""
        return ExportRequest(self.start_date, self.end_date, self.activity_type)

    @classmethod
    def from_response(cls, answer: Mapping[str, Any]) -> ActivitiesExport:
        """
        Read an export out of an answer; unknown keys are ignored, and missing ones are None.

        :raises UnexpectedResponseError: when the answer has no usable ID or no status
        """
        status_word = answer.get("status")
        if not isinstance(status_word, str) or not status_word.strip():
            raise UnexpectedResponseError("ChartMogul's answer about an activities export has no status")
        try:
            export_id = validate_export_id(answer.get("id"))
        except InvalidExportIdError as error:
            raise UnexpectedResponseError("ChartMogul's answer about an activities export has no usable ID") from error
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
    shown = "is empty" if value in (None, "") else f"cannot be {redact_urls(str(value))[:60]!r}"
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
