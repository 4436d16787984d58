# SPDX-License-Identifier: Apache-2.0
"""What a user does with DAGs and their runs, through Airflow's public REST API alone."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dev.real_airflow.rest import ApiError, Json, RealAirflowError, RestApi, quoted

#: States in which a DAG run is over.
FINISHED_RUN_STATES = frozenset({"success", "failed"})


class DagsAndRuns(ABC):
    """Waiting for a DAG, making runs of it, following them, and reading what their tasks left."""

    rest: RestApi
    dags_folder: Path

    @abstractmethod
    def raise_if_ended(self, components: Sequence[str]) -> None:
        """Raise a :class:`RealAirflowError` with the end of its log if a component has ended."""

    @abstractmethod
    def end_of_log(self, component: str) -> str:
        """The last lines of a component's log."""

    def wait_for_dag(self, dag_id: str, timeout: float = 90.0) -> Json:
        """Wait until Airflow has read the DAG; if it could not, the error shows why."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.rest.get(self._dag_path(dag_id))
            except ApiError as error:
                if error.status != 404:
                    raise
            errors = self.import_errors()
            late = time.monotonic() > deadline
            # Another file's error is no reason to give up, until there is no more time.
            mine = [e for e in errors if Path(str(e.get("filename"))).stem == dag_id]
            if mine or late:
                shown = "\n\n".join(f"{e.get('filename')}:\n{e.get('stack_trace')}" for e in mine or errors)
                raise RealAirflowError(
                    f"DAG {dag_id!r} was not found in {self.dags_folder}"
                    + (f" within {timeout:.0f} s" if late else "")
                    + (f"; Airflow could not import:\n{shown}" if shown else "; Airflow names no import errors")
                )
            time.sleep(0.5)

    def import_errors(self) -> list[Json]:
        """The files that Airflow could not import, with ``filename`` and ``stack_trace``."""
        found: list[Json] = self.rest.get(f"{self.rest.root}/importErrors")["import_errors"]
        return found

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG. With a schedule it then makes the latest run of its own accord."""
        self.rest.call("PATCH", f"{self._dag_path(dag_id)}?update_mask=is_paused", {"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Keep the scheduler from starting tasks of the DAG."""
        self.rest.call("PATCH", f"{self._dag_path(dag_id)}?update_mask=is_paused", {"is_paused": True})

    def trigger(
        self,
        dag_id: str,
        *,
        logical_date: datetime | None = None,
        data_interval: tuple[datetime, datetime] | None = None,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> str:
        """Make a manual run and return its ID. The DAG has to be unpaused for its tasks to start.

        :param logical_date: with time zone; ``None`` makes a run without one, which has no data interval.
        :param data_interval: start and end, with time zones; needs a logical date as well, and takes the
            start where none is given.
        """
        body: Json = {"logical_date": None, "conf": dict(conf or {})}
        if data_interval is not None:
            start, end = data_interval
            logical_date = logical_date or start
            body |= {"data_interval_start": start.isoformat(), "data_interval_end": end.isoformat()}
        if logical_date is not None:
            body["logical_date"] = logical_date.isoformat()
        if run_id is not None:
            body["dag_run_id"] = run_id
        made = self.rest.call("POST", f"{self._dag_path(dag_id)}/dagRuns", self.rest.new_run(body))
        return str(made["dag_run_id"])

    def runs(self, dag_id: str) -> list[Json]:
        """The DAG's runs, as the API gives them."""
        found: list[Json] = self.rest.get(f"{self._dag_path(dag_id)}/dagRuns?limit=100")["dag_runs"]
        return found

    def wait_for_scheduled_run(self, dag_id: str, timeout: float = 60.0) -> str:
        """Wait until the scheduler has made a run of its own accord; return the latest one's ID."""
        deadline = time.monotonic() + timeout
        while True:
            scheduled = [run for run in self.runs(dag_id) if run["run_type"] == "scheduled"]
            if scheduled:
                # Airflow 2 has no `run_after`; there it is the interval's end.
                latest = max(scheduled, key=lambda run: str(run.get("run_after") or run["data_interval_end"]))
                return str(latest["dag_run_id"])
            if time.monotonic() > deadline:
                raise RealAirflowError(
                    f"the scheduler made no run of {dag_id!r} within {timeout:.0f} s. Its log ends so:\n"
                    f"{self.end_of_log('scheduler')}"
                )
            time.sleep(0.3)

    def run(self, dag_id: str, run_id: str) -> Json:
        """One run, as the API gives it: ``state``, ``data_interval_start``, ``data_interval_end`` and so on."""
        return self.rest.get(self._run_path(dag_id, run_id))

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """The run's task instances, in the order in which the tasks can run; each as the API gives it."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances?limit=100"
        found: list[Json] = self.rest.get(path)["task_instances"]
        return sorted(found, key=lambda ti: (ti["start_date"] is None, ti["start_date"] or "", ti["map_index"]))

    def task_instance(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Json:
        """One task instance, as the API gives it."""
        return self.rest.get(self._task_path(dag_id, run_id, task_id, map_index))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 180.0,
        *,
        on_change: Callable[[Json], None] | None = None,
        poll: float = 0.4,
    ) -> Json:
        """Wait until the run is over, successful or not, and return it.

        :param timeout: seconds; then a :class:`RealAirflowError` says which states the tasks are in.
        :param on_change: is called with a task instance, as the API gives it, whenever its state has changed.
            ``state`` is ``None`` for one that has not been scheduled.
        """
        deadline = time.monotonic() + timeout
        seen: dict[tuple[str, int], tuple[Any, Any]] = {}
        while True:
            # The run first: the look at the tasks that follows is then the one that shows how they ended.
            run = self.run(dag_id, run_id)
            instances = self.task_instances(dag_id, run_id)
            for instance in instances:
                key = (instance["task_id"], instance["map_index"])
                now = (instance["state"], instance["try_number"])
                if seen.get(key, (None, now[1])) != now and on_change is not None:
                    on_change(instance)
                seen[key] = now
            if run["state"] in FINISHED_RUN_STATES:
                return run
            self.raise_if_ended(("scheduler", "api-server"))
            if time.monotonic() > deadline:
                states = ", ".join(f"{ti['task_id']} {ti['state'] or 'not scheduled'}" for ti in instances)
                raise RealAirflowError(
                    f"run {run_id!r} of {dag_id!r} is {run['state']} after {timeout:.0f} s: {states}"
                )
            time.sleep(poll)

    def clear(
        self, dag_id: str, run_id: str, task_ids: Sequence[str | tuple[str, int]], *, downstream: bool = True
    ) -> None:
        """Clear tasks of a run, as a user does who wants them to run again; a tuple is one index of a mapped task."""
        self.rest.call(
            "POST",
            f"{self._dag_path(dag_id)}/clearTaskInstances",
            {
                "dry_run": False,
                "dag_run_id": run_id,
                "task_ids": list(task_ids),
                "include_downstream": downstream,
                "only_failed": False,
                "reset_dag_runs": True,
            },
        )

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """A try's log as text, a line for each record: time, level, message, and what else the record holds.

        Exceptions are there with their tracebacks. What only repeats which task this is has been left out.
        """
        return self.rest.log(self._task_path(dag_id, run_id, task_id), try_number, map_index)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """The value of a task's XCom. A missing one is an :class:`ApiError` with ``status`` 404."""
        return self.rest.get(self.rest.xcom_path(self._task_path(dag_id, run_id, task_id), key, map_index))["value"]

    def rendered_fields(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Json:
        """The task's template fields as rendered, as the Airflow page shows them."""
        fields: Json = self.task_instance(dag_id, run_id, task_id, map_index=map_index)["rendered_fields"]
        return fields

    def request(self, method: str, path: str, body: Json | None = None) -> Any:
        """Any other call of the REST API: ``request("GET", "/api/v2/assets/events")``."""
        return self.rest.call(method, path, body)

    def _dag_path(self, dag_id: str) -> str:
        return f"{self.rest.root}/dags/{quoted(dag_id)}"

    def _run_path(self, dag_id: str, run_id: str) -> str:
        return f"{self._dag_path(dag_id)}/dagRuns/{quoted(run_id)}"

    def _task_path(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"
        return path if map_index == -1 else f"{path}/{map_index}"
