# SPDX-License-Identifier: Apache-2.0
"""Operations on DAGs and runs that a user has too, through Airflow's public REST API."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dev.real_airflow.rest import ApiError, Json, RealAirflowError, RestApi, quoted

#: States in which a DAG run has finished.
FINISHED_RUN_STATES = frozenset({"success", "failed"})


class DagsAndRuns(ABC):
    """Mixin that waits for DAGs, creates and follows runs, and reads their tasks' logs and XComs."""

    rest: RestApi
    dags_folder: Path

    @abstractmethod
    def raise_if_ended(self, components: Sequence[str]) -> None:
        """Raise a :class:`RealAirflowError` with the end of the log if a component has ended by itself."""

    @abstractmethod
    def end_of_log(self, component: str) -> str:
        """Return the last lines of a component's log."""

    def wait_for_dag(self, dag_id: str, timeout: float = 90.0) -> Json:
        """
        Wait until Airflow has parsed the DAG and return it.

        :param timeout: time limit in seconds
        :raises RealAirflowError: with the import error, or at the time limit
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.rest.get(self._dag_path(dag_id))
            except ApiError as error:
                if error.status != 404:
                    raise
            errors = self.import_errors()
            timed_out = time.monotonic() > deadline
            # Errors of other files matter only at the time limit, since this DAG may still be parsed.
            own_errors = [e for e in errors if Path(str(e.get("filename"))).stem == dag_id]
            if own_errors or timed_out:
                traces = "\n\n".join(f"{e.get('filename')}:\n{e.get('stack_trace')}" for e in own_errors or errors)
                raise RealAirflowError(
                    f"DAG {dag_id!r} was not found in {self.dags_folder}"
                    + (f" within {timeout:.0f} s" if timed_out else "")
                    + (f"; Airflow could not import:\n{traces}" if traces else "; Airflow has no import errors")
                )
            time.sleep(0.5)

    def import_errors(self) -> list[Json]:
        """Return Airflow's import errors, with ``filename`` and ``stack_trace``."""
        errors: list[Json] = self.rest.get(f"{self.rest.root}/importErrors")["import_errors"]
        return errors

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG. If it has a schedule, the scheduler then creates its latest run."""
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
        """
        Create a manual run and return its ID. Its tasks start only if the DAG is not paused.

        :param logical_date: with time zone; ``None`` creates a run without one, which has no data interval
        :param data_interval: start and end, with time zones; the start becomes the logical date if none is given
        :param conf: the run's configuration
        :param run_id: ID of the run; ``None`` lets Airflow choose one
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
        run = self.rest.call("POST", f"{self._dag_path(dag_id)}/dagRuns", self.rest.run_body(body))
        return str(run["dag_run_id"])

    def runs(self, dag_id: str) -> list[Json]:
        """Return the DAG's runs as the API's objects, at most 100."""
        runs: list[Json] = self.rest.get(f"{self._dag_path(dag_id)}/dagRuns?limit=100")["dag_runs"]
        return runs

    def wait_for_scheduled_run(self, dag_id: str, timeout: float = 60.0) -> str:
        """
        Wait until the scheduler has created a scheduled run and return the latest one's ID.

        :param timeout: time limit in seconds
        :raises RealAirflowError: at the time limit, with the end of the scheduler's log
        """
        deadline = time.monotonic() + timeout
        while True:
            scheduled = [run for run in self.runs(dag_id) if run["run_type"] == "scheduled"]
            if scheduled:
                # Airflow 2 has no `run_after`, which equals the end of the interval.
                latest = max(scheduled, key=lambda run: str(run.get("run_after") or run["data_interval_end"]))
                return str(latest["dag_run_id"])
            if time.monotonic() > deadline:
                raise RealAirflowError(
                    f"the scheduler created no run of {dag_id!r} within {timeout:.0f} s. The end of its log:\n"
                    f"{self.end_of_log('scheduler')}"
                )
            time.sleep(0.3)

    def run(self, dag_id: str, run_id: str) -> Json:
        """Return a run as the API's object, with ``state``, ``data_interval_start`` and so on."""
        return self.rest.get(self._run_path(dag_id, run_id))

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """Return the run's task instances as the API's objects, at most 100, in the order in which they started."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances?limit=100"
        instances: list[Json] = self.rest.get(path)["task_instances"]
        return sorted(instances, key=lambda ti: (ti["start_date"] is None, ti["start_date"] or "", ti["map_index"]))

    def task_instance(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Json:
        """Return a task instance as the API's object."""
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
        """
        Wait until the run has finished, successfully or not, and return it.

        :param timeout: time limit in seconds
        :param on_change: called with a task instance, as the API's object, after each change of its state. ``state`` is
            ``None`` if it has not been scheduled.
        :param poll: seconds between polls
        :raises RealAirflowError: at the time limit, with the states of the tasks and the ends of running tasks' logs
        """
        deadline = time.monotonic() + timeout
        states: dict[tuple[str, int], tuple[Any, Any]] = {}
        while True:
            # The run is read first, so that the tasks of a finished run are read in their final states.
            run = self.run(dag_id, run_id)
            instances = self.task_instances(dag_id, run_id)
            for instance in instances:
                key = (instance["task_id"], instance["map_index"])
                state = (instance["state"], instance["try_number"])
                if states.get(key, (None, state[1])) != state and on_change is not None:
                    on_change(instance)
                states[key] = state
            if run["state"] in FINISHED_RUN_STATES:
                return run
            self.raise_if_ended(("scheduler", "api-server"))
            if time.monotonic() > deadline:
                tasks = ", ".join(f"{ti['task_id']} {ti['state'] or 'not scheduled'}" for ti in instances)
                message = f"run {run_id!r} of {dag_id!r} is {run['state']} after {timeout:.0f} s: {tasks}"
                raise RealAirflowError("\n".join([message, *self._ends_of_running_logs(dag_id, run_id, instances)]))
            time.sleep(poll)

    def _ends_of_running_logs(self, dag_id: str, run_id: str, instances: Sequence[Json]) -> Iterator[str]:
        for ti in instances:
            if ti["state"] == "running":
                log = self.task_log(dag_id, run_id, ti["task_id"], ti["try_number"], ti["map_index"])
                yield f"The end of the log of {ti['task_id']}, try {ti['try_number']}:\n{log[-3000:]}"

    def clear(
        self, dag_id: str, run_id: str, task_ids: Sequence[str | tuple[str, int]], *, downstream: bool = True
    ) -> None:
        """
        Clear tasks of a run, so that they run again.

        :param task_ids: task IDs; for one index of a mapped task, a tuple of task ID and index
        :param downstream: clear the tasks downstream of them, too
        """
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
        """
        Return a try's log as text, one line per record: time, level, message, and the record's other fields.

        Exceptions include their tracebacks. Fields that repeat the task's identity are left out.
        """
        return self.rest.log(self._task_path(dag_id, run_id, task_id), try_number, map_index)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """
        Return the value of a task's XCom.

        :raises ApiError: with ``status`` 404 if it does not exist
        """
        return self.rest.get(self.rest.xcom_path(self._task_path(dag_id, run_id, task_id), key, map_index))["value"]

    def rendered_fields(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Json:
        """Return the task's rendered template fields, as Airflow's UI shows them."""
        fields: Json = self.task_instance(dag_id, run_id, task_id, map_index=map_index)["rendered_fields"]
        return fields

    def request(self, method: str, path: str, body: Json | None = None) -> Any:
        """Send any other request to the REST API: ``request("GET", "/api/v2/assets/events")``."""
        return self.rest.call(method, path, body)

    def _dag_path(self, dag_id: str) -> str:
        return f"{self.rest.root}/dags/{quoted(dag_id)}"

    def _run_path(self, dag_id: str, run_id: str) -> str:
        return f"{self._dag_path(dag_id)}/dagRuns/{quoted(run_id)}"

    def _task_path(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"
        return path if map_index == -1 else f"{path}/{map_index}"
