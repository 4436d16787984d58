# SPDX-License-Identifier: Apache-2.0
"""
Resume an export after a worker crash, instead of creating a second one.

Airflow 3.3 has a state store for each task instance that outlives its tries. It holds the export's ID, the request's
fingerprint, and ``max_tries``, which tells a retry from a cleared task: only clearing raises it. Before 3.3, every try
creates an export. Nothing is deleted on success, because a crash may still follow before the XCom is pushed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.api.exports import ActivitiesExport, ExportRequest, ExportStatus, validate_export_id
from airflow_provider_chartmogul.exceptions import InvalidExportIdError, NotFoundError
from airflow_provider_chartmogul.runtime.task_log import TaskLog

if TYPE_CHECKING:
    from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook

_KEY = "chartmogul_activities_export"


def create_or_resume_export(
    context: Mapping[str, Any], hook: ChartMogulHook, request: ExportRequest, log: TaskLog
) -> ActivitiesExport:
    """
    Create an activities export, or return the one that an earlier try of this task created.

    :param context: the task's context
    :raises ChartMogulError: see ``ChartMogulHook.create_activities_export``
    """
    # The API key is left out of the fingerprint: it may be rotated between two tries.
    fingerprint = request.fingerprint(hook.chartmogul_conn_id, hook.settings.base_url)
    saved = _SavedExport(context, fingerprint, log)
    if (export_id := saved.load()) is not None and (export := _resume(hook, export_id, request, log)) is not None:
        return export
    log.info("Creating an export of %s", request)
    export = hook.create_activities_export(
        start_date=request.start, end_date=request.end, activity_type=request.activity_type
    )
    saved.save(export.id)
    log.info("Created activities export %s; its status is '%s'", export.id, export.status_word)
    return export


def clear_saved_export(context: Mapping[str, Any], log: TaskLog) -> None:
    """Let the next try create a new export, because this one is unusable."""
    store = context.get("task_state_store")
    if store is None:
        return
    try:
        store.delete(_KEY)
    except Exception as error:
        log.warning(
            "Could not delete from Airflow's task state store (%s); the next try may resume the export",
            type(error).__name__,
        )


def _resume(hook: ChartMogulHook, export_id: str, request: ExportRequest, log: TaskLog) -> ActivitiesExport | None:
    """Return the export of an earlier try, or ``None`` if it is unusable."""
    try:
        export = hook.get_activities_export(export_id)
    except NotFoundError:
        log.warning("Export %s of an earlier try does not exist any more; creating a new one", export_id)
        return None
    if export.status is ExportStatus.FAILED or export.is_expired(datetime.now(UTC)):
        reason = "failed" if export.status is ExportStatus.FAILED else "expired"
        log.info("Export %s of an earlier try has %s; creating a new one", export_id, reason)
        return None
    log.info(
        "Resuming export %s of an earlier try (%s); its status is '%s'. Clear the task to create a new one.",
        export_id,
        request,
        export.status_word,
    )
    return export


class _SavedExport:
    """The export ID that one task instance's tries share through Airflow's task state store."""

    def __init__(self, context: Mapping[str, Any], fingerprint: str, log: TaskLog) -> None:
        ti = context["ti"]
        self._store = context.get("task_state_store")
        self._identity = {"fingerprint": fingerprint, "max_tries": ti.max_tries}
        self._try_number = ti.try_number
        self._log = log

    def load(self) -> str | None:
        """Return the export ID that an earlier try saved for the same request, if any."""
        if self._store is None:
            if self._try_number > 1:
                self._log.info(
                    "This is try %d, and Airflow before 3.3 keeps no state between tries: creating a new export, even "
                    "if an earlier try created one",
                    self._try_number,
                )
            return None
        try:
            state = self._store.get(_KEY)
        except Exception as error:
            # A broken store must not stop the export.
            self._log.warning(
                "Could not read Airflow's task state store (%s); creating a new export", type(error).__name__
            )
            return None
        if not isinstance(state, dict) or {name: state.get(name) for name in self._identity} != self._identity:
            # Of another request, or from before the task was cleared.
            return None
        try:
            return validate_export_id(state.get("export_id"))
        except InvalidExportIdError:
            return None

    def save(self, export_id: str) -> None:
        """Save the export ID. Call this right after the POST: if the worker crashes before it, the export is lost."""
        if self._store is None:
            return
        try:
            self._store.set(_KEY, {**self._identity, "export_id": export_id})
        except Exception as error:
            self._log.warning(
                "Could not write to Airflow's task state store (%s); if this try crashes, the next one creates a new "
                "export",
                type(error).__name__,
            )
