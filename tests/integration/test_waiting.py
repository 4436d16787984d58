# SPDX-License-Identifier: Apache-2.0
"""
Waiting for an export, in all three modes: one table of cases, each run deferred, poking and rescheduled.

The modes must not differ in how a wait ends. Where Airflow's own rules make them differ (``execution_timeout``
and ``max_failure_seconds`` in reschedule mode, where every look is a process of its own), the table says so.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
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

from airflow_provider_chartmogul.api import retries
from airflow_provider_chartmogul.exceptions import ChartMogulError
from airflow_provider_chartmogul.hooks import shared_client
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.integration.servers import Response, ScriptedServer, closed_port, json_response
from tests.integration.task_runner import FakeTaskInstance, first_rescheduled_at, run_task

MODES: dict[str, dict[str, Any]] = {
    "deferrable": {"deferrable": True},
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
}

EXPORT_ID = "17042239-3674-4a61-b838-b6b307f28506"


def export(status: str, **more: Any) -> Response:
    return json_response({"id": EXPORT_ID, "status": status, "file_url": None, "params": {}, **more})


def error(status: int, body: bytes = b'{"message": "said the server"}', **headers: str) -> Response:
    return Response(status, body, headers)


@dataclass
class Case:
    """What the server answers, what the sensor is told, and how the wait ends (None: well)."""

    name: str
    answers: list[Response]
    ends: type[BaseException] | None = None
    says: str = ""
    sensor: dict[str, Any] = field(default_factory=dict)
    soft_fail_skips: bool = False
    modes: tuple[str, ...] = tuple(MODES)

    def __str__(self) -> str:
        return self.name


PENDING, DONE = export("pending"), export("succeeded")

CASES = [
    Case("done at the first look", [DONE]),
    Case("the other word for done", [export("successful")]),
    Case("done after a while", [PENDING, export("processing"), DONE]),
    Case("the other word, after a while", [PENDING, PENDING, export("successful")]),
    Case("a word nobody knows means not yet", [export("queued_for_review"), PENDING, DONE]),
    Case(
        "failed",
        [PENDING, PENDING, export("failed")],
        AirflowFailException,
        "clear the task that creates the export",
        soft_fail_skips=True,
    ),
    Case("failed at the first look", [export("failed")], AirflowFailException, "failed", soft_fail_skips=True),
    Case(
        "not done in time",
        [PENDING],
        AirflowSensorTimeout,
        sensor={"timeout": 1.5},
        soft_fail_skips=True,
    ),
    Case(
        "not done within the execution timeout",
        [PENDING],
        AirflowTaskTimeout,
        sensor={"execution_timeout": timedelta(seconds=2)},
        soft_fail_skips=True,
        modes=("deferrable", "poke"),
    ),
    Case(
        "the earlier of the two limits counts",
        [PENDING],
        AirflowSensorTimeout,
        sensor={"timeout": 1.5, "execution_timeout": timedelta(seconds=600)},
        soft_fail_skips=True,
    ),
    Case("no such export", [PENDING, error(404)], AirflowFailException, "404: said the server", soft_fail_skips=True),
    Case("a wrong key", [error(401)], AirflowFailException, "password field", soft_fail_skips=True),
    Case("an expired plan", [PENDING, PENDING, error(403)], AirflowFailException, "403", soft_fail_skips=True),
    Case("what makes no sense", [PENDING, error(400)], AirflowFailException, "400: said the server", {}, True),
    Case("what cannot be", [PENDING, error(422)], AirflowFailException, "422: said the server", {}, True),
    Case("refused for this once", [PENDING, error(402)], Exception, "402: said the server"),
    Case(
        "faults that pass",
        [error(500, b"<html>"), PENDING, error(503), error(429, **{"Retry-After": "1"}), Response(hang_up=True), DONE],
    ),
    Case("HTML and half a JSON that pass", [Response(200, b"<html>"), Response(200, b'{"id": "17'), DONE]),
    Case(
        "an outage",
        [PENDING, error(502)],
        ChartMogulError,
        "max_failure_seconds",
        sensor={"max_failure_seconds": 1.0},
        modes=("deferrable", "poke"),
    ),
    Case(
        "an outage lasts until the timeout",
        [PENDING, error(502)],
        AirflowSensorTimeout,
        sensor={"timeout": 2},
        soft_fail_skips=True,
    ),
    Case("an empty export ID", [DONE], AirflowFailException, "export_id", {"export_id": ""}, soft_fail_skips=True),
    Case("an export ID of a missing XCom", [DONE], AirflowFailException, "XCom", {"export_id": "None"}, True),
    Case("an export ID that climbs", [DONE], AirflowFailException, "export_id", {"export_id": "../account"}, True),
]

RUNS = [
    pytest.param(case, mode, soft_fail, id=f"{case.name}-{mode}{'-soft_fail' if soft_fail else ''}")
    for case in CASES
    for mode in case.modes
    for soft_fail in ([False, True] if case.ends else [False])
]


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of retries, made to run faster: a second of backoff is a quarter."""
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.25)


def sensor(**told: Any) -> ActivitiesExportSensor:
    return ActivitiesExportSensor(**{"task_id": "wait", "export_id": EXPORT_ID, "poke_interval": 0.2, **told})


@pytest.mark.parametrize(("case", "mode", "soft_fail"), RUNS)
def test_a_wait_ends_the_same_in_every_mode(
    case: Case, mode: str, soft_fail: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(*case.answers) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(requests_per_second=100))
        task = sensor(**{**MODES[mode], "soft_fail": soft_fail, **case.sensor})
        if case.ends is None:
            ran = run_task(task)
            assert ran.value == EXPORT_ID
            # A wait that is over at the first look never leaves the worker.
            if mode == "deferrable" and len(case.answers) > 1:
                assert ran.worker_starts == 2
                assert ran.events == [{"status": "success", "export_id": EXPORT_ID, "message": ""}]
        elif soft_fail and case.soft_fail_skips:
            with pytest.raises(AirflowSkipException):
                run_task(task)
        else:
            with pytest.raises(case.ends) as raised:
                run_task(task)
            assert not isinstance(raised.value, AirflowSkipException)
            assert case.says in str(raised.value)
        if "export_id" in case.sensor:
            assert server.requests == [], "an ID that cannot be one is not asked for"
        assert all(request.method == "GET" for request in server.requests)


#: Faults that may pass by themselves; each in the middle of a wait, twice, on the worker and in the triggerer.
FAULTS: dict[str, Response] = {
    "429": error(429),
    "429 with seconds": error(429, **{"Retry-After": "1"}),
    "429 with a date": error(429, **{"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}),
    **{str(status): error(status, b"<html><title>Sorry</title>") for status in (500, 502, 503, 504, 520, 524)},
    "HTML where JSON should be": Response(200, b"<html>Maintenance</html>"),
    "half a JSON": Response(200, b'{"id": "17042239-3674", "sta'),
    "an empty answer": Response(200, b""),
    "another JSON": Response(200, b"[]"),
    "an answer cut short": Response(200, b'{"id": "17042239-3674"}', truncate_at=5),
    "a hang-up": Response(hang_up=True),
    "a reset": Response(reset=True),
    "a stalled read": Response(stall=True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_ridden_out(fault: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [FAULTS[fault], PENDING, FAULTS[fault], FAULTS[fault], DONE]
    with ScriptedServer(*answers) as server:
        connection = server.connection_json(requests_per_second=100, timeout=1)
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)
        assert run_task(sensor(**MODES[mode])).value == EXPORT_ID
        assert len(server.requests) == len(answers)


@pytest.mark.parametrize("mode", ["deferrable", "poke"])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_does_not_pass_ends_the_wait_as_an_outage(
    fault: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(PENDING, FAULTS[fault]) as server:
        connection = server.connection_json(requests_per_second=100, timeout=1)
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)
        with pytest.raises(ChartMogulError, match="max_failure_seconds"):
            run_task(sensor(**MODES[mode], max_failure_seconds=1.5))


@pytest.mark.parametrize("mode", ["deferrable", "poke"])
@pytest.mark.parametrize("fault", ["refused", "no such host", "not TLS", "a certificate nobody knows"])
def test_a_host_that_cannot_be_reached_is_an_outage(
    fault: str, mode: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with closed_port() as port, ScriptedServer(DONE) as server:
        host = {
            "refused": f"http://127.0.0.1:{port}",
            # RFC 6761: a name that never resolves.
            "no such host": "http://chartmogul.invalid",
            "not TLS": server.url.replace("http:", "https:"),
        }.get(fault) or request.getfixturevalue("self_signed")
        connection = json.dumps({"conn_type": "chartmogul", "host": host, "password": "k", "extra": {"timeout": 2}})
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)
        with pytest.raises(ChartMogulError, match="max_failure_seconds") as raised:
            run_task(sensor(**MODES[mode], max_failure_seconds=1))
    says = "TLS failed" if "T" in fault or "cert" in fault else "the connection failed"
    assert says in str(raised.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("never_fail", "ends"), [(True, AirflowSkipException), (False, ChartMogulError)])
def test_never_fail_skips_whatever_happens(
    mode: str, never_fail: bool, ends: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(PENDING, error(402)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        with pytest.raises(ends):
            run_task(sensor(**MODES[mode], never_fail=never_fail))


@pytest.mark.parametrize("mode", MODES)
def test_it_waits_for_an_export_of_the_sandbox(mode: str, sandbox: Sandbox) -> None:
    sandbox.export_seconds = 2
    made = ChartMogulHook().create_activities_export()

    ran = run_task(sensor(export_id=made.id, **MODES[mode]))

    assert ran.value == made.id
    if mode != "reschedule":
        assert ran.worker_starts == (2 if mode == "deferrable" else 1)
    looks = [seen for seen in sandbox.requests if seen.method == "GET"]
    assert {seen.status for seen in looks} == {200}


def test_a_rescheduled_wait_is_as_old_as_its_first_look(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Each look is a process's first; and the metric of the time waited is taken by the same clock."""
    ti = FakeTaskInstance()
    ti.start_date -= timedelta(hours=2)
    context: Any = {"ti": ti}
    with ScriptedServer(DONE) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        with first_rescheduled_at(ti):
            sensor(**MODES["reschedule"]).execute(context)
    assert f"Export {EXPORT_ID} succeeded after 72" in capfd.readouterr().out + caplog.text


def test_a_missing_connection_is_named(monkeypatch: pytest.MonkeyPatch, airflow_db: None) -> None:
    with pytest.raises(AirflowFailException, match="the Airflow connection 'nowhere' does not exist"):
        run_task(sensor(chartmogul_conn_id="nowhere"))


@pytest.mark.parametrize("words", ["Trigger timeout", "Trigger/execution timeout"])
@pytest.mark.parametrize(
    ("limits", "ends"),
    [
        ({}, AirflowSensorTimeout),
        ({"execution_timeout": timedelta(hours=12)}, AirflowSensorTimeout),
        # Which Airflow retries, so that a triggerer that was down has cost one try.
        ({"execution_timeout": timedelta(hours=1)}, AirflowTaskTimeout),
    ],
)
def test_a_backstop_that_fires_is_the_timeout_of_the_limit_that_has_passed(
    words: str, limits: dict[str, Any], ends: type[BaseException]
) -> None:
    context: Any = {}
    with pytest.raises(ends, match="check that one is running"):
        sensor(**limits).resume_execution("__fail__", {"error": words}, context)
    with pytest.raises(AirflowSkipException):
        sensor(**limits, soft_fail=True).resume_execution("__fail__", {"error": words}, context)


def test_a_crashed_trigger_is_an_error_that_a_retry_can_cure() -> None:
    for soft_fail in (False, True):
        with pytest.raises(Exception, match="Trigger failure") as raised:
            sensor(soft_fail=soft_fail).resume_execution("__fail__", {"error": "Trigger failure"}, {})
        assert not isinstance(raised.value, (AirflowSkipException, AirflowFailException))


@pytest.mark.parametrize(
    "event",
    [None, {}, {"status": "success"}, {"status": "success", "export_id": "another"}, "done", {"export_id": EXPORT_ID}],
)
def test_an_event_that_is_not_its_own_is_an_error(event: Any) -> None:
    with pytest.raises(ChartMogulError):
        sensor().execute_complete({}, event)


def test_the_deadline_is_fixed_when_the_task_is_deferred(sandbox: Sandbox) -> None:
    sandbox.outcome = "never"
    made = ChartMogulHook().create_activities_export()
    ti = FakeTaskInstance()
    context: Any = {"ti": ti}

    with pytest.raises(TaskDeferred) as deferred:
        sensor(export_id=made.id, execution_timeout=timedelta(seconds=50), timeout=60).execute(context)

    trigger = deferred.value.trigger
    assert trigger.settings.deadline == ti.start_date.timestamp() + 50
    assert trigger.settings.deadline_name == "execution_timeout"
    # Airflow's own limit comes later: the trigger, not the scheduler, says what ended the wait.
    assert deferred.value.timeout > timedelta(seconds=50)


@pytest.mark.parametrize("answer", [Response(stall=True), error(429, **{"Retry-After": "600"})], ids=["stall", "429"])
@pytest.mark.parametrize("mode", MODES)
def test_no_server_keeps_a_wait_past_its_deadline(mode: str, answer: Response, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by saying nothing nor by asking for more patience than there is."""
    from airflow_provider_chartmogul.triggers import activities_export

    monkeypatch.setattr(activities_export, "_FINAL_POLL_SECONDS", 0.5)
    with ScriptedServer(PENDING, answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(timeout=5 if answer.stall else 30))
        started = time.monotonic()
        with pytest.raises(AirflowSensorTimeout, match="did not finish within the task's timeout"):
            run_task(sensor(timeout=1.5, **MODES[mode]))
        assert time.monotonic() - started < 30


def test_a_look_up_that_fails_is_borne_in_the_triggerer(monkeypatch: pytest.MonkeyPatch, airflow_db: None) -> None:
    """Airflow says 'not found' of a secrets backend that is down, too; the worker has just read the connection."""
    monkeypatch.delenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", raising=False)
    with ScriptedServer(DONE) as server:

        async def wait() -> Any:
            trigger = ActivitiesExportTrigger("chartmogul_default", EXPORT_ID, poll_interval=0.2)
            task = asyncio.create_task(_events(trigger))
            await asyncio.sleep(1)
            monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
            return await task

        assert asyncio.run(wait()) == [{"status": "success", "export_id": EXPORT_ID, "message": ""}]


async def _events(trigger: ActivitiesExportTrigger) -> list[Any]:
    return [event.payload async for event in trigger.run()]


def test_all_waits_of_a_loop_share_one_client_and_leave_none_behind(sandbox: Sandbox) -> None:
    sandbox.export_seconds = 1.5
    made = [ChartMogulHook().create_activities_export().id for _ in range(8)]
    sandbox.max_connections = 4

    async def wait_for(export_id: str) -> Any:
        trigger = ActivitiesExportTrigger("chartmogul_default", export_id, poll_interval=0.5)
        return [event.payload async for event in trigger.run()]

    async def wait_for_all() -> list[Any]:
        waits = [asyncio.create_task(wait_for(export_id)) for export_id in made]
        cancelled = asyncio.create_task(wait_for(made[0]))
        await asyncio.sleep(1.2)
        assert len(shared_client._clients[asyncio.get_running_loop()]) == 1
        cancelled.cancel()
        ended = await asyncio.gather(*waits)
        assert shared_client._clients[asyncio.get_running_loop()] == {}
        return ended

    assert asyncio.run(wait_for_all(), debug=True) == [
        [{"status": "success", "export_id": one, "message": ""}] for one in made
    ]
    assert {seen.status for seen in sandbox.requests} == {200}, "never over the account's limits"


def test_a_rotated_key_is_taken_up_at_a_401(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.export_seconds = 4
    made = ChartMogulHook().create_activities_export()
    monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 0.0)

    async def rotate() -> None:
        await asyncio.sleep(1.5)
        sandbox.api_key = "rotated"
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)

    async def wait() -> Any:
        trigger = ActivitiesExportTrigger("chartmogul_default", made.id, poll_interval=0.5)
        rotation = asyncio.create_task(rotate())
        events = [event.payload async for event in trigger.run()]
        await rotation
        return events

    assert asyncio.run(wait()) == [{"status": "success", "export_id": made.id, "message": ""}]
    assert 401 in {seen.status for seen in sandbox.requests}


def test_an_unreachable_host_is_named_in_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as port:
        monkeypatch.setenv(
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT",
            json.dumps({"conn_type": "chartmogul", "host": f"http://127.0.0.1:{port}", "password": "k"}),
        )
        with pytest.raises(ChartMogulError, match=f"127.0.0.1:{port}.*the connection failed"):
            run_task(sensor(max_failure_seconds=0.1))
