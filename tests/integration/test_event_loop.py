# SPDX-License-Identifier: Apache-2.0
"""
Waits do not block the triggerer's event loop.

Blocking calls are detected when they are made. What is left is computation, measured as the processor time of each
callback, which does not grow when other processes use the processor.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.many_waits import CONNECTION_VARIABLE, connection_json, create_exports, wait_for_all


class LoopMonitor:
    """
    Records what blocks the event loop of one thread.

    Blocking calls are Python's audit events of connecting a blocking socket, resolving a name, starting a process or
    opening a database, and ``time.sleep``.
    """

    _EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "sqlite3.connect")
    _current: LoopMonitor | None = None
    _is_hooked = False

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.blocking_calls: list[str] = []
        self.longest_callback = 0.0

    @classmethod
    @contextmanager
    def on_this_thread(cls, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopMonitor]:
        if not cls._is_hooked:
            # An audit hook cannot be removed; this one does nothing while there is no monitor.
            cls._is_hooked = True
            sys.addaudithook(cls._audit)
        monitor = cls()
        sleep, run = time.sleep, asyncio.Handle._run  # type: ignore[attr-defined]

        def recorded_sleep(seconds: float) -> None:
            monitor._record("time.sleep")
            sleep(seconds)

        def timed_run(handle: asyncio.Handle) -> None:
            before = time.thread_time()
            run(handle)
            if threading.get_ident() == monitor.thread:
                monitor.longest_callback = max(monitor.longest_callback, time.thread_time() - before)

        with monkeypatch.context() as patched:
            patched.setattr(time, "sleep", recorded_sleep)
            patched.setattr(asyncio.Handle, "_run", timed_run)
            cls._current = monitor
            try:
                yield monitor
            finally:
                cls._current = None

    @classmethod
    def _audit(cls, event: str, arguments: tuple[Any, ...]) -> None:
        monitor = cls._current
        if monitor is None or event not in cls._EVENTS:
            return
        # asyncio connects non-blocking sockets.
        if event == "socket.connect" and arguments[0].gettimeout() == 0:
            return
        monitor._record(event)

    def _record(self, call: str) -> None:
        if threading.get_ident() == self.thread:
            self.blocking_calls.append(call)


def run_monitored(coroutine: Coroutine[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, LoopMonitor]:
    # A collection may run in any callback, and takes the longer the more objects the tests before this one left.
    gc.disable()
    try:
        with LoopMonitor.on_this_thread(monkeypatch) as monitor:
            return asyncio.run(coroutine, debug=True), monitor
    finally:
        gc.enable()


def test_waits_do_not_block_the_event_loop(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is a name, so that it has to be resolved; debug mode detects calls from a wrong thread."""
    connection = json.loads(connection_json(sandbox, requests_per_second=200, max_connections=10))
    monkeypatch.setenv(CONNECTION_VARIABLE, json.dumps(connection | {"host": "localhost"}))
    sandbox.requests_per_second = None
    sandbox.export_seconds = 2
    export_ids = create_exports(sandbox, 100)

    statuses, monitor = run_monitored(wait_for_all(export_ids, poll_interval=0.5), monkeypatch)

    assert statuses == {"success": 100}
    assert monitor.blocking_calls == []
    assert monitor.longest_callback < 1.0


def test_monitor_detects_what_blocks(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async def compute() -> None:
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass

    async def sleep() -> None:
        time.sleep(0.001)  # noqa: ASYNC251

    async def send_request() -> None:
        requests.get(sandbox.url)  # noqa: ASYNC210

    async def resolve() -> None:
        socket.getaddrinfo("localhost", 80)

    assert run_monitored(compute(), monkeypatch)[1].longest_callback >= 0.3
    assert run_monitored(sleep(), monkeypatch)[1].blocking_calls == ["time.sleep"]
    assert "socket.connect" in run_monitored(send_request(), monkeypatch)[1].blocking_calls
    assert run_monitored(resolve(), monkeypatch)[1].blocking_calls == ["socket.getaddrinfo"]
