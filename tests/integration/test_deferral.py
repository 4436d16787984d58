# SPDX-License-Identifier: Apache-2.0
"""The deferred wait: its deadline, the event that ends it, and what happens when the triggerer fails."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_chartmogul.exceptions import ChartMogulError
from airflow_provider_chartmogul.hooks import shared_client
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.triggers import activities_export
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.integration.servers import RecordedRequest, Response, ScriptedServer
from tests.integration.task_runner import FakeTaskInstance, run_task
from tests.integration.waits import EXPORT_ID, MODES, PENDING, SUCCEEDED, api_error, async_wait_until, new_sensor

pytestmark = pytest.mark.usefixtures("short_waits")


async def payloads(trigger: ActivitiesExportTrigger) -> list[Any]:
    """Run a trigger to its end; return the payloads of its events."""
    return [event.payload async for event in trigger.run()]


# Deadlines


def test_deadline_is_fixed_when_the_task_is_deferred(sandbox: Sandbox) -> None:
    sandbox.outcome = "never"
    export_id = ChartMogulHook().create_activities_export().id
    ti = FakeTaskInstance()
    context: Any = {"ti": ti}

    with pytest.raises(TaskDeferred) as deferred:
        new_sensor(export_id=export_id, execution_timeout=timedelta(seconds=50), timeout=60).execute(context)

    trigger = deferred.value.trigger
    assert trigger.settings.deadline == ti.start_date.timestamp() + 50
    assert trigger.settings.deadline_name == "execution_timeout"
    # Airflow's own limit comes later, so that the trigger reports which limit ended the wait.
    assert deferred.value.timeout > timedelta(seconds=50)


@pytest.mark.parametrize(
    "response", [Response(stall=True), api_error(429, **{"Retry-After": "6000"})], ids=["stall", "429"]
)
@pytest.mark.parametrize("mode", MODES)
def test_server_cannot_extend_the_deadline(mode: str, response: Response, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities_export, "_FINAL_POLL_SECONDS", 0.5)
    with ScriptedServer(PENDING, response) as server:
        timeout = 3 if response.stall else 30
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(timeout=timeout))
        # A wait for 6000 s would exceed the time limit of tests.
        with pytest.raises(AirflowSensorTimeout, match="did not finish within the task's timeout"):
            run_task(new_sensor(timeout=1.5, **MODES[mode]))


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/execution timeout"])
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, AirflowSensorTimeout),
        ({"execution_timeout": timedelta(hours=12)}, AirflowSensorTimeout),
        # Airflow retries this one, so that a triggerer that was down costs one try.
        ({"execution_timeout": timedelta(hours=1)}, AirflowTaskTimeout),
    ],
)
def test_expired_deferral_is_the_timeout_of_the_earlier_limit(
    error: str, limits: dict[str, Any], expected: type[BaseException]
) -> None:
    context: Any = {}
    with pytest.raises(expected, match="check that a triggerer is running"):
        new_sensor(**limits).resume_execution("__fail__", {"error": error}, context)
    with pytest.raises(AirflowSkipException):
        new_sensor(**limits, soft_fail=True).resume_execution("__fail__", {"error": error}, context)


# The first poll in the triggerer


def test_first_poll_waits_until_the_scheduler_has_seen_the_deferral(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities_export, "_EARLIEST_POLL_SECONDS", 1.0)
    polled: list[float] = []

    def respond(_: RecordedRequest) -> Response:
        polled.append(time.time())
        return SUCCEEDED

    with ScriptedServer(respond) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        deferred = time.time()
        asyncio.run(payloads(ActivitiesExportTrigger("chartmogul_default", EXPORT_ID, poll_interval=0.1)))
    (first,) = polled
    assert first - deferred >= 1.0


@pytest.mark.parametrize("parameters", [{"deadline": 0.5}, {"started": -600}], ids=["deadline", "restarted triggerer"])
def test_first_poll_is_not_later_than_necessary(parameters: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait polls once at its deadline; one that another triggerer began is long past the deferral."""
    monkeypatch.setattr(activities_export, "_EARLIEST_POLL_SECONDS", 500.0)
    with ScriptedServer(SUCCEEDED) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        now = time.time()
        moments: Any = {name: now + seconds for name, seconds in parameters.items()}
        trigger = ActivitiesExportTrigger("chartmogul_default", EXPORT_ID, poll_interval=0.1, **moments)
        (event,) = asyncio.run(payloads(trigger))
    assert event["status"] == "success"


# Events


@pytest.mark.parametrize("soft_fail", [False, True])
def test_crashed_trigger_is_a_retryable_error(soft_fail: bool) -> None:
    with pytest.raises(Exception, match="Trigger failure") as raised:
        new_sensor(soft_fail=soft_fail).resume_execution("__fail__", {"error": "Trigger failure"}, {})
    assert not isinstance(raised.value, (AirflowSkipException, AirflowFailException))


@pytest.mark.parametrize("event", [None, {"status": "success", "export_id": "another"}])
def test_foreign_event_is_an_error(event: Any) -> None:
    with pytest.raises(ChartMogulError, match="unexpected event"):
        new_sensor().execute_complete({}, event)


def test_failed_connection_lookup_is_retried_in_the_triggerer(
    monkeypatch: pytest.MonkeyPatch, airflow_db: None
) -> None:
    """Airflow reports a secrets backend that is down as 'not found', and the worker has just read the connection."""
    monkeypatch.delenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", raising=False)
    with ScriptedServer(SUCCEEDED) as server:

        async def wait() -> Any:
            trigger = ActivitiesExportTrigger("chartmogul_default", EXPORT_ID, poll_interval=0.2)
            task = asyncio.create_task(payloads(trigger))
            await asyncio.sleep(1)
            monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
            return await task

        assert asyncio.run(wait()) == [{"status": "success", "export_id": EXPORT_ID, "message": ""}]


def test_waits_share_one_client_and_the_last_one_closes_it(sandbox: Sandbox) -> None:
    sandbox.export_seconds = 3600
    export_ids = [ChartMogulHook().create_activities_export().id for _ in range(8)]
    sandbox.max_connections = 4

    def wait_for(export_id: str) -> asyncio.Task[list[Any]]:
        return asyncio.create_task(
            payloads(ActivitiesExportTrigger("chartmogul_default", export_id, poll_interval=0.5))
        )

    async def wait_for_all() -> list[Any]:
        waits = [wait_for(export_id) for export_id in export_ids]
        cancelled = wait_for(export_ids[0])
        await async_wait_until(lambda: len({one.path for one in sandbox.requests if one.method == "GET"}) == 8)
        assert len(shared_client._clients[asyncio.get_running_loop()]) == 1
        cancelled.cancel()
        sandbox.export_seconds = 0
        events = await asyncio.gather(*waits)
        assert shared_client._clients[asyncio.get_running_loop()] == {}
        return events

    assert asyncio.run(wait_for_all(), debug=True) == [
        [{"status": "success", "export_id": export_id, "message": ""}] for export_id in export_ids
    ]
    assert {request.status for request in sandbox.requests} == {200}, "the account's limits were exceeded"


def test_key_rotated_during_the_wait_is_used_after_a_401(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.export_seconds = 3600
    export_id = ChartMogulHook().create_activities_export().id
    monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 0.0)

    async def rotate() -> None:
        await async_wait_until(lambda: sandbox.requests[-1].method == "GET")
        sandbox.api_key = "rotated"
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
        await async_wait_until(lambda: 401 in {request.status for request in sandbox.requests})
        sandbox.export_seconds = 0

    async def wait() -> Any:
        rotation = asyncio.create_task(rotate())
        events = await payloads(ActivitiesExportTrigger("chartmogul_default", export_id, poll_interval=0.5))
        await rotation
        return events

    assert asyncio.run(wait()) == [{"status": "success", "export_id": export_id, "message": ""}]
    assert 401 in {request.status for request in sandbox.requests}
