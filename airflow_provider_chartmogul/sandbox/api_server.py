# SPDX-License-Identifier: Apache-2.0
"""The sandbox's API on aiohttp.server: endpoints, authentication and limits. Responses have the recorded shapes."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from yarl import URL

from airflow_provider_chartmogul.sandbox import presigned
from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.error_responses import ApiErrorResponse, bad_request, error_body
from airflow_provider_chartmogul.sandbox.exports import Export, ExportParameters
from airflow_provider_chartmogul.sandbox.list_endpoints import add_list_routes
from airflow_provider_chartmogul.sandbox.middleware import create_runner, request_middleware
from airflow_provider_chartmogul.sandbox.resources.plans import account_body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiServer:
    """The API of one account.

    :param account: the account.
    :param download_url: returns the download host's base URL, given the host name under which a client called the API.
    """

    def __init__(self, account: Account, download_url: Callable[[str], str]) -> None:
        self._account = account
        self._download_url = download_url
        app = web.Application(middlewares=[request_middleware(account, "api"), self._check_request])
        app.router.add_get("/v1/ping", self._ping, allow_head=False, name="ping")
        app.router.add_get("/v1/account", self._get_account, allow_head=False, name="account")
        app.router.add_post("/v1/activities_export", self._create_export, name="create")
        app.router.add_get("/v1/activities_export/{id}", self._retrieve_export, allow_head=False, name="retrieve")
        add_list_routes(app, account)
        self.runner = create_runner(account, "api", app)

    @web.middleware
    async def _check_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the key, then the account's limits, and turn errors into JSON."""
        if not self._is_authenticated(request):
            return _error(401, "No valid API key provided")
        if self._exceeds_connections(request):
            response = web.Response(status=503, text="503 Service Unavailable")
            response.force_close()
            return response
        if not self._account.admit_request():
            return _error(429, "Your request rate has exceeded our rate limit.")
        try:
            return await handler(request)
        except ApiErrorResponse as error:
            return web.json_response(error.body, status=error.status)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            # ChartMogul's router treats a known path with another method as an unknown path.
            return web.json_response({"error": "Path not found"}, status=404)

    def _is_authenticated(self, request: web.Request) -> bool:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user_name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError:
            return False
        return bool(colon) and self._account.accepts_credentials(user_name, password)

    def _exceeds_connections(self, request: web.Request) -> bool:
        """Return whether this request's connection exceeds the account's limit.

        Connections count from accept to close, idle ones too. The oldest are served, so that a connection too many
        fails alone.
        """
        limit = self._account.max_connections
        server = self.runner.server
        if limit is None or server is None:
            return False
        # aiohttp keeps the connections in a dict, hence in the order in which they were opened.
        connections = server.connections
        protocol = request.protocol
        return protocol in connections and connections.index(protocol) >= limit

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({"data": "pong!"})

    async def _get_account(self, request: web.Request) -> web.Response:
        return web.json_response(account_body(request.query))

    async def _create_export(self, request: web.Request) -> web.Response:
        export = self._account.create_export(ExportParameters.parse(await _read_params(request)))
        # Always pending, however soon it will be ready: the work has not begun when this response is sent.
        return web.json_response(self._export_body(export, "pending", request))

    async def _retrieve_export(self, request: web.Request) -> web.Response:
        export = self._account.export_by_id(request.match_info["id"])
        if export is None:
            return _error(404, "Activities export not found", param="id")
        return web.json_response(self._export_body(export, self._account.poll_export(export), request))

    def _export_body(self, export: Export, status: str, request: web.Request) -> dict[str, Any]:
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
            "params": {"kind": "activities", "params": export.parameters.echo()},
            "expires_at": export.expires_at and export.expires_at.isoformat(),
            "created_at": export.created_at.isoformat(),
        }


def _error(status: int, message: str, param: str | None = None) -> web.Response:
    return web.json_response(error_body(status, message, param), status=status)


def _host_name(request: web.Request) -> str:
    """Return the host name under which the client called the API; empty where it sent none."""
    try:
        return URL(f"http://{request.host}").host or ""
    except ValueError:
        return ""


async def _read_params(request: web.Request) -> dict[str, Any]:
    """Return the parameters of a body in either form that the API takes: JSON or a form.

    :raises ApiErrorResponse: 400 for a body that does not match its Content-Type.
    """
    body = await request.read()
    if not body:
        return {}
    try:
        text = body.decode()
        if request.content_type == "application/json":
            params = json.loads(text)
            if not isinstance(params, dict):
                raise bad_request("The JSON body is not an object")
            return params
        if request.content_type == "application/x-www-form-urlencoded":
            return dict(parse_qsl(text, keep_blank_values=True))
    except (ValueError, RecursionError):
        raise bad_request("The body cannot be parsed as its Content-Type") from None
    # Ignoring the body would silently export the whole history.
    raise bad_request("The Content-Type is neither JSON nor a form")
