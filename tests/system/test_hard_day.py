# SPDX-License-Identifier: Apache-2.0
"""
A hard day: many runs of the example in a real Airflow on PostgreSQL, while its processes die and ChartMogul is away.

What happens, when, and for how long is drawn from a seed. Processes are ended by SIGKILL: those of a task in the middle
of its download, or when ChartMogul has made an export and not yet said so, the triggerer with all that it waits for,
the scheduler with the tasks it runs, or a while before them. ChartMogul goes away and comes back with what it knew. In
the end every run is a success, every object whole, and an export too many there is only where a worker died between
the request and its note.

The long form (``make test-system``) is three days of 60 runs, the short one (``FORM=short``) a day of 12.
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
from tests.system.crashes import PATIENCE, ObservedSandbox, Worker, is_alive, kill_family, wait_for
from tests.system.example_runs import DAG_ID, ExampleRuns, copy_example
from tests.system.forms import FORM

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(3600)]

CREATE, MOVE = "create_export", "move_to_storage"

#: How many runs a day has, and how often each thing happens.
FORMS = {
    "short": (12, {"download": 1, "post": 1, "triggerer": 1, "scheduler": 1, "orphans": 1, "sandbox": 1}),
    "long": (60, {"download": 6, "post": 3, "triggerer": 3, "scheduler": 2, "orphans": 1, "sandbox": 4}),
}
SEEDS = {"short": (1,), "long": (1, 2, 3)}

#: So many tasks, and so many runs, are under way at a time.
SLOTS = 8

#: The last try of a task that is killed by itself: the example has three retries, and schedulers may take one.
MOST_KILLED = 2

#: Bytes of a download that arrive before its worker is killed; a day's archive has some 20,000.
MOST_BYTES = 12_000


@dataclass(frozen=True)
class Blow:
    """
    One thing that happens.

    :param kind: ``download`` or ``post``: a task is killed there; ``triggerer`` or ``scheduler``: it is, with all its
        processes; ``orphans``: the scheduler, and they only later; ``sandbox``: ChartMogul is away
    :param after: it comes when so many exports have been made,
    :param delay: and so many seconds have passed then; at the next moment at which there is something to hit
    :param away: for so many seconds it is away
    :param with_supervisor: the task's supervisor dies too, so that nobody tells Airflow
    :param at: after so many bytes of the download
    """

    kind: str
    after: int
    delay: float
    away: float
    with_supervisor: bool
    at: int

    def __str__(self) -> str:
        """As it is printed, so that a day can be read afterwards."""
        details = {
            "download": f" at byte {self.at}{', with its supervisor' * self.with_supervisor}",
            "post": f"{', with its supervisor' * self.with_supervisor}",
        }.get(self.kind, f", away for {self.away:.1f} s")
        return f"{self.kind} after {self.after} exports and {self.delay:.1f} s{details}"


def drawn_day(draw: random.Random, exports: int, counts: dict[str, int]) -> list[Blow]:
    """All that happens on one day, in its order.

    :param exports: how many are made whatever happens
    """
    blows = []
    for kind, count in counts.items():
        # Each has its part of the day, so that no task is hit by all of a kind.
        span = (exports - 1) / max(1, count)
        for number in range(count):
            blow = Blow(
                kind=kind,
                after=1 + int(number * span + draw.uniform(0, span)),
                delay=draw.uniform(0, 5),
                away=draw.uniform(1, 8),
                with_supervisor=draw.random() < 1 / 3,
                at=draw.randrange(MOST_BYTES),
            )
            blows.append(blow)
    return sorted(blows, key=lambda blow: blow.after)


class HardDay:
    """One day: its runs, and what happens to them."""

    def __init__(self, runs: ExampleRuns, blows: list[Blow]) -> None:
        self._runs, self._airflow, self._sandbox = runs, runs.airflow, runs.sandbox
        self._blows = blows
        self._began = time.monotonic()
        #: What was hit, and how often; how often a run's POST may have been; and where it was, for certain.
        self.hits: Counter[str] = Counter()
        self.creates: Counter[str] = Counter()
        self.lost: set[str] = set()
        self._dead: set[tuple[str, str, int]] = set()

    def go_through(self, count: int) -> None:
        """Make the runs, and let happen what is to happen.

        :param count: of runs, the schedule's own included
        """
        # Each blow brings a run with it, so that there is sure to be something to hit.
        self._runs.trigger(count - len(self._blows) - 1)
        for blow in self._blows:
            wait_for(f"export {blow.after}", lambda blow=blow: len(self._sandbox.exports) >= blow.after, every=0.2)
            time.sleep(blow.delay)
            self._say(str(blow))
            match blow.kind:
                case "download":
                    self._kill_downloading(blow)
                case "post":
                    self._kill_posting(blow)
                case "triggerer":
                    self._kill_triggerer(blow)
                case "scheduler" | "orphans":
                    self._kill_scheduler(blow)
                case "sandbox":
                    self._go_away(blow)

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {what}", flush=True)

    def _hit(self, how: str, task: dict[str, Any]) -> None:
        """Note that a try was hit, if it was alive until now; Airflow is slow to find out about supervisors."""
        this_try = task["dag_run_id"], task["task_id"], task["try_number"]
        if this_try in self._dead:
            return
        self._dead.add(this_try)
        self.hits[f"{how}: {task['task_id']}"] += 1
        if task["task_id"] == CREATE:
            self.creates[task["dag_run_id"]] += 1
        self._say(f"{how}: {task['task_id']} of {task['dag_run_id']}, try {task['try_number']}")

    # ------------------------------------------------------------------------------------------ workers

    def _task(self, day: datetime, task_id: str) -> tuple[dict[str, Any], Worker]:
        """A task that runs, and its processes."""
        task = self._airflow.task_instance(DAG_ID, self._runs.by_day()[day], task_id)
        assert task["state"] == "running", task
        return task, Worker.of(int(task["pid"]))

    def _kill_downloading(self, blow: Blow) -> None:
        """Let a download stop in its middle, and kill who is at it."""
        self._runs.trigger(1)
        for at in itertools.count(blow.at):
            with self._sandbox.faulty(f"download:stall;at={at};times=1") as (stall,):
                path = wait_for("a download", partial(self._stalled, stall), every=0.1)
                export = self._sandbox.export_by_path(path)
                assert export is not None
                assert export.parameters.start is not None
                task, worker = self._task(export.parameters.start, MOVE)
                if task["try_number"] <= MOST_KILLED:
                    break
            # It goes on where it stopped, as after any break.
            self._say(f"spared: {task['task_id']} of {task['dag_run_id']}, try {task['try_number']}")
        worker.kill(with_supervisor=blow.with_supervisor)
        wait_for("the worker's death", lambda: not is_alive(worker.task))
        last = [seen for seen in self._sandbox.requests if seen.path == path][-1]
        assert last.fault == str(stall.fault), "it had gone on meanwhile"
        self._hit("killed in a download", task)

    def _stalled(self, stall: AddedFault) -> str | None:
        """The path of the download that a fault has hit."""
        fault = str(stall.fault)
        return next((seen.path for seen in self._sandbox.requests if seen.fault == fault), None)

    def _kill_posting(self, blow: Blow) -> None:
        """When the next export is made, kill who asked for it before the answer is sent."""
        struck: Future[dict[str, Any]] = Future()

        def strike(day: datetime) -> None:
            # In the sandbox's thread, which answers nobody meanwhile.
            try:
                task, worker = self._task(day, CREATE)
                if task["try_number"] > MOST_KILLED:
                    return
                worker.kill(with_supervisor=blow.with_supervisor)
                wait_for("the worker's death", lambda: not is_alive(worker.task))
            except BaseException as error:
                struck.set_exception(error)
            else:
                struck.set_result(task)
            self._sandbox.when_any_made = None

        self._sandbox.when_any_made = strike
        self._runs.trigger(1)
        task = struck.result(PATIENCE)
        self.lost.add(task["dag_run_id"])
        self._hit("killed in a POST", task)

    # --------------------------------------------------------------------------------------- components

    def _go_away(self, blow: Blow) -> None:
        """Let ChartMogul be out of reach for a while; it knows afterwards what it knew before."""
        self._runs.trigger(1)
        self._sandbox.stop()
        time.sleep(blow.away)
        self._sandbox.start()
        self.hits["ChartMogul was away"] += 1

    def _kill_triggerer(self, blow: Blow) -> None:
        self._runs.trigger(1)
        wait_for("a wait", lambda: self._runs.tasks("deferred"), every=0.1)
        self._airflow.kill("triggerer")
        waits = len(self._runs.tasks("deferred"))
        self.hits["triggerer"] += 1
        self.hits["waits of a killed triggerer"] += waits
        self._say(f"the triggerer was killed, which had {waits} waits")
        time.sleep(blow.away)
        self._airflow.start("triggerer", healthy_within=None)

    def _has_living_task(self) -> bool:
        return any(is_alive(int(task["pid"])) for task in self._runs.tasks("running"))

    def _kill_scheduler(self, blow: Blow) -> None:
        """
        Kill it with its tasks, or alone.

        Then they go on until what has started the scheduler ends what is left of it before it starts it anew, as
        service managers do. Airflow itself does not survive workers that are left for good: they hold the dead
        scheduler's connections to the database open, and with them the locks of a transaction that nobody ends.
        """
        alone = blow.kind == "orphans"
        self._runs.trigger(1)
        wait_for("a task that runs", self._has_living_task, every=0.1)
        # Somewhere in its second or two.
        time.sleep(blow.delay / 5)
        left = self._airflow.kill("scheduler", alone=alone)
        self.hits["scheduler alone" if alone else "scheduler and its tasks"] += 1
        if alone:
            for task in self._runs.tasks("running"):
                self._say(f"orphaned: {task['task_id']} of {task['dag_run_id']}, try {task['try_number']}")
                self.hits["orphaned"] += 1
            time.sleep(blow.away)
            for pid in left:
                kill_family(pid)
        # A process that is busy takes a moment to die.
        time.sleep(1)
        # While there is no scheduler, nobody finds out, and they are all still said to run.
        for task in self._runs.tasks("running"):
            self._hit("killed with the scheduler" if not alone else "killed as an orphan", task)
        if not alone:
            time.sleep(blow.away)
        self._airflow.start("scheduler", healthy_within=None)


@contextmanager
def hard_airflow(folder: Path, sandbox: ObservedSandbox) -> Iterator[tuple[RealAirflow, Path, Path]]:
    """Airflow on PostgreSQL with 8 slots; what its tasks write to is ``lake``, and ``scratch`` for temporary files."""
    dags, lake, scratch = (folder / name for name in ("dags", "lake", "scratch"))
    for made in (dags, lake, scratch):
        made.mkdir()
    copy_example(dags, max_active_runs=SLOTS)
    # Patient, so that who is stopped in the middle of a download is still there when he is to be killed.
    connection = {**json.loads(sandbox.connection_json), "extra": {"timeout": 120}}
    with postgres_server() as database:
        environment = {
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": json.dumps(connection),
            "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{lake}",
            "AIRFLOW__CORE__PARALLELISM": str(SLOTS),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            # So soon is missed what was killed: a task whose supervisor was too, a triggerer, and a scheduler's tasks
            # when it has not been heard of for half a minute. On a busy machine, the living are not missed so soon.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "TMPDIR": str(scratch),
        }
        with RealAirflow(
            folder / "airflow", dags, environment=environment, boot_timeout=600, database=database
        ) as airflow:
            yield airflow, lake, scratch


@pytest.mark.parametrize("seed", SEEDS[FORM])
def test_every_run_of_a_hard_day_is_a_success(seed: int, tmp_path: Path) -> None:
    count, counts = FORMS[FORM]
    blows = drawn_day(random.Random(seed), count - sum(counts.values()), counts)
    print(f"\na hard day with seed {seed}: {count} runs, {counts}")
    sandbox = ObservedSandbox(export_seconds=8, customers=3000)
    with sandbox, hard_airflow(tmp_path, sandbox) as (airflow, lake, scratch):
        runs = ExampleRuns(airflow, sandbox, lake)
        began = time.monotonic()
        day = HardDay(runs, blows)
        day.go_through(count)
        ended = runs.wait_until_over(patience=2400)
        seconds = time.monotonic() - began

        made = {run["dag_run_id"]: len(sandbox.made_from(runs.window(run)[0])) for run in ended}
        answers = Counter(f"{seen.host} {seen.status or 'none'}" for seen in sandbox.requests)
        print(f"runs: {len(ended)}, {dict(Counter(run['state'] for run in ended))}")
        print(f"hits: {dict(day.hits)}")
        print(
            f"POSTs: {sandbox.count('POST')}; exports too many: {sum(made.values()) - len(ended)}, where "
            f"{sum(day.creates.values())} tries were hit that could have cost one"
        )
        print(f"retries: {sum(max(0, task['try_number'] - 1) for task in runs.tasks())}")
        print(f"answers: {dict(answers)}")
        print(f"longest run: {max(duration(run) for run in ended):.0f} s, all: {seconds:.0f} s")

        assert len(ended) == count
        runs.check(ended)
        too_many = {run_id: number - 1 for run_id, number in made.items() if number != 1}
        assert too_many.keys() >= day.lost, "an export that was made, and nobody was told"
        assert all(number <= day.creates[run_id] for run_id, number in too_many.items()), (too_many, day.creates)
        posts = [seen for seen in sandbox.requests if seen.method == "POST" and seen.status == 200]
        assert len(posts) == len(sandbox.exports) == count + sum(too_many.values())
        # None is an answer to somebody who was killed, or one that ChartMogul's going away has cut off.
        usual = {"api 200", "api none", "download 200", "download 206", "download none"}
        assert answers.keys() <= usual, "never over the account's limits"
        assert list(scratch.glob(".chartmogul*")) == [], "what killed tasks left is removed by those after them"


def duration(run: dict[str, Any]) -> float:
    start, end = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return (end - start).total_seconds()
