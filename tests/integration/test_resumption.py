# SPDX-License-Identifier: Apache-2.0
"""
A try after a crash: what it goes on with, and where it makes a new export.

The store is the one Airflow 3.3 puts into the context, as far as it is used; the real one, and workers that are really
killed, are in ``tests/system``.
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


class Crashed(BaseException):
    """The worker dies."""


@pytest.fixture
def store() -> FakeTaskStateStore:
    return FakeTaskStateStore()


def run(store: FakeTaskStateStore | None, *, max_tries: int = 2, try_number: int = 1, **told: Any) -> str:
    context = {**DAY, **({} if store is None else {"task_state_store": store})}
    operator = CreateActivitiesExportOperator(task_id="create", **told)
    return str(run_task(operator, try_number=try_number, max_tries=max_tries, **context).value)


def test_a_retry_goes_on_with_what_was_made(sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    first = run(store)
    assert run(store, try_number=2) == first
    assert run(store, try_number=3) == first
    assert len(sandbox.exports) == 1


@pytest.mark.parametrize("outcome", ["never", "archiving"])
def test_one_that_is_not_done_is_gone_on_with(outcome: str, sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    sandbox.outcome = outcome
    assert run(store) == run(store, try_number=2)


def test_a_clear_makes_a_new_one(sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    first = run(store)
    second = run(store, try_number=2, max_tries=4)
    assert second != first
    assert run(store, try_number=3, max_tries=4) == second, "and a retry after that goes on with the second"


@pytest.mark.parametrize(
    "change",
    [
        lambda sandbox: setattr(sandbox, "outcome", "failed"),
        lambda sandbox: (setattr(sandbox, "url_seconds", 0), setattr(sandbox, "fresh_urls", False)),
    ],
    ids=["failed", "expired"],
)
def test_one_that_is_of_no_use_any_more_is_not_gone_on_with(
    change: Callable[[Sandbox], Any], sandbox: Sandbox, store: FakeTaskStateStore
) -> None:
    change(sandbox)
    first = run(store)
    sandbox.outcome = "succeeded"
    assert run(store, try_number=2) != first


def test_one_that_the_server_does_not_know_is_not_gone_on_with(sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    first = run(store)
    (key,) = store.rows
    store.set(key, {**json.loads(store.rows[key]), "export_id": "00000000-0000-0000-0000-000000000000"})
    assert run(store, try_number=2) != first
    assert [seen.status for seen in sandbox.requests] == [200, 404, 200]


@pytest.mark.parametrize(
    "other",
    [
        {"activity_type": "churn"},
        {"interval_end": "2024-01-03"},
        {"interval_start": None},
        {"lookback": "P1D"},
        {"chartmogul_conn_id": "another"},
    ],
)
def test_another_request_is_another_export(
    other: dict[str, Any], sandbox: Sandbox, store: FakeTaskStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DAG that was changed between two tries, or a template that comes out differently."""
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", sandbox.connection_uri)
    first = run(store)
    assert run(store, try_number=2, **other) != first


def test_a_rotated_key_is_the_same_request(
    sandbox: Sandbox, store: FakeTaskStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(store)
    sandbox.api_key = "rotated"
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
    assert run(store, try_number=2) == first


def test_it_is_kept_right_after_the_post(
    sandbox: Sandbox, store: FakeTaskStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash behind it, before anything is returned, costs nothing."""
    keep = FakeTaskStateStore.set

    def keep_and_die(self: FakeTaskStateStore, key: str, value: Any) -> None:
        keep(self, key, value)
        raise Crashed

    monkeypatch.setattr(FakeTaskStateStore, "set", keep_and_die)
    with pytest.raises(Crashed):
        run(store)
    monkeypatch.setattr(FakeTaskStateStore, "set", keep)
    assert run(store, try_number=2) == sandbox.exports[0].id
    assert len(sandbox.exports) == 1


def test_a_store_that_is_down_costs_an_export_and_no_more(
    sandbox: Sandbox, store: FakeTaskStateStore, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store.is_down = True
    first = run(store)
    assert run(store, try_number=2) != first
    assert "Could not write to Airflow's task state store (RuntimeError)" in capfd.readouterr().out + caplog.text


@pytest.mark.parametrize(
    "rubbish", ["a text", 7, {}, {"export_id": "../../account"}, {"export_id": None}, ["x"]], ids=str
)
def test_what_is_not_its_own_is_left_alone(rubbish: Any, sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    first = run(store)
    (key,) = store.rows
    kept = json.loads(store.rows[key])
    store.set(key, {**kept, **rubbish} if isinstance(rubbish, dict) and rubbish else rubbish)
    assert run(store, try_number=2) != first


def test_without_a_store_a_retry_makes_a_new_one_and_says_so(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    first = run(None)
    said = capfd.readouterr().out + caplog.text
    assert "keeps no state" not in said
    assert run(None, try_number=2) != first
    assert "Airflow before 3.3 keeps no state between tries" in capfd.readouterr().out + caplog.text


def test_what_is_kept_holds_no_key(sandbox: Sandbox, store: FakeTaskStateStore) -> None:
    run(store)
    assert sandbox.api_key not in json.dumps(store.rows)
    assert "X-Amz" not in json.dumps(store.rows)
