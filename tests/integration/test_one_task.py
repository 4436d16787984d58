# SPDX-License-Identifier: Apache-2.0
"""The operator that does all three steps: its results, and which failures a retry recovers from with a new export."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import ChartMogulError, RateLimitError
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.exports import ExportParameters
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from tests.integration import task_runner
from tests.integration.servers import Response, ScriptedServer
from tests.integration.task_runner import FakeTaskStateStore, TaskRun, render, run_task
from tests.integration.test_formats import READERS

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
DAY = {"data_interval_start": START, "data_interval_end": END}

both_modes = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "on the worker"])


def export_and_transfer(
    destination: str, *, try_number: int = 1, store: FakeTaskStateStore | None = None, **parameters: Any
) -> TaskRun:
    context = {**DAY, **({} if store is None else {"task_state_store": store})}
    operator = ActivitiesToObjectStorageOperator(task_id="t", destination=destination, **parameters)
    return run_task(operator, try_number=try_number, **context)


def count_posts(sandbox: Sandbox) -> int:
    return len([request for request in sandbox.requests if request.method == "POST"])


@both_modes
def test_result_is_the_object_of_the_window(deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.export_seconds = 1
    run = export_and_transfer(f"file://{tmp_path}/{{interval_start:%Y-%m-%d}}.csv.gz", deferrable=deferrable)

    expected_rows = sandbox.expected_rows(START, END)
    assert run.value == f"file://{tmp_path}/2024-01-01.csv.gz"
    assert READERS["csv.gz"]((tmp_path / "2024-01-01.csv.gz").read_bytes()) == [
        list(row.values()) for row in expected_rows
    ]
    metadata = run.xcoms["object"]
    assert (metadata["rows"], metadata["export_id"]) == (len(expected_rows), sandbox.exports[0].id)
    assert (metadata["interval_start"], metadata["interval_end"]) == (START.isoformat(), END.isoformat())
    assert count_posts(sandbox) == 1
    assert run.worker_starts == (2 if deferrable else 1)


@both_modes
@pytest.mark.parametrize("echo", [{}, {"start_date": "1.1.2024", "end_date": 1704153600, "activity_type": ["churn"]}])
def test_metadata_has_the_requested_window(
    deferrable: bool, echo: Any, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load replaces the window that the metadata names: the whole table, if both ends were taken for open."""
    monkeypatch.setattr(ExportParameters, "echo", lambda window: echo)
    sandbox.export_seconds = 1
    run = export_and_transfer(f"file://{tmp_path}/{{activity_type}}.csv", activity_type="churn", deferrable=deferrable)
    metadata = run.xcoms["object"]
    assert (metadata["interval_start"], metadata["interval_end"]) == (START.isoformat(), END.isoformat())
    assert (metadata["activity_type"], metadata["key"].rpartition("/")[2]) == ("churn", "churn.csv")


def test_parameters_of_all_three_steps_are_used(sandbox: Sandbox, tmp_path: Path) -> None:
    run = export_and_transfer(
        f"file://{tmp_path}/{{activity_type}}-{{interval_start:%d}}.x",
        activity_type="churn",
        lookback="P7D",
        output_format="parquet",
        column_types={"activity_mrr": "int64"},
    )
    metadata = run.xcoms["object"]
    assert metadata["key"].endswith("churn-25.x")
    assert (metadata["activity_type"], metadata["format"]) == ("churn", "parquet")
    assert metadata["rows"] == len(sandbox.expected_rows(START - timedelta(days=7), END, "churn"))


@both_modes
def test_log_names_window_and_object_before_the_wait(
    deferrable: bool,
    sandbox: Sandbox,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The rendered templates show placeholders, and the name of the default window."""
    caplog.set_level(logging.INFO)
    sandbox.outcome = "never"
    destination = f"file://{tmp_path}/{{interval_start:%Y-%m-%d}}-{{export_id}}.zip"
    with pytest.raises(ChartMogulError, match="within the task's timeout"):
        export_and_transfer(destination, deferrable=deferrable, timeout=0.1)
    log = capfd.readouterr().out + caplog.text
    before_the_wait = log.partition("Created activities export")[0]
    assert f"The destination is file://{tmp_path}/2024-01-01-{{export_id}}.zip" in before_the_wait
    window = "from 2024-01-01T00:00:00+00:00 to 2024-01-02T00:00:00+00:00"
    assert f"Creating an export of all activities {window}" in before_the_wait


class TestIfExists:
    def test_reuse_creates_no_export(self, sandbox: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "x.zip").write_bytes(b"there")
        run = export_and_transfer(f"file://{tmp_path}/x.zip", if_exists="reuse")
        assert run.value == f"file://{tmp_path}/x.zip"
        metadata = run.xcoms["object"]
        assert (metadata["bytes"], metadata["export_id"]) == (5, None)
        assert metadata["interval_start"] == START.isoformat()
        assert sandbox.requests == []

    @pytest.mark.parametrize(("if_exists", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException)])
    def test_skip_and_fail_create_no_export(
        self, if_exists: str, error: type[Exception], sandbox: Sandbox, tmp_path: Path
    ) -> None:
        (tmp_path / "x.zip").write_bytes(b"there")
        with pytest.raises(error, match="already exists"):
            export_and_transfer(f"file://{tmp_path}/x.zip", if_exists=if_exists)
        assert sandbox.requests == []

    def test_retry_with_skip_succeeds(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """An earlier try may have been killed after it wrote the object; if this one were skipped, so were the load."""
        (tmp_path / "x.zip").write_bytes(b"there")
        run = export_and_transfer(f"file://{tmp_path}/x.zip", if_exists="skip", try_number=2)
        assert run.value == run.xcoms["object"]["uri"] == f"file://{tmp_path}/x.zip"
        assert run.xcoms["object"]["interval_end"] == END.isoformat()
        assert sandbox.requests == []

    def test_retry_with_fail_accepts_its_own_object(self, sandbox: Sandbox, tmp_path: Path) -> None:
        first = export_and_transfer(f"file://{tmp_path}/x.csv.gz", if_exists="fail")
        retry = export_and_transfer(f"file://{tmp_path}/x.csv.gz", if_exists="fail", try_number=2)
        assert retry.value == first.value

    def test_name_with_export_id_is_checked_after_creation(self, sandbox: Sandbox, tmp_path: Path) -> None:
        export_and_transfer(f"file://{tmp_path}/{{export_id}}.zip", if_exists="fail")
        assert [path.name for path in tmp_path.iterdir()] == [f"{sandbox.exports[0].id}.zip"]

    @pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
    def test_missing_object_is_written(self, if_exists: str, sandbox: Sandbox, tmp_path: Path) -> None:
        export_and_transfer(f"file://{tmp_path}/x.zip", if_exists=if_exists)
        assert (tmp_path / "x.zip").exists()
        assert count_posts(sandbox) == 1


@both_modes
class TestRetryCreatesNewExport:
    """On Airflow 3.3 a retry resumes the export of the try before, unless that one is unusable."""

    def fail_first_try(
        self, error: type[Exception], message: str, *, destination: str, **parameters: Any
    ) -> FakeTaskStateStore:
        store = FakeTaskStateStore()
        with pytest.raises(error) as raised:
            export_and_transfer(destination, store=store, **parameters)
        assert message in str(raised.value)
        assert not isinstance(raised.value, AirflowFailException)
        return store

    def test_after_failed_export(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.outcome = "failed"
        parameters: Any = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable}
        store = self.fail_first_try(ChartMogulError, "the next try of this task creates a new export", **parameters)
        sandbox.outcome = "succeeded"
        export_and_transfer(try_number=2, store=store, **parameters)
        assert count_posts(sandbox) == 2
        assert (tmp_path / "x.zip").exists()

    def test_after_timeout(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.outcome = "never"
        parameters: Any = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable, "timeout": 1}
        store = self.fail_first_try(ChartMogulError, "did not finish within the task's timeout", **parameters)
        sandbox.outcome = "succeeded"
        export_and_transfer(try_number=2, store=store, **parameters)
        assert count_posts(sandbox) == 2

    def test_after_execution_timeout(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.outcome = "never"
        parameters: Any = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable}
        limit = timedelta(seconds=6)
        store = self.fail_first_try(AirflowTaskTimeout, "", execution_timeout=limit, **parameters)
        sandbox.outcome = "succeeded"
        export_and_transfer(try_number=2, store=store, **parameters)
        assert count_posts(sandbox) == 2

    def test_after_execution_timeout_whose_signal_was_missed(
        self, deferrable: bool, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_runner, "_execution_timeout", lambda operator: nullcontext())
        self.test_after_execution_timeout(deferrable, sandbox, tmp_path)

    def test_after_expiry(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.url_seconds, sandbox.fresh_urls = 0, False
        parameters: Any = {"destination": f"file://{tmp_path}/x.zip", "deferrable": deferrable}
        store = self.fail_first_try(ChartMogulError, "the next try of this task creates a new export", **parameters)
        sandbox.url_seconds = 3600
        export_and_transfer(try_number=2, store=store, **parameters)
        assert count_posts(sandbox) == 2


def test_retry_after_crash_resumes_export_until_it_times_out(sandbox: Sandbox, tmp_path: Path) -> None:
    store = FakeTaskStateStore()
    sandbox.outcome = "never"
    save = store.set

    def save_and_crash(key: str, value: Any) -> None:
        save(key, value)
        raise KeyboardInterrupt

    store.set = save_and_crash  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        export_and_transfer(f"file://{tmp_path}/x.zip", store=store)
    sandbox.outcome = "succeeded"  # the outcome of an export is fixed when it is created
    store.set = save  # type: ignore[method-assign]
    with pytest.raises(ChartMogulError, match="within the task's timeout"):
        export_and_transfer(f"file://{tmp_path}/x.zip", store=store, try_number=2, timeout=1)
    assert count_posts(sandbox) == 1
    export_and_transfer(f"file://{tmp_path}/x.zip", store=store, try_number=3)
    assert count_posts(sandbox) == 2


def test_retry_after_failed_upload_resumes_export(sandbox: Sandbox, tmp_path: Path) -> None:
    store = FakeTaskStateStore()
    destination = f"file://{tmp_path}/blocked/x.zip"
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    with pytest.raises(ChartMogulError, match="could not"):
        export_and_transfer(destination, store=store)
    (tmp_path / "blocked").unlink()
    run = export_and_transfer(destination, store=store, try_number=2)
    assert count_posts(sandbox) == 1
    assert run.worker_starts == 1, "the finished export was waited for"


@both_modes
class TestPermanentFailure:
    def test_wrong_key(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.api_key = "another"
        with pytest.raises(AirflowFailException, match="401"):
            export_and_transfer(f"file://{tmp_path}/x.zip", deferrable=deferrable)

    def test_key_revoked_during_the_wait(self, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.outcome = "never"

        def revoke() -> None:
            wait_until(lambda: count_posts(sandbox) > 0)
            sandbox.api_key = "new"

        thread = threading.Thread(target=revoke)
        thread.start()
        with pytest.raises(AirflowFailException, match="401"):
            export_and_transfer(f"file://{tmp_path}/x.zip", deferrable=deferrable, poke_interval=0.1)
        thread.join()

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"interval_start": "2024-01-05"}, "reversed"),
            ({"activity_type": "upsell"}, "activity_type cannot be"),
            ({"if_exists": "replace"}, "if_exists cannot be"),
            ({"interval_start": ""}, "interval_start came out of its template"),
            ({"destination": "nostore://b/x.zip"}, "no file system"),
        ],
    )
    def test_invalid_parameters_raise_before_a_request(
        self, parameters: dict[str, Any], message: str, deferrable: bool, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        operator = ActivitiesToObjectStorageOperator(task_id="t", destination="{{ x }}", deferrable=deferrable)
        values = {"destination": f"file://{tmp_path}/x.zip", **parameters}
        with pytest.raises(AirflowFailException, match=message):
            run_task(render(operator, **values), **DAY)
        assert sandbox.requests == []


@both_modes
@pytest.mark.parametrize("outcome", ["failed", "never"])
def test_soft_fail_skips(outcome: str, deferrable: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.outcome = outcome
    with pytest.raises(AirflowSkipException, match="soft_fail"):
        export_and_transfer(f"file://{tmp_path}/x.zip", deferrable=deferrable, timeout=1, soft_fail=True)


def test_on_kill_ends_a_wait_on_the_worker(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.outcome = "never"
    operators: list[ActivitiesToObjectStorageOperator] = []
    operator = ActivitiesToObjectStorageOperator(
        task_id="t", destination=f"file://{tmp_path}/x.zip", deferrable=False, poke_interval=0.1
    )

    def kill() -> None:
        wait_until(lambda: count_posts(sandbox) > 0)
        operators[0].on_kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(ChartMogulError, match="was cancelled"):
        run_task(operator, on_start=operators.append, **DAY)
    thread.join()


def test_neither_event_nor_xcom_has_key_or_signed_url(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.export_seconds = 1
    run = export_and_transfer(f"file://{tmp_path}/x.zip")
    assert run.events
    results = json.dumps([run.events, run.xcoms, run.value])
    assert sandbox.api_key not in results
    assert "X-Amz" not in results


def test_max_failure_seconds_limits_the_post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the hook's own limit of 120 s, in which it would wait for 30 s and send the request again."""
    with ScriptedServer(Response(429, headers={"Retry-After": "30"})) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        with pytest.raises(RateLimitError):
            export_and_transfer(f"file://{tmp_path}/x.zip", max_failure_seconds=5)
        assert len(server.requests) == 1


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition has not become true")
