# SPDX-License-Identifier: Apache-2.0
"""How the waits of a triggerer look up their connection; ``test_many_waits`` has what they share."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_chartmogul.hooks import chartmogul, shared_client
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.integration.task_runner import run_trigger


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch, short_backoff: None) -> None:
    monkeypatch.setattr(shared_client, "LOOKUP_SECONDS", 0.1)
    monkeypatch.setattr(shared_client, "MISSING_SECONDS", 1.0)


def wait(**settings: Any) -> Any:
    return run_trigger(ActivitiesExportTrigger("missing", "e-1", poll_interval=0.1, **settings))


def test_missing_connection_ends_the_wait_after_a_while(short_times: None, airflow_db: None) -> None:
    event = wait(max_failure_seconds=3600)
    assert event["status"] == "error", "a retry may help, since Airflow reports an outage in the same way"
    assert "the Airflow connection 'missing' does not exist" in event["message"]


def test_failing_lookup_is_retried_for_max_failure_seconds(short_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_settings(conn_id: str) -> Any:
        raise ConnectionError("the secrets backend is down")

    monkeypatch.setattr(shared_client, "read_settings", read_settings)
    event = wait(max_failure_seconds=2)
    assert "max_failure_seconds is 2" in event["message"]
    assert "ConnectionError" in event["message"]


def test_key_in_the_login_is_masked_in_the_triggerer(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr(chartmogul, "mask_secret", masked.append)
    monkeypatch.setenv(
        "AIRFLOW_CONN_MISSING", '{"conn_type": "chartmogul", "login": "the-key", "host": "http://[::1]:1"}'
    )
    wait(max_failure_seconds=0)
    assert masked == ["the-key"]
