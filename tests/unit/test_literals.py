# SPDX-License-Identifier: Apache-2.0
"""
Parameters of transfers and of the sensor that are literals: invalid ones raise when the DAG is parsed.

Templates and XComs are checked when the task runs. ``test_window_parameters.py`` has the parameters of a window.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, ObjectStoragePath

from airflow_provider_chartmogul.exceptions import DestinationError
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers import base
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator
from tests.unit.operator_classes import new_dag
from tests.unit.values import EXPORT_ID, run_python

#: Valid parameters of each class that transfers.
TRANSFERS: dict[type[BaseOperator], dict[str, Any]] = {
    ActivitiesExportToObjectStorageOperator: {"export_id": EXPORT_ID, "destination": "s3://b/x.csv"},
    ActivitiesToObjectStorageOperator: {"destination": "s3://b/x.csv"},
    ChartMogulToObjectStorageOperator: {"resource": "customers", "destination": "s3://b/x.csv"},
}

#: Invalid literals of parameters that all transfers share, and what the error says.
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"if_exists": "replace"}, "if_exists cannot be 'replace': it is one of overwrite, reuse, skip, fail"),
    ({"if_exists": ""}, "if_exists cannot be ''"),
    ({"if_exists": None}, "if_exists cannot be None"),
    ({"output_format": "xlsx"}, "output_format cannot be 'xlsx': it is one of "),
    ({"destination": "s3://b/x.csv", "output_format": "parquet"}, "says csv and output_format says parquet"),
    ({"destination": "s3://b/x"}, "has none of the suffixes"),
    ({"destination": "s3://b/x.txt"}, "has none of the suffixes"),
    ({"destination": ""}, "destination is empty"),
    ({"destination": None}, "destination is empty"),
    ({"destination": 7}, "destination is empty"),
    ({"destination": "s3://b/{ds}.csv"}, "has the unknown placeholder {ds}"),
    ({"destination": "s3://b/{x.csv"}, "has a brace that is not closed"),
    ({"destination": "folder/x.csv"}, "is not the full name of one object"),
    ({"destination": "s3://b/folder/", "output_format": "csv"}, "is not the full name of one object"),
    ({"destination": Path("folder/x.csv")}, "is not the full name of one object"),
    ({"destination": "s3://one@b/x.csv", "object_storage_conn_id": "two"}, "give one of them"),
    ({"column_types": "int64"}, "column_types is a dictionary"),
    ({"column_types": ["int64"]}, "column_types is a dictionary"),
    ({"upload_options": "ACL=private"}, "upload_options is a dictionary"),
    ({"destination": "file:///x.csv", "upload_options": {"ACL": "private"}}, "file:// has none"),
]

each_invalid = pytest.mark.parametrize(("parameters", "message"), INVALID, ids=lambda value: str(value)[:60])
each_transfer = pytest.mark.parametrize("cls", TRANSFERS, ids=lambda cls: cls.__name__)


@each_transfer
@each_invalid
def test_invalid_literal_raises_when_dag_is_parsed(
    cls: type[BaseOperator], parameters: dict[str, Any], message: str
) -> None:
    with new_dag(), pytest.raises((ValueError, DestinationError), match=re.escape(message)):
        cls(task_id="t", **{**TRANSFERS[cls], **parameters})


@each_transfer
@each_invalid
def test_invalid_literal_of_a_mapped_task_raises_when_dag_is_parsed(
    cls: type[BaseOperator], parameters: dict[str, Any], message: str
) -> None:
    valid = {"output_format": None, **TRANSFERS[cls]}
    with new_dag(), pytest.raises((ValueError, DestinationError), match=re.escape(message)):
        cls.partial(task_id="t", **{**valid, **parameters})


@each_transfer
def test_parameter_that_is_mapped_later_is_not_missed(cls: type[BaseOperator]) -> None:
    """A destination without a suffix is complete with the output_format of each mapped task."""
    with new_dag():
        cls.partial(task_id="t", **{**TRANSFERS[cls], "destination": "s3://b/x"}).expand(output_format=["csv"])


@each_transfer
@each_invalid
def test_template_is_checked_at_run_time(cls: type[BaseOperator], parameters: dict[str, Any], message: str) -> None:
    templates = dict.fromkeys(parameters, "{{ params.value }}")
    with new_dag():
        cls(task_id="t", **{**TRANSFERS[cls], **templates})
        cls.partial(task_id="m", **{**TRANSFERS[cls], **templates}).expand(chartmogul_conn_id=["a"])


@each_transfer
def test_xcom_is_checked_at_run_time(cls: type[BaseOperator]) -> None:
    with new_dag():
        upstream = CreateActivitiesExportOperator(task_id="upstream").output
        names = ("destination", "if_exists", "output_format", "column_types", "upload_options")
        for name in names:
            cls(task_id=f"of_{name}", **{**TRANSFERS[cls], name: upstream})


@each_transfer
@pytest.mark.parametrize(
    "parameters",
    [
        {"destination": "s3://b/{chartmogul_conn_id}/x.csv.gz"},
        {"destination": "/data/x.csv"},
        {"destination": Path("/data/x.csv")},
        {"destination": ObjectStoragePath("s3://aws_default@b") / "x.csv"},
        {"destination": "s3://b/x", "output_format": "{{ params.format }}"},
        {"destination": "s3://b/{{ ds }}", "output_format": "csv"},
        {"destination": "nostore://b/x.csv"},
        {"destination": "s3://b/{% if x %}{chartmogul_conn_id}{% endif %}"},
        {"destination": "s3://b/x.parquet", "column_types": {"a": "{{ params.type }}"}},
        {"if_exists": "fail", "upload_options": {"Metadata": {"a": "{{ ds }}"}}},
        {"column_types": {}},
    ],
    ids=str,
)
def test_valid_literal_is_accepted(cls: type[BaseOperator], parameters: dict[str, Any]) -> None:
    with new_dag():
        cls(task_id="t", **{**TRANSFERS[cls], **parameters})
        cls.partial(task_id="m", **{**TRANSFERS[cls], **parameters}).expand(chartmogul_conn_id=["a"])


@pytest.mark.parametrize("cls", [ActivitiesExportToObjectStorageOperator, ActivitiesToObjectStorageOperator])
def test_column_types_of_another_format_raise_when_dag_is_parsed(cls: type[BaseOperator]) -> None:
    with new_dag(), pytest.raises(ValueError, match="column_types is for parquet, and has no meaning for csv"):
        cls(task_id="t", **TRANSFERS[cls], column_types={"MRR": "int64"})


@pytest.mark.parametrize("name", ["interval_start", "interval_end"])
def test_placeholder_of_an_open_end_raises_when_dag_is_parsed(name: str) -> None:
    parameters: Any = {"destination": f"s3://b/{{{name}:%Y}}.csv", name: None}
    with new_dag(), pytest.raises(ValueError, match=rf"has \{{{name}\}}, but {name} is None for this task"):
        ActivitiesToObjectStorageOperator(task_id="t", **parameters)


@each_transfer
def test_emit_partitions_raises_on_airflow_without_keys_of_events(
    cls: type[BaseOperator], monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {**TRANSFERS[cls], "emit_partitions": True}
    monkeypatch.setattr(base, "airflow_version", "3.2.2")
    with new_dag():
        with pytest.raises(ValueError, match=r"emit_partitions needs Airflow 3\.3 or later"):
            cls(task_id="t", **parameters)
        with pytest.raises(ValueError, match=r"emit_partitions needs Airflow 3\.3 or later"):
            cls.partial(task_id="m", **parameters)


def test_emit_partitions_without_a_key_raises_when_dag_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is the start of the window, which neither an open window nor a snapshot has."""
    monkeypatch.setattr(base, "airflow_version", "3.3.0")
    parameters: Any = {"destination": "s3://b/x.csv", "emit_partitions": True}
    with new_dag():
        with pytest.raises(ValueError, match="emit_partitions needs a window with a start"):
            ActivitiesToObjectStorageOperator(task_id="open", interval_start=None, **parameters)
        with pytest.raises(ValueError, match=r"customers is a complete snapshot .* remove emit_partitions"):
            ChartMogulToObjectStorageOperator(task_id="snapshot", resource="customers", **parameters)
        ActivitiesToObjectStorageOperator(task_id="activities", **parameters)
        ChartMogulToObjectStorageOperator(task_id="metrics", resource="metrics", **parameters)


@pytest.mark.parametrize("cls", [ActivitiesExportSensor, ActivitiesExportToObjectStorageOperator])
@pytest.mark.parametrize("export_id", ["", "None", "../account", 7, None])
def test_invalid_export_id_raises_when_dag_is_parsed(cls: type[BaseOperator], export_id: Any) -> None:
    parameters = {**TRANSFERS.get(cls, {}), "export_id": export_id}
    with new_dag():
        with pytest.raises(ValueError, match=r"^export_id (is empty|cannot be)"):
            cls(task_id="t", **parameters)
        with pytest.raises(ValueError, match=r"^export_id (is empty|cannot be)"):
            cls.partial(task_id="m", **parameters)
        cls(task_id="u", **{**parameters, "export_id": "{{ params.export_id }}"})


def test_check_loads_neither_pyarrow_nor_file_systems() -> None:
    """A DAG file may name formats and stores that only the workers have."""
    program = (
        "import sys\n"
        "from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator\n"
        "from airflow_provider_chartmogul.transfers.activities_to_object_storage import *\n"
        "BaseOperator(task_id='b')\n"  # what Airflow itself loads for a task
        "before = {module.partition('.')[0] for module in sys.modules}\n"
        "ActivitiesToObjectStorageOperator(task_id='t', destination='s3://b/x.parquet', column_types={'a': 'int64'})\n"
        "print('added', *sorted({module.partition('.')[0] for module in sys.modules} - before))\n"
    )
    (line,) = [line for line in run_python(program).splitlines() if line.startswith("added")]
    assert not {"pyarrow", "fsspec", "upath", "s3fs", "botocore", "requests", "aiohttp"} & set(line.split())
