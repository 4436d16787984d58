# SPDX-License-Identifier: Apache-2.0
"""The whole account in one DAG, ``example_account``, and its comparison of four sums that are the same MRR."""

from __future__ import annotations

import csv
import gzip
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from tests.integration.task_runner import render, run_task
from tests.integration.test_dags import at, copy_example, names, run_states
from tests.pages import DOCS, blocks

#: The end of the window, and the present of the account, which is later.
END, AS_OF = datetime(2026, 3, 3, tzinfo=UTC), datetime(2026, 3, 3, 15, tzinfo=UTC)

#: What the task ``compare`` receives.
Objects = dict[str, Any]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return copy_example("example_account.py")


def connect(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = f"{sandbox.connection_uri}?requests_per_second=10000"
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)


def extract(example: ModuleType, folder: Path) -> Objects:
    """Run the tasks whose objects are compared, and return these objects' metadata."""
    window = {"data_interval_start": END - timedelta(days=1), "data_interval_end": END}

    def run(operator: Any, **fields: Any) -> dict[str, Any]:
        destination = operator.destination.replace(example.DESTINATION, f"file://{folder}")
        metadata: dict[str, Any] = run_task(render(operator, destination=destination, **fields), **window).xcoms[
            "object"
        ]
        return metadata

    tasks = example.dag.task_dict
    snapshots = [
        run(tasks["snapshot"].unmap({"resource": resource}), resource=resource)
        for resource in ("subscriptions", "plans", "customers")
    ]
    return {
        "snapshots": snapshots,
        "activities": run(tasks["activities"]),
        "metrics": run(tasks["metrics"]),
        "later_activities": run(tasks["later_activities"], interval_start=END),
    }


def compare(
    example: ModuleType, objects: Objects, *, tolerance: str = "0", on_difference: str = "fail"
) -> dict[str, int]:
    sums = example.dag.task_dict["compare"].python_callable(
        **objects, tolerance_percent=tolerance, on_difference=on_difference
    )
    return {name: int(value) for name, value in sums.items()}


def change_rows(uri: str, change: Callable[[list[dict[str, str]]], object]) -> None:
    """Change the rows of an object."""
    path = Path(uri.removeprefix("file://"))
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    change(rows)
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def test_whole_account_arrives_and_adds_up(
    example: ModuleType, airflow_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DESTINATION", f"file://{tmp_path}")
    with Sandbox(customers=30, page_size=20, export_seconds=0, requests_per_second=None, as_of=AS_OF) as sandbox:
        connect(sandbox, monkeypatch)
        run_conf = {"tolerance_percent": 0}
        state, states = run_states(example.dag.test(run_conf=run_conf, **at(example.dag, END)))
    tasks = {name: ["success"] for name in ("activities", "compare", "later_activities", "metrics")}
    assert (state, states) == ("success", {**tasks, "snapshot": ["success"] * len(example.RESOURCES)})
    tables = {table.name for name in example.RESOURCES for table in RESOURCES[name].tables}
    folders: dict[str, set[str]] = {}
    for name in names(tmp_path / "account"):
        folder, _, file = name.partition("/")
        folders.setdefault(folder, set()).add(file.rpartition("/")[2])
    assert folders == {
        "snapshots": {f"{table}.csv.gz" for table in tables},
        "activities": {"2026-01-30_2026-03-03.csv.gz"},
        "metrics": {"2026-01-30_2026-03-03.csv.gz"},
        "later_activities": {"2026-03-03.csv.gz"},
    }


def test_every_resource_has_a_task(example: ModuleType) -> None:
    assert {*example.RESOURCES, "metrics"} == set(RESOURCES)
    pools = {task.task_id: task.pool for task in example.dag.tasks}
    assert pools.pop("compare") == "default_pool"
    assert set(pools.values()) == {example.POOL}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_agree_before_and_after_amendments(
    seed: int, example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"customers": 60, "export_seconds": 0, "requests_per_second": None, "as_of": AS_OF}
    with Sandbox(seed=seed, **settings) as sandbox:
        connect(sandbox, monkeypatch)
        before = compare(example, extract(example, tmp_path))
        start = END - timedelta(days=31)
        rows = sandbox.expected_rows(start, END)
        late = sandbox.expected_rows(END, AS_OF)
        edited = {**rows[0], "uuid": "edited", "date": "2024-05-05T05:05:05Z", "activity_mrr_movement": "1234"}
        added = {**rows[0], "uuid": "new", "subscription_external_id": "other", "activity_mrr_movement": "500"}
        other_customer = {
            **added,
            "uuid": "newer",
            "customer_uuid": "cus_new",
            "customer_external_id": "new-1",
            "subscription_external_id": "sub-new-1",
        }
        later = {**added, "uuid": "later", "date": "2026-03-03T10:00:00Z", "activity_mrr_movement": "70000"}
        sandbox.amend(
            removed=[row["uuid"] for row in (*rows[:5], *late)],
            added=[edited, added, other_customer, later],
        )
        after = compare(example, extract(example, tmp_path))
        present = sum(row["mrr"] for row in sandbox.rows("customers"))
    for sums in (before, after):
        assert sums.keys() == {"metric", "movements", "customers", "subscriptions"}
        assert len(set(sums.values())) == 1, sums
        assert sums["metric"] > 0
    changed = 1234 + 500 + 500 - sum(int(row["activity_mrr_movement"]) for row in rows[:5])
    assert after["metric"] - before["metric"] == changed != 0
    assert present - after["metric"] == 70000


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """An account of 30 customers."""
    with Sandbox(customers=30, export_seconds=0, requests_per_second=None, as_of=AS_OF) as sandbox:
        connect(sandbox, monkeypatch)
        yield sandbox


@pytest.fixture
def objects(account: Sandbox, example: ModuleType, tmp_path: Path) -> Objects:
    return extract(example, tmp_path)


def drop_movement(objects: Objects) -> int:
    """Remove an activity, and return by how much the sum of movements changes."""
    removed: list[dict[str, str]] = []
    change_rows(objects["activities"]["uri"], lambda rows: removed.append(rows.pop()))
    return -int(removed[0]["activity_mrr_movement"])


def drop_customer(objects: Objects) -> int:
    return -drop_row(objects, "customers")


def drop_subscription(objects: Objects) -> int:
    return -drop_row(objects, "subscriptions")


def drop_row(objects: Objects, resource: str) -> int:
    """Remove the row with the highest MRR from a snapshot, and return that MRR."""
    (snapshot,) = (snapshot for snapshot in objects["snapshots"] if snapshot["resource"] == resource)
    removed: list[dict[str, str]] = []

    def drop(rows: list[dict[str, str]]) -> None:
        removed.append(rows.pop(rows.index(max(rows, key=lambda row: int(row["mrr"])))))

    change_rows(snapshot["uri"], drop)
    return int(removed[0]["mrr"])


@pytest.mark.parametrize(
    ("name", "damage"),
    [("movements", drop_movement), ("customers", drop_customer), ("subscriptions", drop_subscription)],
)
def test_missing_row_fails_the_task_with_the_numbers(
    name: str, damage: Callable[[Objects], int], example: ModuleType, objects: Objects, caplog: pytest.LogCaptureFixture
) -> None:
    mrr = compare(example, objects)["metric"]
    difference = damage(objects)
    assert difference
    with pytest.raises(AirflowFailException) as raised:
        compare(example, objects, tolerance="0.001")
    assert str(raised.value).startswith("The sums differ: metric ")
    assert str(raised.value).endswith(" (MRR at 2026-03-03T00:00:00+00:00, in hundredths)")
    assert f"{name} {mrr + difference} ({difference:+})" in str(raised.value)
    assert str(raised.value).count("(+0)") == 3, "the other sums are unchanged"

    caplog.set_level(logging.INFO)
    assert compare(example, objects, on_difference="warn")[name] == mrr + difference
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{name} {mrr + difference} ({difference:+})" in warning
    # A tolerance that is just large enough, in percent of the MRR.
    assert compare(example, objects, tolerance=f"{abs(difference) / mrr * 100 + 0.001:.3f}")[name] == mrr + difference


def test_wrong_metric_fails_the_task(example: ModuleType, objects: Objects) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        rows[-1]["mrr"] = str(int(rows[-1]["mrr"]) + 100)

    change_rows(objects["metrics"]["uri"], change)
    with pytest.raises(AirflowFailException, match=r"movements \d+ \(-100\), .* \(-100\), .* \(-100\)"):
        compare(example, objects)


def test_currencies_differ_by_their_conversion(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(customers=30, export_seconds=0, requests_per_second=None, as_of=AS_OF, two_currencies=True) as sandbox:
        connect(sandbox, monkeypatch)
        objects = extract(example, tmp_path)
    sums = compare(example, objects, tolerance="3")
    assert sums["movements"] == sums["metric"] != sums["customers"] == sums["subscriptions"]
    with pytest.raises(AirflowFailException, match="The sums differ"):
        compare(example, objects)


def test_documented_queries_find_the_customers(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = ActivitiesToObjectStorageOperator(
        task_id="full",
        interval_start=None,
        interval_end=None,
        destination=f"file://{tmp_path}/full/activities.csv.gz",
    )
    run_task(full)
    (day,) = (tmp_path / "snapshots").iterdir()
    day.rename(day.with_name("2026-03-03"))
    monkeypatch.chdir(tmp_path)

    def found() -> list[list[tuple[str, int, int]]]:
        return [duckdb.sql(query).fetchall() for query in blocks(DOCS / "reconciliation.md", "sql")]

    assert found() == [[], []]
    snapshots = tmp_path / "snapshots" / "2026-03-03"
    changed: list[tuple[str, int, int]] = []

    def change(rows: list[dict[str, str]]) -> None:
        row = max(rows, key=lambda row: int(row["mrr"]))
        mrr = int(row["mrr"])
        row["mrr"] = str(mrr + 5)
        changed.append((row["uuid"], mrr + 5, mrr))

    change_rows(f"file://{snapshots}/customers.csv.gz", change)
    assert found() == [changed, changed]
