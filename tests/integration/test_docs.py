# SPDX-License-Identifier: Apache-2.0
"""What the documentation says, tried: its code is run, its SQL too, and its tables are compared with the code."""

from __future__ import annotations

import pkgutil
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
import requests
from airflow.cli.cli_parser import get_parser
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseHook, BaseOperator
from airflow.triggers.base import BaseTrigger
from packaging.requirements import Requirement

import airflow_provider_chartmogul
from airflow_provider_chartmogul import exceptions as errors
from airflow_provider_chartmogul.api.responses import parse_response
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.faults import KIND_OPTIONS, MODIFYING_KINDS, PLACES, Fault
from airflow_provider_chartmogul.storage import delivery as transfer
from tests.integration.test_windows_of_runs import AIRFLOW_3
from tests.pages import DOCS, PAGES, block_with, blocks, run, table_with
from tests.postgres import postgres_server


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_python_is_python(page: Path) -> None:
    for source in blocks(page, "python"):
        compile(source, page.name, "exec")


# ------------------------------------------------------------------------------------------------------ the code


def test_the_dag_with_an_alert_has_it() -> None:
    source = block_with(DOCS / "alerts.md", "python", "SmtpNotifier")
    dag = run(source.replace("\n):\n", "\n) as dag:\n"))["dag"]
    assert dag.task_dict["export"].on_failure_callback


def test_the_check_for_rows_comes_after_the_load() -> None:
    names = run(block_with(DOCS / "alerts.md", "python", "require_rows"))
    dag = names["dag"]
    assert dag.task_dict["export"].downstream_task_ids == {"load", "require_rows"}
    assert dag.task_dict["load"].downstream_task_ids == {"require_rows"}
    check = names["require_rows"].function
    window = {"interval_start": "2026-01-01", "interval_end": "2026-01-02"}
    for rows in (1, None):
        check({"rows": rows, **window})
    with pytest.raises(AirflowFailException, match="2026-01-01 to 2026-01-02"):
        check({"rows": 0, **window})


def test_the_short_circuit_goes_on_where_rows_are_not_known() -> None:
    names = run(block_with(DOCS / "alerts.md", "python", "has_rows"))
    assert [names["has_rows"].function({"rows": rows}) for rows in (0, 1, None)] == [False, True, True]


def test_the_check_for_columns() -> None:
    check = run(block_with(DOCS / "alerts.md", "python", "require_columns"))["require_columns"].function
    for columns in (["uuid", "date", "type", "more"], None):
        check({"columns": columns})
    with pytest.raises(AirflowFailException, match="no column date, type"):
        check({"columns": ["uuid"]})


def test_the_windows_of_a_split_are_those_shown() -> None:
    assert len(run(*blocks(DOCS / "backfill.md", "python"))["windows"]) == 3


def test_the_types_of_columns_are_types() -> None:
    with DAG("shown", schedule=None) as dag:
        run(*blocks(DOCS / "object.md", "python"))
    task: Any = dag.task_dict["typed"]
    transfer.Transfer(task.destination, "chartmogul_default", column_types=task.column_types)


def test_the_account_tells_its_time_zone(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    run(*blocks(DOCS / "time-zones.md", "python"))
    assert re.fullmatch(r"\w+/\w+|UTC", capsys.readouterr().out.splitlines()[-1])


def test_the_bad_day_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(block_with(DOCS / "testing.md", "python", "@pytest.fixture"))
    fixture = names["chartmogul"].__wrapped__(monkeypatch)
    names["test_outage"](next(fixture))
    assert next(fixture, None) is None


def test_what_is_typed_at_the_admin_address_is_answered() -> None:
    shown = [line for block in blocks(DOCS / "testing.md", "sh") for line in block.splitlines()]
    lines = [shlex.split(line) for line in shown if "127.0.0.1:8766" in line]
    assert len(lines) == 6
    with Sandbox(customers=1) as sandbox:
        for curl, *options, url in lines:
            given = dict(zip(options[::2], options[1::2], strict=True))
            method = given.get("-X") or ("POST" if "-d" in given else "GET")
            url = url.replace("http://127.0.0.1:8766", sandbox.admin_url)
            reply = requests.request(method, url, data=given.get("-d"), timeout=60)
            assert (curl, reply.ok) == ("curl", True), reply.text
        assert (sandbox.outcome, sandbox.export_seconds) == ("failed", 60)


def test_every_command_of_airflows_is_one() -> None:
    parser = get_parser()
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("airflow ")]
    assert len(lines) >= 3
    for line in lines:
        if AIRFLOW_3 or " backfill " not in line:
            assert callable(parser.parse_args(shlex.split(line)[1:]).func)


# ------------------------------------------------------------------------------------------------------- the SQL

COLUMNS = "uuid, date, type, activity_mrr, activity_mrr_movement"
TYPES = "uuid TEXT, date TIMESTAMP WITH TIME ZONE, type TEXT, activity_mrr TEXT, activity_mrr_movement TEXT"

Execute = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as uri:
        yield uri


@pytest.fixture(params=["duckdb", "postgres"])
def execute(request: pytest.FixtureRequest) -> Iterator[Execute]:
    """Two tables of a day's activities that are equal, in either database; gives what runs SQL."""
    if request.param == "duckdb":
        connection: Any = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
    else:
        connection = psycopg.connect(request.getfixturevalue("server"), options="-c TimeZone=UTC")
    with closing(connection):
        day = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
        rows = [[row[name] for name in COLUMNS.split(", ")] for row in Sandbox().expected_rows(*day)]
        assert len(rows) > 5
        for table in ("activities", "activities_full", "activities_old", "activities_new"):
            values = ", ".join("(" + ", ".join(f"'{value}'" for value in row) + ")" for row in rows)
            connection.execute(f"CREATE TABLE {table} ({TYPES})")
            connection.execute(f"INSERT INTO {table} ({COLUMNS}) VALUES {values}")
        # As the loads of the examples make it.
        connection.execute("ALTER TABLE activities ADD COLUMN _loaded_at TIMESTAMP WITH TIME ZONE")
        # Nothing is committed, so that nothing of it is left in the server either.
        yield lambda sql: connection.execute(sql).fetchall()


@pytest.mark.parametrize(("page", "table"), [("corrections.md", "activities"), ("migrate.md", "activities_old")])
def test_each_comparison_finds_what_differs(execute: Execute, page: str, table: str) -> None:
    queries = [query.strip().rstrip(";") for query in blocks(DOCS / page, "sql")]
    assert len(queries) == 2
    assert [execute(query) for query in queries] == [[], []]
    # One that was exported twice, as after an append, and one that was removed in the meantime.
    first, second = (row[0] for row in execute(f"SELECT uuid FROM {table} ORDER BY uuid LIMIT 2"))
    execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE uuid = '{first}' RETURNING 1")
    assert all(execute(query) for query in queries)
    execute(f"DELETE FROM {table} WHERE uuid IN ('{first}', '{second}') RETURNING 1")
    by_row = [query for query in queries if "only in" in query]
    assert [{row[1] for row in execute(query)} for query in by_row] == [{first, second}]
    assert all(execute(query) for query in queries)


def test_the_days_of_a_time_zone(execute: Execute) -> None:
    (query,) = blocks(DOCS / "time-zones.md", "sql")
    days = execute(query.strip().rstrip(";"))
    assert str(days[0][0]) == "2026-01-02"
    assert sum(number for _, number in days) == execute("SELECT count(*) FROM activities")[0][0]


def test_every_example_is_shown() -> None:
    examples = [path for path in (DOCS.parent / "example_dags").rglob("*.py") if "__pycache__" not in path.parts]
    assert len(examples) >= 12
    shown = "\n".join(page.read_text() for page in PAGES)
    for path in examples:
        assert f"example_dags/{path.relative_to(DOCS.parent / 'example_dags')}\n" in shown, path


# ------------------------------------------------------------------------------------------------- the reference


def test_the_reference_has_every_class_that_airflow_is_told_of_and_every_error() -> None:
    reference = (DOCS / "reference.md").read_text()
    for module in pkgutil.walk_packages(airflow_provider_chartmogul.__path__, "airflow_provider_chartmogul."):
        if "__main__" not in module.name:
            import_module(module.name)
    found = {
        *subclasses(BaseOperator),
        *subclasses(BaseHook),
        *subclasses(BaseTrigger),
        *subclasses(errors.ChartMogulError),
    }
    for kind in found:
        if not kind.__module__.startswith("airflow_provider_chartmogul.") or ".sandbox" in kind.__module__:
            continue
        base = kind.__module__.endswith(".base")  # what operators have in common, which nobody writes in a DAG
        if not kind.__name__.startswith("_") and kind.__module__ != errors.__name__ and not base:
            assert f"{kind.__module__}.{kind.__qualname__}\n" in reference


def subclasses(kind: type) -> Iterator[type]:
    for below in type.__subclasses__(kind):
        yield below
        yield from subclasses(below)


# ---------------------------------------------------------------------------------------------------- the tables


def test_the_table_of_statuses_is_what_the_package_makes_of_them() -> None:
    rows = table_with(DOCS / "errors.md", "status")
    assert {int(row["status"]) for row in rows} >= {400, 401, 402, 403, 404, 422, 429, 500, 502, 503, 504, 520, 524}
    for row in rows:
        with pytest.raises(errors.HTTPStatusError) as caught:
            parse_response(int(row["status"]), {}, b"", api_key="key", now=datetime.now(UTC))
        error = caught.value
        does = "fails at once" if error.permanent else "asks again" if error.transient else "fails this try"
        assert (row["error"], row["what the task does"]) == (f"`{type(error).__name__}`", does)
        assert error.status == int(row["status"]) or HTTPStatus(error.status)


def test_the_floors_to_amend_constraints_to_are_the_packages_own() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    asked = {
        requirement.name: next(iter(requirement.specifier)).version
        for requirement in map(Requirement, project["dependencies"])
        if requirement.name not in ("apache-airflow", "pendulum")  # nobody pins these lower
    }
    rows = table_with(DOCS / "deployment.md", "needed here")
    assert {row["line"].split("`")[1]: row["needed here"].removesuffix(" or later") for row in rows} == asked


def test_the_table_of_faults_has_all_and_no_others() -> None:
    (row,) = table_with(DOCS / "testing.md", "places")
    places, answers, spoils = (re.findall(r"`([^`]+)`", cell) for cell in list(row.values()))
    assert tuple(places) == PLACES
    assert tuple(spoils) == MODIFYING_KINDS
    assert set(answers) == set(KIND_OPTIONS) - set(MODIFYING_KINDS)


def test_the_faults_and_settings_of_the_cases_are_some() -> None:
    for row in table_with(DOCS / "testing.md", "how"):
        for code in re.findall(r"`([^`]+)`", row["how"]):
            if ":" in code:
                Fault.parse(code)
            else:
                assert hasattr(Sandbox(), code.partition("=")[0]) or code == "timeout"


def test_the_formats_and_placeholders_and_facts_of_an_object_are_all() -> None:
    page = DOCS / "object.md"
    first = {
        column: [name for row in table_with(page, column) for name in re.findall(r"`([^`]+)`", row[column])]
        for column in ("placeholder", "suffix", "`if_exists`", "key")
    }
    assert set(first["placeholder"]) == {f"{{{name}}}" for name in transfer.PLACEHOLDERS}
    assert first["suffix"] == list(transfer.FORMATS)
    assert tuple(first["`if_exists`"]) == transfer.IF_EXISTS
