# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench.waiting``: what thousands of waits in one event loop cost, and what ChartMogul sees of them.

The same waits run twice against a sandbox with the documented limits, which is a process of its own: as this
package's trigger, and as deferrable sensors are often written by hand, with a new aiohttp session for every poll and
no limit. What a poll costs is put beside the least that it can cost: the same GETs at the same pace on one shared
aiohttp session, in the same process, half of them before and half of them after the waits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import multiprocessing
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent.parent / "docs" / "costs.md"
MARKS = ("<!-- bench:waiting -->", "<!-- /bench:waiting -->")

#: What ChartMogul documents for an account, and here the share of the one process.
RATE, CONNECTIONS = 40, 20

WAITS, QUICK_WAITS = 5_000, 200
#: Seconds from the beginning of the waits until all exports are done: some are looked at before, most after.
READY_AFTER = 60.0
QUICK_READY_AFTER = 5.0
POLL_INTERVAL = 30.0
#: GETs of the bare session; more would change nothing but the time it takes.
MOST_BARE_POLLS = 2_000

#: What must hold.
MOST_CPU_RATIO, MOST_BYTES_A_WAIT = 2.0, 20_000

_API_KEY = "sandbox-api-key"
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Seen:
    """What the server saw: answers by status, the most requests in any one second, the most open connections."""

    statuses: dict[int, int]
    busiest_second: int
    connections: int


@dataclass(frozen=True)
class Measured:
    """One way of waiting: how it went; seconds, bytes, numbers of requests and connections."""

    waits: int
    ended: int
    seconds: float
    polls: int
    busiest_second: int
    cpu_a_poll: float
    bytes_a_wait: float
    seen: Seen
    bare_cpu_a_poll: float = 0.0
    events: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        return sum(count for status, count in self.seen.statuses.items() if status in (429, 503))

    @property
    def cpu_ratio(self) -> float:
        return self.cpu_a_poll / self.bare_cpu_a_poll


def busiest_second(times: Iterable[float]) -> int:
    """Give the most moments in any one second, whenever it begins."""
    window: deque[float] = deque()
    most = 0
    for moment in sorted(times):
        window.append(moment)
        while moment - window[0] >= 1.0:
            window.popleft()
        most = max(most, len(window))
    return most


# ------------------------------------------------------------------------------------------ the server's process


class SandboxProcess:
    """A sandbox in a process of its own, whose limits can be lifted while exports are made."""

    def __init__(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        self.url: str = self._pipe.recv()

    def _ask(self, *command: Any) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()

    def set(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def ready_in(self, seconds: float) -> None:
        """Have all exports end so many seconds from now."""
        self._ask("ready_in", seconds)

    def forget(self) -> None:
        """Begin anew to count."""
        self._ask("forget")

    def seen(self) -> Seen:
        """What came in since the last ``forget``."""
        return Seen(*self._ask("seen"))

    def make_exports(self, number: int) -> list[str]:
        """Make exports by as many requests, with the limits lifted for as long."""
        self.set("requests_per_second", None)
        self.set("max_connections", None)
        self.set("export_seconds", 1e9)
        made = asyncio.run(_post(self.url, number))
        self.set("requests_per_second", RATE)
        self.set("max_connections", CONNECTIONS)
        return made

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.close()
        self._process.join(30)


async def _post(url: str, number: int) -> list[str]:
    import aiohttp

    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth(_API_KEY, "")) as session:
        turns = asyncio.Semaphore(CONNECTIONS)

        async def make() -> str:
            async with turns, session.post(f"{url}/v1/activities_export") as response:
                return str((await response.json())["id"])

        return await asyncio.gather(*(make() for _ in range(number)))


def _serve(pipe: Connection) -> None:
    """The server's process: do what comes through the pipe until it is closed."""
    from aiohttp.web_server import Server

    from airflow_provider_chartmogul.sandbox import Sandbox

    open_now, most, since = 0, 0, 0.0
    made, lost = Server.connection_made, Server.connection_lost

    def connection_made(self: Any, *args: Any) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        made(self, *args)

    def connection_lost(self: Any, *args: Any) -> None:
        nonlocal open_now
        open_now -= 1
        lost(self, *args)

    counted_server: Any = Server
    counted_server.connection_made, counted_server.connection_lost = connection_made, connection_lost
    with Sandbox(api_key=_API_KEY, requests_per_second=RATE, max_connections=CONNECTIONS) as sandbox:
        pipe.send(sandbox.url)
        first = time.monotonic()
        with contextlib.suppress(EOFError):
            while True:
                reply: Any = None
                match pipe.recv():
                    case ("set", name, value):
                        setattr(sandbox, name, value)
                    case ("ready_in", seconds):
                        # All were made within seconds, and end by the age of the first.
                        sandbox.export_seconds = time.monotonic() - first + seconds
                    case ("forget",):
                        since, most = time.monotonic(), open_now
                    case ("seen",):
                        seen = [request for request in sandbox.requests if request.started >= since]
                        counted = dict(Counter(request.status for request in seen))
                        reply = (counted, busiest_second(request.started for request in seen), most)
                pipe.send(reply)


# ------------------------------------------------------------------------------------------ the client's process


class Sends:
    """The times at which requests went out, as aiohttp reports them when a request's head has been written."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def trace(self) -> Any:
        import aiohttp

        config = aiohttp.TraceConfig()

        async def sent(*_: Any) -> None:
            self.times.append(time.monotonic())

        config.on_request_headers_sent.append(sent)
        return config


def _memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class Run:
    """How waits ended; seconds of wall clock and of processor, and the bytes that the process grew by, at most."""

    ended: Counter[str]
    seconds: float
    cpu: float
    memory: int


async def _run_waits(waits: list[Coroutine[Any, Any, str]], limit: float | None = None) -> Run:
    """Run waits as tasks of this loop until they end, or so many seconds."""
    gc.collect()
    most = before = _memory()
    started, cpu = time.monotonic(), time.process_time()
    tasks = [asyncio.create_task(wait) for wait in waits]
    finished = asyncio.ensure_future(asyncio.wait(tasks, timeout=limit))
    while not finished.done():
        await asyncio.wait([finished], timeout=1.0)
        most = max(most, _memory())
    run = Run(
        ended=Counter(task.result() for task in tasks if task.done()),
        seconds=time.monotonic() - started,
        cpu=time.process_time() - cpu,
        memory=most - before,
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return run


def _measure_package(number: int, ready_after: float) -> Measured:
    """This package's waits, each made anew from what a triggerer finds in its database."""
    import aiohttp

    from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger

    async_client: Any = import_module("airflow_provider_chartmogul.client.async_client")
    sends, bare = Sends(), Sends()
    session = functools.partial(aiohttp.ClientSession, trace_configs=[sends.trace()])

    async def wait(path: str, serialized: str) -> str:
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(**json.loads(serialized))
        async for event in trigger.run():
            return str(event.payload["status"])
        return "nothing"

    def serialized(export_id: str) -> tuple[str, str]:
        trigger = ActivitiesExportTrigger("bench", export_id, POLL_INTERVAL, deadline=time.time() + 6 * 3600)
        path, arguments = trigger.serialize()
        return path, json.dumps(arguments)

    async def run(export_ids: list[str]) -> Run:
        return await _run_waits([wait(*serialized(export_id)) for export_id in export_ids])

    with SandboxProcess() as sandbox, contextlib.ExitStack() as undo:
        os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(
            {
                "conn_type": "chartmogul",
                "host": sandbox.url,
                "password": _API_KEY,
                "extra": {"requests_per_second": RATE, "max_connections": CONNECTIONS},
            }
        )
        async_client.aiohttp.ClientSession, before = session, async_client.aiohttp.ClientSession
        undo.callback(setattr, async_client.aiohttp, "ClientSession", before)
        # One wait first, so that what is loaded once is loaded.
        warm = sandbox.make_exports(1)
        sandbox.set("export_seconds", 0)
        asyncio.run(run(warm))
        export_ids = sandbox.make_exports(number)
        bare_polls = min(number, MOST_BARE_POLLS) // 2
        bare_cpu = asyncio.run(_bare(sandbox.url, export_ids[:bare_polls], bare, before))

        sends.times.clear()
        time.sleep(1.0)
        sandbox.forget()
        sandbox.ready_in(ready_after)
        ran = asyncio.run(run(export_ids))
        seen = sandbox.seen()

        time.sleep(1.0)
        bare_cpu += asyncio.run(_bare(sandbox.url, export_ids[:bare_polls], bare, before))
    return Measured(
        waits=number,
        ended=ran.ended["success"],
        seconds=ran.seconds,
        polls=len(sends.times),
        busiest_second=busiest_second(sends.times),
        cpu_a_poll=ran.cpu / len(sends.times),
        bytes_a_wait=ran.memory / number,
        seen=seen,
        bare_cpu_a_poll=bare_cpu / len(bare.times),
        events=dict(ran.ended),
    )


async def _bare(url: str, export_ids: list[str], sends: Sends, session_class: Any) -> float:
    """GET the exports on one shared session, at the same pace; give the seconds of processor that it took."""
    import aiohttp

    headers = {"Authorization": aiohttp.BasicAuth(_API_KEY, "").encode()}
    cpu = time.process_time()
    async with (
        session_class(trace_configs=[sends.trace()], connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session,
        asyncio.TaskGroup() as polls,
    ):

        async def poll(export_id: str) -> None:
            async with session.get(f"{url}/v1/activities_export/{export_id}", headers=headers) as response:
                await response.json()

        for export_id in export_ids:
            polls.create_task(poll(export_id))
            await asyncio.sleep(1.0 / RATE)
    return time.process_time() - cpu


def _measure_hand_written(number: int, ready_after: float, limit: float) -> Measured:
    """
    The same waits with a new session a poll, and nothing between them and the server.

    Where such a sensor would fail its task at a 429 or 503, this one is kinder to itself and looks again later.

    :param limit: seconds after which those that have not ended are given up
    """
    import aiohttp

    sends = Sends()

    async def wait(url: str, export_id: str) -> str:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with (
                    aiohttp.ClientSession(trace_configs=[sends.trace()]) as session,
                    session.get(
                        f"{url}/v1/activities_export/{export_id}", auth=aiohttp.BasicAuth(_API_KEY, "")
                    ) as response,
                ):
                    if response.status == 200 and (await response.json())["status"] == "succeeded":
                        return "done"
            await asyncio.sleep(POLL_INTERVAL)

    with SandboxProcess() as sandbox:
        export_ids = sandbox.make_exports(number)
        time.sleep(1.0)
        sandbox.forget()
        sandbox.ready_in(ready_after)

        async def run() -> Run:
            return await _run_waits([wait(sandbox.url, export_id) for export_id in export_ids], limit)

        ran = asyncio.run(run())
        return Measured(
            waits=number,
            ended=ran.ended["done"],
            seconds=ran.seconds,
            polls=len(sends.times),
            busiest_second=busiest_second(sends.times),
            cpu_a_poll=ran.cpu / len(sends.times),
            bytes_a_wait=ran.memory / number,
            seen=sandbox.seen(),
        )


_WAYS: dict[str, Callable[..., Measured]] = {"package": _measure_package, "hand": _measure_hand_written}


@contextlib.contextmanager
def _airflow_home() -> Iterator[None]:
    """An Airflow home that is gone afterwards; and files enough for a socket a wait."""
    home = tempfile.mkdtemp(prefix="bench-waiting-")
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = home
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        yield
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _child(pipe: Connection, way: str, arguments: tuple[Any, ...]) -> None:
    # The log is written, as a triggerer's is, but not read.
    with _airflow_home(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        with contextlib.redirect_stderr(nowhere):
            measured = _WAYS[way](*arguments)
        pipe.send(measured)


def _in_a_process(way: str, *arguments: Any) -> Measured:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_child, args=(theirs, way, arguments))
    process.start()
    theirs.close()
    try:
        measured: Measured = ours.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"the process of way '{way}' ended with {process.exitcode} and no result") from None
    process.join()
    return measured


# ------------------------------------------------------------------------------------------ the report


def _table(package: Measured, hand: Measured, ready_after: float) -> str:
    def ended(measured: Measured) -> str:
        if measured.ended == measured.waits:
            return f"all, after {measured.seconds:.0f} s"
        return f"{measured.ended:,} in {measured.seconds:.0f} s, then given up"

    rows = [
        ("", "this package", "a new session a poll"),
        ("saw that their export was done", ended(package), ended(hand)),
        ("requests", f"{package.polls:,}", f"{hand.polls:,}"),
        ("most requests in any second, as sent", f"{package.busiest_second:,}", f"{hand.busiest_second:,}"),
        ("the same, as the server saw them", f"{package.seen.busiest_second:,}", f"{hand.seen.busiest_second:,}"),
        ("most connections at a time", f"{package.seen.connections:,}", f"{hand.seen.connections:,}"),
        ("refused (429, 503)", f"{package.refused:,}", f"{hand.refused:,}"),
        (
            "CPU a poll",
            f"{1000 * package.cpu_a_poll:.2f} ms, {package.cpu_ratio:.1f} times a bare session's",
            f"{1000 * hand.cpu_a_poll:.2f} ms, but in bursts",
        ),
        ("memory a wait", f"{package.bytes_a_wait / 1000:.1f} kB", f"{hand.bytes_a_wait / 1000:.1f} kB"),
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|---|---|")
    about = (
        f"{package.waits:,} waits in one event loop, their exports done after {ready_after:.0f} s, `poll_interval` "
        f"{POLL_INTERVAL:.0f} s, a share of {RATE} requests a second and {CONNECTIONS} connections; Python "
        f"{platform.python_version()}, Airflow {metadata.version('apache-airflow')}, aiohttp "
        f"{metadata.version('aiohttp')}, {os.cpu_count()} cores. A bare session is one shared aiohttp session that "
        f"sends the same GETs at the same pace: {1000 * package.bare_cpu_a_poll:.2f} ms of CPU a poll; it writes no "
        "log, a wait of this package writes two lines, which are counted. In a burst a poll costs less than one on its "
        "own, as the processor's caches are warm. Where a sensor written by hand would fail its task at the first "
        "refusal, this one looks again after `poll_interval`; it was given as long as the package took."
    )
    return "\n".join([*lines, "", about])


def missed(package: Measured) -> list[str]:
    """Say which figures do not hold."""
    checks = [
        (package.ended == package.waits, f"only {package.ended} of {package.waits} waits ended well: {package.events}"),
        (package.busiest_second <= RATE + 1, f"{package.busiest_second} requests were sent in one second"),
        (package.seen.connections <= CONNECTIONS, f"{package.seen.connections} connections were open at a time"),
        (set(package.seen.statuses) == {200}, f"not all were answered well: {package.seen.statuses}"),
        (package.cpu_ratio <= MOST_CPU_RATIO, f"a poll cost {package.cpu_ratio:.2f} times a bare session's"),
        (package.bytes_a_wait <= MOST_BYTES_A_WAIT, f"a wait took {package.bytes_a_wait:.0f} bytes"),
    ]
    return [text for holds, text in checks if not holds]


def _write_readme(table: str) -> None:
    begin, end = MARKS
    before, found_begin, rest = README.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise SystemExit(f"{README} has no place for the table, between {begin} and {end}")
    README.write_text(f"{before}{begin}\n{table}\n{end}{after}")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the benchmark and print its table.

    :param argv: the arguments; None takes the process's
    :return: the exit status: 0, or 1 when a figure that must hold does not
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.waiting",
        description="Thousands of waits in one event loop: their cost, and their manners.",
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_WAITS} waits instead of {WAITS:,}")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args(argv)
    number, ready_after = (QUICK_WAITS, QUICK_READY_AFTER) if options.quick else (WAITS, READY_AFTER)

    package = _in_a_process("package", number, ready_after)
    hand = _in_a_process("hand", number, ready_after, package.seconds)
    table = _table(package, hand, ready_after)
    print(table)
    if options.write_readme:
        _write_readme(table)
    failures = missed(package)
    for failure in failures:
        print(f"MISSED: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
