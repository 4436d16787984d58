# SPDX-License-Identifier: Apache-2.0
"""Tests the example's dbt source, its freshness and the staging model with dbt on a loaded DuckDB file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator
from tests.integration.task_runner import run_task

PROJECT = Path(__file__).parents[2] / "example_dags" / "dbt"
JANUARY = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)


@pytest.fixture
def database(sandbox: Sandbox, tmp_path: Path) -> Path:
    """Load January in the same way as ``example_duckdb.py``."""
    operator = ActivitiesToObjectStorageOperator(
        task_id="export",
        interval_start=JANUARY[0],
        interval_end=JANUARY[1],
        destination=f"file://{tmp_path}/january.csv.gz",
    )
    path = tmp_path / "activities.duckdb"
    exported = run_task(operator).xcoms["object"]
    run_task(ObjectStorageToWarehouseOperator(task_id="load", source=exported, duckdb_path=str(path)))
    return path


def dbt(database: Path, *command: str) -> tuple[int, dict[str, Any]]:
    """Run dbt and return its exit code and its result for each node."""
    target = database.parent / "target"
    folders = ("--project-dir", PROJECT, "--profiles-dir", PROJECT, "--target-path", target)
    process = subprocess.run(
        [Path(sys.executable).parent / "dbt", *command, *folders, "--log-path", database.parent / "logs"],
        env={**os.environ, "CHARTMOGUL_DUCKDB": str(database), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(process.stdout, process.stderr)
    assert "deprecat" not in process.stdout.lower()
    file = target / ("sources.json" if command[0] == "source" else "run_results.json")
    results = json.loads(file.read_text())["results"]
    return process.returncode, {result["unique_id"]: result for result in results}


def change(database: Path, sql: str) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute(sql)


@pytest.mark.parametrize(
    ("age", "status", "expected_code"),
    [(None, "pass", 0), ("40 hours", "warn", 0), ("80 hours", "error", 1)],
    ids=["fresh", "late", "very late"],
)
def test_freshness_depends_on_the_time_of_the_load(
    age: str | None, status: str, expected_code: int, database: Path
) -> None:
    """The activities themselves are of 2024."""
    if age is not None:
        change(database, f"UPDATE chartmogul_activities SET _loaded_at = _loaded_at - INTERVAL '{age}'")
    code, results = dbt(database, "source", "freshness")
    assert {name: result["status"] for name, result in results.items()} == {
        "source.chartmogul.chartmogul.activities": status
    }
    assert code == expected_code


def test_build_creates_the_model(database: Path, sandbox: Sandbox) -> None:
    code, results = dbt(database, "build")
    assert code == 0
    assert {result["status"] for result in results.values()} == {"success", "pass"}
    kinds = [name.partition(".")[0] for name in results]
    assert (kinds.count("model"), kinds.count("test")) == (1, 9)
    expected_rows = sandbox.expected_rows(*JANUARY)
    with duckdb.connect(str(database), read_only=True) as connection:
        rows = connection.execute(
            "SELECT activity_type, count(*), sum(mrr_movement) FROM stg_chartmogul__activities GROUP BY ALL"
        ).fetchall()
    expected: dict[str, tuple[int, int]] = {}
    for row in expected_rows:
        count, movement = expected.get(row["type"], (0, 0))
        expected[row["type"]] = count + 1, movement + int(row["activity_mrr_movement"])
    assert {kind: (count, int(movement)) for kind, count, movement in rows} == expected


@pytest.mark.parametrize(
    ("sql", "test"),
    [
        (
            "INSERT INTO {table} SELECT * FROM {table} LIMIT 1",
            "source_unique_chartmogul_activities_uuid",
        ),
        (
            "UPDATE {table} SET type = 'upgrade' WHERE uuid = (SELECT min(uuid) FROM {table})",
            "accepted_values_stg_chartmogul__activities_activity_type",
        ),
        (
            "UPDATE {table} SET _loaded_at = NULL WHERE uuid = (SELECT min(uuid) FROM {table})",
            "source_not_null_chartmogul_activities__loaded_at",
        ),
    ],
    ids=["duplicate", "unknown type", "missing time of load"],
)
def test_build_fails_on_incorrect_tables(sql: str, test: str, database: Path) -> None:
    change(database, sql.format(table="chartmogul_activities"))
    code, results = dbt(database, "build")
    assert code == 1
    failed = [name for name, result in results.items() if result["status"] == "fail"]
    assert any(test in name for name in failed), failed
