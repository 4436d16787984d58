# SPDX-License-Identifier: Apache-2.0
"""
Many waits in one event loop: they stay within the connection's limits and share a client and its lookups.

aiohttp's tracing reports when a request is sent; the server counts its open connections. No test depends on the speed
of the machine.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp.web_server import Server
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.client.rate_limit import RateLimit
from airflow_provider_chartmogul.hooks import shared_client
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sources import polling
from tests.integration.many_waits import CONNECTION_VARIABLE, connection_json, create_exports, wait_for, wait_for_all
from tests.integration.servers import RecordedRequest, Response, ScriptedServer, json_response
from tests.integration.waits import async_wait_until


class SendTimes:
    """
    When requests were sent.

    ``started`` is when the client had got a slot and called aiohttp, ``sent`` when the head of the request was
    written; in between a connection may have been opened.
    """

    def __init__(self) -> None:
        self.started: list[float] = []
        self.sent: list[float] = []

    def most_in_a_second(self) -> int:
        times = sorted(self.sent)
        return max(sum(first <= moment < first + 1.0 for moment in times[i:]) for i, first in enumerate(times))


@pytest.fixture
def send_times(monkeypatch: pytest.MonkeyPatch) -> SendTimes:
    """Record when sessions that are opened from now on send requests."""
    recorded, trace = SendTimes(), aiohttp.TraceConfig()

    def record(times: list[float]) -> Callable[..., Awaitable[None]]:
        async def on_event(*_: Any) -> None:
            times.append(time.monotonic())

        return on_event

    trace.on_request_start.append(record(recorded.started))
    trace.on_request_headers_sent.append(record(recorded.sent))
    monkeypatch.setattr(aiohttp, "ClientSession", functools.partial(aiohttp.ClientSession, trace_configs=[trace]))
    return recorded


class Connections:
    """Number of connections that are open at the server, and its maximum."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """Count the connections of aiohttp servers."""
    count = Connections()
    made, lost = Server.connection_made, Server.connection_lost

    def connection_made(self: Any, *args: Any) -> None:
        count.open += 1
        count.most = max(count.most, count.open)
        made(self, *args)

    def connection_lost(self: Any, *args: Any) -> None:
        count.open -= 1
        lost(self, *args)

    monkeypatch.setattr(Server, "connection_made", connection_made)
    monkeypatch.setattr(Server, "connection_lost", connection_lost)
    return count


@pytest.fixture
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll after a twentieth of a second for the first time."""
    monkeypatch.setattr(polling, "FIRST_POLL_SECONDS", 0.05)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record when the connection is looked up, and let it take a moment, as with a secrets backend."""
    times: list[float] = []
    look_up = shared_client.read_settings

    def recorded_look_up(conn_id: str) -> Any:
        times.append(time.monotonic())
        time.sleep(0.1)
        return look_up(conn_id)

    monkeypatch.setattr(shared_client, "read_settings", recorded_look_up)
    return times


def test_500_waits_stay_within_the_documented_limits(
    send_times: SendTimes, connections: Connections, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would send more than the limits allow, to a server that enforces them."""
    monkeypatch.setenv(CONNECTION_VARIABLE, connection_json(sandbox, requests_per_second=40, max_connections=20))
    sandbox.export_seconds = 6
    export_ids = create_exports(sandbox, 500)

    assert asyncio.run(wait_for_all(export_ids)) == {"success": 500}

    assert send_times.most_in_a_second() <= 41
    assert 1 <= connections.most <= 20
    assert {request.status for request in sandbox.requests} == {200}
    # Every wait polled at least once, and those that started before the exports were ready twice.
    assert len(send_times.sent) == len(sandbox.requests) > 500


def test_slow_responses_open_no_more_than_max_connections(
    send_times: SendTimes,
    connections: Connections,
    fast_polls: None,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Responses take longer than the time between two requests, so that requests overlap."""
    monkeypatch.setenv(CONNECTION_VARIABLE, connection_json(sandbox, requests_per_second=200, max_connections=5))
    sandbox.requests_per_second = None
    sandbox.max_connections = 5
    admit_request = sandbox.admit_request

    def admit_slowly() -> bool:
        time.sleep(0.02)
        return admit_request()

    monkeypatch.setattr(sandbox, "admit_request", admit_slowly)
    export_ids = create_exports(sandbox, 60)

    assert asyncio.run(wait_for_all(export_ids)) == {"success": 60}

    assert connections.most == 5
    assert {request.status for request in sandbox.requests} == {200}


class TestLookupsOfTheConnection:
    def test_waits_that_start_together_share_one_lookup(
        self, lookups: list[float], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(CONNECTION_VARIABLE, connection_json(sandbox, requests_per_second=5000, max_connections=20))
        monkeypatch.setattr(shared_client, "SETTINGS_SECONDS", 600.0)
        sandbox.requests_per_second = None
        export_ids = create_exports(sandbox, 2000)

        assert asyncio.run(wait_for_all(export_ids)) == {"success": 2000}

        assert len(lookups) == 1

    def test_failed_lookup_is_repeated_at_intervals(
        self,
        lookups: list[float],
        airflow_db: None,
        fast_polls: None,
        sandbox: Sandbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As during an outage of the secrets backend."""
        monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 1.0)
        monkeypatch.delenv(CONNECTION_VARIABLE)
        sandbox.requests_per_second = None
        export_ids = create_exports(sandbox, 200)

        async def recover() -> None:
            await asyncio.sleep(2.5)
            connection = connection_json(sandbox, requests_per_second=1000, max_connections=20)
            monkeypatch.setenv(CONNECTION_VARIABLE, connection)

        async def wait_during_outage() -> Counter[str]:
            recovery = asyncio.create_task(recover())
            statuses = await wait_for_all(export_ids)
            await recovery
            return statuses

        assert asyncio.run(wait_during_outage()) == {"success": 200}
        assert all(later - earlier >= 0.5 for earlier, later in pairwise(lookups))

    def test_rotated_key_ends_no_wait(
        self, lookups: list[float], fast_polls: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even right after a lookup; and all waits that are refused share the next lookup."""
        monkeypatch.setenv(CONNECTION_VARIABLE, connection_json(sandbox, requests_per_second=100, max_connections=10))
        monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 1.0)
        sandbox.requests_per_second = None
        sandbox.export_seconds = 1000
        export_ids = create_exports(sandbox, 40)

        async def wait_during_rotations() -> Counter[str]:
            waits = asyncio.create_task(wait_for_all(export_ids, poll_interval=0.2))
            for number in range(3):
                await async_wait_until(lambda: sandbox.requests[-1:] and sandbox.requests[-1].status == 200)
                sandbox.api_key, before = f"rotated-{number}", len(sandbox.requests)
                connection = connection_json(sandbox, requests_per_second=100, max_connections=10)
                monkeypatch.setenv(CONNECTION_VARIABLE, connection)
                await async_wait_until(
                    lambda before=before: {401, 200} <= {request.status for request in sandbox.requests[before:]}  # type: ignore[misc]
                )
            sandbox.export_seconds = 0
            return await waits

        assert asyncio.run(wait_during_rotations()) == {"success": 40}
        # One at the beginning, and one or two for each key: the first may start before the connection is changed.
        assert 4 <= len(lookups) <= 7
        refused = Counter(request.status for request in sandbox.requests)[401]
        assert refused <= 3 * 40, "a wait sent a key again that had been refused"

    def test_wrong_key_is_looked_up_at_intervals(
        self, lookups: list[float], fast_polls: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 0.5)
        export_ids = create_exports(sandbox, 100)
        sandbox.api_key, sandbox.requests_per_second = "another", None
        wrong = json.loads(connection_json(sandbox, requests_per_second=1000)) | {"password": "wrong"}
        monkeypatch.setenv(CONNECTION_VARIABLE, json.dumps(wrong))

        assert asyncio.run(wait_for_all(export_ids)) == {"failed": 100}

        assert Counter(request.status for request in sandbox.requests) == {401: 100}
        assert all(later - earlier >= 0.25 for earlier, later in pairwise(lookups))


def test_one_429_pauses_all_waits(send_times: SendTimes, fast_polls: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it, none of 20 waits sends a request for the time that ``Retry-After`` says."""
    pauses: list[tuple[float, int]] = []
    pause = RateLimit.pause

    def recorded_pause(self: RateLimit, seconds: float) -> None:
        pauses.append((time.monotonic(), len(send_times.started)))
        pause(self, seconds)

    monkeypatch.setattr(RateLimit, "pause", recorded_pause)
    paths: list[str] = []

    def respond(request: RecordedRequest) -> Response:
        paths.append(request.path)
        if len(paths) == 50:
            return Response(429, headers={"Retry-After": "2"})
        return json_response({"id": "e", "status": "succeeded" if len(paths) > 150 else "pending"})

    with ScriptedServer(respond) as server:
        monkeypatch.setenv(CONNECTION_VARIABLE, server.connection_json(requests_per_second=100, max_connections=8))
        export_ids = [f"e-{number}" for number in range(20)]
        assert asyncio.run(wait_for_all(export_ids, poll_interval=0.1)) == {"success": 20}

    ((paused, started_before),) = pauses
    assert len(set(paths)) == 20
    assert send_times.started[started_before] >= paused + 2.0
    assert send_times.started[started_before - 1] <= paused


class TestLifeOfTheSession:
    """The first wait opens the session and the last one closes it, in any order and however they end."""

    #: What happens to a wait, and a number that selects the wait or a delay.
    steps = st.lists(
        st.one_of(
            st.just(("start", 0)),
            st.tuples(st.sampled_from(["succeed", "fail", "cancel", "start and cancel", "sleep"]), st.integers(0, 10)),
        ),
        min_size=1,
        max_size=12,
    )

    def test_session_is_closed_after_the_last_wait(
        self, connections: Connections, fast_polls: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(CONNECTION_VARIABLE, connection_json(sandbox, requests_per_second=1000, max_connections=5))
        sandbox.requests_per_second = None
        sessions: list[Any] = []
        session_class = aiohttp.ClientSession

        def open_session(**settings: Any) -> Any:
            sessions.append(session_class(**settings))
            return sessions[-1]

        monkeypatch.setattr(aiohttp, "ClientSession", open_session)

        async def play(steps: list[tuple[str, int]], problems: list[Any]) -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            waits: dict[str, asyncio.Task[Any]] = {}

            def clients() -> dict[str, Any]:
                return shared_client._clients.get(loop, {})

            async def end(step: str, export_id: str) -> None:
                task = waits.pop(export_id)
                if step.endswith("cancel"):
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    return
                export = sandbox.export_by_id(export_id)
                assert export is not None
                export.terminal_status = "succeeded" if step == "succeed" else "failed"
                payload = await task
                assert payload["status"] == ("success" if step == "succeed" else "unusable")

            for step, number in steps:
                if step.startswith("start"):
                    sandbox.outcome = "never"
                    (export_id,) = create_exports(sandbox, 1)
                    waits[export_id] = asyncio.create_task(wait_for(export_id, poll_interval=0.05))
                    if step == "start and cancel":
                        # Before its first poll, in the middle of it, or after it.
                        await asyncio.sleep(0.02 * (number % 5))
                        await end(step, export_id)
                elif step == "sleep":
                    await asyncio.sleep(0.02 * number)
                elif waits:
                    await end(step, list(waits)[number % len(waits)])
                assert len(clients()) <= 1
                if not waits:
                    assert clients() == {}
                    assert all(session.closed for session in sessions)
                # All waits share one session, whichever of them opened it.
                assert sum(not session.closed for session in sessions) <= 1
            for export_id in list(waits):
                await end("succeed", export_id)
            assert clients() == {}
            assert all(session.closed for session in sessions)
            sessions.clear()

        @settings(max_examples=20, deadline=None)
        @given(self.steps)
        def run(steps: list[tuple[str, int]]) -> None:
            problems: list[Any] = []
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ResourceWarning)
                asyncio.run(play(steps, problems), debug=True)
                # What was left open is reported when it is collected: as a warning, and to the loop's handler.
                gc.collect()
            assert problems == []
            assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []
            while connections.open:
                time.sleep(0.01)

        run()
