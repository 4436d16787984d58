# SPDX-License-Identifier: Apache-2.0
"""The wait for an activities export, in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_chartmogul.api.endpoints import get_activities_export
from airflow_provider_chartmogul.exceptions import ChartMogulError, NotFoundError, UnusableExportError
from airflow_provider_chartmogul.sources.polling import ExportWait

#: So long may the last look take, which begins at the deadline.
_LAST_LOOK_SECONDS = 5.0

_transport: Any = None


async def _transport_module() -> Any:
    """Load the triggerer's transport, with aiohttp: in a thread, where it holds up no other trigger, and once."""
    global _transport
    if _transport is None:
        _transport = await asyncio.to_thread(import_module, "airflow_provider_chartmogul.hooks.shared_client")
    return _transport


class ActivitiesExportTrigger(BaseTrigger):
    """
    Look at an export until it is done, has failed, or the deadline has come.

    It ends with one event, whose payload has ``status`` (``done``, ``timeout`` or ``error``), ``export_id``
    and ``deadline_name`` and ``last_status``, or ``message``, ``what``, ``permanent`` and ``unusable``. Neither key nor
    file URL is in it.

    :param chartmogul_conn_id: the Airflow connection
    :param export_id: the export
    :param poll_interval: seconds between looks; the first ones come sooner
    :param deadline: when to give up, in seconds since the epoch, so that a restarted triggerer keeps it; None:
        never
    :param max_failure_seconds: how long failures in a row that may pass by themselves are borne
    :param deadline_name: which of the task's limits the deadline is, ``timeout`` or ``execution_timeout``
    :param started: when the wait began, in seconds since the epoch, by which the looks grow apart; None: now
    """

    def __init__(
        self,
        chartmogul_conn_id: str,
        export_id: str,
        poll_interval: float = 30.0,
        deadline: float | None = None,
        max_failure_seconds: float = 3600.0,
        deadline_name: str = "timeout",
        started: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chartmogul_conn_id = chartmogul_conn_id
        self.export_id = export_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.max_failure_seconds = max_failure_seconds
        self.deadline_name = deadline_name
        self.started = time.time() if started is None else started

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "chartmogul_conn_id": self.chartmogul_conn_id,
                "export_id": self.export_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "max_failure_seconds": self.max_failure_seconds,
                "deadline_name": self.deadline_name,
                "started": self.started,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            payload = await self._wait()
        except ChartMogulError as error:
            payload = {
                "status": "error",
                "export_id": self.export_id,
                "message": str(error),
                "permanent": error.permanent,
                # What a new export can cure: also one that the server does not know any more.
                "unusable": isinstance(error, (UnusableExportError, NotFoundError)),
                "what": getattr(error, "what", None),
            }
        yield TriggerEvent(payload)

    def _latest(self) -> float | None:
        """Until when a look may last, by the event loop's clock."""
        if self.deadline is None:
            return None
        return asyncio.get_running_loop().time() + max(0.0, self.deadline - time.time()) + _LAST_LOOK_SECONDS

    async def _wait(self) -> dict[str, Any]:
        transport = await _transport_module()
        from airflow.providers.common.compat.sdk import Stats

        wait = ExportWait(
            self.export_id,
            poll_interval=self.poll_interval,
            max_failure_seconds=self.max_failure_seconds,
            now=time.monotonic(),
            log=self.log,
            stats=Stats,
            age=max(0.0, time.time() - self.started),
        )
        async with transport.shared_client(self.chartmogul_conn_id) as client:
            delay: float | None = wait.first_delay()
            while delay is not None:
                left = float("inf") if self.deadline is None else self.deadline - time.time()
                await asyncio.sleep(max(0.0, min(delay, left)))
                try:
                    # A look waits for its turn and for the answer; neither may go far past the deadline.
                    async with asyncio.timeout_at(self._latest()):
                        export = await client.send(get_activities_export(self.export_id))
                except TimeoutError:
                    pass
                except ChartMogulError as error:
                    delay = wait.failed(error, time.monotonic())
                else:
                    delay = wait.answered(export, time.monotonic())
                # The last look comes after the deadline, so that a wait is never given up unseen.
                if delay is not None and self.deadline is not None and time.time() >= self.deadline:
                    return {
                        "status": "timeout",
                        "export_id": self.export_id,
                        "last_status": wait.status_word,
                        "deadline_name": self.deadline_name,
                    }
        return {"status": "done", "export_id": self.export_id}
