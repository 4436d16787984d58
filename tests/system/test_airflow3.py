# SPDX-License-Identifier: Apache-2.0
"""
Run the DAGs of the page about Airflow 3 in a real Airflow 3.3, with an SMTP server for the alert.

They share one Airflow. Its database is PostgreSQL, so that tasks run at the same time.
"""

from __future__ import annotations

import email
import re
import socketserver
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airflow_provider_chartmogul.exceptions import RateLimitError
from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import RealAirflow
from tests.pages import DOCS, blocks, run
from tests.postgres import postgres_server
from tests.system.crashes import wait_for

pytestmark = [pytest.mark.system, pytest.mark.long]

PAGE = DOCS / "airflow3.md"
DAY = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
BUCKET = "s3://aws_default@my-bucket"


class MailServer:
    """An SMTP server that keeps the e-mails that it gets."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        mails = self.mails

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 localhost\r\n")
                while line := self.rfile.readline():
                    command = line.strip().upper()
                    if command.startswith(b"DATA"):
                        self.wfile.write(b"354 go on\r\n")
                        lines = []
                        while (text := self.rfile.readline()) != b".\r\n":
                            lines.append(text)
                        mails.append(email.message_from_bytes(b"".join(lines)))
                    if command == b"QUIT":
                        self.wfile.write(b"221 bye\r\n")
                        return
                    self.wfile.write(b"250 ok\r\n")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self) -> MailServer:
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def mail_server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(export_seconds=2, customers=500) as running:
        yield running


@pytest.fixture(scope="module")
def airflow(
    sandbox: Sandbox, mail_server: MailServer, lake: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    for source in blocks(PAGE, "python"):
        (name,) = re.findall(r'DAG\(\s*"(\w+)"', source)
        local = source.replace(BUCKET, f"file://{lake}").replace(', conn_id="aws_default"', "")
        local = local.replace('object_storage_conn_id="aws_default",', "")
        # Without scheduled runs, each test knows its DAG's only runs.
        local = local.replace("catchup=False", "catchup=False, end_date=datetime(2026, 4, 1)")
        (dags / f"{name}.py").write_text(local)
    smtp = (
        f'{{"conn_type": "smtp", "host": "127.0.0.1", "port": {mail_server.port}, '
        '"extra": {"disable_ssl": true, "disable_tls": true}}'
    )
    environment = {
        "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
        "AIRFLOW_CONN_SMTP_DEFAULT": smtp,
    }
    with postgres_server() as database, psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE DATABASE warehouse")
        environment["AIRFLOW_CONN_POSTGRES_DEFAULT"] = f"{database.rpartition('/')[0]}/warehouse"
        url = database.replace("postgresql://", "postgresql+psycopg2://")
        with RealAirflow(tmp_path_factory.mktemp("airflow"), dags, environment=environment, database=url) as running:
            yield running


def start(airflow: RealAirflow, dag_id: str, **conf: Any) -> str:
    """Trigger a run for a day in the past, and return its ID."""
    airflow.wait_for_dag(dag_id)
    run_id = airflow.trigger(dag_id, logical_date=conf.pop("logical_date", DAY[0]), data_interval=DAY, conf=conf)
    airflow.unpause(dag_id)
    return run_id


def states(airflow: RealAirflow, dag_id: str, run_id: str) -> dict[str, str]:
    return {ti["task_id"]: ti["state"] for ti in airflow.task_instances(dag_id, run_id)}


def test_deadline_sends_an_email(airflow: RealAirflow, mail_server: MailServer, lake: Path) -> None:
    run_id = start(airflow, "chartmogul_by_eight")
    wait_for("the e-mail", lambda: mail_server.mails, 0.5, timeout=400)
    (mail,) = mail_server.mails
    assert (mail["Subject"], mail["To"]) == ("chartmogul_by_eight is late", "data-team@example.com")
    (body,) = [part.get_payload(decode=True) for part in mail.walk() if part.get_content_type() == "text/html"]
    assert body.decode().startswith(f"The run {run_id} was due at 2026-03-02 08:00")
    run = airflow.wait_for_run("chartmogul_by_eight", run_id, timeout=400)
    assert run["state"] == "success"
    assert (lake / "chartmogul" / "2026-03-01.csv.gz").exists()


@pytest.mark.parametrize(("choice", "state"), [("Reject", "skipped"), ("Approve", "success")])
def test_load_waits_for_approval(choice: str, state: str, airflow: RealAirflow, sandbox: Sandbox) -> None:
    dag_id = "chartmogul_approved_refresh"
    run_id = start(airflow, dag_id, logical_date=DAY[0] + timedelta(seconds=choice == "Reject"))
    wait_for("the request", lambda: states(airflow, dag_id, run_id)["approve"] == "awaiting_input", 0.5, timeout=400)
    assert states(airflow, dag_id, run_id)["load"] is None
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id.replace('+', '%2B')}/taskInstances/approve/-1/hitlDetails"
    rows = len(sandbox.expected_rows(None, datetime.now(UTC)))
    assert airflow.request("GET", path)["body"] == f"The export has {rows} rows."
    airflow.request("PATCH", path, {"chosen_options": [choice]})
    assert airflow.wait_for_run(dag_id, run_id, timeout=400)["state"] == "success"
    assert states(airflow, dag_id, run_id)["load"] == state
    if choice == "Approve":
        (loaded,) = airflow.xcom(dag_id, run_id, "load").values()
        assert loaded["inserted"] == rows


def test_pool_keeps_the_account_within_its_limits(airflow: RealAirflow, sandbox: Sandbox, lake: Path) -> None:
    airflow.cli("pools", "set", "chartmogul_requests", "4", "processes", "--include-deferred")
    before = len(sandbox.requests)
    dag_id = "chartmogul_in_a_pool"
    run_id = start(airflow, dag_id)
    assert airflow.wait_for_run(dag_id, run_id, timeout=500)["state"] == "success", states(airflow, dag_id, run_id)
    instances = airflow.task_instances(dag_id, run_id)
    assert sorted(ti["rendered_map_index"] for ti in instances) == [
        "contacts", "customers", "invoices", "notes", "plans", "subscription_events",
    ]  # fmt: skip
    assert {ti["pool"] for ti in instances} == {"chartmogul_requests"}
    times = [(datetime.fromisoformat(ti["start_date"]), datetime.fromisoformat(ti["end_date"])) for ti in instances]
    assert max(sum(begin <= moment < end for begin, end in times) for moment, _ in times) <= 4
    assert {request.status for request in sandbox.requests[before:]} == {200}
    assert len(list(lake.rglob("*.jsonl.gz"))) == 6


def test_retry_policy_fails_where_a_retry_cannot_help(airflow: RealAirflow, sandbox: Sandbox) -> None:
    dag_id = "chartmogul_with_retry_policy"
    with sandbox.faulty("create:402") as faults:
        run_id = start(airflow, dag_id)
        assert airflow.wait_for_run(dag_id, run_id, timeout=400)["state"] == "failed"
        assert faults[0].hits >= 1
    task = airflow.task_instance(dag_id, run_id, "export")
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 5)
    assert "someone has to act first" in airflow.task_log(dag_id, run_id, "export", 1)


def test_retry_policy_waits_longer_after_an_outage() -> None:
    (source,) = [block for block in blocks(PAGE, "python") if "ExceptionRetryPolicy" in block]
    policy = run(source.replace("\n):\n", "\n) as dag:\n"))["dag"].task_dict["export"].retry_policy
    assert policy.evaluate(RateLimitError(429, "slow down"), 1, 5).retry_delay == timedelta(minutes=15)
    assert policy.evaluate(ValueError(), 1, 5).retry_delay is None


def test_churn_is_reported_once(airflow: RealAirflow, sandbox: Sandbox) -> None:
    """Two runs whose windows overlap; in between, ChartMogul learns of a churn of some hours ago."""
    dag_id = "chartmogul_churn_alerts"
    airflow.wait_for_dag(dag_id)
    airflow.unpause(dag_id)
    minutes, day = timedelta(minutes=5), timedelta(days=1)
    reported, expected = [], []
    for start in (DAY[1] - 2 * minutes, DAY[1] - minutes):
        before = len(sandbox.requests)
        run_id = airflow.trigger(dag_id, logical_date=start, data_interval=(start, start + minutes))
        assert airflow.wait_for_run(dag_id, run_id, timeout=400)["state"] == "success", states(airflow, dag_id, run_id)
        log = airflow.task_log(dag_id, run_id, "report_churn", 1)
        reported.append(re.findall(r"churned: .*?'uuid': '([\w-]+)'", log))
        rows = sandbox.expected_rows(start - day, start + minutes, "churn")
        expected.append({row["uuid"] for row in rows})
        requests = [request for request in sandbox.requests[before:] if request.host == "api"]
        assert {request.status for request in requests} == {200}
        # Create, poll, and retrieve for a fresh URL; more if Airflow needed another try.
        assert [request.method for request in requests][:3] == ["POST", "GET", "GET"]
        assert len(requests) <= 6
        if len(reported) == 1:
            late = {**rows[-1], "uuid": "a-churn-that-came-late", "date": (start - 3 * minutes).isoformat()}
            sandbox.amend(added=[late])
    assert len(reported[0]) == len(expected[0]) >= 5
    assert set(reported[0]) == expected[0]
    assert set(reported[1]) == expected[1] - expected[0]
    assert "a-churn-that-came-late" in reported[1]
