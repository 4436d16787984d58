# SPDX-License-Identifier: Apache-2.0
"""
What users write, and what Airflow makes of it: defaults and templates, copies, mapping, and serialised DAGs.

Nothing is executed here; ``tests/integration`` does that.
"""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator
from airflow.serialization import serialized_objects
from airflow.serialization.serialized_objects import BaseSerialization

from airflow_provider_chartmogul.api.exports import ExportRequest
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, Interval, resolve_interval
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.unit.values import EXPORT_ID, run_python

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = {"data_interval_start": START, "data_interval_end": START + timedelta(days=1)}

CREATE: dict[str, Any] = {}
WAIT = {"export_id": EXPORT_ID}
MOVE = {"export_id": EXPORT_ID, "destination": "s3://b/{export_id}.zip"}
ALL_IN_ONE = {"destination": "s3://b/{export_id}.zip"}
CLASSES: list[tuple[type[BaseOperator], dict[str, Any]]] = [
    (CreateActivitiesExportOperator, CREATE),
    (ActivitiesExportSensor, WAIT),
    (ActivitiesExportToObjectStorageOperator, MOVE),
    (ActivitiesToObjectStorageOperator, ALL_IN_ONE),
]
each_class = pytest.mark.parametrize(("cls", "needed"), CLASSES, ids=[cls.__name__ for cls, _ in CLASSES])


def a_dag() -> DAG:
    return DAG("chartmogul", schedule=None, start_date=START)


def own_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters a class and its bases in this package add to those of Airflow's own base."""
    return {
        name: parameter
        for base in cls.__mro__
        if base.__module__.startswith("airflow_provider_chartmogul.")
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name not in ("self", "kwargs")
    }


def through_serialisation(dag: DAG) -> Any:
    """Give the DAG as the scheduler and the web page see it: by Airflow's own serialisation, as JSON and back."""
    serialisation = getattr(serialized_objects, "DagSerialization", serialized_objects.SerializedDAG)
    return serialisation.from_dict(json.loads(json.dumps(serialisation.to_dict(dag))))


# Constructors


@pytest.mark.parametrize(
    ("cls", "needed", "defaults"),
    [
        (
            CreateActivitiesExportOperator,
            CREATE,
            {
                "interval_start": DATA_INTERVAL,
                "interval_end": DATA_INTERVAL,
                "activity_type": None,
                "lookback": None,
                "partition_length": None,
            },
        ),
        (
            ActivitiesExportSensor,
            WAIT,
            {
                "export_id": EXPORT_ID,
                "deferrable": True,
                "poke_interval": 30.0,
                "timeout": 21600.0,
                "max_failure_seconds": 3600.0,
                "mode": "poke",
                "soft_fail": False,
            },
        ),
        (
            ActivitiesExportToObjectStorageOperator,
            MOVE,
            {
                **MOVE,
                "object_storage_conn_id": None,
                "output_format": None,
                "if_exists": "overwrite",
                "column_types": None,
                "download_dir": None,
                "upload_options": None,
            },
        ),
        (
            ActivitiesToObjectStorageOperator,
            ALL_IN_ONE,
            {
                **ALL_IN_ONE,
                "interval_start": DATA_INTERVAL,
                "interval_end": DATA_INTERVAL,
                "activity_type": None,
                "lookback": None,
                "partition_length": None,
                "deferrable": True,
                "poke_interval": 30.0,
                "timeout": 21600.0,
                "max_failure_seconds": 3600,
                "soft_fail": False,
                "if_exists": "overwrite",
                "upload_options": None,
            },
        ),
    ],
)
def test_defaults(cls: type[BaseOperator], needed: dict[str, Any], defaults: dict[str, Any]) -> None:
    task = cls(task_id="t", **needed)
    assert {name: getattr(task, name) for name in defaults} == defaults
    assert task.chartmogul_conn_id == "chartmogul_default"


@each_class
def test_every_parameter_is_by_name_and_kept_under_it(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    parameters = own_parameters(cls)
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    task = cls(task_id="t", **needed)
    assert set(parameters) <= set(vars(task))
    assert set(needed) == {
        name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty
    }


@each_class
def test_the_signature_has_all_that_the_bases_take(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    """What is only passed on as ``**kwargs`` is unknown to editors, type checkers and the documentation."""
    shown = inspect.signature(cls.__init__).parameters
    for base in cls.__mro__:
        if base.__module__.startswith("airflow_provider_chartmogul."):
            for name, parameter in inspect.signature(base.__init__).parameters.items():
                assert shown[name] == parameter, f"{base.__name__} has it otherwise"


@each_class
def test_what_is_needed_is_asked_for(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    for name in needed:
        with pytest.raises(Exception, match=name):
            cls(task_id="t", **{key: value for key, value in needed.items() if key != name})


@each_class
def test_template_fields_are_parameters_and_attributes(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    task = cls(task_id="t", **needed)
    fields = list(cls.template_fields)
    assert len(set(fields)) == len(fields)
    assert set(fields) <= set(own_parameters(cls))
    assert all(hasattr(task, name) for name in fields)
    assert "chartmogul_conn_id" in fields
    assert set(cls.template_fields_renderers) <= set(fields)


@pytest.mark.parametrize("cls", [CreateActivitiesExportOperator, ActivitiesExportToObjectStorageOperator])
def test_of_these_every_parameter_is_a_template(cls: type[BaseOperator]) -> None:
    assert set(cls.template_fields) == set(own_parameters(cls))


@pytest.mark.parametrize("value", [timedelta(seconds=90), 90, 90.0])
def test_waits_may_be_timedeltas(value: Any) -> None:
    sensor = ActivitiesExportSensor(task_id="t", export_id=EXPORT_ID, poke_interval=value, timeout=value)
    assert (sensor.poke_interval, sensor.timeout) == (90.0, 90.0)


@pytest.mark.parametrize("name", ["timeout", "poke_interval", "max_failure_seconds"])
@pytest.mark.parametrize("value", [None, float("inf"), float("nan"), 1e15, -1, "60", timedelta.max])
@pytest.mark.parametrize(
    ("cls", "needed"), [(ActivitiesExportSensor, WAIT), (ActivitiesToObjectStorageOperator, ALL_IN_ONE)]
)
def test_invalid_wait_raises_when_dag_is_parsed(
    cls: type[BaseOperator], needed: dict[str, Any], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^{name} cannot be .*it is a number of seconds, or a timedelta, from 0 to"):
        cls(task_id="t", **needed, **{name: value})


def test_the_scheduling_dates_of_a_task_are_left_alone() -> None:
    task = CreateActivitiesExportOperator(task_id="t", interval_start="2020-01-01", start_date=START)
    assert (task.start_date, task.interval_start) == (START, "2020-01-01")
    assert not {"start_date", "end_date"} & set(own_parameters(CreateActivitiesExportOperator))


@each_class
def test_no_task_starts_in_a_triggerer(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    assert not cls(task_id="t", **needed).start_from_trigger


@each_class
def test_constructing_asks_nothing_of_anybody(
    monkeypatch: pytest.MonkeyPatch, cls: type[BaseOperator], needed: dict[str, Any]
) -> None:
    # Neither the connection nor what a template will be is looked at when a DAG file is read.
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", "not a connection at all")
    cls(task_id="t", **dict.fromkeys(needed, "{{ nonsense"), chartmogul_conn_id="{{ nowhere }}")


@each_class
def test_outputs_chain(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    with a_dag():
        create = CreateActivitiesExportOperator(task_id="create")
        task = cls(task_id="t", **{**needed, **({"export_id": create.output} if "export_id" in needed else {})})
    assert task.upstream_task_ids == ({"create"} if "export_id" in needed else set())


@each_class
def test_rendering_templates(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    templates = {name: f"{{{{ '{name}' | upper }}}}" for name in cls.template_fields}
    with a_dag():
        task = cls(task_id="t", **{**needed, **templates})
    task.render_template_fields({})
    assert {name: getattr(task, name) for name in templates} == {name: name.upper() for name in templates}


def test_rendering_leaves_the_default_and_times_as_they_are() -> None:
    with a_dag():
        task = CreateActivitiesExportOperator(task_id="t", interval_end=START, lookback=timedelta(days=7))
    task.render_template_fields({})
    assert task.interval_start is DATA_INTERVAL
    assert (task.interval_end, task.lookback) == (START, timedelta(days=7))


@pytest.mark.parametrize("name", ["interval_start", "interval_end", "activity_type", "lookback"])
def test_a_template_that_comes_out_as_none_is_not_what_none_means_in_the_dag(name: str) -> None:
    """Neither all of history, nor all types, nor a window without its lookback."""
    with DAG("chartmogul", schedule=None, start_date=START, render_template_as_native_obj=True):
        task = CreateActivitiesExportOperator(task_id="t", **{name: "{{ nothing }}"})
        plain = CreateActivitiesExportOperator(task_id="plain", **{name: None})
    task.render_template_fields({"nothing": None})
    assert getattr(task, name) is None
    with pytest.raises(AirflowFailException, match=name):
        task._export_request(DAY)
    plain._export_request(DAY)


# The default interval


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        lambda value: pickle.loads(pickle.dumps(value)),
        lambda value: copy.deepcopy({"a": [value]})["a"][0],
        lambda value: pickle.loads(pickle.dumps((value, 1), protocol=0))[0],
    ],
)
def test_the_default_interval_is_one_object(again: Any) -> None:
    assert again(DATA_INTERVAL) is DATA_INTERVAL


def test_the_default_interval_reads_the_same_in_every_process() -> None:
    program = (
        "from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL as d\n"
        "print(repr(d), str(d), f'{d}', sep='|', end='')\n"
    )
    expected = f"{DATA_INTERVAL!r}|{DATA_INTERVAL!s}|{DATA_INTERVAL}"
    assert expected == "DATA_INTERVAL|the run's data interval|the run's data interval"
    assert [run_python(program, PYTHONHASHSEED=seed) for seed in ("1", "2")] == [expected, expected]


def test_the_default_interval_survives_copies_of_a_task_and_its_dag() -> None:
    with a_dag() as dag:
        task = CreateActivitiesExportOperator(task_id="t")
    tasks = [copy.copy(task), copy.deepcopy(task), copy.deepcopy(dag).task_dict["t"], pickle.loads(pickle.dumps(task))]
    for found in tasks:
        assert found.interval_start is DATA_INTERVAL
        assert found.interval_end is DATA_INTERVAL


def test_the_default_interval_survives_serialisation() -> None:
    with a_dag() as dag:
        CreateActivitiesExportOperator(task_id="t")
    found = through_serialisation(dag).task_dict["t"]
    for value in (found.interval_start, found.interval_end, BaseSerialization.serialize(DATA_INTERVAL.value)):
        assert resolve_interval(DAY, start=value, end=value) == Interval(*DAY.values())


def test_a_serialised_dag_is_the_same_at_every_parse() -> None:
    program = (
        "import json\n"
        "from datetime import UTC, datetime\n"
        "from airflow.providers.common.compat.sdk import DAG\n"
        "from airflow.serialization import serialized_objects as s\n"
        "from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator as C\n"
        "with DAG('d', schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:\n"
        "    C(task_id='t')\n"
        "    C.partial(task_id='m', interval_end=None).expand(activity_type=['churn', 'new_biz'])\n"
        "to_dict = getattr(s, 'DagSerialization', s.SerializedDAG).to_dict\n"
        "print('found', json.dumps(to_dict(dag)['dag']['tasks'], sort_keys=True))\n"
    )
    found = {
        next(line for line in run_python(program, PYTHONHASHSEED=seed).splitlines() if line.startswith("found "))
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert "object at 0x" not in found.pop()


@pytest.mark.parametrize(
    ("partial", "expand", "kwargs", "interval"),
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
def test_mapped_creations(
    partial: dict[str, Any], expand: dict[str, Any], kwargs: dict[str, Any], interval: Interval
) -> None:
    with a_dag():
        mapped = CreateActivitiesExportOperator.partial(task_id="t", **partial).expand(**expand)
    task = mapped.unmap(kwargs)
    expected = ExportRequest(interval.start, interval.end, kwargs.get("activity_type"))
    assert task._export_request(DAY) == expected


# Mapping and serialisation of all


@each_class
def test_a_mapped_task_is_unmapped_with_its_defaults(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    with a_dag():
        mapped = cls.partial(task_id="t", **needed).expand(chartmogul_conn_id=["a", "b"])
    task = mapped.unmap({"chartmogul_conn_id": "b"})
    assert type(task) is cls
    assert task.chartmogul_conn_id == "b"
    plain = cls(task_id="plain", **needed)
    for name in set(own_parameters(cls)) - {"chartmogul_conn_id"}:
        assert getattr(task, name) == getattr(plain, name)


@pytest.mark.parametrize("name", ["interval_start", "interval_end", "activity_type", "lookback", "chartmogul_conn_id"])
def test_every_parameter_of_a_creation_can_be_mapped(name: str) -> None:
    with a_dag() as dag:
        CreateActivitiesExportOperator.partial(task_id="t").expand(**{name: ["a", "b"]})
    found = through_serialisation(dag).task_dict["t"]
    assert found.expand_input.value == {name: ["a", "b"]}


def test_a_chain_of_mapped_tasks_is_serialised() -> None:
    with a_dag() as dag:
        create = CreateActivitiesExportOperator.partial(task_id="create").expand(activity_type=["churn", "new_biz"])
        wait = ActivitiesExportSensor.partial(task_id="wait").expand(export_id=create.output)
        ActivitiesExportToObjectStorageOperator.partial(
            task_id="move", destination="s3://b/{export_id}.zip", upload_options={"Tagging": "a=b"}
        ).expand(export_id=wait.output)
    tasks = through_serialisation(dag).task_dict
    assert {name: task.upstream_task_ids for name, task in tasks.items()} == {
        "create": set(),
        "wait": {"create"},
        "move": {"wait"},
    }
    assert tasks["move"].partial_kwargs["upload_options"] == {"Tagging": "a=b"}


@each_class
def test_a_task_is_serialised_with_its_templates(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    with a_dag() as dag:
        task = cls(task_id="t", **needed)
    found = through_serialisation(dag).task_dict["t"]
    assert list(found.template_fields) == list(cls.template_fields)
    for name in cls.template_fields:
        if getattr(task, name) is not DATA_INTERVAL:
            assert getattr(found, name) == getattr(task, name)


#: Template fields whose values are dictionaries, where a template may stand at any depth.
NESTED = {"column_types", "upload_options"}


@each_class
@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
def test_a_template_in_every_field_is_rendered(cls: type[BaseOperator], needed: dict[str, Any], mapped: bool) -> None:
    def value(name: str, text: str) -> Any:
        return {"a": text, "b": {"c": [text, {"d": text}]}} if name in NESTED else text

    templates = {name: value(name, f"{{{{ params.{name} }}}}-{{{{ ds }}}}") for name in cls.template_fields}
    context: Any = {"params": {name: f"rendered {name}" for name in cls.template_fields}, "ds": "2024-01-01"}
    with a_dag():
        if mapped:
            told = {"chartmogul_conn_id": templates.pop("chartmogul_conn_id")}
            task = cls.partial(task_id="t", **templates).expand(chartmogul_conn_id=["a"]).unmap(told)
        else:
            task = cls(task_id="t", **templates)
    task.render_template_fields(context)
    for name in cls.template_fields:
        assert getattr(task, name) == value(name, f"rendered {name}-2024-01-01")


@each_class
def test_every_template_field_of_a_class_is_told_of_as_one(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    told = dict(re.findall(r":param (\w+):((?:.|\n)*?)(?=:param|:raises|\Z)", cls.__doc__ or ""))
    assert set(own_parameters(cls)) <= set(told)
    assert {name for name, text in told.items() if "(templated)" in " ".join(text.split())} == set(cls.template_fields)


@each_class
def test_a_task_can_be_expanded_by_dictionaries(cls: type[BaseOperator], needed: dict[str, Any]) -> None:
    rows = [{**needed, "chartmogul_conn_id": "a"}, {**needed, "chartmogul_conn_id": "b"}]
    with a_dag() as dag:
        mapped = cls.partial(task_id="t").expand_kwargs(rows)
    assert through_serialisation(dag).task_dict["t"].expand_input.value == rows
    task = mapped.unmap(rows[1])
    assert type(task) is cls
    assert task.chartmogul_conn_id == "b"


# Airflow 3 makes a new version of a DAG when its serialised form changes.
VERSIONS = """
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
for name, dag in sorted(bag.dags.items()):
    if hasattr(SerializedDagModel, "hash"):
        version = SerializedDagModel.hash(to_dict(dag))
    else:
        version = SerializedDagModel(dag).dag_hash
    print("version", name, version)
"""

EVERY_CLASS = """
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
        task_id="move", export_id=wait.output, destination="s3://b/{export_id}.parquet",
        column_types={"a": "int64", "b": "int32", "c": "date32[day]"},
        upload_options={"Metadata": {"x": "1", "y": "2"}},
    )
    ActivitiesToObjectStorageOperator(task_id="all", destination="s3://b/{export_id}.zip", interval_end=None)
    ActivitiesToObjectStorageOperator.partial(task_id="mapped", destination="s3://b/{export_id}.zip").expand(
        activity_type=["churn", "new_biz"]
    )
"""


def test_a_dag_s_version_is_the_same_at_every_parse(tmp_path: Path) -> None:
    """Parsed in two processes, whose sets and hashes differ: a DAG with every class."""
    (tmp_path / "every_class.py").write_text(EVERY_CLASS)
    found = [
        [line for line in run_python(VERSIONS, str(tmp_path), PYTHONHASHSEED=seed).splitlines() if "version " in line]
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    (line,) = found[0]
    assert re.fullmatch(r"version every_class [0-9a-f]{32}", line)


@each_class
@pytest.mark.parametrize("again", [copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])
def test_a_task_survives_copies(cls: type[BaseOperator], needed: dict[str, Any], again: Any) -> None:
    task = cls(task_id="t", **needed)
    found = again(task)
    assert type(found) is cls
    for name in own_parameters(cls):
        assert getattr(found, name) == getattr(task, name)


# The trigger and the hook

TRIGGERS = [
    ActivitiesExportTrigger("cm", EXPORT_ID),
    ActivitiesExportTrigger("cm", EXPORT_ID, 5.5, 1_700_000_000.25, 60.0, "execution_timeout"),
    ActivitiesExportTrigger(chartmogul_conn_id="größe", export_id="a", poll_interval=1, max_failure_seconds=0),
]


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_trigger_is_made_again_from_its_serialised_form(trigger: ActivitiesExportTrigger) -> None:
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    cls = getattr(import_module(module), name)
    assert cls is ActivitiesExportTrigger
    through_the_database = BaseSerialization.deserialize(json.loads(json.dumps(BaseSerialization.serialize(kwargs))))
    assert through_the_database == kwargs
    again = cls(**through_the_database)
    assert again.serialize() == (path, kwargs)


def test_a_trigger_s_serialised_form_has_every_parameter_and_only_primitives() -> None:
    _, kwargs = TRIGGERS[1].serialize()
    parameters = inspect.signature(ActivitiesExportTrigger.__init__).parameters
    assert list(kwargs) == [name for name in parameters if name != "self"]
    assert {type(value) for value in kwargs.values()} <= {str, int, float, type(None)}


def test_a_trigger_s_defaults() -> None:
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


def test_a_hook_is_made_without_looking_anything_up() -> None:
    assert ChartMogulHook().chartmogul_conn_id == "chartmogul_default"
    assert ChartMogulHook("other").chartmogul_conn_id == "other"
    assert ChartMogulHook(chartmogul_conn_id="other").chartmogul_conn_id == "other"


def test_the_one_task_way_takes_what_the_three_take() -> None:
    of_three = {
        name
        for cls in (CreateActivitiesExportOperator, ActivitiesExportSensor, ActivitiesExportToObjectStorageOperator)
        for name in own_parameters(cls)
    }
    # soft_fail is of Airflow's own sensor.
    assert set(own_parameters(ActivitiesToObjectStorageOperator)) == of_three - {"export_id"} | {"soft_fail"}
