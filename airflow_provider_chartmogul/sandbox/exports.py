# SPDX-License-Identifier: Apache-2.0
"""The sandbox's activities exports: the parameters of a create request, and an export's status over time."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES
from airflow_provider_chartmogul.sandbox.error_responses import ApiErrorResponse, bad_request

SUCCEEDED = ("succeeded", "successful")
"""The statuses of a finished export: the one of every recorded response, and the one of the API reference."""

_SHARE_PENDING = 0.25

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,6})?)?( ?(Z|[+-]\d{2}:?\d{2}))?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExportParameters:
    """The parameters of a create request, times in UTC; `None` where the request left one out."""

    start: datetime | None
    end: datetime | None
    activity_type: str | None

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> ExportParameters:
        """Read the parameters of a create request. Unknown parameters are ignored, as the API does.

        :raises ApiErrorResponse: 400 for a malformed date; 422 for an unknown type or an end before the start.
        """
        start = _parse_date(params, "start-date")
        end = _parse_date(params, "end-date")
        activity_type = params.get("type")
        if activity_type is not None and activity_type not in ACTIVITY_TYPES:
            raise ApiErrorResponse(422, {"errors": {"type": "is not included in the list"}})
        if start is not None and end is not None and end < start:
            raise ApiErrorResponse(422, {"errors": {"end-date": "must not be before start-date"}})
        return cls(start, end, activity_type)

    def echo(self) -> dict[str, str]:
        """Return the parameters as the API echoes them, without those that the request left out."""
        echoed: dict[str, str] = {}
        if self.activity_type is not None:
            echoed["activity_type"] = self.activity_type
        if self.start is not None:
            echoed["start_date"] = _format_date(self.start)
        if self.end is not None:
            echoed["end_date"] = _format_date(self.end)
        return echoed


def _parse_date(params: Mapping[str, Any], name: str) -> datetime | None:
    value = params.get(name)
    if value is None:
        return None
    try:
        if not isinstance(value, str) or not _DATE.fullmatch(value):
            raise ValueError(value)
        moment = datetime.fromisoformat(value.replace(" +", "+").replace(" -", "-").replace(" Z", "Z"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_request(f'Parameter "{name}" is malformed', name) from None


def _format_date(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", "seconds") + " +0000"


@dataclass(slots=True)
class Export:
    """An export and its state.

    :param path: the path of its file at the download host.
    :param outcome: the status it will end with; `never` for one that stays in `processing`.
    :param created_at: in UTC.
    :param created_monotonic: the same moment by `time.monotonic()`.
    """

    id: str
    path: str
    parameters: ExportParameters
    outcome: str
    created_at: datetime
    created_monotonic: float
    terminal_status: str | None = None
    signed_at: datetime | None = None
    url_seconds: int = 0

    @property
    def expires_at(self) -> datetime | None:
        """When the URL that was signed last expires; `None` before the first one."""
        return None if self.signed_at is None else self.signed_at + timedelta(seconds=self.url_seconds)

    def status(self, export_seconds: float) -> str:
        """Return the current status, without changing the export's state.

        :param export_seconds: how long an export takes; the first quarter of it the export is pending.
        """
        if self.terminal_status is not None:
            return self.terminal_status
        if self.outcome not in (*SUCCEEDED, "failed", "never"):
            return self.outcome
        age = time.monotonic() - self.created_monotonic
        if self.outcome != "never" and age >= export_seconds:
            return self.outcome
        return "pending" if age < export_seconds * _SHARE_PENDING else "processing"

    def poll(self, export_seconds: float, *, url_seconds: int, renew_expired_url: bool) -> str:
        """Return the current status. A finished export keeps it, and has its URL signed if it needs one.

        :param export_seconds: how long an export takes.
        :param url_seconds: how long a URL signed now stays valid, in seconds.
        :param renew_expired_url: whether an expired URL is replaced.
        """
        status = self.status(export_seconds)
        if status in (*SUCCEEDED, "failed") and status == self.outcome:
            self.terminal_status = status
        if status in SUCCEEDED:
            now = datetime.now(UTC).replace(microsecond=0)
            if self.expires_at is None or (renew_expired_url and now >= self.expires_at):
                self.signed_at, self.url_seconds = now, url_seconds
        return status


@dataclass(frozen=True, slots=True)
class ExportFile:
    """An export's zip file, and its ETag in the quotes that the header has."""

    content: bytes
    etag: str
