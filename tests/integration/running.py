# SPDX-License-Identifier: Apache-2.0
"""
One task, run as Airflow runs it: executed, deferred, its trigger run in an event loop, resumed, rescheduled.

What crosses from one process to another in Airflow goes through Airflow's own serialisation here too, and every
worker start gets a copy of the operator that has seen nothing yet. A real scheduler and triggerer are in
``tests/system``.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred, timeout
from airflow.serialization.serialized_objects import BaseSerialization


class TaskInstanceStandIn:
    """As much of a task instance as sensors and operators use."""

    dag_id, task_id, run_id, map_index, try_number, max_tries = "dag", "task", "run", -1, 1, 0

    def __init__(self) -> None:
        self.start_date = datetime.now(UTC)
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def get_first_reschedule_date(self, context: Any) -> datetime:
        """Where sensors of Airflow 3 ask since when they have been rescheduled."""
        return self.start_date


class Ran:
    """How a task got to its end: the value it returned, its XComs, its triggers' events, its worker starts."""

    def __init__(self) -> None:
        self.ti = TaskInstanceStandIn()
        self.value: Any = None
        self.events: list[Any] = []
        self.worker_starts = 0

    @property
    def xcoms(self) -> dict[str, Any]:
        return self.ti.xcoms


def run_task(operator: BaseOperator, *, try_number: int = 1, started: Any = None, **context: Any) -> Ran:
    """
    Run a task to its end; what ends it badly is raised.

    :param started: is called with the operator as it is about to be executed, which is a copy
    """
    ran = Ran()
    ran.ti.try_number = try_number
    resume: tuple[str, dict[str, Any]] | None = None
    while True:
        worker = copy.deepcopy(operator)
        full_context: Any = {"ti": ran.ti, "task": worker, **context}
        ran.worker_starts += 1
        if started is not None:
            started(worker)
        try:
            with reschedules_since(ran.ti), _execution_timeout(worker):
                if resume is None:
                    ran.value = worker.execute(full_context)
                else:
                    ran.value = worker.resume_execution(resume[0], resume[1], full_context)
            return ran
        except TaskDeferred as deferred:
            event = _through_the_database(run_trigger(deferred.trigger))
            ran.events.append(event)
            resume = (deferred.method_name, {**(deferred.kwargs or {}), "event": event})
        except Exception as error:
            if type(error).__name__ != "AirflowRescheduleException":
                raise
            time.sleep(max(0.0, (error.reschedule_date - datetime.now(UTC)).total_seconds()))  # type: ignore[attr-defined]


def run_trigger(trigger: Any) -> Any:
    """Run a trigger as a triggerer does, made anew from its serialised form; give its event's payload."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(import_module(module), name)(**_through_the_database(kwargs))

    async def first_event() -> Any:
        async for event in again.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    return asyncio.run(first_event())


def _through_the_database(value: Any) -> Any:
    return BaseSerialization.deserialize(json.loads(json.dumps(BaseSerialization.serialize(value))))


@contextlib.contextmanager
def _execution_timeout(operator: BaseOperator) -> Iterator[None]:
    if operator.execution_timeout is None:
        yield
        return
    with timeout(operator.execution_timeout.total_seconds()):
        yield


@contextlib.contextmanager
def reschedules_since(ti: TaskInstanceStandIn) -> Iterator[None]:
    """Airflow 2 reads from its database since when a sensor has been rescheduled; here is no row of it."""
    try:
        sensors = import_module("airflow.sensors.base")
        before = sensors._orig_start_date
    except (ImportError, AttributeError):
        yield
        return
    sensors._orig_start_date = lambda **_: ti.start_date
    try:
        yield
    finally:
        sensors._orig_start_date = before
