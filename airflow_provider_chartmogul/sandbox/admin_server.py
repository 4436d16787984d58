# SPDX-License-Identifier: Apache-2.0
"""The sandbox's admin address on aiohttp.server: its counters, faults and settings.

It has a port of its own and needs no key. Its requests do not count towards the account's requests, connections and
limits, and it shows neither the API key nor a signed URL.

* `GET /`: a page with the counters, which reloads itself
* `GET /counters`: the counters as JSON; `POST /reset` sets them to zero
* `GET /faults`, `POST /faults` (in the text form or as JSON), `DELETE /faults`, `DELETE /faults/{id}`
* `GET /settings`, `PATCH /settings` (a JSON object)
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.active_faults import AddedFault
from airflow_provider_chartmogul.sandbox.admin_page import render
from airflow_provider_chartmogul.sandbox.faults import Fault, parse_faults

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ADDRESSES = "GET /, GET /counters, POST /reset, GET|POST|DELETE /faults, DELETE /faults/ID, GET|PATCH /settings"

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class AdminServer:
    """The admin address of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        app = web.Application(middlewares=[_errors_as_json])
        app.router.add_get("/", self._get_page)
        app.router.add_get("/counters", self._get_counters)
        app.router.add_post("/reset", self._reset_counters)
        app.router.add_get("/faults", self._get_faults)
        app.router.add_post("/faults", self._add_faults)
        app.router.add_delete("/faults", self._clear_faults)
        app.router.add_delete("/faults/{id}", self._remove_fault)
        app.router.add_get("/settings", self._get_settings)
        app.router.add_patch("/settings", self._change_settings)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def _get_page(self, request: web.Request) -> web.Response:
        page = render(self._counters(), self._account.settings, f"http://{request.host}")
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def _get_counters(self, request: web.Request) -> web.Response:
        return _json(self._counters())

    async def _reset_counters(self, request: web.Request) -> web.Response:
        self._account.counters.reset()
        return _json(self._counters())

    async def _get_faults(self, request: web.Request) -> web.Response:
        return _json(_faults_as_json(self._account.faults))

    async def _add_faults(self, request: web.Request) -> web.Response:
        text = (await request.read()).decode().strip()
        if text.startswith(("{", "[", '"')):
            content = json.loads(text)
            faults = [Fault.from_json(item) for item in (content if isinstance(content, list) else [content])]
        else:
            faults = parse_faults(text)
        if not faults:
            raise ValueError("the body is empty; it must contain a fault, such as retrieve:429;times=5")
        return _json(_faults_as_json(self._account.faults.add(*faults)), status=201)

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._account.faults.clear()
        return _json([])

    async def _remove_fault(self, request: web.Request) -> web.Response:
        fault_id = request.match_info["id"]
        matching = [added for added in self._account.faults if str(added.id) == fault_id]
        if not matching:
            return _json({"error": f"no fault has the ID {fault_id}"}, status=404)
        self._account.faults.remove(*matching)
        return _json(_faults_as_json(self._account.faults))

    async def _get_settings(self, request: web.Request) -> web.Response:
        return _json(self._account.settings)

    async def _change_settings(self, request: web.Request) -> web.Response:
        settings = json.loads(await request.read())
        if not isinstance(settings, dict):
            raise ValueError('the body must be a JSON object, such as {"outcome": "failed"}')
        self._account.change_settings(settings)
        return _json(self._account.settings)

    def _counters(self) -> dict[str, Any]:
        return {
            **self._account.counters.as_json(),
            "exports": self._account.export_statuses(),
            "faults": _faults_as_json(self._account.faults),
        }


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except json.JSONDecodeError as error:
        return _json({"error": f"the body is not valid JSON: {error}"}, status=400)
    except (ValueError, RecursionError) as error:
        return _json({"error": str(error)}, status=400)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        message = f"{request.method} {request.path} does not exist; the admin address has: {_ADDRESSES}"
        return _json({"error": message}, error.status)


def _faults_as_json(faults: Iterable[AddedFault]) -> list[dict[str, Any]]:
    return [
        {"id": added.id, "fault": str(added.fault), "hits": added.hits, "exhausted": added.exhausted}
        for added in faults
    ]


def _json(content: Any, status: int = 200) -> web.Response:
    # Indented and with a final line feed, since it is mostly read in a shell.
    return web.Response(
        text=json.dumps(content, indent=2) + "\n", status=status, content_type="application/json", headers=_HEADERS
    )
