# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench waiting``: the cost of thousands of waits in one event loop, and the load on ChartMogul.

The same waits run twice against a sandbox with ChartMogul's documented limits: as this package's trigger, and as
deferrable sensors are often written by hand, with a new aiohttp session for every poll and without a limit. The cost of
a poll is compared with the least it can cost: the same GETs at the same rate on one shared aiohttp session, in the same
process, half of them before and half of them after the waits. Other waits are for exports that are ready: such a wait
is one poll and all that a wait does once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from multiprocessing.connection import Connection
from typing import Any

from bench.docs import BenchError, markdown_table, paragraph, report_missed_limits, write_docs
from bench.waiting_sandbox import API_KEY, CONNECTIONS, RATE, SPAWN, SandboxProcess, ServerCounts, busiest_second

WAITS, QUICK_WAITS = 5_000, 200
#: Seconds from the start of the waits until all exports are finished. Only some waits have polled by then.
FINISHED_AFTER = 60.0
QUICK_FINISHED_AFTER = 5.0
POLL_INTERVAL = 30.0
#: The most GETs of the bare session. More would take longer without a more precise result.
MAX_BARE_POLLS = 2_000
#: The most waits for exports that are ready.
MAX_READY_WAITS = 1_000

#: Limits on the processor time of a poll and of a wait for an export that is ready, relative to the bare session's, and
#: on the memory of a wait.
MAX_CPU_RATIO, MAX_BYTES_PER_WAIT = 2.0, 20_000


@dataclass(frozen=True)
class Measurement:
    """
    The result of one variant.

    :param waits: number of waits that were started
    :param finished: number of waits that saw their export finished
    :param seconds: duration of all waits together
    :param polls: number of requests sent
    :param busiest_second: the most requests sent within any one second
    :param cpu_per_poll: seconds of processor time
    :param bytes_per_wait: bytes by which the process grew at its peak, for each wait
    :param server: the requests as the server counted them
    :param bare_cpu_per_poll: seconds of processor time for a GET on the bare session
    :param cpu_per_ready_wait: seconds of processor time for a whole wait whose first poll finds the export finished
    :param results: number of waits by result
    """

    waits: int
    finished: int
    seconds: float
    polls: int
    busiest_second: int
    cpu_per_poll: float
    bytes_per_wait: float
    server: ServerCounts
    bare_cpu_per_poll: float = 0.0
    cpu_per_ready_wait: float = 0.0
    results: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        return sum(count for status, count in self.server.statuses.items() if status in (429, 503))

    @property
    def cpu_ratio(self) -> float:
        return self.cpu_per_poll / self.bare_cpu_per_poll

    @property
    def ready_cpu_ratio(self) -> float:
        return self.cpu_per_ready_wait / self.bare_cpu_per_poll


# --------------------------------------------------------------------------------- the waits' process


class SentRequests:
    """Records when requests are sent, as aiohttp reports it once it has written a request's headers."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def trace(self) -> Any:
        import aiohttp

        config = aiohttp.TraceConfig()

        async def record(*_: Any) -> None:
            self.times.append(time.monotonic())

        config.on_request_headers_sent.append(record)
        return config


def _memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class Run:
    """
    The result of some waits.

    :param results: number of waits by result
    :param seconds: wall-clock time
    :param cpu: seconds of processor time
    :param memory: bytes by which the process grew at its peak
    """

    results: Counter[str]
    seconds: float
    cpu: float
    memory: int


async def _run_waits(waits: list[Coroutine[Any, Any, str]], max_seconds: float | None = None) -> Run:
    """Run waits as tasks of this loop until they end, or for ``max_seconds``, and then cancel them."""
    gc.collect()
    peak = before = _memory()
    started, cpu = time.monotonic(), time.process_time()
    tasks = [asyncio.create_task(wait) for wait in waits]
    finished = asyncio.ensure_future(asyncio.wait(tasks, timeout=max_seconds))
    while not finished.done():
        await asyncio.wait([finished], timeout=1.0)
        peak = max(peak, _memory())
    run = Run(
        results=Counter(task.result() for task in tasks if task.done()),
        seconds=time.monotonic() - started,
        cpu=time.process_time() - cpu,
        memory=peak - before,
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return run


def _measure_package(number: int, finished_after: float) -> Measurement:
    """Measure this package's trigger. Each wait deserializes its own, as a triggerer does."""
    import aiohttp

    from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger

    async_client: Any = import_module("airflow_provider_chartmogul.client.async_client")
    sent, bare_sent = SentRequests(), SentRequests()
    traced_session = functools.partial(aiohttp.ClientSession, trace_configs=[sent.trace()])

    async def wait(path: str, serialized: str) -> str:
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(**json.loads(serialized))
        async for event in trigger.run():
            return str(event.payload["status"])
        return "no event"

    def serialize(export_id: str) -> tuple[str, str]:
        trigger = ActivitiesExportTrigger("bench", export_id, POLL_INTERVAL, deadline=time.time() + 6 * 3600)
        path, arguments = trigger.serialize()
        return path, json.dumps(arguments)

    async def run(export_ids: list[str]) -> Run:
        return await _run_waits([wait(*serialize(export_id)) for export_id in export_ids])

    with SandboxProcess() as sandbox, contextlib.ExitStack() as stack:
        os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(
            {
                "conn_type": "chartmogul",
                "host": sandbox.url,
                "password": API_KEY,
                "extra": {"requests_per_second": RATE, "max_connections": CONNECTIONS},
            }
        )
        bare_session = async_client.aiohttp.ClientSession
        async_client.aiohttp.ClientSession = traced_session
        stack.callback(setattr, async_client.aiohttp, "ClientSession", bare_session)
        # The first wait loads modules, so it is not measured.
        first_export = sandbox.create_exports(1)
        sandbox.set("export_seconds", 0)
        asyncio.run(run(first_export))
        export_ids = sandbox.create_exports(number)
        bare_polls = min(number, MAX_BARE_POLLS) // 2
        bare_cpu = asyncio.run(_poll_bare(sandbox.url, export_ids[:bare_polls], bare_sent, bare_session))

        ready_ids = sandbox.create_exports(min(number, MAX_READY_WAITS))
        sandbox.set("export_seconds", 0)
        time.sleep(1.0)
        ready = asyncio.run(run(ready_ids))
        if ready.results != {"success": len(ready_ids)}:
            raise BenchError(f"not all waits for exports that are ready succeeded: {dict(ready.results)}")
        sandbox.set("export_seconds", 1e9)

        sent.times.clear()
        time.sleep(1.0)
        sandbox.reset_counts()
        sandbox.finish_exports_in(finished_after)
        result = asyncio.run(run(export_ids))
        server = sandbox.counts()

        time.sleep(1.0)
        bare_cpu += asyncio.run(_poll_bare(sandbox.url, export_ids[:bare_polls], bare_sent, bare_session))
    return Measurement(
        waits=number,
        finished=result.results["success"],
        seconds=result.seconds,
        polls=len(sent.times),
        busiest_second=busiest_second(sent.times),
        cpu_per_poll=result.cpu / len(sent.times),
        bytes_per_wait=result.memory / number,
        server=server,
        bare_cpu_per_poll=bare_cpu / len(bare_sent.times),
        cpu_per_ready_wait=ready.cpu / len(ready_ids),
        results=dict(result.results),
    )


async def _poll_bare(url: str, export_ids: list[str], sent: SentRequests, session_class: Any) -> float:
    """GET the exports at the limit's rate on one shared session, and return the seconds of processor time."""
    import aiohttp

    headers = {"Authorization": aiohttp.BasicAuth(API_KEY, "").encode()}
    cpu = time.process_time()
    async with (
        session_class(trace_configs=[sent.trace()], connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session,
        asyncio.TaskGroup() as polls,
    ):

        async def poll(export_id: str) -> None:
            async with session.get(f"{url}/v1/activities_export/{export_id}", headers=headers) as response:
                await response.json()

        for export_id in export_ids:
            polls.create_task(poll(export_id))
            await asyncio.sleep(1.0 / RATE)
    return time.process_time() - cpu


def _measure_hand_written(number: int, finished_after: float, timeout: float) -> Measurement:
    """
    Measure the same waits with a new session for every poll and no limit.

    Many hand-written sensors fail their task after a 429 or 503. This one polls again later.

    :param timeout: seconds after which waits that have not ended are cancelled
    """
    import aiohttp

    sent = SentRequests()

    async def wait(url: str, export_id: str) -> str:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with (
                    aiohttp.ClientSession(trace_configs=[sent.trace()]) as session,
                    session.get(
                        f"{url}/v1/activities_export/{export_id}", auth=aiohttp.BasicAuth(API_KEY, "")
                    ) as response,
                ):
                    if response.status == 200 and (await response.json())["status"] == "succeeded":
                        return "success"
            await asyncio.sleep(POLL_INTERVAL)

    with SandboxProcess() as sandbox:
        export_ids = sandbox.create_exports(number)
        time.sleep(1.0)
        sandbox.reset_counts()
        sandbox.finish_exports_in(finished_after)

        async def run() -> Run:
            return await _run_waits([wait(sandbox.url, export_id) for export_id in export_ids], timeout)

        result = asyncio.run(run())
        return Measurement(
            waits=number,
            finished=result.results["success"],
            seconds=result.seconds,
            polls=len(sent.times),
            busiest_second=busiest_second(sent.times),
            cpu_per_poll=result.cpu / len(sent.times),
            bytes_per_wait=result.memory / number,
            server=sandbox.counts(),
        )


_VARIANTS: dict[str, Callable[..., Measurement]] = {"package": _measure_package, "hand-written": _measure_hand_written}


@contextlib.contextmanager
def _airflow_home() -> Iterator[None]:
    """Set a temporary Airflow home, and allow as many open files as possible, since every wait may need a socket."""
    home = tempfile.mkdtemp(prefix="bench-waiting-")
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = home
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    try:
        yield
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _measure_and_send(pipe: Connection, variant: str, arguments: tuple[Any, ...]) -> None:
    # The log is written, as in a triggerer, but discarded.
    with _airflow_home(), open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        with contextlib.redirect_stderr(devnull):
            measurement = _VARIANTS[variant](*arguments)
        pipe.send(measurement)


def _run_variant(variant: str, *arguments: Any) -> Measurement:
    """
    Measure a variant in a new process.

    :raises BenchError: if the process ends without a measurement
    """
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_measure_and_send, args=(theirs, variant, arguments))
    process.start()
    theirs.close()
    try:
        measurement: Measurement = ours.recv()
    except EOFError:
        process.join()
        raise BenchError(f"the {variant} variant ended with exit status {process.exitcode} and no result") from None
    process.join()
    return measurement


# ------------------------------------------------------------------------------------------ the report


def report(package: Measurement, hand_written: Measurement, finished_after: float) -> str:
    """Return the measurements as a Markdown table with a description."""

    def finished(measurement: Measurement) -> str:
        if measurement.finished == measurement.waits:
            return f"all, after {measurement.seconds:.0f} s"
        return f"{measurement.finished:,} in {measurement.seconds:.0f} s, then cancelled"

    both = (package, hand_written)
    rows = [
        ("saw their export finished", *map(finished, both)),
        ("requests", *(f"{m.polls:,}" for m in both)),
        ("most requests in any second, as sent", *(f"{m.busiest_second:,}" for m in both)),
        ("most requests in any second, as received", *(f"{m.server.busiest_second:,}" for m in both)),
        ("most open connections", *(f"{m.server.connections:,}" for m in both)),
        ("refused (429, 503)", *(f"{m.refused:,}" for m in both)),
        (
            "processor time per poll",
            f"{1000 * package.cpu_per_poll:.2f} ms, {package.cpu_ratio:.1f} times the bare session's",
            f"{1000 * hand_written.cpu_per_poll:.2f} ms, in bursts",
        ),
        (
            "processor time per wait for an export that is ready",
            f"{1000 * package.cpu_per_ready_wait:.2f} ms, {package.ready_cpu_ratio:.1f} times the bare session's",
            "",
        ),
        ("memory per wait", *(f"{m.bytes_per_wait / 1000:.1f} kB" for m in both)),
    ]
    description = (
        f"{package.waits:,} waits in one event loop, exports finished after {finished_after:.0f} s, `poll_interval` "
        f"{POLL_INTERVAL:.0f} s, limits of {RATE} requests a second and {CONNECTIONS} connections; Python "
        f"{platform.python_version()}, Airflow {metadata.version('apache-airflow')}, aiohttp "
        f"{metadata.version('aiohttp')}, {os.cpu_count()} cores. The bare session is a shared aiohttp session that "
        f"sends the same GETs at the same rate: {1000 * package.bare_cpu_per_poll:.2f} ms of processor time each. It "
        "writes no log; a wait of this package writes two lines, which are included. Polls in a burst cost less, since "
        "the processor's caches are warm. Many hand-written sensors fail their task after the first refusal; this one "
        "polls again after `poll_interval`, for as long as the package took."
    )
    table = markdown_table(("", "this package", "a new session for each poll"), rows)
    return f"{table}\n\n{paragraph(description)}"


def missed_limits(package: Measurement) -> list[str]:
    """Return a message for each limit that the package's measurement exceeds."""
    waits, server = package.waits, package.server
    checks = [
        (package.finished == waits, f"only {package.finished} of {waits} waits succeeded: {package.results}"),
        (package.busiest_second <= RATE + 1, f"{package.busiest_second} requests were sent within one second"),
        (server.connections <= CONNECTIONS, f"{server.connections} connections were open at once"),
        (set(server.statuses) == {200}, f"not every response had status 200: {server.statuses}"),
        (package.cpu_ratio <= MAX_CPU_RATIO, f"a poll cost {package.cpu_ratio:.2f} times the bare session's"),
        (
            package.ready_cpu_ratio <= MAX_CPU_RATIO,
            f"a wait for an export that is ready cost {package.ready_cpu_ratio:.2f} times the bare session's GET",
        ),
        (package.bytes_per_wait <= MAX_BYTES_PER_WAIT, f"a wait took {package.bytes_per_wait:.0f} bytes"),
    ]
    return [message for holds, message in checks if not holds]


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark and print its table.

    :param arguments: command line arguments
    :return: exit status: 0, or 1 if the benchmark failed or a limit was exceeded
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench waiting", description="Cost of thousands of waits in one event loop, and their requests."
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_WAITS} waits instead of {WAITS:,}")
    parser.add_argument("--write-docs", action="store_true", help="write the table to docs/costs.md")
    options = parser.parse_args(arguments)
    number, finished_after = (QUICK_WAITS, QUICK_FINISHED_AFTER) if options.quick else (WAITS, FINISHED_AFTER)
    try:
        package = _run_variant("package", number, finished_after)
        hand_written = _run_variant("hand-written", number, finished_after, package.seconds)
        table = report(package, hand_written, finished_after)
        print(table)
        if options.write_docs:
            write_docs("waiting", table)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    missed = missed_limits(package)
    return report_missed_limits(missed)
