# SPDX-License-Identifier: Apache-2.0
"""
What a crash costs, in a real Airflow: of a worker nothing but what falls between a POST and its note, of a triggerer
nothing.

Processes are ended by SIGKILL, which no code sees coming: tasks and their supervisors at moments that are drawn with a
fixed seed, around moments that are hit for certain; triggerers with all that they wait for. What a kill hit is not
reckoned from the clock, but read from what the sandbox has made and what Airflow has kept once all is quiet again.
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
from tests.system.crashes import PATIENCE, ObservedSandbox, Worker, is_alive, wait_for

# A machine that is busy with other things takes long over many tasks, and that is no failure.
pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(1800)]

WAITS = 200

#: A connection's share when nothing is said. With one client, it is the whole account's in a part of these tests.
SHARE = 10


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ObservedSandbox]:
    with ObservedSandbox(export_seconds=24 * 3600) as running:
        yield running


@pytest.fixture(scope="module")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Stops:
    return Stops(tmp_path_factory.mktemp("stops"))


@pytest.fixture(scope="module")
def airflow(sandbox: Sandbox, stops: Stops, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    for file in (Path(__file__).parent / "crash_dags").glob("*.py"):
        shutil.copy(file, dags)
    fast = {**json.loads(sandbox.connection_json), "extra": {"requests_per_second": 30}}
    environment = {
        "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
        "AIRFLOW_CONN_CHARTMOGUL_FAST": json.dumps(fast),
        "STOPS_FOLDER": str(stops.folder),
        "AIRFLOW__CORE__PARALLELISM": "8",
        # The files do not change.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        # So soon is a supervisor missed that was killed, and a triggerer.
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


# ------------------------------------------------------------------------------------- the kill of a worker


@dataclass(frozen=True)
class Stops:
    """Where tries of ``crash_dags/killed.py`` stop, and are told to go on."""

    folder: Path

    def find(self, run_id: str, try_number: int, name: str) -> Worker | None:
        try:
            task, supervisor = (self.folder / f"{run_id}.{try_number}.{name}").read_text().split()
        except FileNotFoundError:
            return None
        return Worker(int(task), int(supervisor))

    def wait(self, run_id: str, try_number: int, name: str) -> Worker:
        return wait_for(
            f"try {try_number} of {run_id} is {name}", lambda: self.find(run_id, try_number, name), every=0.01
        )

    def go(self, run_id: str, try_number: int, *names: str) -> None:
        for name in names:
            (self.folder / f"{run_id}.{try_number}.{name}.go").touch()


#: When tries are killed, in the order in which one task gets them: before the request; when the export is made and
#: its answer not yet sent; at a drawn time after that; at a drawn time after the start; when the operator has returned.
MOMENTS = ("before", "made", "answered", "during", "returned")

#: And the last try: at a drawn time after the operator has returned; when Airflow knows of the success.
LAST_MOMENTS = ("leaving", "success")


@dataclass(frozen=True)
class Kill:
    moment: str
    delay: float
    with_supervisor: bool = False


@dataclass
class Account:
    """What the kills of one run have cost."""

    hits: list[str] = field(default_factory=list)
    lost: int = 0


def drawn_plans(draw: random.Random) -> list[list[Kill]]:
    """Three kills and a last one for each of five runs; one of the three takes the supervisor with it."""
    deck = ["before"] * 3 + ["made"] * 3 + ["answered"] * 4 + ["during"] * 3 + ["returned"] * 2
    last = ["leaving"] * 3 + ["success"] * 2
    draw.shuffle(deck)
    draw.shuffle(last)
    spans = {"answered": 0.03, "during": 0.6, "leaving": 0.03}
    plans = []
    for number in range(5):
        moments = sorted(deck[3 * number : 3 * number + 3], key=MOMENTS.index)
        alone = draw.randrange(3)
        plan = [
            Kill(moment, draw.uniform(0, spans.get(moment, 0.0)), with_supervisor=place == alone)
            for place, moment in enumerate(moments)
        ]
        plans.append([*plan, Kill(last[number], draw.uniform(0, spans.get(last[number], 0.0)))])
    return plans


class KilledRun:
    """One run of ``crash_dags/killed.py``, driven from try to try."""

    def __init__(self, airflow: RealAirflow, sandbox: ObservedSandbox, stops: Stops, day: datetime) -> None:
        self._airflow, self._sandbox, self._stops, self.day = airflow, sandbox, stops, day
        self.run_id = f"{day:%Y-%m-%d}"
        airflow.trigger("killed", run_id=self.run_id, conf={"day": self.run_id})

    def made(self) -> list[str]:
        return self._sandbox.made_from(self.day)

    def kept(self) -> str | None:
        """The export that Airflow's store says is this task's."""
        path = f"/api/v2/dags/killed/dagRuns/{self.run_id}/taskInstances/create/state-store"
        rows = self._airflow.request("GET", path)["task_state_store"]
        return str(rows[0]["value"]["export_id"]) if rows else None

    def state(self) -> str:
        return str(self._airflow.task_instance("killed", self.run_id, "create")["state"])

    def result(self) -> str:
        return str(self._airflow.xcom("killed", self.run_id, "create"))

    def finish(self, try_number: int) -> None:
        """Let a try go to its end, if there is to be one, and wait for the run's."""
        self._stops.go(self.run_id, try_number, "before", "behind", "success")
        wait_for(f"the end of {self.run_id}", self._is_over, every=0.5)
        assert self.state() == "success"

    def go_through(self, plan: list[Kill]) -> Account:
        """Kill one try after the other as the plan says; check after each what it has cost, and give the sum."""
        account = Account()
        made, kept = 0, None
        for try_number, kill in enumerate(plan[:-1], 1):
            self._kill(try_number, kill)
            # The next one has started, so that all that this one has caused is done, and nothing new has begun.
            self._stops.wait(self.run_id, try_number + 1, "before")
            was_kept, (made, more), kept = kept, (len(self.made()), len(self.made()) - made), self.kept()
            where = f"try {try_number} of {self.run_id}, {kill}"
            if was_kept is not None:
                assert (more, kept) == (0, was_kept), f"{where}: there was an export to go on with"
            elif more == 0:
                assert kept is None, where
                assert kill.moment in ("before", "during"), where
            else:
                assert more == 1, where
                assert kill.moment != "before", where
                if kept is None:
                    assert kill.moment in ("made", "answered", "during"), f"{where}: its export was not kept"
                    account.lost += 1
                else:
                    assert kept == self.made()[-1], where
                    assert kill.moment != "made", where
            hit = (
                "one is kept"
                if was_kept
                else "before the POST"
                if not more
                else "in between"
                if not kept
                else "after it"
            )
            account.hits.append(f"{kill.moment}: {hit}")
        try_number, kill = len(plan), plan[-1]
        self._kill(try_number, kill)
        self.finish(try_number + 1)
        again = self._stops.find(self.run_id, try_number + 1, "before") is not None
        assert not (again and kill.moment == "success"), f"{self.run_id} was done already"
        account.hits.append(f"{kill.moment}: {'before' if again else 'after'} the success")
        return account

    def _is_over(self) -> bool:
        return self._airflow.run("killed", self.run_id)["state"] in FINISHED_RUN_STATES

    def _kill(self, try_number: int, kill: Kill) -> None:
        """Let a try go on up to a moment, and end it there."""
        worker = self._stops.wait(self.run_id, try_number, "before")

        def strike() -> None:
            worker.kill(with_supervisor=kill.with_supervisor)

        made = threading.Event()
        self._sandbox.when_made[self.day] = strike if kill.moment == "made" else made.set
        if kill.moment != "before":
            self._stops.go(self.run_id, try_number, "before")
        if kill.moment in ("leaving", "success"):
            self._stops.go(self.run_id, try_number, "behind")
        if kill.moment == "answered":
            # Where there is an export to go on with, there is no POST.
            wait_for(
                f"a POST by {self.run_id}",
                lambda: made.is_set() or self._stops.find(self.run_id, try_number, "behind"),
                every=0.001,
            )
        elif kill.moment == "made":
            wait_for(f"the death of {self.run_id}", lambda: not is_alive(worker.task))
        elif kill.moment == "success":
            self._stops.wait(self.run_id, try_number, "success")
        elif kill.moment in ("returned", "leaving"):
            self._stops.wait(self.run_id, try_number, "behind")
        time.sleep(kill.delay)
        strike()
        del self._sandbox.when_made[self.day]


def test_a_killed_worker_costs_at_most_what_falls_between_the_post_and_its_note(
    airflow: RealAirflow, sandbox: ObservedSandbox, stops: Stops
) -> None:
    plans = drawn_plans(random.Random(20260301))
    runs = [
        KilledRun(airflow, sandbox, stops, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number))
        for number in range(len(plans))
    ]
    began = time.monotonic()
    with ThreadPoolExecutor(len(runs)) as pool:
        accounts = list(pool.map(KilledRun.go_through, runs, plans))
    hits = Counter(hit for account in accounts for hit in account.hits)
    print(f"{sum(hits.values())} kills in {time.monotonic() - began:.0f} s: {dict(sorted(hits.items()))}")

    for run, account in zip(runs, accounts, strict=True):
        assert len(run.made()) == 1 + account.lost, account
        assert run.result() == run.kept() == run.made()[-1]
    assert sum(hits.values()) == 20
    assert hits["made: in between"] == 3
    assert sum(account.lost for account in accounts) <= 10


def test_a_clear_makes_a_new_export_and_a_retry_after_it_goes_on_with_that_one(
    airflow: RealAirflow, sandbox: ObservedSandbox, stops: Stops
) -> None:
    run = KilledRun(airflow, sandbox, stops, datetime(2024, 2, 1, tzinfo=UTC))
    run.finish(1)
    (first,) = run.made()
    assert run.result() == first
    airflow.clear("killed", run.run_id, ["create"])
    stops.go(run.run_id, 2, "before")
    stops.wait(run.run_id, 2, "behind").kill(with_supervisor=False)
    run.finish(3)

    assert run.made()[0] == first
    (second,) = run.made()[1:]
    assert run.result() == run.kept() == second


# -------------------------------------------------------------------------------- the death of the triggerer


class WaitsRun:
    """One run with many waits."""

    def __init__(self, airflow: RealAirflow, sandbox: ObservedSandbox) -> None:
        self._airflow, self._sandbox = airflow, sandbox
        self.posts_before = sandbox.count("POST")
        self.run_id = airflow.trigger("waits", conf={"count": WAITS})

    def states(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for offset in range(0, WAITS, 100):
            path = f"/api/v2/dags/waits/dagRuns/{self.run_id}/taskInstances?task_id=wait&limit=100&offset={offset}"
            found.update(str(ti["state"]) for ti in self._airflow.request("GET", path)["task_instances"])
        return found

    def posts(self) -> int:
        return self._sandbox.count("POST") - self.posts_before

    def export_ids(self) -> set[str]:
        return set(self._airflow.xcom("waits", self.run_id, "create"))


@pytest.fixture(scope="module")
def waits(airflow: RealAirflow, sandbox: ObservedSandbox) -> WaitsRun:
    """They begin to wait one after the other, while the test that asks for this first does something else."""
    return WaitsRun(airflow, sandbox)


def looks_since(sandbox: Sandbox, moment: float) -> Counter[str]:
    """How often each export was looked at since a moment of the monotonic clock."""
    return Counter(
        seen.path.rpartition("/")[2] for seen in sandbox.requests if seen.method == "GET" and seen.started >= moment
    )


def refusals(sandbox: Sandbox) -> list[int]:
    """The answers that are none; 0 is a request whose sender was killed before its answer."""
    return [seen.status for seen in sandbox.requests if seen.status not in (200, 0)]


def all_looked_at(sandbox: Sandbox, exports: set[str], since: float) -> bool:
    assert refusals(sandbox) == [], "never over the limits, whatever has crashed"
    return exports <= looks_since(sandbox, since).keys()


def test_deadlines_that_come_while_no_triggerer_runs_are_kept(
    airflow: RealAirflow, sandbox: ObservedSandbox, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A wait whose time is over when it is taken up again gets one last look, and no new time."""
    clock = Clock()
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
    with ChartMogulHook() as hook, monkeypatch.context() as for_these:
        for_these.setattr(sandbox, "outcome", "never")
        made = {name: hook.create_activities_export().id for name in ("hard", "soft")}
    run_id = airflow.trigger("deadlines", conf=made)

    def states() -> dict[str, str]:
        return {ti["task_id"]: ti["state"] for ti in airflow.task_instances("deadlines", run_id)}

    wait_for("two waits", lambda: states() == {"hard": "deferred", "soft": "deferred"}, every=0.3)
    clock.say("both wait")
    airflow.kill("triggerer")
    deadline = time.monotonic() + 40
    assert states() == {"hard": "deferred", "soft": "deferred"}
    # The next test's waits begin meanwhile; that needs no triggerer.
    request.getfixturevalue("waits")
    time.sleep(deadline - time.monotonic() + 1)
    assert states() == {"hard": "deferred", "soft": "deferred"}, "nobody was there to end them"
    taken_up = time.monotonic()
    airflow.start("triggerer")
    clock.say("triggerer is up again")
    run = airflow.wait_for_run("deadlines", run_id, timeout=PATIENCE)
    clock.say("both have ended")

    assert run["state"] == "failed"
    assert states() == {"hard": "failed", "soft": "skipped"}
    tries = {ti["task_id"]: ti["try_number"] for ti in airflow.task_instances("deadlines", run_id)}
    assert tries == {"hard": 1, "soft": 1}, "Airflow does not retry it"
    looks = looks_since(sandbox, taken_up)
    assert {name: looks[export_id] for name, export_id in made.items()} == {"hard": 1, "soft": 1}
    for name in made:
        assert "did not finish within the task's timeout; its last status was" in airflow.task_log(
            "deadlines", run_id, name, 1
        )


def test_two_deaths_of_the_triggerer_with_200_waits_under_way_cost_nothing(
    airflow: RealAirflow, sandbox: ObservedSandbox, waits: WaitsRun
) -> None:
    clock = Clock()
    wait_for("all waits are the triggerer's", lambda: waits.states() == {"deferred": WAITS}, every=2, patience=900)
    clock.say("all deferred")
    exports = waits.export_ids()
    assert len(exports) == WAITS

    for _ in range(2):
        airflow.kill("triggerer")
        assert not airflow.is_running("triggerer")
        # From here on, the triggerer is the only one who asks: what goes over its share by one is refused, and seen.
        sandbox.requests_per_second = SHARE
        restarted = time.monotonic()
        airflow.start("triggerer")
        clock.say("triggerer is up again")
        wait_for("a look at each", partial(all_looked_at, sandbox, exports, restarted), every=0.5)
        clock.say("all waits are under way again")
        assert waits.states() == {"deferred": WAITS}
    sandbox.export_seconds = 0
    run = airflow.wait_for_run("waits", waits.run_id, timeout=900, poll=3)
    clock.say("all done")

    assert run["state"] == "success", waits.states()
    assert waits.states() == {"success": WAITS}
    assert waits.posts() == WAITS, "no crash has made an export"
    assert refusals(sandbox) == []


class Clock:
    """Says how long each part took, to whoever runs the tests with ``-s``."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def say(self, what: str) -> None:
        now = time.monotonic()
        print(f"{what}: {now - self._last:.0f} s")
        self._last = now
