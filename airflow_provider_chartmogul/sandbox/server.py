# SPDX-License-Identifier: Apache-2.0
"""The sandbox's API on aiohttp.server: the account's four endpoints, its authentication and its limits.

Replies have the shapes recorded from the live API. Every request of both servers passes `watch`, the
outermost middleware, after which nothing has been sent yet: there they are counted, and meet the faults that
were asked for.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from yarl import URL

from airflow_provider_chartmogul.sandbox import mischief, presigned
from airflow_provider_chartmogul.sandbox.account import (
    Account,
    Export,
    Rejected,
    SeenRequest,
    Window,
    bad_request,
)
from airflow_provider_chartmogul.sandbox.counters import Host

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEEP_ALIVE_SECONDS = 75.0
"""How long an idle connection is kept; until then it counts among the account's connections."""

_ACCOUNT = {
    "name": "Example Test Company",
    "currency": "EUR",
    "time_zone": "Europe/Berlin",
    "week_start_on": "sunday",
}


def watch(account: Account, host: Host) -> Any:
    """The middleware that counts every request, plays the faults that hit it, and puts it on the account's
    record, just before it is answered."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        account.counters.came(host, started)
        # The API's routes have the names of the faults' places; what is no route has none.
        hits = account.faults.draw(host, request.match_info.route.name or host)
        status = 0
        try:
            if hits is None:
                response = await handler(request)
                status = response.status
            else:
                response = await mischief.answer(request, handler, host, hits)
                status = mischief.status_of(response, hits)
        except web.HTTPException as error:
            status = error.status
            raise
        except Exception:
            status = 500
            raise
        finally:
            account.saw(
                SeenRequest(
                    host=host,
                    method=request.method,
                    path=sys.intern(_text(request.raw_path).partition("?")[0]),
                    status=status,
                    headers=_headers(request),
                    started=started,
                    fault="" if hits is None else str(hits),
                )
            )
        if hits is not None:
            await mischief.finish(request, response, hits)
        return response

    return middleware


def count_connections(account: Account, host: Host, runner: web.AppRunner) -> None:
    """Have the account's counters look at this server's connections."""
    account.counters.watch_connections(host, lambda: 0 if runner.server is None else len(runner.server.connections))


def _text(target: str) -> str:
    """The target without the stand-ins for bytes outside UTF-8, which could not be written to a log."""
    return target.encode(errors="replace").decode()


def _headers(request: web.Request) -> Mapping[str, str]:
    headers = {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}
    if "authorization" in headers:
        headers["authorization"] = headers["authorization"].partition(" ")[0]
    return _shared(tuple(headers.items()))


@lru_cache(maxsize=1024)
def _shared(headers: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """One object for equal headers: most requests have the same, and very many are kept on record."""
    return dict(headers)


class ApiServer:
    """The API of one account.

    :param account: what it answers for.
    :param download_url: gives the download host's base URL, given the host name a client called the API by.
    """

    def __init__(self, account: Account, download_url: Callable[[str], str]) -> None:
        self._account = account
        self._download_url = download_url
        app = web.Application(middlewares=[watch(account, "api"), self._rules])
        app.router.add_get("/v1/ping", self._ping, allow_head=False, name="ping")
        app.router.add_get("/v1/account", self._show_account, allow_head=False, name="account")
        app.router.add_post("/v1/activities_export", self._create, name="create")
        app.router.add_get("/v1/activities_export/{id}", self._retrieve, allow_head=False, name="retrieve")
        self.runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=0.1)
        count_connections(account, "api", self.runner)

    @web.middleware
    async def _rules(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What holds for every endpoint: the key, then the account's limits; and errors as JSON."""
        if not self._authenticated(request):
            return _error(401, "No valid API key provided")
        if self._one_too_many(request):
            response = web.Response(status=503, text="503 Service Unavailable")
            response.force_close()
            return response
        if not self._account.admit():
            return _error(429, "Your request rate has exceeded our rate limit.")
        try:
            return await handler(request)
        except Rejected as error:
            return web.json_response(error.body, status=error.status)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            # To the real one's router a path with the wrong method is simply another path.
            return web.json_response({"error": "Path not found"}, status=404)

    def _authenticated(self, request: web.Request) -> bool:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            key, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError:
            return False
        return bool(colon) and self._account.knows(key, password)

    def _one_too_many(self, request: web.Request) -> bool:
        """Whether this request's connection is over the account's limit.

        Connections count from accept to close, idle ones too. The earliest opened have the places, so that
        one too many is that one's trouble and not everyone's.
        """
        limit = self._account.max_connections
        server = self.runner.server
        if limit is None or server is None:
            return False
        # In the order in which they were opened: aiohttp keeps them in a dict.
        connections = server.connections
        protocol = request.protocol
        return protocol in connections and connections.index(protocol) >= limit

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({"data": "pong!"})

    async def _show_account(self, request: web.Request) -> web.Response:
        return web.json_response(_ACCOUNT)

    async def _create(self, request: web.Request) -> web.Response:
        export = self._account.create(Window.from_params(await _params(request)))
        # Always pending, however soon it will be ready: the work has not begun when this is answered.
        return web.json_response(self._describe(export, "pending", request))

    async def _retrieve(self, request: web.Request) -> web.Response:
        export = self._account.export(request.match_info["id"])
        if export is None:
            return _error(404, "Activities export not found", param="id")
        return web.json_response(self._describe(export, self._account.look(export), request))

    def _describe(self, export: Export, status: str, request: web.Request) -> dict[str, Any]:
        expires_at = export.expires_at()
        file_url = None
        if export.signed_at is not None:
            file_url = presigned.sign(
                self._download_url(_host_name(request)),
                export.path,
                secret=self._account.url_secret,
                signed_at=export.signed_at,
                seconds=export.url_seconds,
            )
        return {
            "id": export.id,
            "status": status,
            "file_url": file_url,
            "params": {"kind": "activities", "params": export.window.echo()},
            "expires_at": expires_at and expires_at.isoformat(),
            "created_at": export.created_at.isoformat(),
        }


def _error(status: int, message: str, param: str | None = None) -> web.Response:
    return web.json_response({"code": status, "message": message, "param": param}, status=status)


def _host_name(request: web.Request) -> str:
    """The name the client called the API by; empty where it gave none."""
    try:
        return URL(f"http://{request.host}").host or ""
    except ValueError:
        return ""


async def _params(request: web.Request) -> dict[str, Any]:
    """The parameters of a body in either of the two forms the API takes.

    :raises Rejected: 400 for a body that cannot be read as what its Content-Type says.
    """
    body = await request.read()
    if not body:
        return {}
    try:
        text = body.decode()
        if request.content_type == "application/json":
            params = json.loads(text)
            if not isinstance(params, dict):
                raise bad_request("The JSON body is not an object", None)
            return params
        if request.content_type == "application/x-www-form-urlencoded":
            return dict(parse_qsl(text, keep_blank_values=True))
    except (ValueError, RecursionError):
        raise bad_request("The body cannot be parsed as its Content-Type says", None) from None
    # Taken for no parameters at all, this would export all of history without a word.
    raise bad_request("The body is neither JSON nor a form by its Content-Type", None)
