# SPDX-License-Identifier: Apache-2.0
"""The outermost middleware of both servers: counts and records requests, and applies faults to them."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

from aiohttp import web

from airflow_provider_chartmogul.sandbox import fault_injection
from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.counters import Host
from airflow_provider_chartmogul.sandbox.recording import RecordedRequest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_KEEP_ALIVE_SECONDS = 75.0


def request_middleware(account: Account, host: Host) -> Any:
    """Return the middleware for one of the servers. When it returns a response, nothing has been sent yet."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        account.counters.request_received(host, started)
        # The API's routes are named after the faults' places. An unknown path has no name.
        hits = account.faults.select(host, request.match_info.route.name or host)
        status = 0
        try:
            if hits is None:
                response = await handler(request)
                status = response.status
            else:
                response = await fault_injection.respond(request, handler, host, hits)
                status = fault_injection.response_status(response, hits)
        except web.HTTPException as error:
            status = error.status
            raise
        except Exception:
            status = 500
            raise
        finally:
            account.record_request(
                RecordedRequest(
                    host=host,
                    method=request.method,
                    path=sys.intern(_printable(request.raw_path).partition("?")[0]),
                    # A download's query has the signature, which is a secret.
                    query=_query(request) if host == "api" else {},
                    status=status,
                    headers=_headers(request),
                    started=started,
                    fault="" if hits is None else str(hits),
                )
            )
        if hits is not None:
            await fault_injection.interrupt_response(request, response, hits)
        return response

    return middleware


def create_runner(account: Account, host: Host, app: web.Application) -> web.AppRunner:
    """Return a runner for one of the servers, whose open connections the account counts.

    Idle connections are kept for a while, and count among the account's connections until they close.
    """
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=_KEEP_ALIVE_SECONDS, shutdown_timeout=0.1)
    account.counters.set_connection_counter(
        host, lambda: 0 if runner.server is None else len(runner.server.connections)
    )
    return runner


def _printable(text: str) -> str:
    """Return a text of a request without surrogates, which stand for bytes outside UTF-8 and cannot be logged."""
    return text.encode(errors="replace").decode()


def _query(request: web.Request) -> Mapping[str, str]:
    return _shared_pairs(tuple((_printable(name), _printable(value)) for name, value in request.query.items()))


def _headers(request: web.Request) -> Mapping[str, str]:
    headers = {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}
    if "authorization" in headers:
        headers["authorization"] = headers["authorization"].partition(" ")[0]
    return _shared_pairs(tuple(headers.items()))


@lru_cache(maxsize=1024)
def _shared_pairs(pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """Return one object for equal pairs, since many requests are recorded and most have the same headers."""
    return dict(pairs)
