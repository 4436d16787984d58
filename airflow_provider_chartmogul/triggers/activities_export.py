# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for an activities export."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_chartmogul.exceptions import ChartMogulError
from airflow_provider_chartmogul.sources.polling import DeadlineName, ExportPoller, PollSettings, timeout_message
from airflow_provider_chartmogul.triggers.events import ExportEvent

#: The first poll comes no sooner than this after the wait began, in seconds. Airflow's scheduler fails a task that runs
#: again before the scheduler has read that the deferred process ended (apache/airflow#72716). It reads this once a
#: loop, which takes a second or two, and longer on a busy machine; the process takes another second to end.
_EARLIEST_POLL_SECONDS = 5.0

#: Time limit for the final poll, which starts at the deadline, in seconds.
_FINAL_POLL_SECONDS = 5.0


@cache
def _import_for_polling() -> tuple[Any, Any, Any]:
    """
    Import the aiohttp client, its request and Airflow's metrics.

    The first call must run in a thread, because slow imports block the other triggers.
    """
    from airflow.providers.common.compat.sdk import Stats

    from airflow_provider_chartmogul.api.exports import get_activities_export
    from airflow_provider_chartmogul.hooks.shared_client import shared_client

    return shared_client, get_activities_export, Stats


class ActivitiesExportTrigger(BaseTrigger):
    """
    Poll an export until it is finished, or the deadline has passed.

    The trigger fires one event; ``triggers.events.ExportEvent`` describes it.

    :param chartmogul_conn_id: the Airflow connection
    :param export_id: the export
    :param poll_interval: seconds between polls; the first polls come sooner, the very first after 5 s
    :param deadline: when to give up, in seconds since the epoch, so that a restarted triggerer keeps it; ``None``
        waits without a limit
    :param max_failure_seconds: how long to keep retrying transient failures (429, 5xx, connection errors) before giving
        up, in seconds
    :param deadline_name: which parameter of the task sets the deadline, ``timeout`` or ``execution_timeout``
    :param started: when the wait began, in seconds since the epoch; the delay between polls grows from then on.
        ``None`` is now
    """

    def __init__(
        self,
        chartmogul_conn_id: str,
        export_id: str,
        poll_interval: float = 30.0,
        deadline: float | None = None,
        max_failure_seconds: float = 3600.0,
        deadline_name: DeadlineName = "timeout",
        started: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chartmogul_conn_id = chartmogul_conn_id
        self.export_id = export_id
        self.settings = PollSettings(
            interval=poll_interval,
            max_failure_seconds=max_failure_seconds,
            started=time.time() if started is None else started,
            deadline=deadline,
            deadline_name=deadline_name,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "chartmogul_conn_id": self.chartmogul_conn_id,
                "export_id": self.export_id,
                "poll_interval": self.settings.interval,
                "deadline": self.settings.deadline,
                "max_failure_seconds": self.settings.max_failure_seconds,
                "deadline_name": self.settings.deadline_name,
                "started": self.settings.started,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, when the export is finished, the deadline has passed, or retrying cannot help."""
        try:
            event = await self._poll_until_finished()
        except ChartMogulError as error:
            event = ExportEvent.from_error(self.export_id, error)
        yield TriggerEvent(event.serialize())

    async def _poll_until_finished(self) -> ExportEvent:
        if not _import_for_polling.cache_info().currsize:
            await asyncio.to_thread(_import_for_polling)
        shared_client, get_activities_export, stats = _import_for_polling()
        age = max(0.0, time.time() - self.settings.started)
        poller = ExportPoller(self.export_id, self.settings, now=time.monotonic(), log=self.log, stats=stats, age=age)
        async with shared_client(self.chartmogul_conn_id) as client:
            delay: float | None = max(poller.first_delay(), _EARLIEST_POLL_SECONDS * random.uniform(1.0, 1.1) - age)
            # The poller returns no delay once the export has succeeded.
            while delay is not None:
                await asyncio.sleep(max(0.0, min(delay, self.settings.remaining())))
                try:
                    # A poll waits for its turn and for the response; neither may go far past the deadline.
                    async with asyncio.timeout_at(self._poll_deadline()):
                        export = await client.send(get_activities_export(self.export_id))
                except TimeoutError:
                    pass  # The poll ran past the deadline, which is handled below.
                except ChartMogulError as error:
                    delay = poller.record_failure(error, time.monotonic())
                else:
                    delay = poller.record_response(export, time.monotonic())
                # Checked after a poll, so that an export that finished in time is never given up.
                if delay is not None and self.settings.remaining() <= 0:
                    name = self.settings.deadline_name
                    return ExportEvent(self.export_id, name, timeout_message(self.export_id, name, poller.last_status))
        return ExportEvent(self.export_id, "success")

    def _poll_deadline(self) -> float | None:
        """When a poll must have its response, by the event loop's clock."""
        if self.settings.deadline is None:
            return None
        return asyncio.get_running_loop().time() + max(0.0, self.settings.remaining()) + _FINAL_POLL_SECONDS
