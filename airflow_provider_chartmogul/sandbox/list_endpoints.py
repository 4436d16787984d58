# SPDX-License-Identifier: Apache-2.0
"""The API's list endpoints on aiohttp.server: lists with cursors, subscriptions of a customer, and metrics.

Rows are created in a worker thread, since the first request of a list can take a second.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from airflow_provider_chartmogul.sandbox import fault_injection
from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.error_responses import ApiErrorResponse, bad_request, error_body
from airflow_provider_chartmogul.sandbox.list_faults import PageFaults
from airflow_provider_chartmogul.sandbox.lists import read_number
from airflow_provider_chartmogul.sandbox.resources.catalog import LISTS
from airflow_provider_chartmogul.sandbox.resources.definition import Query, Row
from airflow_provider_chartmogul.sandbox.resources.metrics import METRICS_BY_PATH

_PAGE_CURSOR = "subscriptions_next_page="


def add_list_routes(app: web.Application, account: Account) -> None:
    """Add the routes of all lists, each named after its place of faults."""
    add = app.router.add_get
    for name, definition in LISTS.items():
        add(f"/v1{definition.path}", _list_handler(account, name), allow_head=False, name=name)
    add(
        "/v1/customers/{customer_uuid}/subscriptions",
        _handler(lambda query, faults: _subscriptions_page(account, query, faults)),
        allow_head=False,
        name="subscriptions",
    )
    add(
        "/v1/metrics/{metric}",
        _handler(lambda query, faults: _metrics_body(account, query, faults)),
        allow_head=False,
        name="metrics",
    )


def _handler(create_body: Callable[[Query, PageFaults], Row]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        query = {**request.query, **request.match_info}
        faults = fault_injection.page_faults()
        # Like ChartMogul's responses, without spaces and with letters outside ASCII as they are.
        text = await asyncio.to_thread(
            lambda: json.dumps(create_body(query, faults), ensure_ascii=False, separators=(",", ":"))
        )
        return web.Response(text=text, content_type="application/json")

    return handle


def _list_handler(account: Account, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    definition = LISTS[name]

    def create_body(query: Query, faults: PageFaults) -> Row:
        if definition.parent is not None and not account.lists.has_row(definition.parent, query["plan_group_uuid"]):
            raise ApiErrorResponse(404, error_body(404, "Plan group not found", "plan_group_uuid"))
        return account.lists.page(name, query, page_size=account.page_size, faults=faults)

    return _handler(create_body)


def _subscriptions_page(account: Account, query: Query, faults: PageFaults) -> Row:
    """Return a page of a customer's subscriptions, whose cursor contains the number of the next page.

    As recorded, the last page and all pages after it have a cursor for one more page.
    """
    rows = account.lists.subscriptions(query["customer_uuid"])
    if rows is None:
        raise ApiErrorResponse(404, error_body(404, "Customer not found", "customer_uuid"))
    per_page = min(account.page_size, read_number(query, "per_page", account.page_size))
    page = _read_page_cursor(query["cursor"]) if query.get("cursor") else read_number(query, "page", 1)
    page_rows = rows[(page - 1) * per_page : page * per_page]
    cursor = base64.b64encode(f"{_PAGE_CURSOR}{page + 1}".encode()).decode()
    body: Row = {"entries": [] if "empty-list" in faults else faults.change_rows(page_rows)}
    has_more = page * per_page < len(rows) and "empty-list" not in faults
    if query.get("cursor"):
        return {**body, "cursor": cursor, "has_more": has_more}
    return {**body, "has_more": has_more, "per_page": per_page, "page": page, "cursor": cursor}


def _read_page_cursor(cursor: str) -> int:
    try:
        text = base64.b64decode(cursor, validate=True).decode()
        if not text.startswith(_PAGE_CURSOR):
            raise ValueError(text)
        return int(text.removeprefix(_PAGE_CURSOR))
    except (ValueError, binascii.Error):
        raise bad_request('Parameter "cursor" is malformed', "cursor") from None


def _metrics_body(account: Account, query: Query, faults: PageFaults) -> Row:
    if query["metric"] not in METRICS_BY_PATH:
        raise ApiErrorResponse(404, {"error": "Path not found"})
    body = account.lists.metrics(query["metric"], query)
    entries = [] if "empty-list" in faults else faults.change_rows(body["entries"])
    return {**body, "entries": entries}
