# SPDX-License-Identifier: Apache-2.0
"""
Retries of the task that creates an export: when they resume the export of an earlier try, and when they create one.

The task state store is a stand-in for that of Airflow 3.3; ``tests/system`` has the real one, and kills workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.task_runner import FakeTaskStateStore, run_task

DAY = {"data_interval_start": datetime(2024, 1, 1, tzinfo=UTC), "data_interval_end": datetime(2024, 1, 2, tzinfo=UTC)}


class WorkerCrash(BaseException):
    """The worker process dies."""


@pytest.fixture
def store() -> FakeTaskStateStore:
    return FakeTaskStateStore()


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what has been logged since the last call, by whichever logger this Airflow's tasks have."""

    def read() -> str:
        text = capfd.readouterr().out + caplog.text
        caplog.clear()
        return text

    return read


def create(store: FakeTaskStateStore | None, *, try_number: int = 1, max_tries: int = 2, **parameters: Any) -> str:
    """Run one try of the task; return the export's ID."""
    context = {**DAY, **({} if store is None else {"task_state_store": store})}
    task = CreateActivitiesExportOperator(task_id="create", **parameters)
    return str(run_task(task, try_number=try_number, max_tries=max_tries, **context).value)


def test_retry_resumes_existing_export(sandbox: Sandbox, store: FakeTaskStateStore, log: Callable[[], str]) -> None:
    first = create(store)
    log()
    assert create(store, try_number=2) == first
    window = "from 2024-01-01T00:00:00+00:00 to 2024-01-02T00:00:00+00:00"
    assert f"Resuming export {first} of an earlier try (all activities {window})" in log()
    assert create(store, try_number=3) == first
    assert len(sandbox.exports) == 1


@pytest.mark.parametrize("outcome", ["never", "archiving"])
def test_retry_resumes_unfinished_export(outcome: str, sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    sandbox.outcome = outcome
    assert create(store) == create(store, try_number=2)


def test_retry_resumes_export_saved_right_before_a_crash(
    sandbox: Sandbox, store: FakeTaskStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = FakeTaskStateStore.set

    def save_and_crash(self: FakeTaskStateStore, key: str, value: Any) -> None:
        save(self, key, value)
        raise WorkerCrash

    monkeypatch.setattr(FakeTaskStateStore, "set", save_and_crash)
    with pytest.raises(WorkerCrash):
        create(store)
    monkeypatch.setattr(FakeTaskStateStore, "set", save)
    assert create(store, try_number=2) == sandbox.exports[0].id
    assert len(sandbox.exports) == 1


def test_retry_after_key_rotation_resumes_export(
    sandbox: Sandbox, store: FakeTaskStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create(store)
    sandbox.api_key = "rotated"
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
    assert create(store, try_number=2) == first


def test_cleared_task_creates_new_export(sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    first = create(store)
    second = create(store, try_number=2, max_tries=4)  # Airflow raises max_tries of a cleared task
    assert second != first
    assert create(store, try_number=3, max_tries=4) == second


@pytest.mark.parametrize(
    "break_export",
    [
        lambda sandbox: setattr(sandbox, "outcome", "failed"),
        lambda sandbox: (setattr(sandbox, "url_seconds", 0), setattr(sandbox, "fresh_urls", False)),
    ],
    ids=["failed", "expired"],
)
def test_retry_replaces_unusable_export(
    break_export: Callable[[Sandbox], Any], sandbox: Sandbox, store: FakeTaskStateStore
) -> None:
    break_export(sandbox)
    first = create(store)
    sandbox.outcome = "succeeded"
    assert create(store, try_number=2) != first


def test_retry_replaces_export_unknown_to_server(sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    first = create(store)
    (key,) = store.rows
    store.set(key, {**json.loads(store.rows[key]), "export_id": "00000000-0000-0000-0000-000000000000"})
    assert create(store, try_number=2) != first
    assert [request.status for request in sandbox.requests] == [200, 404, 200]


@pytest.mark.parametrize(
    "changed",
    [
        {"activity_type": "churn"},
        {"interval_end": "2024-01-03"},
        {"interval_start": None},
        {"lookback": "P1D"},
        {"chartmogul_conn_id": "another"},
    ],
)
def test_retry_with_other_request_creates_new_export(
    changed: dict[str, Any], sandbox: Sandbox, store: FakeTaskStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG was changed between two tries, or a template is rendered differently."""
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", sandbox.connection_uri)
    first = create(store)
    assert create(store, try_number=2, **changed) != first


@pytest.mark.parametrize(
    "foreign", ["a text", 7, {}, {"export_id": "../../account"}, {"export_id": None}, ["x"]], ids=str
)
def test_foreign_content_of_the_store_is_ignored(foreign: Any, sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    first = create(store)
    (key,) = store.rows
    saved = json.loads(store.rows[key])
    store.set(key, {**saved, **foreign} if isinstance(foreign, dict) and foreign else foreign)
    assert create(store, try_number=2) != first


def test_unreachable_store_costs_a_new_export(
    sandbox: Sandbox, store: FakeTaskStateStore, log: Callable[[], str]
) -> None:
    store.is_down = True
    first = create(store)
    assert create(store, try_number=2) != first
    assert "Could not write to Airflow's task state store (RuntimeError)" in log()


def test_retry_without_store_creates_new_export_and_logs_why(sandbox: Sandbox, log: Callable[[], str]) -> None:
    first = create(None)
    assert "keeps no state" not in log()
    assert create(None, try_number=2) != first
    assert "Airflow before 3.3 keeps no state between tries" in log()


def test_store_holds_neither_key_nor_signed_url(sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    create(store)
    assert sandbox.api_key not in json.dumps(store.rows)
    assert "X-Amz" not in json.dumps(store.rows)
