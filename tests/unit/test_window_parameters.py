# SPDX-License-Identifier: Apache-2.0
"""The window and type parameters of an operator: None in a DAG, in a template and in an XCom, of mapped tasks too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator

START = datetime(2024, 1, 1, tzinfo=UTC)
END = START + timedelta(days=1)
DAY = {"data_interval_start": START, "data_interval_end": END}
PARAMETERS = ("interval_start", "interval_end", "activity_type", "lookback", "partition_length", "partition_timezone")


def a_dag(**kwargs: Any) -> DAG:
    return DAG("chartmogul", schedule=None, start_date=START, **kwargs)


def requested(task: CreateActivitiesExportOperator) -> tuple[datetime | None, datetime | None, str | None]:
    interval, activity_type = task._wanted(DAY)
    return interval.start, interval.end, activity_type


# None


@pytest.mark.parametrize("name", PARAMETERS)
def test_none_from_template_raises(name: str) -> None:
    with a_dag(render_template_as_native_obj=True):
        task = CreateActivitiesExportOperator(task_id="t", **{name: "{{ nothing }}"})
    task.render_template_fields({"nothing": None})
    assert getattr(task, name) is None
    with pytest.raises(AirflowFailException, match=rf"^{name} came out of its template or XCom as None.*{name}=None"):
        requested(task)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", ["", " ", "None", "null"])
def test_empty_text_from_template_raises(name: str, value: str) -> None:
    with a_dag():
        task = CreateActivitiesExportOperator(task_id="t", **{name: "{{ nothing }}"})
    task.render_template_fields({"nothing": value})
    with pytest.raises(AirflowFailException, match=rf"^{name} came out of its template or XCom as '"):
        requested(task)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("interval_start", (None, END, None)), ("interval_end", (START, None, None)), ("lookback", (START, END, None))],
)
def test_none_in_dag_is_used(name: str, expected: Any) -> None:
    with a_dag():
        task = CreateActivitiesExportOperator(task_id="t", **{name: None})
    task.render_template_fields({})
    assert requested(task) == expected


def xcom() -> Any:
    return CreateActivitiesExportOperator(task_id="upstream").output


#: What is mapped, what Airflow resolves it to, and what is exported; ``None`` where that is an error.
MAPPED: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "literal list": (
        lambda task: task.expand(interval_start=["2023-01-01", None]),
        {"interval_start": None},
        (None, END, None),
    ),
    "literal rows": (
        lambda task: task.expand_kwargs([{"interval_start": None}, {"activity_type": "churn"}]),
        {"interval_start": None},
        (None, END, None),
    ),
    "XCom": (lambda task: task.expand(interval_start=xcom()), {"interval_start": None}, None),
    "mapped XCom": (
        lambda task: task.expand(interval_end=xcom().map(lambda value: value)),
        {"interval_end": None},
        None,
    ),
    "XCom in a list": (lambda task: task.expand(activity_type=["churn", xcom()]), {"activity_type": None}, None),
    "rows from an XCom": (lambda task: task.expand_kwargs(xcom()), {"interval_start": None}, None),
    "a row from an XCom": (lambda task: task.expand_kwargs([{}, xcom()]), {"interval_end": None}, None),
    "a row with an XCom": (lambda task: task.expand_kwargs([{"interval_end": xcom()}]), {"interval_end": None}, None),
    "rows from an XCom without a type": (
        lambda task: task.expand_kwargs(xcom()),
        {"interval_start": "2023-01-01"},
        (datetime(2023, 1, 1, tzinfo=UTC), END, None),
    ),
    "another parameter from an XCom": (
        lambda task: task.expand(activity_type=xcom()),
        {"activity_type": "churn"},
        (START, END, "churn"),
    ),
}


@pytest.mark.parametrize(("expand", "resolved", "expected"), MAPPED.values(), ids=MAPPED)
def test_none_in_mapped_task(expand: Any, resolved: dict[str, Any], expected: Any) -> None:
    with a_dag():
        mapped = expand(CreateActivitiesExportOperator.partial(task_id="t"))
    task = mapped.unmap(resolved)
    if expected is None:
        with pytest.raises(AirflowFailException, match="came out of its template or XCom as None"):
            requested(task)
    else:
        assert requested(task) == expected


def test_none_in_partial_is_used() -> None:
    with a_dag():
        mapped = CreateActivitiesExportOperator.partial(task_id="t", interval_end=None).expand_kwargs(xcom())
    assert requested(mapped.unmap({"activity_type": "churn"})) == (START, None, "churn")


@pytest.mark.parametrize("from_default_args", [False, True])
def test_none_from_template_in_mapped_task_raises(from_default_args: bool) -> None:
    template = {"lookback": "{{ nothing }}"}
    with a_dag(render_template_as_native_obj=True, default_args=template if from_default_args else {}):
        mapped = CreateActivitiesExportOperator.partial(task_id="t", **({} if from_default_args else template)).expand(
            activity_type=["churn"]
        )
    task = mapped.unmap({"activity_type": "churn"})
    task.render_template_fields({"nothing": None})
    with pytest.raises(AirflowFailException, match=r"^lookback came out of its template or XCom as None"):
        requested(task)
