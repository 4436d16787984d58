# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_chartmogul check`` against a sandbox, and against servers that are not ChartMogul."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.check import samples
from airflow_provider_chartmogul.check.command import main
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.servers import Response, ScriptedServer, json_response
from tests.pages import DOCS, table_with

KEY = "key-of-the-check"
AS_OF = datetime(2024, 7, 1, tzinfo=UTC)

Check = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _quiet_sandbox(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the sandbox's own log out of the output; older versions of Airflow write logs to stdout."""
    caplog.set_level(logging.WARNING, logger="airflow_provider_chartmogul.sandbox")


@pytest.fixture
def account() -> Iterator[Sandbox]:
    with Sandbox(customers=100, as_of=AS_OF, api_key=KEY) as running:
        yield running


@pytest.fixture
def check(account: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Return a function that runs the check with the sandbox's key, and returns its exit code, stdout and stderr."""
    monkeypatch.setenv("CHARTMOGUL_API_KEY", KEY)
    # Below the sandbox's limit, and faster than the default.
    monkeypatch.setattr(ConnectionSettings, "requests_per_second", 35.0)

    def run(*arguments: str, base_url: str | None = account.url) -> tuple[int, str, str]:
        code = main(["check", *(["--base-url", base_url] if base_url else []), *arguments])
        return code, *capsys.readouterr()

    return run


def finding(report: dict[str, Any], words: str) -> str:
    """Return the answer to the only question that contains some words."""
    (answer,) = [entry["answer"] for entry in report["findings"] if words in entry["question"]]
    return str(answer)


def test_report_has_settings_and_every_resource(check: Check) -> None:
    code, output, errors = check("--json")
    report = json.loads(output)
    assert (code, errors) == (0, "")
    assert report["account"] == {
        "time_zone": "Europe/Berlin",
        "currency": "EUR",
        "week_start_on": "sunday",
        "churn_recognition": "churn_at_period_end",
        "churn_when_zero_mrr": True,
        "auto_churn_subscription": False,
        "refund_handling": "refund_full_only",
        "proximate_movement_reclassification": "one_day_reclassification",
    }
    assert {name: entry["readable"] for name, entry in report["resources"].items()} == dict.fromkeys(RESOURCES, True)
    assert report["official_host"] is False


def test_text_has_the_same_facts_as_json(check: Check) -> None:
    report = json.loads(check("--json")[1])
    code, text, errors = check()
    assert (code, errors) == (0, "")
    for name, value in report["account"].items():
        assert re.search(rf"^  {name} +{str(value).lower() if isinstance(value, bool) else value}$", text, re.MULTILINE)
    for name, entry in report["resources"].items():
        assert re.search(rf"^  {name} +yes +{entry['rows']} rows? +.*{entry['requests']:,}", text, re.MULTILINE), name
    words = " ".join(text.split())
    for entry in report["findings"]:
        assert f"{entry['question']} {entry['answer']}" in words


def test_few_requests_none_of_which_writes(check: Check, account: Sandbox) -> None:
    report = json.loads(check("--json")[1])
    requests = account.requests
    assert len(requests) == report["requests"] <= 35
    assert {request.method for request in requests} == {"GET"}
    assert {request.status for request in requests} == {200}
    assert not [request for request in requests if "cursor=" in request.path]


def test_number_of_requests_is_that_of_a_walk(check: Check, account: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    report = json.loads(check("--json")[1])
    account.requests_per_second = account.max_connections = None
    extra = {"requests_per_second": 10_000, "max_connections": 8}
    connection = {**json.loads(account.connection_json), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))
    for name, resource in RESOURCES.items():
        if resource.has_window:
            continue
        before = len(account.requests)
        with ChartMogulHook() as hook:
            for _ in hook.iter_rows(name):
                pass
        requests, entry = len(account.requests) - before, report["resources"][name]
        if entry["requests_is_minimum"]:
            assert entry["requests"] <= requests, name
        else:
            assert entry["requests"] == requests, name
    assert report["resources"]["invoices"]["requests"] > 2
    assert report["resources"]["subscriptions"]["requests"] > 50


def test_resource_without_permission_is_named_and_the_others_are_checked(check: Check, account: Sandbox) -> None:
    with account.faulty("contacts:403", "tasks:402"):
        code, output, errors = check("--json")
    report = json.loads(output)
    assert (code, errors) == (1, "")
    denied = {name: entry["problem"] for name, entry in report["resources"].items() if not entry["readable"]}
    assert denied == {"contacts": "403", "tasks": "402"}
    assert "may not read this" in report["resources"]["contacts"]["reason"]
    assert finding(report, "contacts, notes").startswith("contacts 403, notes yes, tasks 402, opportunities yes.")


def test_denied_customers_leave_subscriptions_unchecked(check: Check, account: Sandbox) -> None:
    with account.faulty("customers:403"):
        code, text, _ = check()
    assert code == 1
    assert re.search(r"^  customers +no \(403\) ", text, re.MULTILINE)
    assert re.search(
        r"^  subscriptions +not checked +needs a row of customers, but none could be read$", text, re.MULTILINE
    )


def test_server_errors_are_retried(check: Check, account: Sandbox, short_waits: None) -> None:
    with account.faulty("plans:503;times=2", "account:429;times=1"):
        assert check()[0] == 0


def test_lasting_server_error_is_reported(
    check: Check, account: Sandbox, short_waits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_RETRY_SECONDS", 1.0)
    with account.faulty("plans:500", "notes:html"):
        code, output, _ = check("--json")
    resources = json.loads(output)["resources"]
    assert code == 1
    assert (resources["plans"]["problem"], resources["notes"]["problem"]) == ("500", "UnexpectedResponseError")
    assert resources["customers"]["readable"] is True


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_time_zone_of_metrics_is_found(
    zone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHARTMOGUL_API_KEY", KEY)
    with Sandbox(customers=300, as_of=AS_OF, api_key=KEY, metrics_time_zone=zone) as account:
        main(["check", "--base-url", account.url, "--json"])
    answer = finding(json.loads(capsys.readouterr().out), "dates of metrics")
    assert answer.startswith("UTC: " if zone == "UTC" else "The account's time zone: ")


def test_event_date_and_integrations_are_answered(check: Check) -> None:
    report = json.loads(check("--json")[1])
    assert finding(report, "event_date") == "Exactly: all events of that day, in UTC."
    assert finding(report, "integrations") == (
        "Google Sheets: customers yes, invoices yes, plans yes, subscription_events no."
    )


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (None, "/notes: works, /customer_notes: works, with the same first row."),
        ("notes:404", "/notes: 404, /customer_notes: works."),
        ("customer_notes:404", "/notes: works, /customer_notes: 404."),
    ],
)
def test_paths_of_notes_are_compared(fault: str | None, answer: str, check: Check, account: Sandbox) -> None:
    if fault is not None:
        account.faults.add(fault)
    code, output, _ = check("--json")
    assert code == 0
    assert finding(json.loads(output), "/notes") == answer


def test_empty_account_leaves_nothing_to_answer(check: Check, account: Sandbox) -> None:
    with account.faulty("lists:empty-list"):
        code, output, _ = check("--json")
    report = json.loads(output)
    assert code == 0
    assert report["resources"]["subscriptions"]["readable"] is None
    for words in ("integrations", "event_date", "dates of metrics"):
        assert finding(report, words).startswith("Unknown: ")
    assert "contacts an empty list (no rows, or no access)" in finding(report, "contacts, notes")


# ------------------------------------------------------------------------------------------------------- privacy


def identities(account: Sandbox) -> set[str]:
    """Return what identifies someone: the key, names, e-mail addresses, UUIDs and the host."""
    found = {KEY, account.url, f":{account.port}", "127.0.0.1", "Example Test Company"}
    for resource in ("data_sources", "customers", "contacts", "plans", "notes", "opportunities", "tasks"):
        for row in account.rows(resource):
            for key in ("uuid", "task_uuid", "customer_uuid", "name", "company", "email", "author", "owner", "phone"):
                found.add(row.get(key) or "")
    return found - {""}


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("faults", [[], ["lists:403"], ["customers:500", "account:403"]], ids=["all", "denied", "some"])
def test_report_has_no_identity(
    arguments: list[str], faults: list[str], check: Check, account: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_RETRY_SECONDS", 0.0)
    with account.faulty(*faults):
        _, output, errors = check(*arguments)
    known = identities(account)
    assert len(known) > 500
    assert [identity for identity in known if identity in output] == []
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}|@", output)
    assert errors == ""


def test_servers_messages_are_not_part_of_the_report(check: Check) -> None:
    """A proxy's page or an error may name the company or a customer."""
    message = json_response({"code": 403, "message": "Jane Doe of Acme Corp may not see this"}, 403)
    pong = json_response({"data": "pong!"})
    with ScriptedServer(pong, message) as server:
        code, output, errors = check(base_url=server.url)
        assert code == 1
        assert "Acme" not in output + errors
        server.responses[:] = [pong, message]
        _, output, errors = check("--verbose", base_url=server.url)
    assert "Acme" not in output
    assert "GET /contacts failed: ChartMogul responded with 403: Jane Doe of Acme Corp may not see this" in errors


def test_account_with_identities_in_its_settings_is_redacted(check: Check) -> None:
    settings = {"name": "Acme Corp", "id": "acc_77", "refund_handling": "as Acme Corp and jane@acme.example do"}
    with ScriptedServer(json_response({"data": "pong!"}), json_response(settings)) as server:
        _, output, _ = check(base_url=server.url)
    assert re.search(r"^  refund_handling +as … and … do$", output, re.MULTILINE)
    assert not re.search("acme", output, re.IGNORECASE)


# -------------------------------------------------------------------------------------------------------- errors


def test_wrong_key(check: Check, account: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARTMOGUL_API_KEY", "another-key")
    code, output, errors = check()
    assert (code, output) == (3, "")
    assert errors == f"{account.url} refuses the API key (401). Copy it again in ChartMogul: Profile, API keys.\n"


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_no_key(value: str | None, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARTMOGUL_API_KEY")
    if value is not None:
        monkeypatch.setenv("CHARTMOGUL_API_KEY", value)
    code, output, errors = check()
    assert (code, output) == (2, "")
    assert errors.startswith("There is no API key: set CHARTMOGUL_API_KEY, or name an Airflow connection")


def test_key_that_may_nothing(check: Check, account: Sandbox) -> None:
    with account.faulty("ping:403"):
        code, output, errors = check()
    assert (code, output) == (3, "")
    assert "denies the API key all access (403)" in errors


@pytest.mark.parametrize(
    "response",
    [
        Response(200, b"<html><title>Welcome</title></html>", {"Content-Type": "text/html"}),
        json_response({"data": "something else"}),
        json_response({"message": "no such page"}, 404),
        Response(302, b"", {"Location": "https://example.com/login"}),
    ],
    ids=["page", "json", "404", "redirect"],
)
def test_host_that_is_not_chartmogul(response: Response, check: Check) -> None:
    with ScriptedServer(response) as server:
        code, output, errors = check(base_url=server.url)
        assert len(server.requests) == 1
    assert (code, output) == (4, "")
    assert errors == f"{server.url} responds, but is not ChartMogul. Check the base URL.\n"


def test_host_that_does_not_respond(check: Check, account: Sandbox) -> None:
    account.stop()
    code, output, errors = check()
    assert (code, output) == (4, "")
    assert errors.startswith(f"No response from ChartMogul at {account.url}: the connection failed")
    assert errors.endswith(". Check the base URL, and whether a proxy or firewall blocks it.\n")


def test_server_without_tls(check: Check, account: Sandbox) -> None:
    code, output, errors = check(base_url=account.url.replace("http", "https"))
    assert (code, output) == (4, "")
    assert errors.endswith("is it http instead of https?\n")


@pytest.mark.parametrize(("status", "advice"), [(503, "Try again later."), (402, "Use --verbose to see its message.")])
def test_error_of_the_server(status: int, advice: str, check: Check, account: Sandbox) -> None:
    with account.faulty(f"ping:{status}"):
        code, output, errors = check()
    assert (code, output, errors) == (4, "", f"{account.url} responds with an error ({status}). {advice}\n")


def test_malformed_base_url(check: Check) -> None:
    code, _, errors = check(base_url="ftp://api.chartmogul.com")
    assert code == 2
    assert errors == (
        "--base-url: the schema must be http or https, not 'ftp'. The default is https://api.chartmogul.com.\n"
    )


def test_empty_base_url_is_not_the_default(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        check("--base-url", "", base_url=None)
    assert exit_info.value.code == 2
    assert "check: error: --base-url is empty" in capsys.readouterr().err


def test_base_url_with_connection_is_refused(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        check("--conn-id", "chartmogul_default")
    assert exit_info.value.code == 2
    assert "--base-url cannot be combined with --conn-id" in capsys.readouterr().err


def test_help_and_page_list_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    listed = re.findall(r"^  (\d)    (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert [int(code) for code, _ in listed] == [0, 1, 2, 3, 4]
    page = table_with(DOCS / "troubleshooting.md", "exit code")
    assert [(row["exit code"], row["meaning"]) for row in page] == listed


# ----------------------------------------------------------------------------------------------------- processes


def run_check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airflow_provider_chartmogul", "check", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def test_key_from_environment_needs_no_airflow(account: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "airflow.py").write_text("raise SystemExit('Airflow was imported')")
    home = tmp_path / "home"
    process = run_check(
        "--base-url", account.url, CHARTMOGUL_API_KEY=KEY, AIRFLOW_HOME=str(home), PYTHONPATH=str(tmp_path)
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("The API key works")
    assert not home.exists()


def test_airflow_connection_of_the_environment(account: Sandbox) -> None:
    process = run_check("--conn-id", "mine", "--json", AIRFLOW_CONN_MINE=account.connection_json)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["account"]["currency"] == "EUR"
    assert "mine" not in process.stdout


def test_airflow_connection_of_the_database(account: Sandbox, airflow_db: None) -> None:
    add = ["connections", "add", "checked", "--conn-json", account.connection_json]
    subprocess.run([sys.executable, "-m", "airflow", *add], check=True, stdout=subprocess.DEVNULL, timeout=300)
    process = run_check("--conn-id", "checked", "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["resources"]["customers"]["readable"] is True


def test_missing_airflow_connection(airflow_db: None) -> None:
    process = run_check("--conn-id", "nowhere")
    assert (process.returncode, process.stdout) == (2, "")
    assert "Airflow finds no connection 'nowhere' where this command runs, or cannot read it." in process.stderr


def test_password_of_another_system_is_not_sent() -> None:
    with ScriptedServer(json_response({"data": "pong!"})) as server:
        uri = server.url.replace("http://", "postgres://user:secret@") + "/http"
        process = run_check("--conn-id", "warehouse", AIRFLOW_CONN_WAREHOUSE=uri)
        assert server.requests == []
    assert (process.returncode, process.stdout) == (2, "")
    assert "connection 'warehouse' is of type postgres, not chartmogul" in process.stderr
    assert "secret" not in process.stderr


def test_airflow_connection_without_key() -> None:
    process = run_check("--conn-id", "empty", AIRFLOW_CONN_EMPTY='{"conn_type": "chartmogul"}')
    assert (process.returncode, process.stdout) == (2, "")
    assert "connection 'empty' has no API key" in process.stderr


def test_reader_that_stops_early_is_no_error(account: Sandbox) -> None:
    process = subprocess.run(
        f"{sys.executable} -m airflow_provider_chartmogul check --base-url {account.url} | true",
        shell=True, env={**os.environ, "CHARTMOGUL_API_KEY": KEY}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.stderr == ""
