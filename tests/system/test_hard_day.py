# SPDX-License-Identifier: Apache-2.0
"""
A hard day: many runs of the example on a real Airflow with PostgreSQL, while processes are killed and ChartMogul fails.

The disruptions, their times and durations are drawn from a seed. SIGKILL hits tasks during a download or after
ChartMogul has created an export and before it responds, the triggerer with all its waits, and the scheduler with its
tasks or some time before them. ChartMogul becomes unreachable and returns with its data. In the end every run has
succeeded, every object is complete, and there are extra exports only where a worker died between the request and
storing the export's ID.

The long form (``make test-system``) has three days of 60 runs, the short form (``FORM=short``) one day of 12.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.sandbox.active_faults import AddedFault
from dev.real_airflow import RealAirflow
from tests.postgres import postgres_server
from tests.system.crashes import STEP_SECONDS, ObservedSandbox, Worker, is_alive, kill_process_tree, wait_for
from tests.system.example_runs import DAG_ID, ExampleRuns, copy_example
from tests.system.forms import FORM

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(3600)]

CREATE, TRANSFER = "create_export", "transfer"

#: Number of runs in a day, and of disruptions by kind.
FORMS = {
    "short": (12, {"download": 1, "post": 1, "triggerer": 1, "scheduler": 1, "orphans": 1, "sandbox": 1}),
    "long": (60, {"download": 6, "post": 3, "triggerer": 3, "scheduler": 2, "orphans": 1, "sandbox": 4}),
}
SEEDS = {"short": (1,), "long": (1, 2, 3)}

#: Number of tasks and of runs that are active at once.
SLOTS = 8

#: The last try of a task that is killed on its own. The example has three retries, and killed schedulers may use one.
MAX_KILLED_TRY = 2

#: Upper bound for the byte at which a download is interrupted. A day's archive has about 20,000 bytes.
MAX_BYTES = 12_000


@dataclass(frozen=True)
class Disruption:
    """
    A failure that is caused on purpose, once there is something for it to hit.

    :param kind: one of

        * `download`, `post`: a task is killed during its download or its POST
        * `triggerer`: the triggerer is killed
        * `scheduler`: the scheduler is killed with its tasks
        * `orphans`: the scheduler is killed, and its tasks later
        * `sandbox`: ChartMogul is unreachable

    :param after: number of exports that have been created before
    :param delay: seconds from then on
    :param downtime: seconds until the component or ChartMogul returns
    :param with_supervisor: kill the task's supervisor too, so that Airflow has to notice the missing heartbeat
    :param at: number of downloaded bytes after which the task is killed
    """

    kind: str
    after: int
    delay: float
    downtime: float
    with_supervisor: bool
    at: int

    def __str__(self) -> str:
        details = {
            "download": f" at byte {self.at}{', with its supervisor' * self.with_supervisor}",
            "post": f"{', with its supervisor' * self.with_supervisor}",
        }.get(self.kind, f", down for {self.downtime:.1f} s")
        return f"{self.kind} after {self.after} exports and {self.delay:.1f} s{details}"


def draw_disruptions(random_source: random.Random, exports: int, counts: dict[str, int]) -> list[Disruption]:
    """
    Draw a day's disruptions and return them in order.

    :param exports: number of exports that are created in any case
    :param counts: number of disruptions by kind
    """
    disruptions = []
    for kind, count in counts.items():
        # Disruptions of a kind are spread over the day, so that no single task suffers all of them.
        span = (exports - 1) / max(1, count)
        for number in range(count):
            disruption = Disruption(
                kind=kind,
                after=1 + int(number * span + random_source.uniform(0, span)),
                delay=random_source.uniform(0, 5),
                downtime=random_source.uniform(1, 8),
                with_supervisor=random_source.random() < 1 / 3,
                at=random_source.randrange(MAX_BYTES),
            )
            disruptions.append(disruption)
    return sorted(disruptions, key=lambda disruption: disruption.after)


class HardDay:
    """One day with its runs and disruptions."""

    def __init__(self, runs: ExampleRuns, disruptions: list[Disruption]) -> None:
        self._runs, self._airflow, self._sandbox = runs, runs.airflow, runs.sandbox
        self._disruptions = disruptions
        self._started = time.monotonic()
        #: Number of killed tries and other effects by description.
        self.effects: Counter[str] = Counter()
        #: Number of killed tries of ``create_export`` by run. Each of them may have lost an export.
        self.killed_creations: Counter[str] = Counter()
        #: Runs that have lost an export for certain.
        self.runs_with_lost_export: set[str] = set()
        self._killed_tries: set[tuple[str, str, int]] = set()

    def run(self, count: int) -> None:
        """
        Trigger the runs and cause the disruptions.

        :param count: number of runs, including the one that the schedule creates
        """
        # Each disruption triggers a run of its own, so that there is something for it to hit.
        self._runs.trigger(count - len(self._disruptions) - 1)
        for disruption in self._disruptions:
            wait_for(
                f"export {disruption.after}",
                lambda after=disruption.after: len(self._sandbox.exports) >= after,
                every=0.2,
            )
            time.sleep(disruption.delay)
            self._print(str(disruption))
            match disruption.kind:
                case "download":
                    self._kill_during_download(disruption)
                case "post":
                    self._kill_during_post(disruption)
                case "triggerer":
                    self._kill_triggerer(disruption)
                case "scheduler" | "orphans":
                    self._kill_scheduler(disruption)
                case "sandbox":
                    self._stop_sandbox(disruption)

    def _print(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:6.0f} s  {text}", flush=True)

    def _record_kill(self, how: str, task: dict[str, Any]) -> None:
        """Record that a try was killed, unless it was dead already, which Airflow notices late."""
        killed_try = task["dag_run_id"], task["task_id"], task["try_number"]
        if killed_try in self._killed_tries:
            return
        self._killed_tries.add(killed_try)
        self.effects[f"{how}: {task['task_id']}"] += 1
        if task["task_id"] == CREATE:
            self.killed_creations[task["dag_run_id"]] += 1
        self._print(f"{how}: {task['task_id']} of {task['dag_run_id']}, try {task['try_number']}")

    # ------------------------------------------------------------------------------------------ workers

    def _running_task(self, day: datetime, task_id: str) -> tuple[dict[str, Any], Worker]:
        """Return a running task and its worker."""
        task = self._airflow.task_instance(DAG_ID, self._runs.ids_by_day()[day], task_id)
        assert task["state"] == "running", task
        return task, Worker.of_task(int(task["pid"]))

    def _kill_during_download(self, disruption: Disruption) -> None:
        """Stall a download and kill its task."""
        self._runs.trigger(1)
        for at in itertools.count(disruption.at):
            with self._sandbox.faulty(f"download:stall;at={at};times=1") as (stall,):
                path = wait_for("a stalled download", partial(self._stalled_path, stall), every=0.1)
                export = self._sandbox.export_by_path(path)
                assert export is not None
                assert export.parameters.start is not None
                task, worker = self._running_task(export.parameters.start, TRANSFER)
                if task["try_number"] <= MAX_KILLED_TRY:
                    break
            # The task resumes its download, and another download is stalled.
            self._print(f"spared: {task['task_id']} of {task['dag_run_id']}, try {task['try_number']}")
        worker.kill(with_supervisor=disruption.with_supervisor)
        wait_for("the end of the killed task", lambda: not is_alive(worker.task))
        last = [request for request in self._sandbox.requests if request.path == path][-1]
        assert last.fault == str(stall.fault), "the download had been resumed before the kill"
        self._record_kill("killed during its download", task)

    def _stalled_path(self, stall: AddedFault) -> str | None:
        """Return the path of the request that the fault has hit, if there is one."""
        fault = str(stall.fault)
        return next((request.path for request in self._sandbox.requests if request.fault == fault), None)

    def _kill_during_post(self, disruption: Disruption) -> None:
        """Kill the task that creates the next export before it receives the response."""
        killed: Future[dict[str, Any]] = Future()

        def kill(day: datetime) -> None:
            # Runs in the sandbox's thread, which sends no response meanwhile.
            try:
                task, worker = self._running_task(day, CREATE)
                if task["try_number"] > MAX_KILLED_TRY:
                    return
                worker.kill(with_supervisor=disruption.with_supervisor)
                wait_for("the end of the killed task", lambda: not is_alive(worker.task))
            except BaseException as error:
                killed.set_exception(error)
            else:
                killed.set_result(task)
            self._sandbox.on_export = None

        self._sandbox.on_export = kill
        self._runs.trigger(1)
        task = killed.result(STEP_SECONDS)
        self.runs_with_lost_export.add(task["dag_run_id"])
        self._record_kill("killed during its POST", task)

    # --------------------------------------------------------------------------------------- components

    def _stop_sandbox(self, disruption: Disruption) -> None:
        """Make ChartMogul unreachable for a while. It keeps its exports."""
        self._runs.trigger(1)
        self._sandbox.stop()
        time.sleep(disruption.downtime)
        self._sandbox.start()
        self.effects["ChartMogul was unreachable"] += 1

    def _kill_triggerer(self, disruption: Disruption) -> None:
        self._runs.trigger(1)
        wait_for("a deferred wait", lambda: self._runs.tasks("deferred"), every=0.1)
        self._airflow.kill("triggerer")
        waits = len(self._runs.tasks("deferred"))
        self.effects["triggerer killed"] += 1
        self.effects["waits of a killed triggerer"] += waits
        self._print(f"killed the triggerer with {waits} waits")
        time.sleep(disruption.downtime)
        self._airflow.start("triggerer", healthy_within=None)

    def _has_living_task(self) -> bool:
        return any(is_alive(int(task["pid"])) for task in self._runs.tasks("running"))

    def _kill_scheduler(self, disruption: Disruption) -> None:
        """
        Kill the scheduler with its tasks, or first alone.

        Orphaned tasks continue until they are killed before the scheduler starts again, as service managers do.
        Airflow does not recover if they live on: they keep the dead scheduler's database connections open, and with
        them the locks of its transaction.
        """
        alone = disruption.kind == "orphans"
        self._runs.trigger(1)
        wait_for("a running task", self._has_living_task, every=0.1)
        # Tasks take a second or two. The kill comes at a random moment of one.
        time.sleep(disruption.delay / 5)
        orphans = self._airflow.kill("scheduler", alone=alone)
        self.effects["scheduler killed alone" if alone else "scheduler killed with its tasks"] += 1
        if alone:
            for task in self._runs.tasks("running"):
                self._print(f"orphaned: {task['task_id']} of {task['dag_run_id']}, try {task['try_number']}")
                self.effects["orphaned tasks"] += 1
            time.sleep(disruption.downtime)
            for pid in orphans:
                kill_process_tree(pid)
        # Busy processes take a moment to end.
        time.sleep(1)
        # Without a scheduler nothing updates their state, so the dead tasks are still listed as running.
        for task in self._runs.tasks("running"):
            self._record_kill("killed as an orphan" if alone else "killed with the scheduler", task)
        if not alone:
            time.sleep(disruption.downtime)
        self._airflow.start("scheduler", healthy_within=None)


@contextmanager
def airflow_on_postgres(folder: Path, sandbox: ObservedSandbox) -> Iterator[tuple[RealAirflow, Path, Path]]:
    """Run Airflow with ``SLOTS`` tasks at once, and yield it with the folders for objects and for temporary files."""
    dags, lake, temporary = (folder / name for name in ("dags", "lake", "temporary"))
    for new_folder in (dags, lake, temporary):
        new_folder.mkdir()
    copy_example(dags, max_active_runs=SLOTS)
    # With a long timeout, a stalled download does not end before its task is killed.
    connection = {**json.loads(sandbox.connection_json), "extra": {"timeout": 120}}
    with postgres_server() as database:
        environment = {
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": json.dumps(connection),
            "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{lake}",
            "AIRFLOW__CORE__PARALLELISM": str(SLOTS),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            # Detect killed supervisors, triggerers and schedulers sooner than by default, but not so soon that living
            # ones on a busy machine are considered dead.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "TMPDIR": str(temporary),
        }
        with RealAirflow(
            folder / "airflow", dags, environment=environment, boot_timeout=600, database=database
        ) as airflow:
            yield airflow, lake, temporary


@pytest.mark.parametrize("seed", SEEDS[FORM])
def test_every_run_of_a_hard_day_succeeds(seed: int, tmp_path: Path) -> None:
    count, counts = FORMS[FORM]
    disruptions = draw_disruptions(random.Random(seed), count - sum(counts.values()), counts)
    print(f"\nhard day with seed {seed}: {count} runs, {counts}")
    sandbox = ObservedSandbox(export_seconds=8, customers=3000)
    with sandbox, airflow_on_postgres(tmp_path, sandbox) as (airflow, lake, temporary):
        runs = ExampleRuns(airflow, sandbox, lake)
        started = time.monotonic()
        day = HardDay(runs, disruptions)
        day.run(count)
        finished = runs.wait_until_finished(timeout=2400)
        seconds = time.monotonic() - started

        exports = {run["dag_run_id"]: len(sandbox.export_ids_from(runs.window(run)[0])) for run in finished}
        responses = Counter(f"{request.host} {request.status or 'none'}" for request in sandbox.requests)
        print(f"runs: {len(finished)}, {dict(Counter(run['state'] for run in finished))}")
        print(f"disruptions: {dict(day.effects)}")
        print(
            f"POSTs: {sandbox.count_requests('POST')}; extra exports: {sum(exports.values()) - len(finished)}, with "
            f"{day.killed_creations.total()} killed tries that may have lost one"
        )
        print(f"retries: {sum(max(0, task['try_number'] - 1) for task in runs.tasks())}")
        print(f"responses: {dict(responses)}")
        print(f"longest run: {max(duration(run) for run in finished):.0f} s, all runs: {seconds:.0f} s")

        runs.check(finished)
        extra = {run_id: number - 1 for run_id, number in exports.items() if number != 1}
        assert extra.keys() >= day.runs_with_lost_export
        assert all(number <= day.killed_creations[run_id] for run_id, number in extra.items()), (
            extra,
            day.killed_creations,
        )
        posts = [request for request in sandbox.requests if request.method == "POST" and request.status == 200]
        assert len(posts) == len(sandbox.exports) == len(finished) + sum(extra.values())
        # There is no response if the client was killed or ChartMogul became unreachable.
        expected = {"api 200", "api none", "download 200", "download 206", "download none"}
        assert responses.keys() <= expected, "the account's limits were exceeded"
        assert list(temporary.glob(".chartmogul*")) == [], "temporary files of killed tasks were not removed"


def duration(run: dict[str, Any]) -> float:
    start, end = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return (end - start).total_seconds()
