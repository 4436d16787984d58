# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench tasks``: the worker processes that an export takes with one task and with three.

Two DAGs export the same windows in a real Airflow with LocalExecutor, against the sandbox. A listener in
``tasks_plugins`` records every process that Airflow starts for a task; a deferred task takes one before it waits and
one after. The exports are finished once all are being waited for, as those of a large account are, which take minutes.
If an export were finished before the sensor's first poll, its three tasks would take three processes instead of four.
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
from bench.docs import BenchError, markdown_table, paragraph, report_missed_limits, write_docs
from dev.real_airflow import RealAirflow

WINDOWS, QUICK_WINDOWS = 100, 10

#: The IDs of the DAGs.
VARIANTS = ("one_task", "three_tasks")

#: The most processes that ``one_task`` may start, as a fraction of those that ``three_tasks`` starts.
MAX_PROCESS_RATIO = 0.5

#: Time limit for each window of a DAG's run, in seconds, for machines that are busy with other things.
_SECONDS_PER_WINDOW = 60


@dataclass(frozen=True)
class Measurement:
    """
    The worker processes of one variant.

    :param processes: number of processes by task ID
    :param seconds: their lifetimes, added up
    :param cpu: their processor time in seconds, added up
    """

    processes: dict[str, int]
    seconds: float
    cpu: float

    @property
    def total(self) -> int:
        return sum(self.processes.values())


def count_processes(lines: Iterable[str], dag_id: str) -> Measurement:
    """
    Count the processes that Airflow started for a DAG's tasks.

    :param lines: the records of ``tasks_plugins/task_processes.py``
    :raises BenchError: if a process has not recorded its end, so that its time is unknown
    """
    created: dict[int, float] = {}
    tasks: dict[tuple[int, float], str] = {}
    seconds = cpu = 0.0
    ended = 0
    for record in map(json.loads, lines):
        pid = record["pid"]
        match record["event"]:
            case "start":
                created[pid] = record["created"]
            case "task" if record["dag_id"] == dag_id:
                # The system reuses process IDs; together with the creation time they are unique.
                tasks[pid, created[pid]] = record["task_id"]
            case "end" if (pid, created[pid]) in tasks:
                seconds, cpu, ended = seconds + record["seconds"], cpu + record["cpu"], ended + 1
    if ended != len(tasks):
        raise BenchError(f"only {ended} of {len(tasks)} processes of {dag_id} have recorded their end")
    return Measurement(dict(Counter(tasks.values())), seconds, cpu)


def run_variant(
    dag_id: str, windows: int, airflow: RealAirflow, sandbox: Sandbox, lake: Path, records: Path
) -> Measurement:
    """
    Run a variant's DAG once.

    :raises BenchError: if the run fails or does not export every window once
    """
    # No export finishes before all are being waited for, or the speed of the machine would decide which waits defer.
    export_seconds, sandbox.export_seconds = sandbox.export_seconds, 24 * 3600
    exports_before = len(sandbox.exports)
    airflow.wait_for_dag(dag_id)
    airflow.unpause(dag_id)
    run_id = airflow.trigger(dag_id)
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=1&state="
    deadline = time.monotonic() + _SECONDS_PER_WINDOW * windows
    while (deferred := airflow.request("GET", f"{path}deferred")["total_entries"]) < windows:
        if airflow.request("GET", f"{path}failed")["total_entries"] or time.monotonic() > deadline:
            raise BenchError(f"{dag_id}: only {deferred} of {windows} waits deferred before a failure or the timeout")
        time.sleep(1)
    sandbox.export_seconds = export_seconds
    state = airflow.wait_for_run(dag_id, run_id, _SECONDS_PER_WINDOW * windows, poll=1)["state"]
    objects = len(list((lake / dag_id).glob("*.csv.gz")))
    exports = len(sandbox.exports) - exports_before
    if (state, objects, exports) != ("success", windows, windows):
        logs = [
            airflow.task_log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])
            for task in airflow.request("GET", f"{path}failed")["task_instances"]
        ]
        message = f"{dag_id}: the run's state is {state}, with {exports} exports and {objects} objects"
        raise BenchError("\n".join([message, *logs]))
    # The last process records its end after its task has succeeded.
    deadline = time.monotonic() + _SECONDS_PER_WINDOW
    while True:
        try:
            return count_processes(records.read_text().splitlines(), dag_id)
        except BenchError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)


def run(windows: int) -> dict[str, Measurement]:
    """Run both variants in one Airflow and return their measurements."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="bench-tasks-") as name, Sandbox(export_seconds=0, customers=50) as sandbox:
        folder = Path(name)
        lake, records = folder / "lake", folder / "processes.jsonl"
        environment = {
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(here / "tasks_plugins"),
            # The DAG files do not change.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            # Where OpenLineage is installed, every process would load its listener.
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
            "AIRFLOW_VAR_BENCH_LAKE": f"file://{lake}",
            "BENCH_TASKS_FILE": str(records),
            "BENCH_TASKS_WINDOWS": str(windows),
        }
        with RealAirflow(folder / "airflow", here / "tasks_dags", environment=environment) as airflow:
            return {dag_id: run_variant(dag_id, windows, airflow, sandbox, lake, records) for dag_id in VARIANTS}


def report(measurements: dict[str, Measurement], windows: int) -> str:
    """Return the measurements as a Markdown table with a description."""
    one, three = (measurements[variant] for variant in VARIANTS)

    def by_task(variant: Measurement) -> str:
        return ", ".join(f"{name.rpartition('.')[2]} {count}" for name, count in variant.processes.items())

    rows = [
        ("worker processes", str(one.total), str(three.total), f"**{one.total / three.total:.2f}**"),
        ("by task", by_task(one), by_task(three), ""),
        ("total lifetime", f"{one.seconds:.0f} s", f"{three.seconds:.0f} s", f"{one.seconds / three.seconds:.2f}"),
        ("processor time", f"{one.cpu:.0f} s", f"{three.cpu:.0f} s", f"{one.cpu / three.cpu:.2f}"),
    ]
    description = (
        f"{windows} mapped windows in Airflow {metadata.version('apache-airflow')} with LocalExecutor; Python "
        f"{platform.python_version()}, {os.cpu_count()} cores. A listener records each process that Airflow starts for "
        "a task. A deferred task takes one before it waits and one after. The exports finish once all are being waited "
        "for. If an export is finished before the sensor's first poll, its three tasks take three processes, not four."
    )
    return f"{markdown_table(('', 'one task', 'three tasks', 'ratio'), rows)}\n\n{paragraph(description)}"


def missed_limits(measurements: dict[str, Measurement]) -> list[str]:
    """Return a message for each limit that the measurements exceed."""
    one, three = (measurements[variant].total for variant in VARIANTS)
    if one <= MAX_PROCESS_RATIO * three:
        return []
    return [f"one_task started {one} processes, three_tasks {three}"]


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark and print its table.

    :param arguments: command line arguments
    :return: exit status: 0, or 1 if the benchmark failed or a limit was exceeded
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench tasks", description="Worker processes of exports with one task and with three."
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_WINDOWS} windows instead of {WINDOWS}")
    parser.add_argument("--write-docs", action="store_true", help="write the table to docs/costs.md")
    options = parser.parse_args(arguments)
    windows = QUICK_WINDOWS if options.quick else WINDOWS
    try:
        measurements = run(windows)
        table = report(measurements, windows)
        print(table)
        if options.write_docs:
            write_docs("tasks", table)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    missed = missed_limits(measurements)
    return report_missed_limits(missed)
