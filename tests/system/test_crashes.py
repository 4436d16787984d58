# SPDX-License-Identifier: Apache-2.0
"""
Tests the consequences of crashes in a real Airflow.

A killed worker may lose an export only between the POST and the moment Airflow has stored its ID; a killed triggerer
loses nothing. Processes are killed with SIGKILL: tasks and their supervisors at certain points of the task and at
random times drawn from a fixed seed, and triggerers with all their waits. What a kill has interrupted is determined
afterwards from the sandbox's exports and from what Airflow has stored, not from the clock.
"""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import FINISHED_RUN_STATES, RealAirflow
from tests.system.crashes import STEP_SECONDS, ObservedSandbox, Worker, is_alive, wait_for

# The timeout is long, since many tasks take a while on a machine that is busy with other things.
pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(1800)]

WAITS = 200

#: A connection's default share in requests a second. In a part of these tests it is the whole account's limit.
SHARE = 10


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ObservedSandbox]:
    with ObservedSandbox(export_seconds=24 * 3600) as running:
        yield running


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def airflow(
    sandbox: Sandbox, checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    for file in (Path(__file__).parent / "crash_dags").glob("*.py"):
        shutil.copy(file, dags)
    fast = {**json.loads(sandbox.connection_json), "extra": {"requests_per_second": 30}}
    environment = {
        "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
        "AIRFLOW_CONN_CHARTMOGUL_FAST": json.dumps(fast),
        "CHECKPOINTS_FOLDER": str(checkpoints.folder),
        "AIRFLOW__CORE__PARALLELISM": "8",
        # The DAG files do not change.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        # Detect killed supervisors and triggerers sooner than by default.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    }
    with RealAirflow(tmp_path_factory.mktemp("airflow"), dags, environment=environment) as running:
        for dag_id in ("killed", "waits", "deadlines"):
            running.wait_for_dag(dag_id)
            running.unpause(dag_id)
        yield running


# ------------------------------------------------------------------------------------------ killed workers


@dataclass(frozen=True)
class Checkpoints:
    """The folder in which tries of ``crash_dags/killed.py`` report their checkpoints and get permission to continue."""

    folder: Path

    def worker_at(self, run_id: str, try_number: int, name: str) -> Worker | None:
        """Return the worker of a try that has reached a checkpoint; otherwise ``None``."""
        try:
            task, supervisor = (self.folder / f"{run_id}.{try_number}.{name}").read_text().split()
        except FileNotFoundError:
            return None
        return Worker(int(task), int(supervisor))

    def wait_for(self, run_id: str, try_number: int, name: str) -> Worker:
        return wait_for(
            f"checkpoint {name!r} of try {try_number} of {run_id}",
            lambda: self.worker_at(run_id, try_number, name),
            every=0.01,
        )

    def let_continue(self, run_id: str, try_number: int, *names: str) -> None:
        for name in names:
            (self.folder / f"{run_id}.{try_number}.{name}.continue").touch()


#: When tries are killed, in the order in which a task suffers them:
#:
#: * `before`: before the request
#: * `created`: when the export has been created, and before the response is sent
#: * `responded`: at a random time after the response
#: * `running`: at a random time after the start
#: * `returned`: when the operator has returned
MOMENTS = ("before", "created", "responded", "running", "returned")

#: When the last try is killed: at a random time after the operator has returned, or after Airflow stored the success.
LAST_MOMENTS = ("returning", "success")


@dataclass(frozen=True)
class Kill:
    """
    When and how a try is killed.

    :param moment: one of ``MOMENTS`` or ``LAST_MOMENTS``
    :param delay: seconds after the moment
    :param with_supervisor: kill the supervisor too, so that Airflow has to notice the missing heartbeat
    """

    moment: str
    delay: float
    with_supervisor: bool = False


@dataclass
class Outcome:
    """
    The consequences of one run's kills.

    :param interrupted: for each kill its moment and what it interrupted
    :param lost: number of exports that were created and whose ID was not stored
    """

    interrupted: list[str] = field(default_factory=list)
    lost: int = 0


def draw_plans(random_source: random.Random) -> list[list[Kill]]:
    """Draw four kills for each of five runs. One of the first three kills takes the supervisor, too."""
    moments = ["before"] * 3 + ["created"] * 3 + ["responded"] * 4 + ["running"] * 3 + ["returned"] * 2
    last_moments = ["returning"] * 3 + ["success"] * 2
    random_source.shuffle(moments)
    random_source.shuffle(last_moments)
    max_delays = {"responded": 0.03, "running": 0.6, "returning": 0.03}
    plans = []
    for number in range(5):
        of_the_run = sorted(moments[3 * number : 3 * number + 3], key=MOMENTS.index)
        with_supervisor = random_source.randrange(3)
        plan = [
            Kill(moment, random_source.uniform(0, max_delays.get(moment, 0.0)), index == with_supervisor)
            for index, moment in enumerate(of_the_run)
        ]
        last = last_moments[number]
        plans.append([*plan, Kill(last, random_source.uniform(0, max_delays.get(last, 0.0)))])
    return plans


class KilledRun:
    """One run of ``crash_dags/killed.py``, whose tries are killed one after another."""

    def __init__(self, airflow: RealAirflow, sandbox: ObservedSandbox, checkpoints: Checkpoints, day: datetime) -> None:
        self._airflow, self._sandbox, self._checkpoints, self.day = airflow, sandbox, checkpoints, day
        self.run_id = f"{day:%Y-%m-%d}"
        airflow.trigger("killed", run_id=self.run_id, conf={"day": self.run_id})

    def created(self) -> list[str]:
        """Return the IDs of the exports that ChartMogul has created for this run."""
        return self._sandbox.export_ids_from(self.day)

    def stored(self) -> str | None:
        """Return the export ID in Airflow's state store for the task."""
        path = f"/api/v2/dags/killed/dagRuns/{self.run_id}/taskInstances/create/state-store"
        rows = self._airflow.request("GET", path)["task_state_store"]
        return str(rows[0]["value"]["export_id"]) if rows else None

    def state(self) -> str:
        return str(self._airflow.task_instance("killed", self.run_id, "create")["state"])

    def result(self) -> str:
        return str(self._airflow.xcom("killed", self.run_id, "create"))

    def finish(self, try_number: int) -> None:
        """Let a try continue to its end, if it starts at all, and wait until the run has finished."""
        self._checkpoints.let_continue(self.run_id, try_number, "before", "after", "success")
        wait_for(f"the end of run {self.run_id}", self._has_finished, every=0.5)
        assert self.state() == "success"

    def kill_tries(self, plan: list[Kill]) -> Outcome:
        """Kill one try after another, check the consequences after each, and finish the run."""
        outcome = Outcome()
        created, stored = 0, None
        for try_number, kill in enumerate(plan[:-1], 1):
            self._kill(try_number, kill)
            # Once the next try has started, the consequences of this one are complete.
            self._checkpoints.wait_for(self.run_id, try_number + 1, "before")
            stored_before, created_before = stored, created
            created, stored = len(self.created()), self.stored()
            new = created - created_before
            message = f"try {try_number} of {self.run_id}, {kill}"
            if stored_before is not None:
                assert (new, stored) == (0, stored_before), f"{message}: the stored export was not resumed"
                interrupted = "resumption"
            elif new == 0:
                assert stored is None, message
                assert kill.moment in ("before", "running"), message
                interrupted = "before the POST"
            else:
                assert new == 1, message
                assert kill.moment != "before", message
                if stored is None:
                    assert kill.moment in ("created", "responded", "running"), f"{message}: the export was not stored"
                    outcome.lost += 1
                    interrupted = "between POST and storing"
                else:
                    assert stored == self.created()[-1], message
                    assert kill.moment != "created", message
                    interrupted = "after storing"
            outcome.interrupted.append(f"{kill.moment}: {interrupted}")
        try_number, kill = len(plan), plan[-1]
        self._kill(try_number, kill)
        self.finish(try_number + 1)
        retried = self._checkpoints.worker_at(self.run_id, try_number + 1, "before") is not None
        assert not (retried and kill.moment == "success"), f"{self.run_id} was retried after its success"
        outcome.interrupted.append(f"{kill.moment}: {'before' if retried else 'after'} the success")
        return outcome

    def _has_finished(self) -> bool:
        return self._airflow.run("killed", self.run_id)["state"] in FINISHED_RUN_STATES

    def _kill(self, try_number: int, kill: Kill) -> None:
        """Let a try continue to a moment, and kill it there."""
        worker = self._checkpoints.wait_for(self.run_id, try_number, "before")

        def strike() -> None:
            worker.kill(with_supervisor=kill.with_supervisor)

        created = threading.Event()
        self._sandbox.on_export_from[self.day] = strike if kill.moment == "created" else created.set
        if kill.moment != "before":
            self._checkpoints.let_continue(self.run_id, try_number, "before")
        if kill.moment in LAST_MOMENTS:
            self._checkpoints.let_continue(self.run_id, try_number, "after")
        if kill.moment == "responded":
            # A try that resumes an export sends no POST.
            wait_for(
                f"a POST of {self.run_id}",
                lambda: created.is_set() or self._checkpoints.worker_at(self.run_id, try_number, "after"),
                every=0.001,
            )
        elif kill.moment == "created":
            wait_for(f"the end of the killed task of {self.run_id}", lambda: not is_alive(worker.task))
        elif kill.moment == "success":
            self._checkpoints.wait_for(self.run_id, try_number, "success")
        elif kill.moment in ("returned", "returning"):
            self._checkpoints.wait_for(self.run_id, try_number, "after")
        time.sleep(kill.delay)
        strike()
        del self._sandbox.on_export_from[self.day]


def test_killed_worker_loses_an_export_only_between_the_post_and_storing_its_id(
    airflow: RealAirflow, sandbox: ObservedSandbox, checkpoints: Checkpoints
) -> None:
    plans = draw_plans(random.Random(20260301))
    runs = [
        KilledRun(airflow, sandbox, checkpoints, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number))
        for number in range(len(plans))
    ]
    started = time.monotonic()
    with ThreadPoolExecutor(len(runs)) as pool:
        outcomes = list(pool.map(KilledRun.kill_tries, runs, plans))
    interrupted = Counter(text for outcome in outcomes for text in outcome.interrupted)
    print(f"{interrupted.total()} kills in {time.monotonic() - started:.0f} s: {dict(sorted(interrupted.items()))}")

    for run, outcome in zip(runs, outcomes, strict=True):
        assert len(run.created()) == 1 + outcome.lost, outcome
        assert run.result() == run.stored() == run.created()[-1]
    assert interrupted.total() == 20
    assert interrupted["created: between POST and storing"] == 3
    assert sum(outcome.lost for outcome in outcomes) <= 10


def test_clear_creates_a_new_export_that_a_retry_resumes(
    airflow: RealAirflow, sandbox: ObservedSandbox, checkpoints: Checkpoints
) -> None:
    run = KilledRun(airflow, sandbox, checkpoints, datetime(2024, 2, 1, tzinfo=UTC))
    run.finish(1)
    (first,) = run.created()
    assert run.result() == first
    airflow.clear("killed", run.run_id, ["create"])
    checkpoints.let_continue(run.run_id, 2, "before")
    checkpoints.wait_for(run.run_id, 2, "after").kill(with_supervisor=False)
    run.finish(3)

    assert run.created()[0] == first
    (second,) = run.created()[1:]
    assert run.result() == run.stored() == second


# --------------------------------------------------------------------------------------- killed triggerers


class WaitsRun:
    """One run of ``crash_dags/waits.py``, which has many waits."""

    def __init__(self, airflow: RealAirflow, sandbox: ObservedSandbox) -> None:
        self._airflow, self._sandbox = airflow, sandbox
        self._posts_before = sandbox.count_requests("POST")
        self.run_id = airflow.trigger("waits", conf={"count": WAITS})

    def states(self) -> Counter[str]:
        states: Counter[str] = Counter()
        for offset in range(0, WAITS, 100):
            path = f"/api/v2/dags/waits/dagRuns/{self.run_id}/taskInstances?task_id=wait&limit=100&offset={offset}"
            states.update(str(ti["state"]) for ti in self._airflow.request("GET", path)["task_instances"])
        return states

    def posts(self) -> int:
        return self._sandbox.count_requests("POST") - self._posts_before

    def export_ids(self) -> set[str]:
        return set(self._airflow.xcom("waits", self.run_id, "create"))


@pytest.fixture(scope="module")
def waits(airflow: RealAirflow, sandbox: ObservedSandbox) -> WaitsRun:
    """Start the run. Its waits defer one by one, while the test that requests this first does something else."""
    return WaitsRun(airflow, sandbox)


def polls_since(sandbox: Sandbox, moment: float) -> Counter[str]:
    """
    Count the polls of each export.

    :param moment: start of the count, on the monotonic clock
    """
    return Counter(
        request.path.rpartition("/")[2]
        for request in sandbox.requests
        if request.method == "GET" and request.started >= moment
    )


def refusals(sandbox: Sandbox) -> list[int]:
    """Return the statuses other than 200, and other than 0, which means that the client was killed while it waited."""
    return [request.status for request in sandbox.requests if request.status not in (200, 0)]


def has_polled_all(sandbox: Sandbox, export_ids: set[str], since: float) -> bool:
    assert refusals(sandbox) == [], "the account's limits were exceeded"
    return export_ids <= polls_since(sandbox, since).keys()


def test_deadlines_hold_while_no_triggerer_runs(
    airflow: RealAirflow, sandbox: ObservedSandbox, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A wait that resumes after its deadline polls once more, and its timeout does not start again."""
    stopwatch = Stopwatch()
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
    with ChartMogulHook() as hook, monkeypatch.context() as context:
        context.setattr(sandbox, "outcome", "never")
        export_ids = {name: hook.create_activities_export().id for name in ("hard", "soft")}
    run_id = airflow.trigger("deadlines", conf=export_ids)

    def states() -> dict[str, str]:
        return {ti["task_id"]: ti["state"] for ti in airflow.task_instances("deadlines", run_id)}

    wait_for("two deferred waits", lambda: states() == {"hard": "deferred", "soft": "deferred"}, every=0.3)
    stopwatch.lap("both waits are deferred")
    airflow.kill("triggerer")
    deadline = time.monotonic() + 40
    assert states() == {"hard": "deferred", "soft": "deferred"}
    # The waits of the next test start meanwhile, which does not need a triggerer.
    request.getfixturevalue("waits")
    time.sleep(deadline - time.monotonic() + 1)
    assert states() == {"hard": "deferred", "soft": "deferred"}, "a wait ended without a triggerer"
    restarted = time.monotonic()
    airflow.start("triggerer")
    stopwatch.lap("the triggerer is running again")
    run = airflow.wait_for_run("deadlines", run_id, timeout=STEP_SECONDS)
    stopwatch.lap("both waits have ended")

    assert run["state"] == "failed"
    assert states() == {"hard": "failed", "soft": "skipped"}
    tries = {ti["task_id"]: ti["try_number"] for ti in airflow.task_instances("deadlines", run_id)}
    assert tries == {"hard": 1, "soft": 1}, "a timeout was retried"
    polls = polls_since(sandbox, restarted)
    assert {name: polls[export_id] for name, export_id in export_ids.items()} == {"hard": 1, "soft": 1}
    for name in export_ids:
        assert "did not finish within the task's timeout; its last status was" in airflow.task_log(
            "deadlines", run_id, name, 1
        )


def test_200_waits_survive_two_kills_of_the_triggerer(
    airflow: RealAirflow, sandbox: ObservedSandbox, waits: WaitsRun
) -> None:
    stopwatch = Stopwatch()
    wait_for("all waits to defer", lambda: waits.states() == {"deferred": WAITS}, every=2, timeout=900)
    stopwatch.lap("all waits are deferred")
    export_ids = waits.export_ids()
    assert len(export_ids) == WAITS

    for _ in range(2):
        airflow.kill("triggerer")
        assert not airflow.is_running("triggerer")
        # The triggerer is the only client from here on. If it exceeded its share, the sandbox would refuse requests.
        sandbox.requests_per_second = SHARE
        restarted = time.monotonic()
        airflow.start("triggerer")
        stopwatch.lap("the triggerer is running again")
        wait_for("a poll of each export", partial(has_polled_all, sandbox, export_ids, restarted), every=0.5)
        stopwatch.lap("all waits have resumed")
        assert waits.states() == {"deferred": WAITS}
    sandbox.export_seconds = 0
    run = airflow.wait_for_run("waits", waits.run_id, timeout=900, poll=3)
    stopwatch.lap("the run has finished")

    assert run["state"] == "success", waits.states()
    assert waits.states() == {"success": WAITS}
    assert waits.posts() == WAITS, "a crash created an export"
    assert refusals(sandbox) == []


class Stopwatch:
    """Prints the duration of each part of a test, which pytest shows with ``-s``."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self, description: str) -> None:
        now = time.monotonic()
        print(f"{description}: {now - self._last:.0f} s")
        self._last = now
