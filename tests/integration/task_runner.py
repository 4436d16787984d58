# SPDX-License-Identifier: Apache-2.0
"""
Run one task as Airflow does: execute it, defer it, run its trigger in an event loop, resume or reschedule it.

What passes from one process to another in Airflow passes through Airflow's own serialisation here, and every worker
start gets a fresh copy of the operator. ``tests/system`` has a real scheduler and triggerer.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred, timeout
from airflow.serialization.serialized_objects import BaseSerialization


class FakeTaskInstance:
    """The part of a task instance that sensors and operators use."""

    dag_id, task_id, run_id, map_index, try_number, max_tries = "dag", "task", "run", -1, 1, 0

    def __init__(self) -> None:
        self.start_date = datetime.now(UTC)
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)  # raises for what Airflow cannot store
        self.xcoms[key] = value

    def get_first_reschedule_date(self, context: Any) -> datetime:
        """Return what sensors of Airflow 3 ask for in reschedule mode."""
        return self.start_date


class FakeTaskStateStore:
    """The task state store that Airflow 3.3 has in the context: JSON by key, which outlives a try."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.is_down = False

    def get(self, key: str, default: Any = None) -> Any:
        if self.is_down:
            raise RuntimeError("the API server is down")
        return json.loads(self.rows[key]) if key in self.rows else default

    def set(self, key: str, value: Any) -> None:
        if self.is_down:
            raise RuntimeError("the API server is down")
        self.rows[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)


class TaskRun:
    """
    One try of a task, from its first worker start to its end.

    ``value`` is what it returned, ``events`` are the payloads of its triggers' events.
    """

    def __init__(self) -> None:
        self.ti = FakeTaskInstance()
        self.value: Any = None
        self.events: list[Any] = []
        self.worker_starts = 0

    @property
    def xcoms(self) -> dict[str, Any]:
        return self.ti.xcoms


def render(task: BaseOperator, **values: Any) -> BaseOperator:
    """Set template fields, as Airflow does before it runs a task; invalid literals would fail at parse."""
    for name, value in values.items():
        assert name in task.template_fields
        setattr(task, name, value)
    return task


def run_task(
    operator: BaseOperator,
    *,
    try_number: int = 1,
    max_tries: int = 0,
    on_start: Callable[[Any], object] | None = None,
    **context: Any,
) -> TaskRun:
    """
    Run a task to its end, and raise the error that ends it.

    :param on_start: called at each worker start with the copy of the operator that is about to run
    """
    run = TaskRun()
    run.ti.try_number, run.ti.max_tries = try_number, max_tries
    resume: tuple[str, dict[str, Any]] | None = None
    while True:
        worker = copy.deepcopy(operator)
        full_context: Any = {"ti": run.ti, "task": worker, **context}
        run.worker_starts += 1
        if on_start is not None:
            on_start(worker)
        try:
            with first_rescheduled_at(run.ti), _execution_timeout(worker):
                if resume is None:
                    run.value = worker.execute(full_context)
                else:
                    run.value = worker.resume_execution(resume[0], resume[1], full_context)
            return run
        except TaskDeferred as deferred:
            event = _serialize_and_deserialize(run_trigger(deferred.trigger))
            run.events.append(event)
            resume = (deferred.method_name, {**(deferred.kwargs or {}), "event": event})
        except Exception as error:
            if type(error).__name__ != "AirflowRescheduleException":
                raise
            time.sleep(max(0.0, (error.reschedule_date - datetime.now(UTC)).total_seconds()))  # type: ignore[attr-defined]


def run_trigger(trigger: Any) -> Any:
    """Run a trigger as a triggerer does, restored from its serialised form; return its event's payload."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    restored = getattr(import_module(module), name)(**_serialize_and_deserialize(kwargs))

    async def first_event() -> Any:
        async for event in restored.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    return asyncio.run(first_event())


def _serialize_and_deserialize(value: Any) -> Any:
    return BaseSerialization.deserialize(json.loads(json.dumps(BaseSerialization.serialize(value))))


@contextlib.contextmanager
def _execution_timeout(operator: BaseOperator) -> Iterator[None]:
    if operator.execution_timeout is None:
        yield
        return
    with timeout(operator.execution_timeout.total_seconds()):
        yield


@contextlib.contextmanager
def first_rescheduled_at(ti: FakeTaskInstance) -> Iterator[None]:
    """Let sensors of Airflow 2 find the start of a rescheduled wait, which they read from Airflow's database."""
    try:
        sensors = import_module("airflow.sensors.base")
        original = sensors._orig_start_date
    except (ImportError, AttributeError):
        yield
        return
    sensors._orig_start_date = lambda **_: ti.start_date
    try:
        yield
    finally:
        sensors._orig_start_date = original
