# SPDX-License-Identifier: Apache-2.0
"""
A crash costs no export: what a try has made, the next one goes on with.

Airflow 3.3 has a store for each task instance that outlives its tries. It holds the export's ID, a fingerprint of
what was asked for, and ``max_tries``: a retry keeps that number, and a person's clear raises it, so that a clear makes
a new export. Nothing is deleted on success, since that comes before the XCom is pushed, and a crash can fall between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.api.exports import ActivitiesExport, ExportStatus, validate_export_id
from airflow_provider_chartmogul.exceptions import InvalidExportIdError, NotFoundError
from airflow_provider_chartmogul.runtime.task_log import TaskLog

if TYPE_CHECKING:
    from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
    from airflow_provider_chartmogul.intervals.interval import Interval

_KEY = "chartmogul_activities_export"


def create_or_resume(
    context: Mapping[str, Any], hook: ChartMogulHook, interval: Interval, activity_type: str | None, log: TaskLog
) -> ActivitiesExport:
    """
    Make an activities export, or go on with the one that a try before this has made.

    :param context: the task's context
    :param interval: the window
    :param activity_type: None: all of them
    :raises ChartMogulError: see ``ChartMogulHook.create_activities_export``
    """
    memory = _Memory(context, _fingerprint(hook, interval, activity_type), log)
    if (export_id := memory.recall()) is not None:
        export = _look_again(hook, export_id, log)
        if export is not None:
            return export
    log.info("Creating an export of %s activities from %s", activity_type or "all types of", interval)
    export = hook.create_activities_export(
        start_date=interval.start, end_date=interval.end, activity_type=activity_type
    )
    memory.keep(export.id)
    log.info("Activities export %s is made, its status is %s", export.id, export.status_word)
    return export


def forget(context: Mapping[str, Any], log: TaskLog) -> None:
    """Let the next try make a new export: there is nothing to be had from this one."""
    store = context.get("task_state_store")
    if store is None:
        return
    try:
        store.delete(_KEY)
    except Exception as error:
        log.warning("Airflow's task state store cannot be written (%s)", type(error).__name__)


def _look_again(hook: ChartMogulHook, export_id: str, log: TaskLog) -> ActivitiesExport | None:
    """Give the export that is there, where it can still be of use."""
    try:
        export = hook.get_activities_export(export_id)
    except NotFoundError:
        log.warning("Export %s, which a try before this has made, is not there any more; making a new one", export_id)
        return None
    if export.status is ExportStatus.FAILED or export.is_expired(datetime.now(UTC)):
        word = "failed" if export.status is ExportStatus.FAILED else "expired"
        log.info("Export %s, which a try before this has made, has %s; making a new one", export_id, word)
        return None
    log.info(
        "Going on with export %s, which a try before this has made; its status is %s. (Clear the task for a new one.)",
        export_id,
        export.status_word,
    )
    return export


def _fingerprint(hook: ChartMogulHook, interval: Interval, activity_type: str | None) -> str:
    """What makes two requests the same: account and window; the key is in it in no form, as it may be rotated."""
    asked = [
        hook.chartmogul_conn_id,
        hook.settings.base_url,
        interval.start and interval.start.isoformat(),
        interval.end and interval.end.isoformat(),
        activity_type,
    ]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


class _Memory:
    """What one task instance's tries know of each other."""

    def __init__(self, context: Mapping[str, Any], fingerprint: str, log: TaskLog) -> None:
        ti = context["ti"]
        self._store = context.get("task_state_store")
        self._mark = {"fingerprint": fingerprint, "max_tries": ti.max_tries}
        self._try_number = ti.try_number
        self._log = log

    def recall(self) -> str | None:
        """Give the ID of the export that a try before this has made for the same request, if any."""
        if self._store is None:
            if self._try_number > 1:
                self._log.info(
                    "This is try %d, and Airflow before 3.3 keeps nothing from one to the next: a new export is made, "
                    "also where the one before has made one",
                    self._try_number,
                )
            return None
        try:
            kept = self._store.get(_KEY)
        except Exception as error:
            # A store that is out of order is no reason to do without an export.
            self._log.warning("Airflow's task state store cannot be read (%s); making an export", type(error).__name__)
            return None
        if not isinstance(kept, dict) or {name: kept.get(name) for name in self._mark} != self._mark:
            return None
        try:
            return validate_export_id(kept.get("export_id"))
        except InvalidExportIdError:
            return None

    def keep(self, export_id: str) -> None:
        """Note what was made; called right after the POST, since a crash in between costs an export."""
        if self._store is None:
            return
        try:
            self._store.set(_KEY, {**self._mark, "export_id": export_id})
        except Exception as error:
            self._log.warning(
                "Airflow's task state store cannot be written (%s): should this try crash, the next makes a new export",
                type(error).__name__,
            )
