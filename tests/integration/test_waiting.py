# SPDX-License-Identifier: Apache-2.0
"""
The sensor in its three modes: a table of cases, each run deferred, poking and rescheduled.

A wait must end the same way in every mode. Where Airflow's own rules differ (``execution_timeout``, and
``max_failure_seconds`` in reschedule mode, where every poll has a process of its own), the table says so.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_chartmogul.exceptions import ChartMogulError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration import task_runner
from tests.integration.servers import Response, ScriptedServer, closed_port
from tests.integration.task_runner import FakeTaskInstance, first_rescheduled_at, render, run_task
from tests.integration.waits import EXPORT_ID, MODES, PENDING, SUCCEEDED, api_error, export, new_sensor

pytestmark = pytest.mark.usefixtures("short_waits")


@dataclass
class Case:
    """
    A wait: the server's responses, the sensor's parameters, and how it ends.

    :param error: the error that ends the wait; ``None`` for a success
    :param message: part of the error's message
    :param soft_fail_skips: whether ``soft_fail`` turns the error into a skip
    """

    name: str
    responses: list[Response]
    error: type[BaseException] | None = None
    message: str = ""
    sensor: dict[str, Any] = field(default_factory=dict)
    soft_fail_skips: bool = False
    modes: tuple[str, ...] = tuple(MODES)

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("succeeded at the first poll", [SUCCEEDED]),
    Case("the other word for success", [export("successful")]),
    Case("succeeded after a while", [PENDING, export("processing"), SUCCEEDED]),
    Case("the other word after a while", [PENDING, PENDING, export("successful")]),
    Case("an unknown status is polled on", [export("queued_for_review"), PENDING, SUCCEEDED]),
    Case(
        "failed",
        [PENDING, PENDING, export("failed")],
        AirflowFailException,
        "clear the task that creates the export",
        soft_fail_skips=True,
    ),
    Case("failed at the first poll", [export("failed")], AirflowFailException, "failed", soft_fail_skips=True),
    Case(
        "timeout",
        [PENDING],
        AirflowSensorTimeout,
        sensor={"timeout": 0.8},
        soft_fail_skips=True,
    ),
    Case(
        "execution timeout",
        [PENDING],
        AirflowTaskTimeout,
        sensor={"execution_timeout": timedelta(seconds=2)},
        soft_fail_skips=True,
        modes=("deferrable", "poke"),
    ),
    Case(
        "the earlier of the two timeouts",
        [PENDING],
        AirflowSensorTimeout,
        sensor={"timeout": 0.8, "execution_timeout": timedelta(seconds=600)},
        soft_fail_skips=True,
    ),
    Case("404", [PENDING, api_error(404)], AirflowFailException, "404: the server's message", soft_fail_skips=True),
    Case("wrong key", [api_error(401)], AirflowFailException, "password field", soft_fail_skips=True),
    Case("expired plan", [PENDING, PENDING, api_error(403)], AirflowFailException, "403", soft_fail_skips=True),
    Case("400", [PENDING, api_error(400)], AirflowFailException, "400: the server's message", {}, True),
    Case("422", [PENDING, api_error(422)], AirflowFailException, "422: the server's message", {}, True),
    Case("402", [PENDING, api_error(402)], Exception, "402: the server's message"),
    Case(
        "transient errors",
        [
            api_error(500, b"<html>"),
            PENDING,
            api_error(503),
            api_error(429, **{"Retry-After": "1"}),
            Response(hang_up=True),
            SUCCEEDED,
        ],
    ),
    Case("HTML and truncated JSON", [Response(200, b"<html>"), Response(200, b'{"id": "17'), SUCCEEDED]),
    Case(
        "outage",
        [PENDING, api_error(502)],
        ChartMogulError,
        "max_failure_seconds",
        sensor={"max_failure_seconds": 0.5},
        modes=("deferrable", "poke"),
    ),
    Case(
        "outage until the timeout",
        [PENDING, api_error(502)],
        AirflowSensorTimeout,
        sensor={"timeout": 1},
        soft_fail_skips=True,
    ),
    Case("empty export ID", [SUCCEEDED], AirflowFailException, "export_id", {"export_id": ""}, soft_fail_skips=True),
    Case("export ID of a missing XCom", [SUCCEEDED], AirflowFailException, "XCom", {"export_id": "None"}, True),
    Case("export ID with a path", [SUCCEEDED], AirflowFailException, "export_id", {"export_id": "../account"}, True),
]

RUNS = [
    pytest.param(case, mode, soft_fail, id=f"{case.name}-{mode}{'-soft_fail' if soft_fail else ''}")
    for case in CASES
    for mode in case.modes
    for soft_fail in ([False, True] if case.error else [False])
]


@pytest.mark.parametrize(("case", "mode", "soft_fail"), RUNS)
def test_wait_ends_the_same_in_every_mode(
    case: Case, mode: str, soft_fail: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(*case.responses) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(requests_per_second=100))
        parameters = {name: value for name, value in case.sensor.items() if name != "export_id"}
        task = new_sensor(**MODES[mode], soft_fail=soft_fail, **parameters)
        render(task, export_id=case.sensor.get("export_id", EXPORT_ID))
        if case.error is None:
            run = run_task(task)
            assert run.value == EXPORT_ID
            # A wait that ends with the first poll never leaves the worker.
            if mode == "deferrable" and len(case.responses) > 1:
                assert run.worker_starts == 2
                assert run.events == [{"status": "success", "export_id": EXPORT_ID, "message": ""}]
        elif soft_fail and case.soft_fail_skips:
            with pytest.raises(AirflowSkipException):
                run_task(task)
        else:
            with pytest.raises(case.error) as raised:
                run_task(task)
            assert not isinstance(raised.value, AirflowSkipException)
            assert case.message in str(raised.value)
        if "export_id" in case.sensor:
            assert server.requests == [], "an invalid ID must not be sent"
        assert all(request.method == "GET" for request in server.requests)


@pytest.mark.parametrize(
    ("soft_fail", "error", "message"),
    [
        (False, AirflowTaskTimeout, "did not finish within the task's execution_timeout"),
        (True, AirflowSkipException, "soft_fail"),
    ],
)
def test_execution_timeout_ends_a_wait_that_missed_its_signal(
    soft_fail: bool, error: type[BaseException], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's alarm raises an exception, which Python ignores during the callback of a weak reference."""
    monkeypatch.setattr(task_runner, "_execution_timeout", lambda operator: nullcontext())
    with ScriptedServer(PENDING) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(requests_per_second=100))
        task = new_sensor(**MODES["poke"], soft_fail=soft_fail, timeout=60, execution_timeout=timedelta(seconds=1))
        render(task, export_id=EXPORT_ID)
        with pytest.raises(error, match=message):
            run_task(task)


def test_execution_timeout_does_not_count_the_start_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow counts from ``execute()``; the start date is before the worker imports and parses the DAG file."""
    ti = FakeTaskInstance()
    ti.start_date -= timedelta(hours=2)
    context: Any = {"ti": ti}
    with ScriptedServer(PENDING, SUCCEEDED) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        sensor = new_sensor(**MODES["poke"], execution_timeout=timedelta(hours=1))
        assert sensor.execute(context) == EXPORT_ID


#: Transient faults: each occurs in the middle of a wait, twice in a row too, on the worker and in the triggerer.
FAULTS: dict[str, Response] = {
    "429": api_error(429),
    "429 with seconds": api_error(429, **{"Retry-After": "1"}),
    "429 with a date": api_error(429, **{"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}),
    **{str(status): api_error(status, b"<html><title>Sorry</title>") for status in (500, 502, 503, 504, 520, 524)},
    "HTML instead of JSON": Response(200, b"<html>Maintenance</html>"),
    "truncated JSON": Response(200, b'{"id": "17042239-3674", "sta'),
    "empty response": Response(200, b""),
    "unexpected JSON": Response(200, b"[]"),
    "truncated response": Response(200, b'{"id": "17042239-3674"}', truncate_at=5),
    "closed connection": Response(hang_up=True),
    "connection reset": Response(reset=True),
    "read timeout": Response(stall=True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_transient_fault_is_retried(fault: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    responses = [FAULTS[fault], PENDING, FAULTS[fault], FAULTS[fault], SUCCEEDED]
    with ScriptedServer(*responses) as server:
        connection = server.connection_json(requests_per_second=100, timeout=1)
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)
        assert run_task(new_sensor(**MODES[mode])).value == EXPORT_ID
        assert len(server.requests) == len(responses)


@pytest.mark.parametrize("mode", ["deferrable", "poke"])
@pytest.mark.parametrize("fault", FAULTS)
def test_lasting_fault_is_an_outage(fault: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(PENDING, FAULTS[fault]) as server:
        connection = server.connection_json(requests_per_second=100, timeout=1)
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)
        with pytest.raises(ChartMogulError, match="max_failure_seconds"):
            run_task(new_sensor(**MODES[mode], max_failure_seconds=0.5))


@pytest.mark.parametrize("mode", ["deferrable", "poke"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refused", "the connection failed"),
        ("unknown host", "the connection failed"),
        ("not TLS", "TLS failed"),
        ("untrusted certificate", "TLS failed"),
    ],
)
def test_unreachable_host_is_an_outage(
    fault: str, message: str, mode: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with closed_port() as port, ScriptedServer(SUCCEEDED) as server:
        host = {
            "refused": f"http://127.0.0.1:{port}",
            # RFC 6761: a name that never resolves.
            "unknown host": "http://chartmogul.invalid",
            "not TLS": server.url.replace("http:", "https:"),
        }.get(fault) or request.getfixturevalue("self_signed")
        connection = json.dumps({"conn_type": "chartmogul", "host": host, "password": "k", "extra": {"timeout": 2}})
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)
        with pytest.raises(ChartMogulError, match="max_failure_seconds") as raised:
            run_task(new_sensor(**MODES[mode], max_failure_seconds=0.5))
    assert message in str(raised.value)
    assert host.partition("://")[2] in str(raised.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("never_fail", "error"), [(True, AirflowSkipException), (False, ChartMogulError)])
def test_never_fail_skips_on_every_error(
    mode: str, never_fail: bool, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(PENDING, api_error(402)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        with pytest.raises(error):
            run_task(new_sensor(**MODES[mode], never_fail=never_fail))


@pytest.mark.parametrize("mode", MODES)
def test_wait_for_export_of_the_sandbox(mode: str, sandbox: Sandbox) -> None:
    sandbox.export_seconds = 2
    export_id = ChartMogulHook().create_activities_export().id

    run = run_task(new_sensor(export_id=export_id, **MODES[mode]))

    assert run.value == export_id
    if mode != "reschedule":
        assert run.worker_starts == (2 if mode == "deferrable" else 1)
    assert {request.status for request in sandbox.requests if request.method == "GET"} == {200}


def test_rescheduled_wait_is_as_old_as_its_first_poll(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Every poll is the first of its process."""
    ti = FakeTaskInstance()
    ti.start_date -= timedelta(hours=2)
    context: Any = {"ti": ti}
    with ScriptedServer(SUCCEEDED) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        with first_rescheduled_at(ti):
            new_sensor(**MODES["reschedule"]).execute(context)
    assert f"Export {EXPORT_ID} succeeded after 72" in capfd.readouterr().out + caplog.text


def test_missing_connection_is_named(monkeypatch: pytest.MonkeyPatch, airflow_db: None) -> None:
    with pytest.raises(AirflowFailException, match="the Airflow connection 'nowhere' does not exist"):
        run_task(new_sensor(chartmogul_conn_id="nowhere"))
