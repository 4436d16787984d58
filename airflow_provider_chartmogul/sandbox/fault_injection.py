# SPDX-License-Identifier: Apache-2.0
"""Application of faults to requests, on aiohttp.server. `faults.py` describes the faults.

To interrupt a response, its head and a part of its body are written to the transport directly. aiohttp, which would
complete the response, then finds the transport closing and sends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from html import escape
from types import MappingProxyType
from typing import Any

from aiohttp import web

from airflow_provider_chartmogul.sandbox.active_faults import Hit, Hits
from airflow_provider_chartmogul.sandbox.error_responses import S3ErrorResponse, error_body
from airflow_provider_chartmogul.sandbox.faults import LISTS, Fault
from airflow_provider_chartmogul.sandbox.list_faults import PageFaults

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The modifications of the current request. aiohttp.web.Request could hold them, but newer releases warn of text keys,
# and older ones do not have the typed keys that these want.
_MODIFICATIONS: ContextVar[Mapping[str, Hit]] = ContextVar("modifications", default=MappingProxyType({}))

_CHUNK_BYTES = 64 * 1024
_CONNECTION_CHECK_SECONDS = 0.1
_DEFAULT_DELAY_SECONDS = 5.0

# SO_LINGER with a time of zero: closing the socket resets the connection and drops what has not been sent.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_PHRASES = {520: "Web Server Returned an Unknown Error", 524: "A Timeout Occurred"}

_END_BEFORE_START = "must not be before start-date"

_JSON_BODIES: dict[str, tuple[Any, ...]] = {
    "400": (error_body(400, 'Parameter "start-date" is missing', "start-date"),),
    "401": (error_body(401, "No valid API key provided"),),
    "402": (error_body(402, "The parameters were valid but the request failed"),),
    "403": (error_body(403, "Your trial or plan has expired"),),
    "404": (error_body(404, "Activities export not found", "id"), {"error": "Activities export not found"}),
    "422": (
        {"errors": {"end-date": _END_BEFORE_START}},
        {
            "end-date": [_END_BEFORE_START],
            "error_details": [{"param": "end-date", "code": "invalid", "message": _END_BEFORE_START}],
        },
    ),
    "429": (error_body(429, "Your request rate has exceeded our rate limit."),),
}

# For lists, the bodies that would name the activities export otherwise.
_LIST_BODIES: dict[str, tuple[Any, ...]] = {
    "400": (error_body(400, 'Parameter "cursor" is malformed', "cursor"),),
    "404": (error_body(404, "Not found"), {"error": "Path not found"}),
    "422": (
        {"errors": {"status": "is not included in the list"}},
        {
            "status": ["is not included in the list"],
            "error_details": [{"param": "status", "code": "invalid", "message": "is not included in the list"}],
        },
    ),
}

_S3_ERRORS = {
    "400": (
        "RequestTimeout",
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    "404": ("NoSuchKey", "The specified key does not exist."),
    "500": ("InternalError", "We encountered an internal error. Please try again."),
    "503": ("SlowDown", "Please reduce your request rate."),
}

_HTML = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><hr><p>{text}</p></body></html>
"""


class BytesResponse(web.Response):
    """A response that sends bytes in chunks, without copying the whole.

    :param content: the body.
    """

    def __init__(self, *, status: int, headers: dict[str, str], content: memoryview) -> None:
        super().__init__(status=status, headers={**headers, "Content-Length": str(len(content))}, body=_chunks(content))
        self.content = content


async def _chunks(content: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _CHUNK_BYTES):
        yield bytes(content[start : start + _CHUNK_BYTES])


async def respond(request: web.Request, handler: Handler, host: str, hits: Hits) -> web.StreamResponse:
    """Return the response to a request that faults hit. `interrupt_response` has to follow.

    :param handler: processes the request.
    :param host: `api` or `download`.
    """
    hit = hits.replacement
    # `stall` and `half-json` need the handler's response; the others only process the request with `when=after`.
    needs_handler = hit is None or hit.fault.kind in ("stall", "half-json") or hit.fault.when == "after"
    token = _MODIFICATIONS.set(hits.modifications)
    try:
        response = await handler(request) if needs_handler else web.Response()
    finally:
        _MODIFICATIONS.reset(token)
    if (slow := hits.modifications.get("slow")) is not None:
        delay = slow.fault.delay
        await _wait_while_connected(request, _DEFAULT_DELAY_SECONDS if delay is None else delay)
    if hit is None or hit.fault.kind in ("reset", "stall"):
        return response
    if not needs_handler:
        # An unread request body would reset the connection when it closes.
        with contextlib.suppress(web.HTTPException):
            await request.read()
    if hit.fault.kind == "html":
        return _html_page(200, "Sign in", "Sign in to the proxy to continue.")
    if hit.fault.kind == "half-json":
        return _half_json(response, hit)
    if host == "download":
        return _s3_error(hit.fault)
    is_list = request.match_info.route.name in LISTS
    return _api_error(hit.fault, {**_JSON_BODIES, **_LIST_BODIES} if is_list else _JSON_BODIES)


def response_status(response: web.StreamResponse, hits: Hits) -> int:
    """Return the status that the client receives; 0 for no response."""
    hit = hits.replacement
    return 0 if hit is not None and hit.fault.kind == "reset" else response.status


async def interrupt_response(request: web.Request, response: web.StreamResponse, hits: Hits) -> None:
    """Reset, stall or close the connection, if a fault does. Called once the request has been recorded."""
    transport = request.transport
    if transport is None:
        return
    hit = hits.replacement
    if hit is not None and hit.fault.kind == "reset":
        with contextlib.suppress(web.HTTPException):
            await request.read()
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    elif hit is not None and hit.fault.kind == "stall":
        body = _body(response)
        transport.write(_head(response, len(body)) + bytes(body[: hit.fault.at or 0]))
        await _wait_while_connected(request, None)
    elif "interrupt" in hits.modifications and response.status in (200, 206):
        body = _body(response)
        # Closed instead of reset: a reset could overtake the bytes before it, so that fewer than `at` arrive.
        transport.write(_head(response, len(body)) + bytes(body[: hits.modifications["interrupt"].byte(len(body))]))
        transport.close()


def page_faults() -> PageFaults:
    """Return the faults that modify a page of a list, for the current request."""
    return PageFaults(_MODIFICATIONS.get())


def modify_etag(etag: str) -> str:
    """Return the ETag for the current request."""
    hit = _MODIFICATIONS.get().get("etag")
    # The form of an upload in parts, which nobody takes for an MD5: the fault is another file, not a wrong checksum.
    return etag if hit is None else f'"{etag.strip(chr(34))}-{hit.number + 1}"'


def ignores_range() -> bool:
    """Return whether the current request's `Range` header is to be ignored."""
    return "no-range" in _MODIFICATIONS.get()


def modify_body(content: memoryview) -> memoryview:
    """Return the body for the current request: truncated, with an inverted bit, or as it is."""
    truncate = _MODIFICATIONS.get().get("truncate")
    if truncate is not None:
        content = content[: truncate.byte(len(content))]
    flip = _MODIFICATIONS.get().get("flip")
    if flip is not None and content:
        changed = bytearray(content)
        changed[flip.byte(len(changed))] ^= 1 << flip.random.randrange(8)
        content = memoryview(changed)
    return content


async def _wait_while_connected(request: web.Request, seconds: float | None) -> None:
    """Wait until the client closes the connection, at most this long; `None` for no limit.

    aiohttp does not tell a handler that the client has gone, so the transport is checked regularly.
    """
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    while request.transport is not None and not request.transport.is_closing():
        remaining = (
            _CONNECTION_CHECK_SECONDS if deadline is None else min(_CONNECTION_CHECK_SECONDS, deadline - loop.time())
        )
        if remaining <= 0:
            return
        await asyncio.sleep(remaining)


def _body(response: web.StreamResponse) -> memoryview:
    if isinstance(response, BytesResponse):
        return response.content
    body = response.body if isinstance(response, web.Response) else b""
    return memoryview(body if isinstance(body, (bytes, bytearray)) else b"")


def _head(response: web.StreamResponse, length: int) -> bytes:
    headers = {**response.headers, "Content-Length": str(length)}
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode()


def _half_json(response: web.StreamResponse, hit: Hit) -> web.Response:
    body = bytes(_body(response))
    at = hit.byte(len(body)) if hit.fault.at is not None else len(body) // 2
    return web.Response(status=response.status, body=body[:at], content_type="application/json", charset="utf-8")


def _api_error(fault: Fault, json_bodies: Mapping[str, tuple[Any, ...]]) -> web.Response:
    status = int(fault.kind)
    body = fault.body or ("json" if str(status) in json_bodies else "html" if status in _PHRASES else "text")
    if body == "html":
        response = _error_page(status)
    elif body == "text":
        response = web.Response(status=status, text=f"{status} {_phrase(status)}")
    else:
        response = web.json_response(json_bodies[str(status)][body == "json2"], status=status)
    return _with_reason_and_retry_after(response, fault)


def _s3_error(fault: Fault) -> web.Response:
    status = int(fault.kind)
    now = datetime.now(UTC)
    if status == 403:
        expired = (now - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        details = {"X-Amz-Expires": "604800", "Expires": expired, "ServerTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        error = S3ErrorResponse(403, "AccessDenied", "Request has expired", details)
    elif str(status) in _S3_ERRORS:
        error = S3ErrorResponse(status, *_S3_ERRORS[str(status)])
    else:
        # S3 has no such error: it comes from a proxy.
        return _with_reason_and_retry_after(_error_page(status), fault)
    response = web.Response(status=status, body=error.as_xml(), content_type="application/xml")
    return _with_reason_and_retry_after(response, fault)


def _with_reason_and_retry_after(response: web.Response, fault: Fault) -> web.Response:
    response.set_status(response.status, _phrase(response.status))
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    elif fault.retry_date is not None:
        # A date has whole seconds: rounded up, so that the wait is not shorter than requested.
        moment = datetime.now(UTC) + timedelta(seconds=fault.retry_date, microseconds=999_999)
        response.headers["Retry-After"] = format_datetime(moment, usegmt=True)
    return response


def _error_page(status: int) -> web.Response:
    return _html_page(status, f"{status} {_phrase(status)}", "The server could not process the request.")


def _html_page(status: int, title: str, text: str) -> web.Response:
    page = _HTML.format(title=escape(title), text=escape(text))
    return web.Response(status=status, text=page, content_type="text/html")


def _phrase(status: int) -> str:
    return _PHRASES.get(status) or http.HTTPStatus(status).phrase
