# SPDX-License-Identifier: Apache-2.0
"""
Many waits in one event loop: what they share, what ChartMogul sees of them, and that none holds up the others.

When a request goes out is what aiohttp itself reports, by its tracing; how many connections are open is counted in
the server. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
import requests
from aiohttp.web_server import Server
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.client.rate_limit import RateLimit
from airflow_provider_chartmogul.hooks import shared_client
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.exports import ExportParameters
from airflow_provider_chartmogul.sources import polling as waiting
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.integration.servers import RecordedRequest, Response, ScriptedServer, json_response

ENVIRONMENT = "AIRFLOW_CONN_CHARTMOGUL_DEFAULT"


def connection(sandbox: Sandbox, **extra: Any) -> str:
    """An Airflow connection to a sandbox, with a share of its limits."""
    return json.dumps({**json.loads(sandbox.connection_json), "extra": extra})


def make_exports(sandbox: Sandbox, number: int) -> list[str]:
    return [sandbox.create_export(ExportParameters(None, None, None)).id for _ in range(number)]


async def wait_for(export_id: str, **told: Any) -> Any:
    """One wait, made anew from its serialised form; gives its event's payload."""
    _, arguments = ActivitiesExportTrigger("chartmogul_default", export_id, **told).serialize()
    async for event in ActivitiesExportTrigger(**json.loads(json.dumps(arguments))).run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


async def all_waits(export_ids: list[str], **told: Any) -> Counter[str]:
    """All waits as tasks of this loop; gives how many ended how."""
    payloads = await asyncio.gather(*(wait_for(export_id, **told) for export_id in export_ids))
    return Counter(payload["status"] for payload in payloads)


class Sends:
    """
    The times of requests as the client sends them.

    ``begun`` is the moment at which a slot was got and aiohttp was told, ``sent`` that at which the head was written;
    between the two a connection may have to be made.
    """

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.sent: list[float] = []

    def most_in_a_second(self) -> int:
        times = sorted(self.sent)
        return max(sum(first <= moment < first + 1.0 for moment in times[i:]) for i, first in enumerate(times))


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> Sends:
    """Sessions that are opened from now on report when they send."""
    record, trace = Sends(), aiohttp.TraceConfig()

    def at(times: list[float]) -> Callable[..., Awaitable[None]]:
        async def happened(*_: Any) -> None:
            times.append(time.monotonic())

        return happened

    trace.on_request_start.append(at(record.begun))
    trace.on_request_headers_sent.append(at(record.sent))
    monkeypatch.setattr(aiohttp, "ClientSession", functools.partial(aiohttp.ClientSession, trace_configs=[trace]))
    return record


class Connections:
    """How many connections the sandbox has open, and the most there were since ``most`` was last set."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """Servers that are started from now on count their connections."""
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
    """The clock of looks, made to run faster: the first is not a second after the beginning, but a twentieth."""
    monkeypatch.setattr(waiting, "FIRST_POLL_SECONDS", 0.05)


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which the connection was looked up; a look-up takes a moment, as it does with a secrets backend."""
    times: list[float] = []
    look_up = shared_client.get_async_connection

    async def counted(conn_id: str) -> Any:
        times.append(time.monotonic())
        await asyncio.sleep(0.1)
        return await look_up(conn_id)

    monkeypatch.setattr(shared_client, "get_async_connection", counted)
    return times


def test_hundreds_of_waits_stay_within_the_documented_limits(
    sends: Sends, connections: Connections, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 at once, which ask for more than the limits allow, of a server that enforces them."""
    monkeypatch.setenv(ENVIRONMENT, connection(sandbox, requests_per_second=40, max_connections=20))
    sandbox.export_seconds = 6
    export_ids = make_exports(sandbox, 500)

    assert asyncio.run(all_waits(export_ids)) == {"success": 500}

    assert sends.most_in_a_second() <= 41
    assert 1 <= connections.most <= 20
    assert {seen.status for seen in sandbox.requests} == {200}
    # As many as can go out: each wait looked at least once, and those that began before the end twice.
    assert len(sends.sent) == len(sandbox.requests) > 500


def test_slow_answers_open_no_more_connections_than_configured(
    sends: Sends, connections: Connections, fast_polls: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With answers that take longer than the slots are apart, requests are under way side by side."""
    monkeypatch.setenv(ENVIRONMENT, connection(sandbox, requests_per_second=200, max_connections=5))
    sandbox.requests_per_second = None
    sandbox.max_connections = 5
    monkeypatch.setattr(sandbox, "admit_request", slowly(sandbox))
    export_ids = make_exports(sandbox, 60)

    assert asyncio.run(all_waits(export_ids)) == {"success": 60}

    assert connections.most == 5
    assert {seen.status for seen in sandbox.requests} == {200}


def slowly(sandbox: Sandbox, seconds: float = 0.02) -> Callable[[], bool]:
    """Every request holds the server up."""
    admit = sandbox.admit_request

    def admit_slowly() -> bool:
        time.sleep(seconds)
        return admit()

    return admit_slowly


def test_one_wait_alone_ends_too(sandbox: Sandbox) -> None:
    sandbox.export_seconds = 4
    (export_id,) = make_exports(sandbox, 1)
    assert asyncio.run(all_waits([export_id])) == {"success": 1}


class TestTheConnection:
    """Thousands of waits share one look-up of it, and take up what changes in it."""

    def test_thousands_that_start_together_look_it_up_once(
        self, look_ups: list[float], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT, connection(sandbox, requests_per_second=5000, max_connections=20))
        monkeypatch.setattr(shared_client, "SETTINGS_SECONDS", 600.0)
        sandbox.requests_per_second = None
        export_ids = make_exports(sandbox, 2000)

        assert asyncio.run(all_waits(export_ids)) == {"success": 2000}

        assert len(look_ups) == 1

    def test_a_secrets_backend_that_is_down_is_asked_seldom(
        self,
        look_ups: list[float],
        airflow_db: None,
        fast_polls: None,
        sandbox: Sandbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 1.0)
        monkeypatch.delenv(ENVIRONMENT)
        sandbox.requests_per_second = None
        export_ids = make_exports(sandbox, 200)

        async def recover() -> None:
            await asyncio.sleep(2.5)
            monkeypatch.setenv(ENVIRONMENT, connection(sandbox, requests_per_second=1000, max_connections=20))

        async def main() -> Counter[str]:
            recovery = asyncio.create_task(recover())
            ended = await all_waits(export_ids)
            await recovery
            return ended

        assert asyncio.run(main()) == {"success": 200}
        assert all(later - earlier >= 1.0 for earlier, later in pairwise(look_ups))

    def test_a_rotated_key_ends_no_wait(
        self, look_ups: list[float], fast_polls: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However short a time ago the connection was looked up; and all who are refused share the next look-up."""
        monkeypatch.setenv(ENVIRONMENT, connection(sandbox, requests_per_second=100, max_connections=10))
        monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 1.0)
        sandbox.requests_per_second = None
        sandbox.export_seconds = 1000
        export_ids = make_exports(sandbox, 40)

        async def main() -> Counter[str]:
            waits = asyncio.create_task(all_waits(export_ids, poll_interval=0.2))
            for number in range(3):
                await until(lambda: sandbox.requests[-1:] and sandbox.requests[-1].status == 200)
                # The connection has the new key already when the old one is refused.
                sandbox.api_key, before = f"rotated-{number}", len(sandbox.requests)
                monkeypatch.setenv(ENVIRONMENT, connection(sandbox, requests_per_second=100, max_connections=10))
                await until(
                    lambda before=before: {401, 200} <= {seen.status for seen in sandbox.requests[before:]}  # type: ignore[misc]
                )
            sandbox.export_seconds = 0
            return await waits

        assert asyncio.run(main()) == {"success": 40}
        # One in the beginning, and one or two for each key: the first may have begun before it was changed.
        assert 4 <= len(look_ups) <= 7
        refused = Counter(seen.status for seen in sandbox.requests)[401]
        assert refused <= 3 * 40, "no wait asks again with a key that was refused"

    def test_a_wrong_key_is_looked_up_seldom(
        self, look_ups: list[float], fast_polls: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 0.5)
        export_ids = make_exports(sandbox, 100)
        sandbox.api_key, sandbox.requests_per_second = "another", None
        wrong = json.loads(connection(sandbox, requests_per_second=1000)) | {"password": "wrong"}
        monkeypatch.setenv(ENVIRONMENT, json.dumps(wrong))

        assert asyncio.run(all_waits(export_ids)) == {"error": 100}

        assert Counter(seen.status for seen in sandbox.requests) == {401: 100}
        assert all(later - earlier >= 0.5 for earlier, later in pairwise(look_ups))


async def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds that will; a test that waits for ever is ended by pytest."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def test_one_429_slows_all_waits(sends: Sends, fast_polls: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 are under way; after the one answer, none of them sends anything for the time that was asked for."""
    pauses: list[tuple[float, int]] = []
    pause = RateLimit.pause

    def noted(self: RateLimit, seconds: float) -> None:
        pauses.append((time.monotonic(), len(sends.begun)))
        pause(self, seconds)

    monkeypatch.setattr(RateLimit, "pause", noted)
    asked_for: list[str] = []

    def answer(request: RecordedRequest) -> Response:
        asked_for.append(request.path)
        if len(asked_for) == 50:
            return Response(429, headers={"Retry-After": "2"})
        return json_response({"id": "e", "status": "succeeded" if len(asked_for) > 150 else "pending"})

    with ScriptedServer(answer) as server:
        monkeypatch.setenv(ENVIRONMENT, server.connection_json(requests_per_second=100, max_connections=8))
        assert asyncio.run(all_waits([f"e-{n}" for n in range(20)], poll_interval=0.1)) == {"success": 20}

    ((paused, begun),) = pauses
    assert len(set(asked_for)) == 20
    assert sends.begun[begun] >= paused + 2.0
    assert sends.begun[begun - 1] <= paused


class TestNothingIsLeftBehind:
    """The first wait opens the session and the last closes it, in whatever order and however they end."""

    steps = st.lists(
        st.one_of(
            st.just(("start", 0)),
            st.tuples(st.sampled_from(["finish", "fail", "cancel", "cancel at once", "let be"]), st.integers(0, 10)),
        ),
        min_size=1,
        max_size=12,
    )

    def test_whatever_order_they_end_in(
        self, connections: Connections, fast_polls: None, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT, connection(sandbox, requests_per_second=1000, max_connections=5))
        sandbox.requests_per_second = None
        opened: list[Any] = []
        session_class = aiohttp.ClientSession

        def open_session(**settings: Any) -> Any:
            opened.append(session_class(**settings))
            return opened[-1]

        monkeypatch.setattr(aiohttp, "ClientSession", open_session)

        async def play(steps: list[tuple[str, int]], problems: list[Any]) -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            under_way: dict[str, asyncio.Task[Any]] = {}

            def clients() -> dict[str, Any]:
                return shared_client._clients.get(loop, {})

            async def end(step: str, export_id: str) -> None:
                task = under_way.pop(export_id)
                if step.startswith("cancel"):
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    return
                export = sandbox.export_by_id(export_id)
                assert export is not None
                export.terminal_status = "succeeded" if step == "finish" else "failed"
                payload = await task
                assert payload["status"] == ("success" if step == "finish" else "unusable")

            for step, which in steps:
                if step in ("start", "cancel at once"):
                    sandbox.outcome = "never"
                    (export_id,) = make_exports(sandbox, 1)
                    under_way[export_id] = asyncio.create_task(wait_for(export_id, poll_interval=0.05))
                    if step == "cancel at once":
                        # Before its first look, in the middle of it, or after it.
                        await asyncio.sleep(0.02 * (which % 5))
                        await end(step, export_id)
                elif step == "let be":
                    await asyncio.sleep(0.02 * which)
                elif under_way:
                    await end(step, list(under_way)[which % len(under_way)])
                assert len(clients()) <= 1
                if not under_way:
                    assert clients() == {}
                    assert all(session.closed for session in opened)
                # One session for all of them, whoever opened it.
                assert sum(not session.closed for session in opened) <= 1
            for export_id in list(under_way):
                await end("finish", export_id)
            assert clients() == {}
            assert all(session.closed for session in opened)
            opened.clear()

        @settings(max_examples=20, deadline=None)
        @given(self.steps)
        def run(steps: list[tuple[str, int]]) -> None:
            problems: list[Any] = []
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", ResourceWarning)
                asyncio.run(play(steps, problems), debug=True)
                # What was left open says so when it is collected: as a warning, and to the loop's exception handler.
                gc.collect()
            assert problems == []
            assert [str(warning.message) for warning in warned if warning.category is ResourceWarning] == []
            wait_until(lambda: connections.open == 0)

        run()


def wait_until(holds: Callable[[], Any]) -> None:
    while not holds():
        time.sleep(0.01)


class Watch:
    """
    What holds up an event loop, told apart from a machine that is busy with something else.

    Blocking calls are caught as they are made: connections of sockets that wait, name look-ups, child processes,
    databases (by Python's audit events) and ``time.sleep``. What is left is computing, measured as processor time of
    the loop's thread for each callback: unlike asyncio's own 'Executing … took', which is wall clock, it does not grow
    when other processes have the processor.
    """

    _EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "sqlite3.connect")
    _current: Watch | None = None
    _is_hooked = False

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.blocking: list[str] = []
        self.longest_callback = 0.0

    @classmethod
    @contextmanager
    def on_this_thread(cls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
        if not cls._is_hooked:
            # Audit hooks cannot be taken off again: this one does nothing while nobody watches.
            cls._is_hooked = True
            sys.addaudithook(cls._audit)
        watch = cls()
        sleep, run = time.sleep, asyncio.Handle._run  # type: ignore[attr-defined]

        def noted_sleep(seconds: float) -> None:
            watch._note("time.sleep")
            sleep(seconds)

        def timed_run(handle: asyncio.Handle) -> None:
            before = time.thread_time()
            run(handle)
            if threading.get_ident() == watch.thread:
                watch.longest_callback = max(watch.longest_callback, time.thread_time() - before)

        with monkeypatch.context() as patched:
            patched.setattr(time, "sleep", noted_sleep)
            patched.setattr(asyncio.Handle, "_run", timed_run)
            cls._current = watch
            try:
                yield watch
            finally:
                cls._current = None

    @classmethod
    def _audit(cls, event: str, arguments: tuple[Any, ...]) -> None:
        watch = cls._current
        if watch is None or event not in cls._EVENTS:
            return
        # A socket without a timeout of its own that returns at once is what asyncio uses.
        if event == "socket.connect" and arguments[0].gettimeout() == 0:
            return
        watch._note(event)

    def _note(self, what: str) -> None:
        if threading.get_ident() == self.thread:
            self.blocking.append(what)


def watched(coroutine: Coroutine[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Watch]:
    with Watch.on_this_thread(monkeypatch) as watch:
        return asyncio.run(coroutine, debug=True), watch


def test_no_wait_holds_up_the_event_loop(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, so that there is a name to look up; in debug mode, which raises at calls from a wrong thread."""
    by_name = json.loads(connection(sandbox, requests_per_second=200, max_connections=10)) | {"host": "localhost"}
    monkeypatch.setenv(ENVIRONMENT, json.dumps(by_name))
    sandbox.requests_per_second = None
    sandbox.export_seconds = 2
    export_ids = make_exports(sandbox, 100)

    ended, watch = watched(all_waits(export_ids, poll_interval=0.5), monkeypatch)

    assert ended == {"success": 100}
    assert watch.blocking == []
    assert watch.longest_callback < 0.25


def test_what_holds_up_an_event_loop_is_seen(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test above can fail."""

    async def computes() -> None:
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass

    async def sleeps() -> None:
        time.sleep(0.001)  # noqa: ASYNC251

    async def asks() -> None:
        requests.get(sandbox.url)  # noqa: ASYNC210

    async def looks_up() -> None:
        socket.getaddrinfo("localhost", 80)

    assert watched(computes(), monkeypatch)[1].longest_callback >= 0.3
    assert watched(sleeps(), monkeypatch)[1].blocking == ["time.sleep"]
    assert "socket.connect" in watched(asks(), monkeypatch)[1].blocking
    assert watched(looks_up(), monkeypatch)[1].blocking == ["socket.getaddrinfo"]
