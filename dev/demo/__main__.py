# SPDX-License-Identifier: Apache-2.0
"""
Run the demo: a real Airflow on this machine loads a whole account into DuckDB.

``make demo`` runs it; ``make up`` runs it and keeps Airflow running. It starts the sandbox and an Airflow, lets the
scheduler create yesterday's run of ``example_dags/example_account_duckdb.py``, shows the progress of each task and then
a report from the warehouse, and stops everything it started. With ``CHARTMOGUL_API_KEY`` set, it uses the real API
instead of the sandbox. All its files are in ``.demo/``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from dev.demo.report import Warehouse, print_report
from dev.demo.screen import Screen, count
from dev.real_airflow import Json, RealAirflow, RealAirflowError

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".demo"
DAG_ID = "example_account_duckdb"

#: Customers that the sandbox's company wins until 2040, most of them by now. Subscriptions take a request for each.
CUSTOMERS = 300

#: Duration of an export in the sandbox: long enough to see the task deferred, and realistic for a small account.
EXPORT_SECONDS = 10.0
#: Time limit for the run in seconds. Subscriptions of large accounts take more than an hour.
RUN_SECONDS = {"sandbox": 600.0, "ChartMogul": 4 * 3600.0}

LOG_LINES = 40

_STATES = {
    "running": "running on a worker",
    "deferred": "deferred: waiting in the triggerer, without a worker",
    "up_for_retry": "failed (Airflow would retry it)",
    "upstream_failed": "not run: an upstream task failed",
}


class DemoError(Exception):
    """The demo cannot continue; the message is for the user."""


class TaskFailedError(DemoError):
    """A try of a task failed. The demo ends instead of waiting for a retry, so that the user sees why."""


class Progress:
    """Prints a line after most changes of a task's state, and measures how long tasks are deferred."""

    def __init__(self, screen: Screen, task_width: int) -> None:
        self._screen = screen
        self._task_width = task_width
        self._started = time.monotonic()
        self._deferred_at: dict[str, float] = {}
        self.deferred_seconds = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __call__(self, instance: Json) -> None:
        state: str | None = instance["state"]
        task_id = instance["task_id"]
        if state == "deferred":
            self._deferred_at[task_id] = self.seconds
        elif task_id in self._deferred_at:
            self.deferred_seconds += self.seconds - self._deferred_at.pop(task_id)
        if state is None or state in {"scheduled", "queued"}:
            return  # The task waits for others, or for a worker.
        text = self._screen.state(state, _STATES.get(state, state))
        retry = f"  (try {instance['try_number']})" if instance["try_number"] > 1 else ""
        self._screen.line(f"  {self.seconds:6.1f} s  {task_id:<{self._task_width}}  {text}{retry}")
        if state == "up_for_retry":
            raise TaskFailedError


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the demo.

    :param arguments: command line arguments; ``None`` uses the process's
    :return: exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m dev.demo", description="Load a whole account into DuckDB in a real Airflow on this machine."
    )
    parser.add_argument("--stay", action="store_true", help="keep Airflow running until Ctrl-C")
    stay = parser.parse_args(arguments).stay
    screen = Screen(sys.stdout)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    try:
        with _lock():
            _demo(screen, stay=stay)
    except KeyboardInterrupt:
        screen.line()
        screen.line("Stopped; nothing is left running.")
        return 0 if stay else 130
    except (DemoError, RealAirflowError) as error:
        screen.line()
        screen.line(f"{screen.state('failed', 'The demo failed:')} {error}")
        return 1
    return 0


def _demo(screen: Screen, *, stay: bool) -> None:
    objects, database = FOLDER / "objects", FOLDER / "chartmogul.duckdb"
    for leftover in (FOLDER / "airflow", objects):
        shutil.rmtree(leftover, ignore_errors=True)
    for file in FOLDER.glob(f"{database.name}*"):
        file.unlink()
    # Removed from the environment, so that Airflow gets the key through the connection only.
    api_key = os.environ.pop("CHARTMOGUL_API_KEY", "").strip()
    server = "ChartMogul" if api_key else "sandbox"

    screen.title("ChartMogul for Airflow: a whole account in DuckDB, end to end")
    with ExitStack() as stack:
        sandbox: Any = None
        if api_key:
            connection = json.dumps({"conn_type": "chartmogul", "password": api_key})
            screen.field("ChartMogul", "the real API, with the key in CHARTMOGUL_API_KEY")
        else:
            from airflow_provider_chartmogul.sandbox import Sandbox

            # The company as of the end of the run's window, so that everything adds up.
            midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            sandbox = stack.enter_context(Sandbox(customers=CUSTOMERS, export_seconds=EXPORT_SECONDS, as_of=midnight))
            connection = sandbox.connection_uri
            screen.field(
                "Sandbox", f"a local ChartMogul with a made-up company; an export takes {EXPORT_SECONDS:.0f} s"
            )

        screen.field(
            "Airflow",
            f"{version('apache-airflow')} on Python {sys.version.split()[0]}: "
            "api server, scheduler, dag processor, triggerer",
        )
        started = time.monotonic()
        airflow = stack.enter_context(
            RealAirflow(
                FOLDER / "airflow",
                ROOT / "example_dags",
                environment={
                    "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": connection,
                    "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{objects}",
                    "AIRFLOW_VAR_CHARTMOGUL_ACCOUNT_DUCKDB": str(database),
                    # Do not parse unchanged files again, since the tasks need the cores.
                    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
                },
            )
        )
        airflow.wait_for_dag(DAG_ID)
        screen.field("", screen.dim(f"healthy after {time.monotonic() - started:.0f} s"))
        if stay:
            screen.field("UI", airflow.base_url)

        progress = _run(screen, airflow, server)
        _show_result(screen, database, progress, sandbox)
        if stay:
            screen.title("Airflow is running until Ctrl-C")
            screen.field("UI", f"{airflow.base_url}/dags/{DAG_ID}  (no login needed)")
            screen.field("Logs", _path(airflow.home))
            while True:
                signal.pause()
        screen.line(screen.dim("  Stopping Airflow …"))
    screen.line("  Done. `make up` does the same and keeps the Airflow UI open.")
    screen.line()


def _run(screen: Screen, airflow: RealAirflow, server: str) -> Progress:
    """Let the scheduler create yesterday's run and wait until it has finished."""
    tasks = airflow.request("GET", f"/api/v2/dags/{DAG_ID}/tasks")["tasks"]
    # Once the DAG is unpaused, the scheduler creates the run of its latest interval, which is yesterday.
    airflow.unpause(DAG_ID)
    run_id = airflow.wait_for_scheduled_run(DAG_ID)
    run = airflow.run(DAG_ID, run_id)
    start, end = (datetime.fromisoformat(run[f"data_interval_{edge}"]) for edge in ("start", "end"))
    screen.title(f"{DAG_ID}, {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    progress = Progress(screen, max(len(task["task_id"]) for task in tasks))
    try:
        run = airflow.wait_for_run(DAG_ID, run_id, RUN_SECONDS[server], on_change=progress)
        if run["state"] != "success":
            raise TaskFailedError
    except TaskFailedError:
        failed = _show_failure(screen, airflow, run_id)
        raise DemoError(f"task {failed} did not succeed. All logs are in {_path(airflow.home)}.") from None
    except RealAirflowError as error:
        _show_failure(screen, airflow, run_id)
        raise DemoError(f"{error}. All logs are in {_path(airflow.home)}.") from error
    return progress


def _show_failure(screen: Screen, airflow: RealAirflow, run_id: str) -> str:
    """Show the end of the log of the task that failed or hangs, and return its ID."""
    instances = airflow.task_instances(DAG_ID, run_id)
    # The task that failed, or else the one that has started and not ended.
    order = {"failed": 0, "up_for_retry": 1, "running": 2, "deferred": 3, "queued": 4}
    stuck = min(
        (ti for ti in instances if ti["state"] not in {"success", "skipped", "upstream_failed"}),
        key=lambda ti: order.get(ti["state"], 9),
        default=None,
    )
    if stuck is None:
        return "unknown"
    screen.title(f"{stuck['task_id']}: {stuck['state'] or 'not scheduled'}, try {stuck['try_number']}")
    try:
        log = airflow.task_log(DAG_ID, run_id, stuck["task_id"], stuck["try_number"] or 1)
    except RealAirflowError as error:
        log = f"(its log cannot be read: {error})"
    # These lines mark groups that the UI can fold.
    lines = [line for line in log.splitlines() if "::group::" not in line and "::endgroup::" not in line]
    for line in lines[-LOG_LINES:]:
        screen.line(f"  {line}")
    return str(stuck["task_id"])


def _show_result(screen: Screen, database: Path, progress: Progress, sandbox: Any) -> None:
    """Show what is in the warehouse, and a summary of the run."""
    screen.title("The warehouse")
    screen.field("DuckDB", _path(database))
    screen.line()
    with Warehouse(database) as warehouse:
        sums = print_report(screen, warehouse)

    screen.title("Summary")
    screen.line(
        f"  The run took {progress.seconds:.1f} s. For {progress.deferred_seconds:.1f} s of that, the export of the"
    )
    screen.line("  activities waited in the triggerer, without a worker.")
    if sandbox is not None:
        requests = sandbox.requests
        exports = sum(request.path.startswith("/v1/activities_export") for request in requests)
        downloads = sum(request.host == "download" for request in requests)
        subscriptions = sum(request.path.endswith("/subscriptions") for request in requests)
        others = len(requests) - exports - downloads - subscriptions
        screen.line(
            f"  ChartMogul received {count(len(requests), 'request')}: {exports} to create and poll the export, "
            f"{downloads} to download it,"
        )
        screen.line(
            f"  {subscriptions} for subscriptions (one for each customer), and {others} for the other resources."
        )
    screen.line()
    screen.line("  To query the warehouse yourself:")
    query = f"import duckdb; duckdb.connect('{_path(database)}').sql('FROM chartmogul_plans').show()"
    screen.line(f'    {_path(Path(sys.executable))} -c "{query}"')
    screen.line()
    if sums.differing:
        named = ", ".join(f"{source}s" for source in sums.differing)
        if sandbox is not None:
            raise DemoError(f"the sums of {named} are not ChartMogul's metric")
        screen.line(
            f"  The sums of {named} differ. docs/reconciliation.md lists the reasons that a real account may have."
        )
        screen.line()


def _path(path: Path) -> str:
    """Return a path relative to the project's folder if it is in there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@contextmanager
def _lock() -> Iterator[None]:
    """Hold the demo's lock, since a second demo would delete the first one's database."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError("`make demo` or `make up` is already running in this folder") from None
        yield


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
