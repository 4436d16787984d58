# SPDX-License-Identifier: Apache-2.0
"""The window and type parameters of an operator: ``None`` in DAGs, templates and XComs, also of mapped tasks."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from traceback import format_exception
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskGroup, task_group

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from tests.unit.operator_classes import START, new_dag

END = START + timedelta(days=1)
DAY = {"data_interval_start": START, "data_interval_end": END}
PARAMETERS = ("interval_start", "interval_end", "activity_type", "lookback", "partition_length", "partition_timezone")


def window_and_type(task: CreateActivitiesExportOperator) -> tuple[datetime | None, datetime | None, str | None]:
    request = task._export_request(DAY)  # type: ignore[arg-type]
    return request.start, request.end, request.activity_type


# None


@pytest.mark.parametrize("name", PARAMETERS)
def test_none_from_template_raises(name: str) -> None:
    with new_dag(render_template_as_native_obj=True):
        task = CreateActivitiesExportOperator(task_id="t", **{name: "{{ nothing }}"})
    task.render_template_fields({"nothing": None})
    assert getattr(task, name) is None
    with pytest.raises(AirflowFailException, match=rf"^{name} came out of its template or XCom as None.*{name}=None"):
        window_and_type(task)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", ["", " ", "None", "null"])
def test_empty_text_from_template_raises(name: str, value: str) -> None:
    with new_dag():
        task = CreateActivitiesExportOperator(task_id="t", **{name: "{{ nothing }}"})
    task.render_template_fields({"nothing": value})
    with pytest.raises(AirflowFailException, match=rf"^{name} came out of its template or XCom as '"):
        window_and_type(task)


def test_template_can_return_all_types() -> None:
    with new_dag():
        task = CreateActivitiesExportOperator(task_id="t", activity_type="{{ 'all' }}")
    task.render_template_fields({})
    assert window_and_type(task) == (START, END, None)
    task.activity_type = "None"
    with pytest.raises(AirflowFailException, match=r"write activity_type=None in the DAG or return 'all'$"):
        window_and_type(task)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("interval_start", (None, END, None)), ("interval_end", (START, None, None)), ("lookback", (START, END, None))],
)
def test_none_in_dag_is_used(name: str, expected: Any) -> None:
    with new_dag():
        task = CreateActivitiesExportOperator(task_id="t", **{name: None})
    task.render_template_fields({})
    assert window_and_type(task) == expected


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
    with new_dag():
        mapped = expand(CreateActivitiesExportOperator.partial(task_id="t"))
    task = mapped.unmap(resolved)
    if expected is None:
        with pytest.raises(AirflowFailException, match="came out of its template or XCom as None"):
            window_and_type(task)
    else:
        assert window_and_type(task) == expected


def test_none_in_partial_is_used() -> None:
    with new_dag():
        mapped = CreateActivitiesExportOperator.partial(task_id="t", interval_end=None).expand_kwargs(xcom())
    assert window_and_type(mapped.unmap({"activity_type": "churn"})) == (START, None, "churn")


@pytest.mark.parametrize("from_default_args", [False, True])
def test_none_from_template_in_mapped_task_raises(from_default_args: bool) -> None:
    template = {"lookback": "{{ nothing }}"}
    with new_dag(render_template_as_native_obj=True, default_args=template if from_default_args else {}):
        mapped = CreateActivitiesExportOperator.partial(task_id="t", **({} if from_default_args else template)).expand(
            activity_type=["churn"]
        )
    task = mapped.unmap({"activity_type": "churn"})
    task.render_template_fields({"nothing": None})
    with pytest.raises(AirflowFailException, match=r"^lookback came out of its template or XCom as None"):
        window_and_type(task)


# Literals, which are checked when the DAG is parsed

INVALID_LITERALS = [
    ("interval_start", "yesterday"),
    ("interval_start", "None"),
    ("interval_end", ""),
    ("interval_end", 20240131),
    ("activity_type", "newbiz"),
    ("activity_type", ""),
    ("lookback", "7 days"),
    ("lookback", 7),
    ("lookback", timedelta(days=-1)),
    ("partition_length", "1 day"),
    ("partition_timezone", "Mars"),
]


@pytest.mark.parametrize(("name", "value"), INVALID_LITERALS)
@pytest.mark.parametrize("mapped", [False, True])
def test_invalid_literal_raises_when_dag_is_parsed(name: str, value: Any, mapped: bool) -> None:
    operator = CreateActivitiesExportOperator.partial if mapped else CreateActivitiesExportOperator
    with new_dag(), pytest.raises(ValueError, match=f"^{name} cannot be {re.escape(repr(value))}"):
        operator(task_id="t", **{name: value})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"interval_start": "2024-01-02", "interval_end": "2024-01-01"}, "the window is reversed"),
        ({"interval_start": date(2024, 1, 1), "interval_end": START}, "the window is empty"),
    ],
)
def test_literal_window_without_width_raises_when_dag_is_parsed(parameters: dict[str, Any], message: str) -> None:
    with new_dag(), pytest.raises(ValueError, match=message):
        CreateActivitiesExportOperator(task_id="t", **parameters)
    with new_dag():
        CreateActivitiesExportOperator(task_id="t", **parameters, lookback="{{ params.lookback }}")
        CreateActivitiesExportOperator.partial(task_id="m", **parameters).expand(lookback=["P1D", "P2D"])


@pytest.mark.parametrize(("name", "value"), INVALID_LITERALS)
def test_values_known_at_run_time_are_checked_at_run_time(name: str, value: Any) -> None:
    with new_dag(render_template_as_native_obj=True):
        templated = CreateActivitiesExportOperator(task_id="templated", **{name: "{{ value }}"})
        CreateActivitiesExportOperator(task_id="upstream_value", **{name: xcom()})
        mapped = CreateActivitiesExportOperator.partial(task_id="mapped").expand(**{name: [value]}).unmap({name: value})
        with TaskGroup("group"):
            in_group = CreateActivitiesExportOperator.partial(task_id="mapped").expand(**{name: [value]})
    templated.render_template_fields({"value": value})
    for task in (templated, mapped, in_group.unmap({name: value})):
        with pytest.raises(AirflowFailException, match=f"^{name} c"):
            window_and_type(task) if "partition" not in name else task._export_request({"partition_key": "2024-01-01"})


def test_log_shows_error_once() -> None:
    with new_dag():
        task = CreateActivitiesExportOperator(task_id="t")
    with pytest.raises(AirflowFailException) as raised:
        task._export_request({})
    assert "".join(format_exception(raised.value)).count("this run has no data interval") == 1


# Names of mapped tasks


def names(expand: Any, rows: list[dict[str, Any]], context: dict[str, Any] = DAY) -> list[str]:
    """Return the names that Airflow renders for a mapped task."""
    with new_dag() as dag:
        mapped = expand(CreateActivitiesExportOperator)
    template = dag.get_template_env().from_string(mapped.map_index_template)
    return [template.render({**context, "task": mapped.unmap(row)}) for row in rows]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"activity_type": "churn"}, "2024-01-01 to 2024-01-02, churn"),
        ({"activity_type": None}, "2024-01-01 to 2024-01-02, all types"),
        ({"interval_start": "2024-01-01T05:00"}, "2024-01-01T05:00:00Z to 2024-01-02, all types"),
        ({"interval_end": None, "activity_type": "churn"}, "2024-01-01 to now, churn"),
        ({"chartmogul_conn_id": "europe"}, "2024-01-01 to 2024-01-02, all types, europe"),
        ({"activity_type": "newbiz"}, "no window"),
        ({"interval_end": "None"}, "no window"),
    ],
)
def test_mapped_task_is_named_by_window_and_type(row: dict[str, Any], name: str) -> None:
    assert names(lambda cls: cls.partial(task_id="t").expand_kwargs([row]), [row]) == [name]


def test_mapped_task_without_window_has_a_name() -> None:
    assert names(lambda cls: cls.partial(task_id="t").expand(activity_type=["churn"]), [{}], {}) == ["no window"]


def test_name_from_dag_takes_precedence() -> None:
    template = "{{ task.activity_type }}"
    with new_dag():
        mapped = CreateActivitiesExportOperator.partial(task_id="t", map_index_template=template).expand_kwargs([{}])
    with new_dag(default_args={"map_index_template": template}):
        by_default = CreateActivitiesExportOperator.partial(task_id="t").expand_kwargs([{}])
    assert mapped.map_index_template == by_default.map_index_template == template


def test_task_of_mapped_task_group_has_a_name_and_others_have_none() -> None:
    with new_dag():
        plain = CreateActivitiesExportOperator(task_id="plain")
        created: list[Any] = []

        @task_group
        def group(start: str) -> None:
            created.append(CreateActivitiesExportOperator(task_id="t", interval_start=start))

        group.expand(start=["2024-01-01", "2024-01-02"])
    assert plain.map_index_template is None
    assert created[0].map_index_template == "{{ task.map_index_name() }}"
