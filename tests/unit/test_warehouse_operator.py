# SPDX-License-Identifier: Apache-2.0
"""Parameters of the operator that loads into a warehouse; ``tests/integration`` runs it."""

from __future__ import annotations

import copy
import inspect
import re
import sys
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator
from airflow_provider_chartmogul.warehouse.cursor_session import import_hook
from tests.integration.task_runner import render, run_task
from tests.unit.operator_classes import new_dag, own_parameters

PARAMETERS = own_parameters(ObjectStorageToWarehouseOperator)


def new_load(**parameters: Any) -> ObjectStorageToWarehouseOperator:
    return ObjectStorageToWarehouseOperator(
        **{"task_id": "load", "source": "s3://b/chartmogul/", "duckdb_path": "/data/x.duckdb", **parameters}
    )


def test_parameters_are_keyword_only_attributes() -> None:
    assert {parameter.kind for parameter in PARAMETERS.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(PARAMETERS) <= set(vars(new_load()))
    assert [name for name, one in PARAMETERS.items() if one.default is inspect.Parameter.empty] == ["source"]


def test_docstring_describes_every_parameter_and_marks_templates() -> None:
    docstring = inspect.cleandoc(ObjectStorageToWarehouseOperator.__doc__ or "")
    described = re.findall(r":param (\w+):(.*?)(?=\n:|\Z)", docstring, re.DOTALL)
    assert [name for name, _ in described] == [name for name in PARAMETERS if name != "task_id"]
    templated = {name for name, text in described if "(templated)" in text}
    assert templated == set(ObjectStorageToWarehouseOperator.template_fields)


def test_copy_keeps_parameters() -> None:
    task = new_load(table="t", lock_timeout=5)
    duplicate = copy.deepcopy(task)
    assert {name: getattr(duplicate, name) for name in PARAMETERS} == {name: getattr(task, name) for name in PARAMETERS}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"warehouse_conn_id": "w"}, "not both"),
        ({"duckdb_path": None}, "not neither"),
        ({"table": ""}, "table must be a name, not ''"),
        ({"table": "x_{tables}"}, "a placeholder other than {table}"),
        ({"schema": " "}, "schema must be a name"),
        ({"date_column": ""}, "date_column must be a name"),
        ({"uuid_column": ""}, "uuid_column must be a name"),
        ({"deletes": "gentle"}, "deletes cannot be 'gentle': it is one of hard, soft"),
        ({"lock_timeout": -1}, "lock_timeout"),
        ({"load_options": {"region": "x"}}, "load_options has region"),
        ({"load_options": "region"}, "load_options is a dictionary of options for a warehouse, not 'region'"),
    ],
)
def test_invalid_literal_is_refused_when_the_dag_is_parsed(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        new_load(**parameters)


def test_template_is_not_taken_for_options() -> None:
    task = render(new_load(load_options="{{ params.options }}", source=None), load_options="None")
    with pytest.raises(AirflowFailException, match="load_options is a dictionary of options for a warehouse"):
        run_task(task)


def test_mapped_task_is_checked_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match="deletes cannot be 'gentle'"):
        ObjectStorageToWarehouseOperator.partial(task_id="load", duckdb_path="x", deletes="gentle")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"deletes": ""}, "deletes cannot be ''"),
        ({"table": "None"}, "table must be a name, not 'None'"),
        ({"schema": "None"}, "schema must be a name, not 'None'"),
        ({"account_column": "null"}, "account_column must be a name, not 'null'"),
        ({"duckdb_path": "None"}, "duckdb_path cannot be 'None': check the template that it is from"),
        ({"duckdb_path": " "}, "duckdb_path cannot be ' '"),
        ({"warehouse_conn_id": "", "duckdb_path": None}, "warehouse_conn_id cannot be ''"),
        ({"table": "none_{table}"}, None),
        ({"uuid_column": ""}, "uuid_column must be a name"),
        ({"column_types": "{}"}, "column_types must be a dictionary"),
        ({"warehouse_conn_id": "w"}, "not both"),
        ({"download_dir": "/nowhere", "source": {}}, None),
    ],
)
def test_rendered_parameters_are_checked(parameters: dict[str, Any], message: str | None) -> None:
    task = render(new_load(source=None), **parameters)
    if message is None:
        with pytest.raises(Exception, match="nothing to load"):
            run_task(task)
    else:
        with pytest.raises(AirflowFailException, match=re.escape(message)):
            run_task(task)


def test_unsupported_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "mysql://host/db")
    from airflow_provider_chartmogul.exceptions import TransferSettingsError
    from airflow_provider_chartmogul.warehouse.connect import new_session

    with pytest.raises(TransferSettingsError, match=r"is of type 'mysql'; warehouse_conn_id takes .* postgres"):
        new_session("warehouse", None, None)


def test_output_of_a_transfer_is_the_source() -> None:
    with new_dag():
        export = ActivitiesToObjectStorageOperator(task_id="export", destination="s3://b/x.csv.gz")
        load = new_load(source=export.output["object"])
        mapped = ObjectStorageToWarehouseOperator.partial(task_id="each", duckdb_path="x").expand(
            source=[{"uri": "s3://b/x"}]
        )
    assert load.upstream_task_ids == {"export"}
    assert mapped.task_id == "each"


@pytest.mark.parametrize("conn_type", ["postgres", "snowflake"])
def test_missing_provider_is_named(conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"airflow.providers.{conn_type}.hooks.{conn_type}"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TransferSettingsError, match=rf"pip install 'airflow-provider-chartmogul\[{conn_type}\]'"):
        import_hook(conn_type, module, "Hook")
