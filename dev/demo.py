# SPDX-License-Identifier: Apache-2.0
"""
The demo: a real Airflow on this machine exports one day of activities.

``make demo`` runs it; ``make up`` runs it and keeps Airflow running. It starts the sandbox and an Airflow, lets the
scheduler create yesterday's run of ``example_dags/example_activities_export.py``, shows the progress of each task and
then the object, and stops everything it started. With ``CHARTMOGUL_API_KEY`` set, it uses the real API instead of the
sandbox. All its files are in ``.demo/``.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import io
import json
import os
import re
import shutil
import signal
import sys
import time
import unicodedata
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from dev.real_airflow import Json, RealAirflow, RealAirflowError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"
DAG_ID = "example_activities_export"
TRANSFER_TASK_ID = "move_to_storage"

#: Duration of an export in the sandbox: long enough to see the task deferred, and realistic for a small account.
EXPORT_SECONDS = 10.0
#: Time limit for the run in seconds. Exports of large accounts take minutes.
RUN_SECONDS = {"sandbox": 150.0, "ChartMogul": 1800.0}

LOG_LINES = 40
TABLE_ROWS = 8
CELL_WIDTH = 22

_STATES = {
    "queued": "queued",
    "running": "running on a worker",
    "deferred": "deferred: waiting in the triggerer, without a worker",
    "up_for_retry": "failed (Airflow would retry it)",
    "upstream_failed": "not run: an upstream task failed",
}


class DemoError(Exception):
    """The demo cannot continue; the message is for the user."""


class TaskFailedError(DemoError):
    """A try of a task failed. The demo ends instead of waiting for a retry, so that the user sees why."""


class Screen:
    """Prints the demo's output: aligned lines, in colour on a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.width = min(shutil.get_terminal_size((100, 24)).columns, 140)

    def line(self, text: str = "") -> None:
        print(text.rstrip(), file=self._out, flush=True)

    def title(self, text: str) -> None:
        self.line()
        self.line(self.bold(text))
        self.line()

    def field(self, name: str, text: str) -> None:
        self.line(f"  {name:<10} {text}")

    def bold(self, text: str) -> str:
        return self._styled("1", text)

    def dim(self, text: str) -> str:
        return self._styled("2", text)

    def state(self, state: str, text: str) -> str:
        code = {"success": "32", "failed": "31", "up_for_retry": "33", "deferred": "36"}.get(state)
        return self._styled(code, text) if code else text

    def _styled(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


class Progress:
    """Prints a line after each change of a task's state, and measures how long the run is deferred."""

    def __init__(self, screen: Screen, task_width: int) -> None:
        self._screen = screen
        self._task_width = task_width
        self._started = time.monotonic()
        self._deferred_at: float | None = None
        self.deferred_seconds = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __call__(self, instance: Json) -> None:
        state: str | None = instance["state"]
        if self._deferred_at is not None and state != "deferred":
            self.deferred_seconds += self.seconds - self._deferred_at
            self._deferred_at = None
        if state == "deferred":
            self._deferred_at = self.seconds
        if state is None or state == "scheduled":
            return  # These states last less than a second.
        text = self._screen.state(state, _STATES.get(state, state))
        retry = f"  (try {instance['try_number']})" if instance["try_number"] > 1 else ""
        name = f"{instance['task_id']:<{self._task_width}}"
        self._screen.line(f"  {self.seconds:6.1f} s  {name}  {text}{retry}")
        if state == "up_for_retry":
            raise TaskFailedError


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the demo.

    :param arguments: command line arguments; ``None`` uses the process's
    :return: exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m dev.demo", description="Export one day of activities in a real Airflow on this machine."
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
    for leftover in ("airflow", "objects"):
        shutil.rmtree(FOLDER / leftover, ignore_errors=True)
    # Removed from the environment, so that Airflow gets the key through the connection only.
    api_key = os.environ.pop("CHARTMOGUL_API_KEY", "").strip()
    server = "ChartMogul" if api_key else "sandbox"
    objects = FOLDER / "objects"

    screen.title("ChartMogul for Airflow: one day of activities, end to end")
    with ExitStack() as stack:
        sandbox: Any = None
        if api_key:
            connection = json.dumps({"conn_type": "chartmogul", "password": api_key})
            screen.field("ChartMogul", "the real API, with the key in CHARTMOGUL_API_KEY")
        else:
            from airflow_provider_chartmogul.sandbox import Sandbox

            sandbox = stack.enter_context(Sandbox(export_seconds=EXPORT_SECONDS))
            connection = sandbox.connection_uri
            screen.field("Sandbox", f"a local ChartMogul; an export takes {EXPORT_SECONDS:.0f} s")

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
                },
            )
        )
        airflow.wait_for_dag(DAG_ID)
        screen.field("", screen.dim(f"healthy after {time.monotonic() - started:.0f} s"))
        if stay:
            screen.field("UI", airflow.base_url)

        run, progress = _run(screen, airflow, server)
        _show_result(screen, airflow, run, progress, sandbox)
        if stay:
            screen.title("Airflow is running until Ctrl-C")
            screen.field("UI", f"{airflow.base_url}/dags/{DAG_ID}  (no login needed)")
            screen.field("Logs", _path(airflow.home))
            while True:
                signal.pause()
        screen.line(screen.dim("  Stopping Airflow …"))
    screen.line("  Done. `make up` does the same and keeps the Airflow UI open.")
    screen.line()


def _run(screen: Screen, airflow: RealAirflow, server: str) -> tuple[Json, Progress]:
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
    return run, progress


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


def _show_result(screen: Screen, airflow: RealAirflow, run: Json, progress: Progress, sandbox: Any) -> None:
    """Show the object, its first rows, and a summary of the run."""
    metadata = airflow.xcom(DAG_ID, run["dag_run_id"], TRANSFER_TASK_ID, "object")
    path = Path(urllib.parse.unquote(urllib.parse.urlsplit(metadata["uri"]).path))
    if not path.is_file():
        raise DemoError(f"{TRANSFER_TASK_ID} succeeded, but {path} does not exist")
    screen.title("The object")
    screen.field("Path", _path(path))
    screen.field("Size", f"{path.stat().st_size:,} bytes, sha256 {metadata['sha256'][:12]}…")
    member, rows = _read(path)
    columns = len(rows[0]) if rows else 0
    screen.field("Content", f"{member}: {_count(max(len(rows) - 1, 0), 'row')}, {_count(columns, 'column')}")
    screen.line()
    for line in table(rows[: TABLE_ROWS + 1], screen.width - 2):
        screen.line(f"  {line}")
    if len(rows) > TABLE_ROWS + 1:
        screen.line(screen.dim(f"  … and {len(rows) - TABLE_ROWS - 1:,} more rows"))

    screen.title("Summary")
    screen.line(
        f"  The run took {progress.seconds:.1f} s. For {progress.deferred_seconds:.1f} s of that it waited in the "
        "triggerer, without a worker."
    )
    if sandbox is not None:
        requests = sandbox.requests
        creations = sum(request.host == "api" and request.method == "POST" for request in requests)
        downloads = sum(request.host == "download" for request in requests)
        polls = len(requests) - creations - downloads
        screen.line(
            f"  ChartMogul received {_count(len(requests), 'request')}: {creations} to create the export, "
            f"{polls} to poll its status, {downloads} to download it."
        )
    screen.line()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _read(path: Path) -> tuple[str, list[list[str]]]:
    """Return the name and the rows of the first file in the archive."""
    with zipfile.ZipFile(path) as archive:
        member = archive.namelist()[0]
        with archive.open(member) as raw:
            return member, list(csv.reader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")))


def table(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """
    Return rows, of which the first is the header, as aligned lines no wider than ``width``.

    If not all columns fit, those that mean most to a reader are chosen, before IDs and URLs. Empty columns are left
    out. The chosen columns keep the order of the file.
    """
    if not rows:
        return ["(no rows)"]
    columns = list(zip(*(list(row) + [""] * (len(rows[0]) - len(row)) for row in rows), strict=False))
    shown = [[_shortened(cell, CELL_WIDTH) for cell in column] for column in columns]
    widths = [max(_cells(text) for text in column) for column in shown]
    chosen: list[int] = []
    left = width + 2
    for index in sorted(range(len(columns)), key=lambda i: (_rank(columns[i]), i)):
        if widths[index] + 2 <= left and _rank(columns[index]) < _EMPTY:
            chosen.append(index)
            left -= widths[index] + 2
    chosen.sort()
    lines = [
        "  ".join(_padded(shown[i][number], widths[i], right=_is_numeric(columns[i])) for i in chosen).rstrip()
        for number in range(len(rows))
    ]
    lines.insert(1, "  ".join("─" * widths[i] for i in chosen))
    return lines


_ID = re.compile(r"[0-9a-f-]{32,36}|[a-z]{2,6}_[0-9a-f-]{16,}|https?://\S+", re.IGNORECASE)
_ID_NAME = re.compile(r"(^|[^a-z])(uu)?id$", re.IGNORECASE)
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*")

#: Rank of an empty column, which is never shown.
_EMPTY = 3


def _rank(column: Sequence[str]) -> int:
    """Return in which order a column is chosen: 0 for short values, 1 for long text, 2 for IDs, 3 if it is empty."""
    values = [value for value in column[1:] if value]
    if not values and len(column) > 1:
        return _EMPTY
    if _ID_NAME.search(column[0]) or (values and all(_ID.fullmatch(value) for value in values)):
        return 2
    return int(sum(map(_cells, values)) > 1.2 * CELL_WIDTH * len(values))


def _is_numeric(column: Sequence[str]) -> bool:
    values = [value for value in column[1:] if value]
    return bool(values) and all(re.fullmatch(r"-?[\d,]*\.?\d+", value) for value in values)


def _cells(text: str) -> int:
    """Return the text's width on a terminal: wide characters take two cells, combining ones none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _cells(text))
    return space + text if right else text + space


def _shortened(text: str, width: int) -> str:
    text = " ".join(text.split())
    if _cells(text) <= width or _TIMESTAMP.fullmatch(text):
        return text
    while _cells(text) >= width:
        text = text[:-1]
    return text + "…"


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
