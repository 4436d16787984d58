# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench tasks``: how many worker processes the same windows take, one task for each and three.

Both DAGs run in a real Airflow with its LocalExecutor, against the sandbox. Every process that Airflow starts for a
task says so itself, by a listener (``tasks_plugins``): a task that is deferred takes one before it and one after.
Exports are done when all are waited for, as those of a large account are, which take minutes: where an export is done
before the sensor's first look, three tasks take three starts, not four.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from airflow_provider_chartmogul.sandbox import Sandbox
from bench.transfer import README, BenchError, with_block
from dev.real_airflow import RealAirflow

MARKS = ("<!-- bench:tasks -->", "<!-- /bench:tasks -->")

WINDOWS, QUICK_WINDOWS = 100, 10
WAYS = ("one_task", "three_tasks")
"""The DAGs."""

#: What must hold: starts of the one-task way, as a part of the other's.
MOST_OF_THE_STARTS = 0.5

#: Seconds that a way may take for each window, on a machine that is busy with other things.
_PATIENCE = 60


@dataclass(frozen=True)
class Measured:
    """One way: worker processes by task; the seconds that they lived, and the processor's."""

    starts: dict[str, int]
    seconds: float
    cpu: float

    @property
    def started(self) -> int:
        return sum(self.starts.values())


def read_starts(lines: Iterable[str], dag_id: str) -> Measured:
    """
    Count the processes that were started for a DAG's tasks.

    :param lines: what ``tasks_plugins/starts.py`` has written
    :raises BenchError: for a process that did not end, or not as it should: its seconds would be missing
    """
    created: dict[int, float] = {}
    tasks: dict[tuple[int, float], str] = {}
    seconds = cpu = 0.0
    ended = 0
    for line in map(json.loads, lines):
        pid = line["pid"]
        match line["what"]:
            case "start":
                created[pid] = line["created"]
            case "task" if line["dag_id"] == dag_id:
                # A process ID comes again some day, but not with the same time.
                tasks[pid, created[pid]] = line["task_id"]
            case "end" if (pid, created[pid]) in tasks:
                seconds, cpu, ended = seconds + line["seconds"], cpu + line["cpu"], ended + 1
    if ended != len(tasks):
        raise BenchError(f"of {len(tasks)} processes of {dag_id}, {ended} have told their end")
    return Measured(dict(Counter(tasks.values())), seconds, cpu)


def run_way(dag_id: str, windows: int, airflow: RealAirflow, sandbox: Sandbox, lake: Path, starts: Path) -> Measured:
    """
    Run a way's DAG once.

    :raises BenchError: when it did not go as it should, so that there is nothing to compare
    """
    # None is done before all are waited for: which of them were would otherwise be the machine's doing.
    usual, sandbox.export_seconds = sandbox.export_seconds, 24 * 3600
    made = len(sandbox.exports)
    airflow.wait_for_dag(dag_id)
    airflow.unpause(dag_id)
    run_id = airflow.trigger(dag_id)
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=1&state="
    deadline = time.monotonic() + _PATIENCE * windows
    while (waiting := airflow.request("GET", f"{path}deferred")["total_entries"]) < windows:
        if airflow.request("GET", f"{path}failed")["total_entries"] or time.monotonic() > deadline:
            raise BenchError(f"{dag_id}: {waiting} of {windows} exports are waited for, and no more will be")
        time.sleep(1)
    sandbox.export_seconds = usual
    state = airflow.wait_for_run(dag_id, run_id, _PATIENCE * windows, poll=1)["state"]
    objects = len(list((lake / dag_id).glob("*.csv.gz")))
    exports = len(sandbox.exports) - made
    if (state, objects, exports) != ("success", windows, windows):
        raise BenchError(f"{dag_id}: the run's end is {state}, with {exports} exports and {objects} objects")
    # The last process may have something to say when its task's success is known.
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return read_starts(starts.read_text().splitlines(), dag_id)
        except BenchError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)


def run(windows: int) -> dict[str, Measured]:
    """Run both ways in one Airflow; give each one's figures."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="bench-tasks-") as name, Sandbox(export_seconds=0, customers=50) as sandbox:
        folder = Path(name)
        lake, starts = folder / "lake", folder / "starts.jsonl"
        environment = {
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(here / "tasks_plugins"),
            # The files do not change.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            # Where it is installed, its listener would be loaded by each process.
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
            "AIRFLOW_VAR_BENCH_LAKE": f"file://{lake}",
            "BENCH_TASKS_FILE": str(starts),
            "BENCH_TASKS_WINDOWS": str(windows),
        }
        with RealAirflow(folder / "airflow", here / "tasks_dags", environment=environment) as airflow:
            return {dag_id: run_way(dag_id, windows, airflow, sandbox, lake, starts) for dag_id in WAYS}


def table(measured: dict[str, Measured], windows: int) -> str:
    """The figures as a Markdown table, and what it takes to read it."""
    one, three = (measured[way] for way in WAYS)

    def by_task(way: Measured) -> str:
        return ", ".join(f"{name.rpartition('.')[2]} {count}" for name, count in way.starts.items())

    rows = [
        ("", "one task", "three tasks", "one of three"),
        ("worker processes started", str(one.started), str(three.started), f"**{one.started / three.started:.2f}**"),
        ("of these, by task", by_task(one), by_task(three), ""),
        *(
            (what, f"{ours:.0f} s", f"{theirs:.0f} s", f"{ours / theirs:.2f}")
            for what, ours, theirs in (
                ("how long they lived, together", one.seconds, three.seconds),
                ("processor time they took", one.cpu, three.cpu),
            )
        ),
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|---|---|---|")
    about = (
        f"{windows} windows, mapped, in a real Airflow {metadata.version('apache-airflow')} with its LocalExecutor; "
        f"Python {platform.python_version()}, {os.cpu_count()} cores. Each process that Airflow starts for a task says "
        "so itself, by a listener; a task that is deferred takes one before it and one after. Exports are done when "
        "all are waited for. Where one is done before the sensor's first look, three tasks take three starts, not four."
    )
    return "\n".join([*lines, "", about])


def missed(measured: dict[str, Measured]) -> list[str]:
    """Say which figures do not hold."""
    one, three = (measured[way].started for way in WAYS)
    if one <= MOST_OF_THE_STARTS * three:
        return []
    return [f"the one-task way has started {one} processes, the other {three}"]


def main(told: Sequence[str]) -> int:
    """
    Run the benchmark and print its table.

    :param told: the arguments
    :return: the exit status: 0, or 1 when a figure that must hold does not
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench tasks", description="The worker processes that one task for a window takes, and three."
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_WINDOWS} windows instead of {WINDOWS}")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args(told)
    windows = QUICK_WINDOWS if options.quick else WINDOWS
    try:
        measured = run(windows)
        figures = table(measured, windows)
        print(figures)
        if options.write_readme:
            README.write_text(with_block(README.read_text(), figures, MARKS))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    failures = missed(measured)
    for failure in failures:
        print(f"MISSED: {failure}", file=sys.stderr)
    return 1 if failures else 0
