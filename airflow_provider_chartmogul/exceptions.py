# SPDX-License-Identifier: Apache-2.0
"""
What can go wrong between this package and ChartMogul, and whether asking again can help::

    * ChartMogulError
      * ConnectionSettingsError      the Airflow connection cannot be used as it is
      * InvalidExportIdError         not something that may become part of a path
      * NoResponseError                refused, reset, timed out: nothing that could be read came back
      * UnexpectedResponseError        an answer came, but not one of ChartMogul's (HTML, half a JSON, a redirect)
      * HTTPStatusError              ChartMogul said no; ``status`` says which, ``message`` in its own words
        * InvalidRequestError        400, 422
        * AuthenticationError        401
        * RequestFailedError         402
        * PermissionDeniedError      403
        * NotFoundError              404
        * RateLimitError             429
        * ServerError                5xx
      * UnusableExportError          nothing is to be had from the export, a new one is needed
        * ExportFailedError          ChartMogul ended it as failed
        * ExportExpiredError         the time of its file is over
      * ExportNotReadyError       the export is still being made
      * OutageError                  no success for longer than a wait was told to bear

Downloads, archives, destinations and settings have their own, in the modules that raise them; all are
``ChartMogulError`` too.
"""

from __future__ import annotations

from typing import ClassVar


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


class NoResponseError(ChartMogulError):
    """
    Nothing came back that could be read.

    ``sent`` is False only where it is certain that the server never saw the request (the connection could not
    be made), so that even a POST may be repeated.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UnexpectedResponseError(ChartMogulError):
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
    hint = "(check the connection's host and, for an export, its ID and whether the connection is of its account)"


class RateLimitError(HTTPStatusError):
    """429: over 40 requests a second for the account, or over its compute-time budget."""

    transient = True


class ServerError(HTTPStatusError):
    """5xx: the server's fault, an outage, or over 20 parallel connections for the account (503)."""

    transient = True


class UnusableExportError(ChartMogulError):
    """
    There is nothing to be had from an export; only a new one can help.

    ``what`` says what is the matter with it, without what to do: a task that makes exports itself can do that.
    """

    permanent = True

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. A retry of this task cannot help: clear the task that creates the export and those after it, so "
            "that a new one is made."
        )
        self.what = what


class ExportFailedError(UnusableExportError):
    """ChartMogul ended the export as failed."""


class ExportExpiredError(UnusableExportError):
    """The time of the export's file is over."""


class ExportNotReadyError(ChartMogulError):
    """The export is not done yet."""


class OutageError(ChartMogulError):
    """There was no success for longer than the wait was told to bear."""


class TransferSettingsError(ChartMogulError, ValueError):
    """What the transfer was told makes no sense."""

    permanent = True


class InsufficientDiskSpaceError(ChartMogulError):
    """The local disk has too little room, or cannot be written to."""


class DownloadError(ChartMogulError):
    """The archive could not be downloaded; a retry of the task tries again."""


class DownloadRefusedError(ExportExpiredError, DownloadError):
    """The URL is refused and there is no fresh one: the export has expired, and has to be made again."""


class ArchiveError(ChartMogulError):
    """What was downloaded is not a whole and sound zip archive of the kind ChartMogul makes."""


class ColumnTypesError(ChartMogulError, ValueError):
    """``column_types`` names a type or a column that there is not, or a value does not fit its type."""

    permanent = True


class TableError(ChartMogulError):
    """The CSV cannot be read as a table."""


class ObjectStorageError(ChartMogulError):
    """The object storage did not do what it was asked; the message has its own words."""


class DestinationError(ObjectStorageError):
    """The destination is not one that can be written to: malformed, or its file system is not installed."""

    permanent = True


class ObjectExistsError(ObjectStorageError):
    """There is an object of that name already."""

    permanent = True


class ExportTimeoutError(ChartMogulError):
    """The export was not done within the task's ``timeout``; the next try makes a new one."""


class TaskCancelledError(ChartMogulError):
    """Airflow has told the task to end."""


class UploadStillRunningError(TaskCancelledError):
    """An upload was cancelled, and does not end: its object may yet appear."""


class IntervalError(ValueError):
    """There is no window to export, or it makes no sense."""
