# SPDX-License-Identifier: Apache-2.0
"""dlt's REST API source reads the sandbox's lists to the same rows as this package."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from dlt.sources.rest_api import rest_api_source

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox

AS_OF = datetime(2024, 7, 1, tzinfo=UTC)
LISTS = [name for name, resource in RESOURCES.items() if resource.is_paged and resource.parent is None]
CHILD_LISTS = [name for name, resource in RESOURCES.items() if resource.parent is not None]

Row = dict[str, Any]


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(customers=20, as_of=AS_OF, page_size=7, requests_per_second=None, max_connections=None) as running:
        yield running


@pytest.fixture
def sandbox(account: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", account.connection_uri + "?requests_per_second=10000")
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    return account


def read_with_dlt(sandbox: Sandbox, resource: str) -> list[Row]:
    """Return the rows of dlt's source, as they are before dlt makes tables of them."""
    entry = RESOURCES[resource]
    endpoint: Row = {
        "path": entry.path.lstrip("/"),
        "params": entry.build_query(None),
        "data_selector": entry.rows_key,
    }
    resources: list[Any] = [{"name": resource, "endpoint": endpoint}]
    if entry.parent is not None:
        parent = RESOURCES[entry.parent]
        parent_endpoint = {"path": parent.path.lstrip("/"), "data_selector": parent.rows_key}
        resources.insert(0, {"name": parent.name, "endpoint": parent_endpoint})
        endpoint["path"] = endpoint["path"].replace("{uuid}", f"{{resources.{parent.name}.uuid}}")
        resources[1]["include_from_parent"] = ["uuid"]
    source = rest_api_source(
        {
            "client": {
                "base_url": f"{sandbox.url}/v1/",
                "auth": {"type": "http_basic", "username": sandbox.api_key, "password": ""},
                "paginator": {
                    "type": "cursor",
                    "cursor_path": "cursor",
                    "cursor_param": "cursor",
                    # Without it dlt would follow the cursors of last pages.
                    "has_more_path": "has_more",
                },
            },
            "resources": resources,
        }
    )
    return list(source.resources[resource])


@pytest.mark.parametrize("resource", LISTS)
def test_dlt_reads_the_same_rows(resource: str, sandbox: Sandbox) -> None:
    with ChartMogulHook() as hook:
        rows = list(hook.iter_rows(resource))
    assert rows
    assert read_with_dlt(sandbox, resource) == rows


@pytest.mark.parametrize("resource", CHILD_LISTS)
def test_dlt_reads_the_same_rows_under_each_parent(resource: str, sandbox: Sandbox) -> None:
    entry = RESOURCES[resource]
    with ChartMogulHook() as hook:
        rows = list(hook.iter_rows(resource))
    assert rows
    read = [{entry.parent_key: row.pop(f"_{entry.parent}_uuid"), **row} for row in read_with_dlt(sandbox, resource)]
    # dlt reads under several parents in turn. The order under each of them is kept by both.
    assert _by_parent(read, str(entry.parent_key)) == _by_parent(rows, str(entry.parent_key))


def _by_parent(rows: list[Row], parent_key: str) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[parent_key], []).append(row)
    return grouped
