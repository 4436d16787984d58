# SPDX-License-Identifier: Apache-2.0
"""The operators and the sensor, each with the arguments that it requires."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator
from tests.unit.values import EXPORT_ID

START = datetime(2024, 1, 1, tzinfo=UTC)

CREATE: dict[str, Any] = {}
WAIT = {"export_id": EXPORT_ID}
TRANSFER = {"export_id": EXPORT_ID, "destination": "s3://b/{export_id}.zip"}
ONE_TASK = {"destination": "s3://b/{export_id}.zip"}
RESOURCE = {"resource": "customers", "destination": "s3://b/{table}.parquet"}
CLASSES: list[tuple[type[BaseOperator], dict[str, Any]]] = [
    (CreateActivitiesExportOperator, CREATE),
    (ActivitiesExportSensor, WAIT),
    (ActivitiesExportToObjectStorageOperator, TRANSFER),
    (ActivitiesToObjectStorageOperator, ONE_TASK),
    (ChartMogulToObjectStorageOperator, RESOURCE),
]

each_class = pytest.mark.parametrize(("cls", "required"), CLASSES, ids=[cls.__name__ for cls, _ in CLASSES])


def new_dag(**arguments: Any) -> DAG:
    return DAG("chartmogul", schedule=None, start_date=START, **arguments)


def own_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters that a class and its bases in this package add to those of Airflow's base class."""
    return {
        name: parameter
        for base in cls.__mro__
        if base.__module__.startswith("airflow_provider_chartmogul.") and "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name not in ("self", "kwargs")
    }
