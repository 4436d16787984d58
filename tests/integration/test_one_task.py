# SPDX-License-Identifier: Apache-2.0
"""The three steps in one task: how it gets to its end, and which ends the next try cures with a new export."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import ChartMogulError
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.exports import ExportParameters
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from tests.integration.task_runner import FakeTaskStateStore, TaskRun, run_task
from tests.integration.test_formats import READERS

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
DAY = {"data_interval_start": START, "data_interval_end": END}

both_modes = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "on the worker"])


def run(destination: str, *, try_number: int = 1, store: FakeTaskStateStore | None = None, **told: Any) -> TaskRun:
    context = {**DAY, **({} if store is None else {"task_state_store": store})}
    operator = ActivitiesToObjectStorageOperator(task_id="move", destination=destination, **told)
    return run_task(operator, try_number=try_number, **context)


def posts(sandbox: Sandbox) -> int:
    return len([seen for seen in sandbox.requests if seen.method == "POST"])


@both_modes
def test_from_the_window_to_the_object(deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.export_seconds = 1
    ran = run(f"file://{tmp_path}/{{interval_start:%Y-%m-%d}}.csv.gz", deferrable=deferrable)

    expected_rows = sandbox.expected_rows(START, END)
    assert ran.value == f"file://{tmp_path}/2024-01-01.csv.gz"
    assert READERS["csv.gz"]((tmp_path / "2024-01-01.csv.gz").read_bytes()) == [
        list(row.values()) for row in expected_rows
    ]
    facts = ran.xcoms["object"]
    assert (facts["rows"], facts["export_id"]) == (len(expected_rows), sandbox.exports[0].id)
    assert (facts["interval_start"], facts["interval_end"]) == (START.isoformat(), END.isoformat())
    assert posts(sandbox) == 1
    assert ran.worker_starts == (2 if deferrable else 1), "one to make the export, one to move it"


@both_modes
@pytest.mark.parametrize("echo", [{}, {"start_date": "1.1.2024", "end_date": 1704153600, "activity_type": ["churn"]}])
def test_what_the_api_does_not_say_is_what_was_asked_for(
    deferrable: bool, echo: Any, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load replaces the window that the facts name: all of the table, were both ends taken for open."""
    monkeypatch.setattr(ExportParameters, "echo", lambda window: echo)
    sandbox.export_seconds = 1
    ran = run(f"file://{tmp_path}/{{activity_type}}.csv", activity_type="churn", deferrable=deferrable)
    facts = ran.xcoms["object"]
    assert (facts["interval_start"], facts["interval_end"]) == (START.isoformat(), END.isoformat())
    assert (facts["activity_type"], facts["key"].rpartition("/")[2]) == ("churn", "churn.csv")


def test_what_it_takes_of_all_three_is_used(sandbox: Sandbox, tmp_path: Path) -> None:
    ran = run(
        f"file://{tmp_path}/{{activity_type}}-{{interval_start:%d}}.x",
        activity_type="churn",
        lookback="P7D",
        output_format="parquet",
        column_types={"activity_mrr": "int64"},
    )
    facts = ran.xcoms["object"]
    assert facts["key"].endswith("churn-25.x")
    assert (facts["activity_type"], facts["format"]) == ("churn", "parquet")
    assert facts["rows"] == len(sandbox.expected_rows(START - timedelta(days=7), END, "churn"))


class TestIfExists:
    def test_reuse_makes_no_export(self, sandbox: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "x.zip").write_bytes(b"there")
        ran = run(f"file://{tmp_path}/x.zip", if_exists="reuse")
        assert ran.value == f"file://{tmp_path}/x.zip"
        facts = ran.xcoms["object"]
        assert (facts["bytes"], facts["export_id"]) == (5, None)
        assert facts["interval_start"] == START.isoformat()
        assert sandbox.requests == []

    def test_skip_makes_no_export(self, sandbox: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "x.zip").write_bytes(b"there")
        with pytest.raises(AirflowSkipException):
            run(f"file://{tmp_path}/x.zip", if_exists="skip")
        assert sandbox.requests == []

    def test_a_later_try_with_skip_may_have_found_its_own(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """Killed right behind the writing, it has told nobody; skipped, nobody would load the object."""
        (tmp_path / "x.zip").write_bytes(b"there")
        ran = run(f"file://{tmp_path}/x.zip", if_exists="skip", try_number=2)
        assert ran.value == ran.xcoms["object"]["uri"] == f"file://{tmp_path}/x.zip"
        assert ran.xcoms["object"]["interval_end"] == END.isoformat()
        assert sandbox.requests == []

    def test_fail_makes_no_export(self, sandbox: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "x.zip").write_bytes(b"there")
        with pytest.raises(AirflowFailException, match="nothing was written"):
            run(f"file://{tmp_path}/x.zip", if_exists="fail")
        assert sandbox.requests == []

    def test_a_retry_with_fail_finds_its_own(self, sandbox: Sandbox, tmp_path: Path) -> None:
        first = run(f"file://{tmp_path}/x.csv.gz", if_exists="fail")
        again = run(f"file://{tmp_path}/x.csv.gz", if_exists="fail", try_number=2)
        assert again.value == first.value

    def test_a_name_with_the_export_s_id_is_looked_at_when_there_is_one(self, sandbox: Sandbox, tmp_path: Path) -> None:
        run(f"file://{tmp_path}/{{export_id}}.zip", if_exists="fail")
        assert [path.name for path in tmp_path.iterdir()] == [f"{sandbox.exports[0].id}.zip"]

    def test_where_there_is_nothing_it_is_made(self, sandbox: Sandbox, tmp_path: Path) -> None:
        for if_exists in ("reuse", "skip", "fail"):
            run(f"file://{tmp_path}/{if_exists}.zip", if_exists=if_exists)
        assert posts(sandbox) == 3


@both_modes
class TestTheNextTryCures:
    """On Airflow 3.3, where a retry would go on with the export of the try before it."""

    def fails(self, error: Any, says: str, **told: Any) -> FakeTaskStateStore:
        store = FakeTaskStateStore()
        with pytest.raises(error) as raised:
            run(store=store, **told)
        assert says in str(raised.value)
        assert not isinstance(raised.value, AirflowFailException)
        return store

    def test_a_failed_export(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.outcome = "failed"
        told = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable}
        store = self.fails(ChartMogulError, "the next try of this task creates a new export", **told)
        sandbox.outcome = "succeeded"
        run(try_number=2, store=store, **told)
        assert posts(sandbox) == 2
        assert (tmp_path / "x.zip").exists()

    def test_a_hung_export(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.outcome = "never"
        told = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable, "timeout": 1}
        store = self.fails(ChartMogulError, "did not finish within the task's timeout", **told)
        sandbox.outcome = "succeeded"
        run(try_number=2, store=store, **told)
        assert posts(sandbox) == 2

    def test_one_that_is_late_for_the_execution_timeout(
        self, deferrable: bool, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        sandbox.outcome = "never"
        told = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable}
        store = self.fails(AirflowTaskTimeout, "", execution_timeout=timedelta(seconds=2), **told)
        sandbox.outcome = "succeeded"
        run(try_number=2, store=store, **told)
        assert posts(sandbox) == 2

    def test_an_expired_export(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.url_seconds, sandbox.fresh_urls = 0, False
        told = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable}
        store = self.fails(ChartMogulError, "the next try of this task creates a new export", **told)
        sandbox.url_seconds = 3600
        run(try_number=2, store=store, **told)
        assert posts(sandbox) == 2


def test_a_crash_before_the_wait_goes_on_with_what_was_made(sandbox: Sandbox, tmp_path: Path) -> None:
    store = FakeTaskStateStore()
    sandbox.outcome = "never"
    keep = store.set

    def keep_and_die(key: str, value: Any) -> None:
        keep(key, value)
        raise KeyboardInterrupt

    store.set = keep_and_die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(f"file://{tmp_path}/x.zip", store=store)
    sandbox.outcome = "succeeded"
    store.set = keep  # type: ignore[method-assign]
    with pytest.raises(ChartMogulError, match="within the task's timeout"):
        run(f"file://{tmp_path}/x.zip", store=store, try_number=2, timeout=1)
    assert posts(sandbox) == 1, "the outcome of an export is fixed when it is made"
    run(f"file://{tmp_path}/x.zip", store=store, try_number=3)
    assert posts(sandbox) == 2


def test_a_crash_while_it_moves_costs_no_export(sandbox: Sandbox, tmp_path: Path) -> None:
    store = FakeTaskStateStore()
    destination = f"file://{tmp_path}/gone/x.zip"
    (tmp_path / "gone").write_text("in the way")
    with pytest.raises(ChartMogulError, match="could not"):
        run(destination, store=store)
    (tmp_path / "gone").unlink()
    ran = run(destination, store=store, try_number=2)
    assert posts(sandbox) == 1
    assert ran.worker_starts == 1, "it was done already, so there was nothing to wait for"


@both_modes
class TestNoRetryHelps:
    def test_a_wrong_key(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.api_key = "another"
        with pytest.raises(AirflowFailException, match="401"):
            run(f"file://{tmp_path}/x.zip", deferrable=deferrable)

    def test_a_key_that_is_revoked_during_the_wait(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.outcome = "never"
        revoke = threading.Thread(target=lambda: (_until(lambda: posts(sandbox)), setattr(sandbox, "api_key", "new")))
        revoke.start()
        with pytest.raises(AirflowFailException, match="401"):
            run(f"file://{tmp_path}/x.zip", deferrable=deferrable, poke_interval=0.1)
        revoke.join()

    @pytest.mark.parametrize(
        ("told", "says"),
        [
            ({"interval_start": "2024-01-05"}, "reversed"),
            ({"activity_type": "{{ 'upsell' }}"}, "activity_type cannot be"),
            ({"if_exists": "replace"}, "if_exists cannot be"),
            ({"interval_start": None, "destination": "file:///x/{interval_start}.zip"}, "interval_start is None"),
            ({"destination": "nostore://b/x.zip"}, "no file system"),
        ],
    )
    def test_what_makes_no_sense_is_said_before_a_request(
        self, told: dict[str, Any], says: str, deferrable: bool, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        with pytest.raises(AirflowFailException, match=says):
            run(**{"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable, **told})
        assert sandbox.requests == []


@both_modes
@pytest.mark.parametrize("how", ["failed", "never"])
def test_soft_fail_skips(how: str, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.outcome = how
    with pytest.raises(AirflowSkipException, match="soft_fail"):
        run(f"file://{tmp_path}/x.zip", deferrable=deferrable, timeout=1, soft_fail=True)


def test_on_kill_ends_a_wait_on_the_worker(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.outcome = "never"
    running: list[ActivitiesToObjectStorageOperator] = []
    operator = ActivitiesToObjectStorageOperator(
        task_id="move", destination=f"file://{tmp_path}/x.zip", deferrable=False, poke_interval=0.1
    )
    killer = threading.Thread(target=lambda: (_until(lambda: posts(sandbox)), running[0].on_kill()))
    killer.start()
    with pytest.raises(ChartMogulError, match="was cancelled"):
        run_task(operator, on_start=running.append, **DAY)
    killer.join()


def test_the_key_is_in_no_event_and_no_xcom(sandbox: Sandbox, tmp_path: Path) -> None:
    ran = run(f"file://{tmp_path}/x.zip")
    told = json.dumps([ran.events, ran.xcoms, ran.value])
    assert sandbox.api_key not in told
    assert "X-Amz" not in told


@pytest.mark.parametrize("name", ["poke_interval", "timeout"])
def test_times_below_zero_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ActivitiesToObjectStorageOperator(task_id="move", destination="file:///x.zip", **{name: -1})


def _until(condition: Any) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that")
