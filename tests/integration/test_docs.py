# SPDX-License-Identifier: Apache-2.0
"""Run the documentation's code, SQL and commands, and compare its tables with the package."""

from __future__ import annotations

import ast
import pkgutil
import re
import runpy
import shlex
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
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
from airflow_provider_chartmogul.api.account import ping
from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_response
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.faults import KIND_OPTIONS, MODIFYING_KINDS, PLACES, Fault
from airflow_provider_chartmogul.sources.activities_export import FORMATS
from airflow_provider_chartmogul.sources.placeholders import EXPORT_PLACEHOLDERS
from airflow_provider_chartmogul.storage.delivery import IF_EXISTS
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.warehouse.target import TableResult
from tests.integration.task_runner import run_task
from tests.integration.test_windows_of_runs import AIRFLOW_3
from tests.pages import DOCS, PAGES, block_with, blocks, commands, run, table_with
from tests.postgres import postgres_server
from tests.unit.test_imports import FOLDERS, PACKAGE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for source in blocks(page, "python"):
        compile(source, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_work_without_sphinx(page: Path) -> None:
    """In the repository, Sphinx neither fills in the title of a link's page, nor includes files, nor names anchors."""
    assert "```{image}" not in page.read_text()
    text = re.sub(r"^(`{3,})(?!{literalinclude}).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\[([^\]]*)\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text)
    for title, address, anchor in links:
        assert title, f"a link to {address} has no text"
        target = page.parent / address if address else page
        assert target.exists(), address
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {github_anchor(heading) for heading in headings}, anchor
    for address in re.findall(r"^```{literalinclude} (.+)$", text, re.MULTILINE):
        assert address in {path for _, path, _ in links}, f"no link leads to {address}"


def github_anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# ---------------------------------------------------------------------------------------- code and commands


def test_dag_with_alert_has_a_callback() -> None:
    source = block_with(DOCS / "alerts.md", "python", "SmtpNotifier")
    dag = run(source.replace("\n):\n", "\n) as dag:\n"))["dag"]
    assert dag.task_dict["export"].on_failure_callback


def test_check_for_rows_runs_after_the_load() -> None:
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


def test_short_circuit_continues_if_rows_are_unknown() -> None:
    names = run(block_with(DOCS / "alerts.md", "python", "has_rows"))
    assert [names["has_rows"].function({"rows": rows}) for rows in (0, 1, None)] == [False, True, True]


def test_check_for_columns() -> None:
    check = run(block_with(DOCS / "alerts.md", "python", "require_columns"))["require_columns"].function
    for columns in (["uuid", "date", "type", "more"], None):
        check({"columns": columns})
    with pytest.raises(AirflowFailException, match="no column date, type"):
        check({"columns": ["uuid"]})


def test_split_returns_the_windows_shown() -> None:
    assert len(run(block_with(DOCS / "backfill.md", "python", "assert windows"))["windows"]) == 3


def test_mapped_operator_has_an_index_for_each_window_and_type() -> None:
    with DAG("backfill", schedule=None) as dag:
        run(block_with(DOCS / "backfill.md", "python", "expand_kwargs"))
    windows: Any = dag.task_dict["backfill"].expand_input.value
    assert len(windows) == 5 * 12 * 2
    assert windows[0] == {
        "interval_start": "2021-01-01T00:00:00+00:00",
        "interval_end": "2021-02-01T00:00:00+00:00",
        "activity_type": "new_biz",
    }


def test_mapped_group_loads_each_export() -> None:
    dag = run(block_with(DOCS / "load" / "mapped.md", "python", "window.expand_kwargs"))["dag"]
    assert dag.task_dict["window.export"].downstream_task_ids == {"window.load"}
    assert len(dag.task_group_dict["window"]._expand_input.value) == 3


# Airflow 3.3 and later; Airflow 3.2 has the package alone.
if find_spec("airflow.partition_mappers") is not None and find_spec("airflow.partition_mappers.window") is not None:

    def test_partitioned_dags_are_valid() -> None:
        source = block_with(DOCS / "schedule.md", "python", "emit_partitions")
        dag = run(source.replace("\n):\n", "\n) as dag:\n"))["dag"]
        assert (dag.dag_id, type(dag.timetable).__name__) == ("day_of_activities", "PartitionedAssetTimetable")


def test_loads_are_valid_tasks() -> None:
    with DAG("loads", schedule=None) as dag:
        run(*blocks(DOCS / "load" / "index.md", "python"))
    assert dag.task_dict["export"].downstream_task_ids == {"load"}
    assert dag.task_dict["snapshot"].downstream_task_ids == {"load_snapshots"}
    for task_id in ("load", "load_snapshots", "load_again"):
        task: Any = dag.task_dict[task_id]
        task._load_settings()


def test_account_example_loads_into_postgres_with_the_lines_shown() -> None:
    """Each group of removed lines is replaced by the added lines that follow it."""
    source = (DOCS.parent / "example_dags" / "example_account_duckdb.py").read_text()
    (difference,) = blocks(DOCS / "load" / "postgres.md", "diff")
    for removed, added in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)*)", difference, re.MULTILINE):
        removed, added = (re.sub(r"^.", "", lines, flags=re.MULTILINE) for lines in (removed, added))
        assert source.count(removed) == 1, removed
        source = source.replace(removed, added)
    dag = run(source)["dag"]
    load: Any = dag.task_dict["load"]
    assert (dag.dag_id, load.warehouse_conn_id, load.duckdb_path) == ("account_postgres", "postgres_default", None)


def test_result_of_a_load_is_complete() -> None:
    rows = table_with(DOCS / "load" / "index.md", "key")
    assert [row["key"].strip("`") for row in rows] == list(TableResult().as_dict())


def test_column_types_are_valid() -> None:
    with DAG("types", schedule=None) as dag:
        run(*blocks(DOCS / "object.md", "python"))
    task: Any = dag.task_dict["typed"]
    task._delivery()


def test_account_has_a_time_zone(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    run(*blocks(DOCS / "time-zones.md", "python"))
    assert re.fullmatch(r"\w+/\w+|UTC", capsys.readouterr().out.splitlines()[-1])


def test_example_of_an_outage_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(block_with(DOCS / "testing.md", "python", "@pytest.fixture"))
    fixture = names["chartmogul"].__wrapped__(monkeypatch)
    names["test_outage"](next(fixture))
    assert next(fixture, None) is None


def test_example_of_lists_runs() -> None:
    names = run(block_with(DOCS / "testing.md", "python", "sandbox.lists"))
    assert len(names["customers"]) > 10
    assert len(names["invoices"]) > 10


def test_sandbox_has_as_many_activities_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, command, *_ = shlex.split(block_with(DOCS / "testing.md", "sh", "expected_rows").removeprefix("python "))
    run(command)
    number = f"{int(capsys.readouterr().out):,}"
    assert f"Before 2026 there are {number}:" in (DOCS / "testing.md").read_text()


def test_admin_commands_succeed() -> None:
    lines = [shlex.split(line) for line in commands(DOCS / "testing.md") if "127.0.0.1:8766" in line]
    assert len(lines) == 6
    with Sandbox(customers=1) as sandbox:
        for curl, *options, url in lines:
            values = dict(zip(options[::2], options[1::2], strict=True))
            method = values.get("-X") or ("POST" if "-d" in values else "GET")
            url = url.replace("http://127.0.0.1:8766", sandbox.admin_url)
            response = requests.request(method, url, data=values.get("-d"), timeout=60)
            assert (curl, response.ok) == ("curl", True), response.text
        assert (sandbox.outcome, sandbox.export_seconds) == ("failed", 60)


def test_airflow_commands_are_valid() -> None:
    parser = get_parser()
    lines = [line for page in PAGES for line in commands(page) if line.startswith("airflow ")]
    assert len(lines) >= 7
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
    """Create equal tables of one day's activities in each database, and return a function that executes SQL."""
    if request.param == "duckdb":
        connection: Any = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
    else:
        connection = psycopg.connect(request.getfixturevalue("server"), options="-c TimeZone=UTC")
    with closing(connection):
        day = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
        rows = [[row[name] for name in COLUMNS.split(", ")] for row in Sandbox().expected_rows(*day)]
        assert len(rows) > 5
        for table in ("chartmogul_activities", "activities_full", "activities_old", "activities_new"):
            values = ", ".join("(" + ", ".join(f"'{value}'" for value in row) + ")" for row in rows)
            connection.execute(f"CREATE TABLE {table} ({TYPES})")
            connection.execute(f"INSERT INTO {table} ({COLUMNS}) VALUES {values}")
        # As the load creates it.
        connection.execute("ALTER TABLE chartmogul_activities ADD COLUMN _loaded_at TIMESTAMP WITH TIME ZONE")
        # Nothing is committed, so nothing remains in the server.
        yield lambda sql: connection.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("page", "table"), [("corrections.md", "chartmogul_activities"), ("migrate.md", "activities_old")]
)
def test_comparisons_find_differences(execute: Execute, page: str, table: str) -> None:
    queries = [query.strip().rstrip(";") for query in blocks(DOCS / page, "sql")]
    assert len(queries) == 2
    assert [execute(query) for query in queries] == [[], []]
    # Duplicate one row, as appending would, then delete it and another one.
    first, second = (row[0] for row in execute(f"SELECT uuid FROM {table} ORDER BY uuid LIMIT 2"))
    execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE uuid = '{first}' RETURNING 1")
    assert all(execute(query) for query in queries)
    execute(f"DELETE FROM {table} WHERE uuid IN ('{first}', '{second}') RETURNING 1")
    by_row = [query for query in queries if "only in" in query]
    assert [{row[1] for row in execute(query)} for query in by_row] == [{first, second}]
    assert all(execute(query) for query in queries)


def test_days_of_a_time_zone(execute: Execute) -> None:
    (query,) = blocks(DOCS / "time-zones.md", "sql")
    days = execute(query.strip().rstrip(";"))
    assert str(days[0][0]) == "2026-01-02"
    assert sum(number for _, number in days) == execute("SELECT count(*) FROM chartmogul_activities")[0][0]


def test_examples_are_included_in_full() -> None:
    folder = DOCS.parent / "example_dags"
    examples = [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]
    assert len(examples) >= 13
    text = "\n".join(page.read_text() for page in PAGES)
    listed = {row["file"].strip("`") for row in table_with(DOCS / "examples.md", "file")}
    for path in examples:
        name = str(path.relative_to(folder))
        assert re.search(rf"example_dags/{name}\n:language: python\n```", text), f"{name} is not shown in full"
        assert name in listed


def string_constants(path: Path) -> Iterator[str]:
    """Yield the string constants of a module; those of an f-string are the parts between its fields."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_quoted_messages_are_the_packages() -> None:
    """The page is found by a message, so it must quote the current one; ``…`` stands for a value."""
    package = Path(airflow_provider_chartmogul.__file__).parent
    constants = "\n".join(text for path in package.rglob("*.py") for text in string_constants(path))
    quoted = blocks(DOCS / "troubleshooting.md", "text")
    assert len(quoted) >= 5
    for message in quoted:
        for part in message.strip().split("…"):
            assert part in constants, part


# -------------------------------------------------------------------------------------------- the architecture


def test_architecture_lists_folders_in_the_order_of_imports() -> None:
    levels = {name: number for number, level in enumerate(FOLDERS) for name in level}
    rows = table_with(DOCS / "architecture.md", "folder")
    names = [row["folder"].strip("`").removesuffix("/").removesuffix(".py") for row in rows]
    package = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py") and path.name[0] != "_"}
    assert set(names) == package
    assert [levels[name] for name in names] == sorted((levels[name] for name in names), reverse=True)


def test_architecture_names_existing_files_and_code() -> None:
    page = (DOCS / "architecture.md").read_text()
    files = set(re.findall(r"`([\w/.]+/[\w.]*)`", page))
    assert len(files) >= 30
    for path in files:
        assert (PACKAGE / path).exists() or (DOCS.parent / path).exists(), path
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for name in re.findall(r"`(?:[A-Z]\w+\.)?(\w+)(?:\(.*?\))?`", page):
        assert re.search(rf"\b{name}\b", source), name


# ---------------------------------------------------------------------------------------------- the resources


def test_tables_of_resources_are_those_of_the_catalogue() -> None:
    script = runpy.run_path(str(DOCS / "resource_tables.py"))
    page = script["PAGE"].read_text()
    assert script["with_tables"](page) == page, "outdated: run `python docs/resource_tables.py`"
    assert {row["resource"].strip("`") for row in table_with(script["PAGE"], "resource")} == set(RESOURCES)


def test_resource_tasks_are_valid() -> None:
    with DAG("resources", schedule=None) as dag:
        run(*(block for block in blocks(DOCS / "resources.md", "python") if "@task" not in block))
    assert set(dag.task_dict) == {"invoices", "metrics", "customers"}
    for task in dag.tasks:
        resource = RESOURCES[task.resource]
        resource.build_query(task.query_params)
        task._delivery(resource, task._output(resource))


# ---------------------------------------------------------------------------------------------- the reference


def test_reference_lists_every_public_class_and_error() -> None:
    reference = (DOCS / "reference.md").read_text()
    for module in pkgutil.walk_packages(airflow_provider_chartmogul.__path__, "airflow_provider_chartmogul."):
        if "__main__" not in module.name:
            import_module(module.name)
    classes = {
        *subclasses(BaseOperator),
        *subclasses(BaseHook),
        *subclasses(BaseTrigger),
        *subclasses(errors.ChartMogulError),
    }
    for kind in classes:
        if not kind.__module__.startswith("airflow_provider_chartmogul.") or ".sandbox" in kind.__module__:
            continue
        base = kind.__module__.endswith(".base")  # base classes of operators, which no DAG uses directly
        if not kind.__name__.startswith("_") and kind.__module__ != errors.__name__ and not base:
            assert f"{kind.__module__}.{kind.__qualname__}\n" in reference


def subclasses(kind: type) -> Iterator[type]:
    for below in type.__subclasses__(kind):
        yield below
        yield from subclasses(below)


# ------------------------------------------------------------------------------------------------- the tables


def test_table_of_statuses_matches_their_handling() -> None:
    rows = table_with(DOCS / "errors.md", "status")
    assert {int(row["status"]) for row in rows} >= {400, 401, 402, 403, 404, 422, 429, 500, 502, 503, 504, 520, 524}
    for row in rows:
        with pytest.raises(errors.HTTPStatusError) as caught:
            parse_response(ping(), ApiResponse(int(row["status"]), {}, b""), api_key="key", now=datetime.now(UTC))
        error = caught.value
        handling = "retries the request" if error.transient else "fails this try"
        handling = "fails permanently" if error.permanent else handling
        assert (row["error"], row["what the task does"]) == (f"`{type(error).__name__}`", handling)
        assert error.status == int(row["status"]) or HTTPStatus(error.status)


def test_required_versions_match_the_metadata() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    requirements = chain(project["dependencies"], *project["optional-dependencies"].values())
    minimums = {
        requirement.name: next(iter(requirement.specifier)).version
        for requirement in map(Requirement, requirements)
        if requirement.name not in ("apache-airflow", "pendulum")  # nobody pins these lower
    }
    rows = table_with(DOCS / "deployment.md", "required")
    assert {row["line"].split("`")[1]: row["required"].removesuffix(" or later") for row in rows} == minimums


def test_table_of_faults_is_complete() -> None:
    (row,) = table_with(DOCS / "testing.md", "places")
    places, replacing, modifying = (re.findall(r"`([^`]+)`", cell) for cell in list(row.values()))
    assert tuple(places) == PLACES
    assert tuple(modifying) == MODIFYING_KINDS
    assert set(replacing) == set(KIND_OPTIONS) - set(MODIFYING_KINDS)


def test_cases_use_existing_faults_and_settings() -> None:
    for row in table_with(DOCS / "testing.md", "how"):
        for code in re.findall(r"`([^`]+)`", row["how"]):
            if ":" in code:
                Fault.parse(code)
            else:
                assert hasattr(Sandbox(), code.partition("=")[0]) or code == "timeout"


def test_formats_placeholders_and_metadata_are_complete(sandbox: Sandbox, tmp_path: Path) -> None:
    page = DOCS / "object.md"
    first = {
        column: [name for row in table_with(page, column) for name in re.findall(r"`([^`]+)`", row[column])]
        for column in ("placeholder", "suffix", "`if_exists`", "key")
    }
    assert set(first["placeholder"]) == {f"{{{name}}}" for name in EXPORT_PLACEHOLDERS}
    assert first["suffix"] == list(FORMATS)
    assert tuple(first["`if_exists`"]) == IF_EXISTS
    operator = ActivitiesToObjectStorageOperator(
        task_id="export",
        interval_start="2024-01-01",
        interval_end="2024-01-02",
        destination=f"file://{tmp_path}/object.zip",
        deferrable=False,
    )
    assert set(first["key"]) == set(run_task(operator).xcoms["object"])
