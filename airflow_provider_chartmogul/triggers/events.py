# SPDX-License-Identifier: Apache-2.0
"""The event that ends a wait in the triggerer: written by the trigger, read by the task when it resumes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    ExportTimeoutError,
    NotFoundError,
    UnusableExportError,
)

Status = Literal["success", "timeout", "execution_timeout", "unusable", "failed", "error"]


@dataclass(frozen=True)
class ExportEvent:
    """
    How the wait for an export ended. Neither the API key nor the file URL is in it.

    :param export_id: the export
    :param status: one of

        * ``success``: the export has succeeded
        * ``timeout``, ``execution_timeout``: it did not finish within this limit of the task
        * ``unusable``: it has failed or does not exist; only a new export helps
        * ``failed``: no retry of the task can help, because of a wrong key, for example
        * ``error``: a retry of the task may help

    :param message: what went wrong; empty on success
    """

    export_id: str
    status: Status
    message: str = ""

    @classmethod
    def from_error(cls, export_id: str, error: ChartMogulError) -> ExportEvent:
        """Return the event for an error that ended the wait."""
        if isinstance(error, UnusableExportError):
            return cls(export_id, "unusable", error.what)
        if isinstance(error, NotFoundError):
            return cls(export_id, "unusable", str(error))
        return cls(export_id, "failed" if error.permanent else "error", str(error))

    def serialize(self) -> dict[str, Any]:
        """Return the payload of the ``TriggerEvent``."""
        return asdict(self)

    @classmethod
    def deserialize(cls, payload: Any, export_id: str) -> ExportEvent:
        """
        Read the payload of the ``TriggerEvent``.

        :param export_id: the export that the task waited for
        :raises ChartMogulError: for the event of another wait, of another version of the trigger, or of none
        """
        try:
            event = cls(**payload)
        except TypeError:
            event = None
        if event is None or event.export_id != export_id or event.status not in get_args(Status):
            raise ChartMogulError(f"the wait for export {export_id} ended with an unexpected event: {payload!r}")
        return event

    def raise_for_status(self) -> None:
        """
        Raise what the event stands for, unless it is a success.

        :raises ExportTimeoutError: for ``timeout``
        :raises AirflowTaskTimeout: for ``execution_timeout``
        :raises UnusableExportError: for ``unusable``
        :raises AirflowFailException: for ``failed``
        :raises ChartMogulError: for ``error``
        """
        if self.status == "success":
            return
        if self.status == "timeout":
            raise ExportTimeoutError(self.message)
        if self.status == "execution_timeout":
            raise AirflowTaskTimeout(self.message)
        if self.status == "unusable":
            raise UnusableExportError(self.message)
        if self.status == "failed":
            raise AirflowFailException(self.message)
        raise ChartMogulError(self.message)
