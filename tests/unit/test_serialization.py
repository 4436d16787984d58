# SPDX-License-Identifier: Apache-2.0
"""Copies, mapping and serialisation of tasks, and of the trigger: what Airflow makes of a DAG before it runs it."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import time
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow.serialization import serialized_objects
from airflow.serialization.serialized_objects import BaseSerialization

from airflow_provider_chartmogul.api.exports import ExportRequest
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, Interval, resolve_interval
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.unit.operator_classes import START, each_class, new_dag, own_parameters
from tests.unit.values import EXPORT_ID, run_python

DAY = {"data_interval_start": START, "data_interval_end": START + timedelta(days=1)}


def serialize_and_deserialize(dag: DAG) -> Any:
    """Return the DAG as the scheduler and the API server see it: serialised by Airflow, as JSON and back."""
    serialization = getattr(serialized_objects, "DagSerialization", serialized_objects.SerializedDAG)
    return serialization.from_dict(json.loads(json.dumps(serialization.to_dict(dag))))


# The default of interval_start and interval_end


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda value: pickle.loads(pickle.dumps(value)),
        lambda value: copy.deepcopy({"a": [value]})["a"][0],
        lambda value: pickle.loads(pickle.dumps((value, 1), protocol=0))[0],
    ],
)
def test_copy_of_default_interval_is_the_same_object(duplicate: Any) -> None:
    assert duplicate(DATA_INTERVAL) is DATA_INTERVAL


def test_text_of_default_interval_is_the_same_in_every_process() -> None:
    program = (
        "from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL as d\n"
        "print(repr(d), str(d), f'{d}', sep='|', end='')\n"
    )
    expected = f"{DATA_INTERVAL!r}|{DATA_INTERVAL!s}|{DATA_INTERVAL}"
    assert expected == "DATA_INTERVAL|the run's data interval|the run's data interval"
    assert [run_python(program, PYTHONHASHSEED=seed) for seed in ("1", "2")] == [expected, expected]


def test_copies_of_task_and_dag_keep_default_interval() -> None:
    with new_dag() as dag:
        task = CreateActivitiesExportOperator(task_id="t")
    copies = [copy.copy(task), copy.deepcopy(task), copy.deepcopy(dag).task_dict["t"], pickle.loads(pickle.dumps(task))]
    for duplicate in copies:
        assert duplicate.interval_start is DATA_INTERVAL
        assert duplicate.interval_end is DATA_INTERVAL


def test_serialized_default_interval_is_still_the_data_interval() -> None:
    with new_dag() as dag:
        CreateActivitiesExportOperator(task_id="t")
    task = serialize_and_deserialize(dag).task_dict["t"]
    for value in (task.interval_start, task.interval_end, BaseSerialization.serialize(DATA_INTERVAL.value)):
        assert resolve_interval(DAY, start=value, end=value) == Interval(*DAY.values())


# Copies and serialisation


@each_class
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])
def test_copy_of_task_keeps_its_parameters(cls: type[BaseOperator], required: dict[str, Any], duplicate: Any) -> None:
    task = cls(task_id="t", **required)
    copied = duplicate(task)
    assert type(copied) is cls
    for name in own_parameters(cls):
        assert getattr(copied, name) == getattr(task, name)


@each_class
def test_serialized_task_has_its_template_fields(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    with new_dag() as dag:
        task = cls(task_id="t", **required)
    serialized = serialize_and_deserialize(dag).task_dict["t"]
    assert list(serialized.template_fields) == list(cls.template_fields)
    for name in cls.template_fields:
        if getattr(task, name) is not DATA_INTERVAL:
            assert getattr(serialized, name) == getattr(task, name)


# Mapped tasks


@pytest.mark.parametrize(
    ("partial", "expand", "arguments", "interval"),
    [
        ({}, {"activity_type": ["churn"]}, {"activity_type": "churn"}, Interval(*DAY.values())),
        ({}, {"chartmogul_conn_id": ["a"]}, {"chartmogul_conn_id": "a"}, Interval(*DAY.values())),
        ({"interval_end": None}, {"activity_type": ["churn"]}, {"activity_type": "churn"}, Interval(START, None)),
        (
            {"interval_end": None},
            {"interval_start": ["2023-01-01", None]},
            {"interval_start": None},
            Interval(None, None),
        ),
        (
            {"interval_end": "2024-01-02"},
            {"interval_start": ["2024-01-01"]},
            {"interval_start": "2024-01-01"},
            Interval(*DAY.values()),
        ),
        (
            {"interval_start": DATA_INTERVAL, "interval_end": DATA_INTERVAL},
            {"activity_type": ["churn", None]},
            {"activity_type": None},
            Interval(*DAY.values()),
        ),
    ],
)
def test_mapped_task_requests_its_window_and_type(
    partial: dict[str, Any], expand: dict[str, Any], arguments: dict[str, Any], interval: Interval
) -> None:
    with new_dag():
        mapped = CreateActivitiesExportOperator.partial(task_id="t", **partial).expand(**expand)
    task = mapped.unmap(arguments)
    expected = ExportRequest(interval.start, interval.end, arguments.get("activity_type"))
    assert task._export_request(DAY) == expected


@each_class
def test_mapped_task_has_the_defaults(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    with new_dag():
        mapped = cls.partial(task_id="t", **required).expand(chartmogul_conn_id=["a", "b"])
    task = mapped.unmap({"chartmogul_conn_id": "b"})
    assert type(task) is cls
    assert task.chartmogul_conn_id == "b"
    plain = cls(task_id="plain", **required)
    for name in set(own_parameters(cls)) - {"chartmogul_conn_id"}:
        assert getattr(task, name) == getattr(plain, name)


@each_class
def test_expand_kwargs_accepts_every_class(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    rows = [{**required, "chartmogul_conn_id": "a"}, {**required, "chartmogul_conn_id": "b"}]
    with new_dag() as dag:
        mapped = cls.partial(task_id="t").expand_kwargs(rows)
    assert serialize_and_deserialize(dag).task_dict["t"].expand_input.value == rows
    task = mapped.unmap(rows[1])
    assert type(task) is cls
    assert task.chartmogul_conn_id == "b"


@pytest.mark.parametrize("name", ["interval_start", "interval_end", "activity_type", "lookback", "chartmogul_conn_id"])
def test_every_parameter_of_an_export_can_be_mapped(name: str) -> None:
    with new_dag() as dag:
        CreateActivitiesExportOperator.partial(task_id="t").expand(**{name: ["a", "b"]})
    serialized = serialize_and_deserialize(dag).task_dict["t"]
    assert serialized.expand_input.value == {name: ["a", "b"]}


def test_chain_of_mapped_tasks_is_serialized() -> None:
    with new_dag() as dag:
        create = CreateActivitiesExportOperator.partial(task_id="create").expand(activity_type=["churn", "new_biz"])
        wait = ActivitiesExportSensor.partial(task_id="wait").expand(export_id=create.output)
        ActivitiesExportToObjectStorageOperator.partial(
            task_id="transfer", destination="s3://b/{export_id}.zip", upload_options={"Tagging": "a=b"}
        ).expand(export_id=wait.output)
    tasks = serialize_and_deserialize(dag).task_dict
    assert {name: task.upstream_task_ids for name, task in tasks.items()} == {
        "create": set(),
        "wait": {"create"},
        "transfer": {"wait"},
    }
    assert tasks["transfer"].partial_kwargs["upload_options"] == {"Tagging": "a=b"}


# Airflow 3 creates a new version of a DAG when its serialised form changes.

DAG_FILE = """
from datetime import datetime, timedelta
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG("every_class", schedule=None, start_date=datetime(2024, 1, 1)):
    create = CreateActivitiesExportOperator(task_id="create", lookback=timedelta(days=7))
    wait = ActivitiesExportSensor(task_id="wait", export_id=create.output, poke_interval=timedelta(minutes=1))
    ActivitiesExportToObjectStorageOperator(
        task_id="transfer", export_id=wait.output, destination="s3://b/{export_id}.parquet",
        column_types={"a": "int64", "b": "int32", "c": "date32[day]"},
        upload_options={"Metadata": {"x": "1", "y": "2"}},
    )
    ActivitiesToObjectStorageOperator(task_id="one_task", destination="s3://b/{export_id}.zip", interval_end=None)
    ActivitiesToObjectStorageOperator.partial(task_id="mapped", destination="s3://b/{export_id}.zip").expand(
        activity_type=["churn", "new_biz"]
    )
"""

PRINT_VERSION = """
import json
import sys

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # before Airflow 3.2
    from airflow.models.dagbag import DagBag
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization import serialized_objects as s

to_dict = getattr(s, "DagSerialization", s.SerializedDAG).to_dict
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
(dag,) = bag.dags.values()
if hasattr(SerializedDagModel, "hash"):
    version = SerializedDagModel.hash(to_dict(dag))
else:
    version = SerializedDagModel(dag).dag_hash
print("version", version)
print("tasks", json.dumps(to_dict(dag)["dag"]["tasks"], sort_keys=True))
"""


def test_dag_has_the_same_version_at_every_parse(tmp_path: Path) -> None:
    """Two processes parse a DAG with every class; the order of their sets differs."""
    (tmp_path / "every_class.py").write_text(DAG_FILE)
    printed = [
        [
            line
            for line in run_python(PRINT_VERSION, str(tmp_path), PYTHONHASHSEED=seed).splitlines()
            if line.startswith(("version ", "tasks "))
        ]
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    version, tasks = printed[0]
    assert re.fullmatch(r"version [0-9a-f]{32}", version)
    assert "object at 0x" not in tasks


# The trigger

TRIGGERS = [
    ActivitiesExportTrigger("cm", EXPORT_ID),
    ActivitiesExportTrigger("cm", EXPORT_ID, 5.5, 1_700_000_000.25, 60.0, "execution_timeout"),
    ActivitiesExportTrigger(chartmogul_conn_id="größe", export_id="a", poll_interval=1, max_failure_seconds=0),
]


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_trigger_is_restored_from_its_serialized_form(trigger: ActivitiesExportTrigger) -> None:
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    cls = getattr(import_module(module), name)
    assert cls is ActivitiesExportTrigger
    stored = json.dumps(BaseSerialization.serialize(arguments))
    loaded = BaseSerialization.deserialize(json.loads(stored))
    assert loaded == arguments
    assert cls(**loaded).serialize() == (path, arguments)


def test_serialized_trigger_has_every_parameter_as_primitive() -> None:
    _, arguments = TRIGGERS[1].serialize()
    parameters = inspect.signature(ActivitiesExportTrigger.__init__).parameters
    assert list(arguments) == [name for name in parameters if name != "self"]
    assert {type(value) for value in arguments.values()} <= {str, int, float, type(None)}


def test_trigger_defaults() -> None:
    arguments = TRIGGERS[0].serialize()[1]
    assert arguments.pop("started") == pytest.approx(time.time(), abs=3600)
    assert arguments == {
        "chartmogul_conn_id": "cm",
        "export_id": EXPORT_ID,
        "poll_interval": 30.0,
        "deadline": None,
        "max_failure_seconds": 3600.0,
        "deadline_name": "timeout",
    }
