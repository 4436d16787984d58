# SPDX-License-Identifier: Apache-2.0
"""
Parameters of the operators and the sensor: defaults, signatures, docstrings and templates.

Nothing is executed here; ``tests/integration`` does that.
"""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from tests.unit.operator_classes import CREATE, ONE_TASK, START, TRANSFER, WAIT, each_class, new_dag, own_parameters
from tests.unit.values import EXPORT_ID


@pytest.mark.parametrize(
    ("cls", "required", "defaults"),
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
            TRANSFER,
            {
                **TRANSFER,
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
            ONE_TASK,
            {
                **ONE_TASK,
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
def test_defaults(cls: type[BaseOperator], required: dict[str, Any], defaults: dict[str, Any]) -> None:
    task = cls(task_id="t", **required)
    assert {name: getattr(task, name) for name in defaults} == defaults
    assert task.chartmogul_conn_id == "chartmogul_default"


@each_class
def test_parameters_are_keyword_only_attributes(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    parameters = own_parameters(cls)
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    task = cls(task_id="t", **required)
    assert set(parameters) <= set(vars(task))
    assert set(required) == {
        name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty
    }


@each_class
def test_signature_repeats_parameters_of_base_classes(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    """Editors, type checkers and the documentation do not see what is only passed on as ``**kwargs``."""
    signature = inspect.signature(cls.__init__).parameters
    for base in cls.__mro__:
        if base.__module__.startswith("airflow_provider_chartmogul.") and "__init__" in vars(base):
            for name, parameter in inspect.signature(base.__init__).parameters.items():
                assert signature[name] == parameter, f"{base.__name__} declares it differently"


@each_class
def test_missing_argument_is_named(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    for name in required:
        with pytest.raises(Exception, match=name):
            cls(task_id="t", **{key: value for key, value in required.items() if key != name})


@each_class
def test_template_fields_are_parameters(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    fields = list(cls.template_fields)
    assert len(set(fields)) == len(fields)
    assert set(fields) <= set(own_parameters(cls))
    assert "chartmogul_conn_id" in fields
    assert set(cls.template_fields_renderers) <= set(fields)


@pytest.mark.parametrize("cls", [CreateActivitiesExportOperator, ActivitiesExportToObjectStorageOperator])
def test_every_parameter_but_a_switch_is_a_template_field(cls: type[BaseOperator]) -> None:
    assert set(cls.template_fields) == set(own_parameters(cls)) - {"emit_partitions"}


@each_class
def test_docstring_describes_every_parameter_and_marks_templates(
    cls: type[BaseOperator], required: dict[str, Any]
) -> None:
    described = dict(re.findall(r":param (\w+):((?:.|\n)*?)(?=:param|:raises|\Z)", cls.__doc__ or ""))
    assert set(own_parameters(cls)) <= set(described)
    templated = {name for name, text in described.items() if "(templated)" in " ".join(text.split())}
    assert templated == set(cls.template_fields)


@pytest.mark.parametrize("value", [timedelta(seconds=90), 90, 90.0])
def test_poke_interval_and_timeout_accept_timedelta(value: Any) -> None:
    sensor = ActivitiesExportSensor(task_id="t", export_id=EXPORT_ID, poke_interval=value, timeout=value)
    assert (sensor.poke_interval, sensor.timeout) == (90.0, 90.0)


@pytest.mark.parametrize("name", ["timeout", "poke_interval", "max_failure_seconds"])
@pytest.mark.parametrize("value", [None, float("inf"), float("nan"), 1e15, -1, "60", timedelta.max])
@pytest.mark.parametrize(
    ("cls", "required"), [(ActivitiesExportSensor, WAIT), (ActivitiesToObjectStorageOperator, ONE_TASK)]
)
def test_invalid_wait_raises_when_dag_is_parsed(
    cls: type[BaseOperator], required: dict[str, Any], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^{name} cannot be .*it is a number of seconds, or a timedelta, from 0 to"):
        cls(task_id="t", **required, **{name: value})


def test_start_date_of_airflow_is_not_the_start_of_the_window() -> None:
    task = CreateActivitiesExportOperator(task_id="t", interval_start="2020-01-01", start_date=START)
    assert (task.start_date, task.interval_start) == (START, "2020-01-01")
    assert not {"start_date", "end_date"} & set(own_parameters(CreateActivitiesExportOperator))


@each_class
def test_no_task_starts_from_a_trigger(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    assert not cls(task_id="t", **required).start_from_trigger


@each_class
def test_constructor_reads_neither_connection_nor_templates(
    monkeypatch: pytest.MonkeyPatch, cls: type[BaseOperator], required: dict[str, Any]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", "not a connection at all")
    cls(task_id="t", **dict.fromkeys(required, "{{ nonsense"), chartmogul_conn_id="{{ nowhere }}")


@each_class
def test_output_as_argument_sets_upstream_task(cls: type[BaseOperator], required: dict[str, Any]) -> None:
    with new_dag():
        create = CreateActivitiesExportOperator(task_id="create")
        task = cls(task_id="t", **{**required, **({"export_id": create.output} if "export_id" in required else {})})
    assert task.upstream_task_ids == ({"create"} if "export_id" in required else set())


#: Template fields whose values are dictionaries, which may hold a template at any depth.
NESTED_FIELDS = {"column_types", "upload_options"}


@each_class
@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
def test_template_in_every_field_is_rendered(cls: type[BaseOperator], required: dict[str, Any], mapped: bool) -> None:
    def value(name: str, text: str) -> Any:
        return {"a": text, "b": {"c": [text, {"d": text}]}} if name in NESTED_FIELDS else text

    templates = {name: value(name, f"{{{{ params.{name} }}}}-{{{{ ds }}}}") for name in cls.template_fields}
    context: Any = {"params": {name: f"rendered {name}" for name in cls.template_fields}, "ds": "2024-01-01"}
    with new_dag():
        if mapped:
            mapped_arguments = {"chartmogul_conn_id": templates.pop("chartmogul_conn_id")}
            task = cls.partial(task_id="t", **templates).expand(chartmogul_conn_id=["a"]).unmap(mapped_arguments)
        else:
            task = cls(task_id="t", **templates)
    task.render_template_fields(context)
    for name in cls.template_fields:
        assert getattr(task, name) == value(name, f"rendered {name}-2024-01-01")


def test_rendering_keeps_default_and_times() -> None:
    with new_dag():
        task = CreateActivitiesExportOperator(task_id="t", interval_end=START, lookback=timedelta(days=7))
    task.render_template_fields({})
    assert task.interval_start is DATA_INTERVAL
    assert (task.interval_end, task.lookback) == (START, timedelta(days=7))


def test_hook_constructor_looks_nothing_up() -> None:
    assert ChartMogulHook().chartmogul_conn_id == "chartmogul_default"
    assert ChartMogulHook("other").chartmogul_conn_id == "other"
    assert ChartMogulHook(chartmogul_conn_id="other").chartmogul_conn_id == "other"


def test_one_task_operator_has_the_parameters_of_the_three() -> None:
    parameters_of_three = {
        name
        for cls in (CreateActivitiesExportOperator, ActivitiesExportSensor, ActivitiesExportToObjectStorageOperator)
        for name in own_parameters(cls)
    }
    # The sensor inherits soft_fail from Airflow.
    expected = parameters_of_three - {"export_id"} | {"soft_fail"}
    assert set(own_parameters(ActivitiesToObjectStorageOperator)) == expected
