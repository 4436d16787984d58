# SPDX-License-Identifier: Apache-2.0
"""
All errors of this package::

    * ChartMogulError
      * ConnectionSettingsError          the Airflow connection, proxy or CA bundle cannot be used
      * ConnectionLookupError            the Airflow connection could not be looked up
      * IntervalError                    a window is missing or invalid
      * InvalidExportIdError             not an export ID
      * TransferSettingsError            an operator's parameter is invalid
      * InvalidResourceError             an unknown resource, or a query parameter or column that it does not have
      * NoResponseError                  connection refused or reset, timeout
      * UnexpectedResponseError          HTML, truncated JSON, a redirect
        * ForeignRedirectError           a redirect to another host
      * HTTPStatusError                  any status but 2xx and 3xx
        * InvalidRequestError            400, 422
        * AuthenticationError            401
        * RequestFailedError             402
        * PermissionDeniedError          403
        * NotFoundError                  404
        * RetryLaterError                408, 425
        * RateLimitError                 429
        * ServerError                    5xx
      * PaginationError                  a list cannot be walked to its end
      * OutageError                      no successful request for max_failure_seconds
      * ExportNotReadyError              the export has not finished yet
      * ExportTimeoutError               the export has not finished within the task's timeout
      * UnusableExportError              only a new export can help
        * ExportFailedError              ChartMogul reports the export as failed
        * ExportExpiredError             the export's file has expired
      * RecreateExportError              the next try creates a new export
      * DownloadError                    the export's file could not be downloaded
        * DownloadRefusedError           the storage refuses the file's URL
      * ArchiveError                     the file is not a sound zip archive
      * TableError                       the CSV cannot be read as a table
      * ColumnTypesError                 column_types does not fit the table
      * InsufficientDiskSpaceError       the local disk is full or read-only
      * SourceError                      the source of a load is malformed
      * ObjectChangedError               an object is not what its transfer wrote
      * ObjectStorageError               the object storage reported an error
        * DestinationError               the destination cannot be written to
        * ObjectExistsError              the object exists already
      * WarehouseError                   a load into a warehouse failed
        * LoadError                      the object does not fit the table
        * LockTimeoutError               another load keeps the table locked
      * TaskCancelledError               Airflow is stopping the task
        * UploadStillRunningError        an upload does not stop

``permanent`` and ``transient`` say whether trying again can help; see ``ChartMogulError``.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class ChartMogulError(Exception):
    """
    Base class of all errors of this package.

    ``permanent`` means that a retry of the task cannot help. ``transient`` means that the same request may well
    succeed a little later. If neither is set, this attempt has failed, and Airflow's retries apply.
    """

    permanent: bool = False
    transient: bool = False


# Settings


class ConnectionSettingsError(ChartMogulError):
    """The Airflow connection is missing or incomplete, or the environment's proxy or CA bundle cannot be used."""

    permanent = True


class ConnectionLookupError(ChartMogulError):
    """
    The Airflow connection could not be looked up.

    :param transient: whether it may be an outage of the secrets backend, which ends soon
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class IntervalError(ChartMogulError, ValueError):
    """There is no window to export, or it is invalid."""

    permanent = True


class InvalidExportIdError(ChartMogulError, ValueError):
    """The export ID is empty or malformed."""

    permanent = True


class TransferSettingsError(ChartMogulError, ValueError):
    """A parameter of a transfer operator is invalid, or does not go with another."""

    permanent = True


class InvalidResourceError(ChartMogulError, ValueError):
    """There is no such resource, or it does not have this query parameter or column."""

    permanent = True


# Requests and responses


class NoResponseError(ChartMogulError):
    """
    No response could be read.

    :param sent: ``False`` if the server certainly never received the request, because the connection failed; only
        then may a POST be repeated
    """

    transient = True

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class UnexpectedResponseError(ChartMogulError):
    """The response is not one of ChartMogul's: HTML instead of JSON, truncated JSON, a redirect."""

    transient = True


class ForeignRedirectError(UnexpectedResponseError):
    """The server redirected to another host, or from https to http, which is not followed."""


class HTTPStatusError(ChartMogulError):
    """
    ChartMogul responded with an error status.

    :param status: HTTP status
    :param message: ChartMogul's own message
    :param retry_after: seconds to wait, from the ``Retry-After`` header; ``None`` without one
    """

    hint: ClassVar[str] = ""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        hint = f" ({self.hint})" if self.hint else ""
        super().__init__(f"ChartMogul responded with {status}: {message}{hint}")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class InvalidRequestError(HTTPStatusError):
    """400 or 422: a parameter is missing, malformed or contradictory."""

    permanent = True
    hint = "a parameter of the request is invalid; a retry cannot help"


class AuthenticationError(HTTPStatusError):
    """401: the API key is missing or wrong."""

    permanent = True
    hint = "check the API key: it belongs in the password field of the ChartMogul connection"


class RequestFailedError(HTTPStatusError):
    """402: the parameters are valid, but the request failed."""


class PermissionDeniedError(HTTPStatusError):
    """403: the key has no permission, or the account's trial or plan has expired."""

    permanent = True
    hint = "check that the account's plan is active and what the API key may do"


class NotFoundError(HTTPStatusError):
    """404: what was requested, such as an export, does not exist."""

    permanent = True
    hint = "check the connection's host and, for an export, its ID and that the connection is of the same account"


class RetryLaterError(HTTPStatusError):
    """408 or 425: the server did not process the request, and asks to send it again."""

    transient = True


class RateLimitError(HTTPStatusError):
    """429: more than 40 requests a second for the account, or its compute-time budget is used up."""

    transient = True


class ServerError(HTTPStatusError):
    """5xx: an error or outage of the server, or more than 20 connections for the account (503)."""

    transient = True


class PaginationError(ChartMogulError):
    """A list cannot be walked to its end: not a page of its resource, or a cursor that does not advance."""


class OutageError(ChartMogulError):
    """No request has succeeded for longer than ``max_failure_seconds``."""


# Exports


class ExportNotReadyError(ChartMogulError):
    """The export has not finished yet."""


class ExportTimeoutError(ChartMogulError):
    """The export has not finished within the task's ``timeout``."""


class UnusableExportError(ChartMogulError):
    """
    The export cannot be used; only a new one can help.

    :param what: what is wrong with the export, without the advice that is appended
    """

    permanent = True

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. A retry of this task cannot help: clear the task that creates the export and those after it, so "
            "that a new one is created."
        )
        self.what = what


class ExportFailedError(UnusableExportError):
    """ChartMogul reports the export as failed."""


class ExportExpiredError(UnusableExportError):
    """The file of the export has expired."""


class RecreateExportError(ChartMogulError):
    """
    The export is unusable; the next try of the task creates a new one.

    Not an ``UnusableExportError``, because a retry of the task helps.
    """


# Download, formats and local disk


class DownloadError(ChartMogulError):
    """The export's file could not be downloaded; a retry of the task tries again."""


class RefusalReason(enum.Enum):
    """
    Why a storage refuses a signed URL.

    * ``EXPIRED``: its time, or that of the key that signed it, is over.
    * ``FORBIDDEN``: 401 or 403 for another reason than expiry, such as a firewall, or an endpoint or bucket policy.
    * ``MISSING``: there is no file.
    """

    EXPIRED = "expired"
    FORBIDDEN = "forbidden"
    MISSING = "missing"


class DownloadRefusedError(DownloadError):
    """
    The storage refuses the file URL, and a fresh one too.

    :param what: what the storage reports
    :param reason: why it refuses
    """

    def __init__(self, what: str, reason: RefusalReason) -> None:
        super().__init__(what)
        self.reason = reason


class ArchiveError(ChartMogulError):
    """The downloaded file is not a sound zip archive with the content of an export."""


class TableError(ChartMogulError):
    """The CSV cannot be read as a table."""

    permanent = True


class ColumnTypesError(ChartMogulError, ValueError):
    """``column_types`` has an unknown type or column, or a value does not fit its type."""

    permanent = True


class InsufficientDiskSpaceError(ChartMogulError):
    """The local disk has too little space, or cannot be written to."""


# Object storage


class ObjectStorageError(ChartMogulError):
    """The object storage reported an error; the message includes its own."""


class DestinationError(ObjectStorageError):
    """The destination is malformed, or its file system is not installed."""

    permanent = True


class ObjectExistsError(ObjectStorageError):
    """An object of that name exists already."""

    permanent = True


# Loads


class SourceError(ChartMogulError, ValueError):
    """The source of a load is malformed, or an object lacks the metadata of its transfer."""

    permanent = True


class ObjectChangedError(ChartMogulError):
    """The content of an object is not what its transfer wrote."""

    permanent = True


class WarehouseError(ChartMogulError):
    """A load into a warehouse failed; no row of the table has changed."""


class LoadError(WarehouseError):
    """The object does not fit the table, so a retry cannot help."""

    permanent = True


class LockTimeoutError(WarehouseError):
    """Another load kept the table, or the database's file, locked for longer than ``lock_timeout``."""


# Cancellation


class TaskCancelledError(ChartMogulError):
    """Airflow is stopping the task."""


class UploadStillRunningError(TaskCancelledError):
    """A cancelled upload does not stop, so its object may still appear."""
