# SPDX-License-Identifier: Apache-2.0
"""What faults do to requests, on aiohttp.server. `faults.py` says which of them hit one, and what each means.

Where an answer is to break off, its head and bytes go straight to the transport: aiohttp, which finishes what
it began, never begins. It finds the transport closing and gives up in silence.
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

from airflow_provider_chartmogul.sandbox.faults import Fault, Hit, Hits
from airflow_provider_chartmogul.sandbox.presigned import Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Of the request that is being answered. A request is a mapping too, for such things, but newer aiohttp
# warns of keys that are text, and those it wants instead are not there in 3.10.
_SPOILED: ContextVar[Mapping[str, Hit]] = ContextVar("spoiled", default=MappingProxyType({}))

_CHUNK = 64 * 1024
_LOOK_SECONDS = 0.1
_DELAY_SECONDS = 5.0

# Reset at once, and what has not been sent is dropped: SO_LINGER on, for no time.
_RESET = struct.pack("ii", 1, 0)

_PHRASES = {520: "Web Server Returned an Unknown Error", 524: "A Timeout Occurred"}

_JSON: dict[str, tuple[Any, ...]] = {
    "400": ({"code": 400, "message": 'Parameter "start-date" is missing', "param": "start-date"},),
    "401": ({"code": 401, "message": "No valid API key provided", "param": None},),
    "402": ({"code": 402, "message": "The parameters were valid but the request failed", "param": None},),
    "403": ({"code": 403, "message": "Your trial or plan has expired", "param": None},),
    "404": (
        {"code": 404, "message": "Activities export not found", "param": "id"},
        {"error": "Activities export not found"},
    ),
    "422": (
        {"errors": {"end-date": "must not be before start-date"}},
        {
            "end-date": ["must not be before start-date"],
            "error_details": [{"param": "end-date", "code": "invalid", "message": "must not be before start-date"}],
        },
    ),
    "429": ({"code": 429, "message": "Your request rate has exceeded our rate limit.", "param": None},),
}

_STORAGE = {
    "400": (
        "RequestTimeout",
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    "404": ("NoSuchKey", "The specified key does not exist."),
    "500": ("InternalError", "We encountered an internal error. Please try again."),
    "503": ("SlowDown", "Please reduce your request rate."),
}

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><hr><p>{words}</p></body></html>
"""


class FileResponse(web.Response):
    """An answer whose body is bytes that are there already, sent in chunks.

    :param content: the body; not copied.
    """

    def __init__(self, *, status: int, headers: dict[str, str], content: memoryview) -> None:
        super().__init__(status=status, headers={**headers, "Content-Length": str(len(content))}, body=_chunks(content))
        self.content = content


async def _chunks(content: memoryview) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), _CHUNK):
        yield bytes(content[begin : begin + _CHUNK])


async def answer(request: web.Request, handler: Handler, host: str, hits: Hits) -> web.StreamResponse:
    """The answer to a request that faults have hit; what breaks it off comes later, in `finish`.

    :param handler: answers the request as if there were no faults.
    :param host: `api` or `download`.
    """
    slow = hits.spoiled.get("slow")
    hit = hits.answer
    early = hit is not None and hit.fault.what not in ("stall", "half-json") and hit.fault.when != "after"
    token = _SPOILED.set(hits.spoiled)
    try:
        response = web.Response() if early else await handler(request)
    finally:
        _SPOILED.reset(token)
    if slow is not None:
        delay = slow.fault.delay
        await _while_connected(request, _DELAY_SECONDS if delay is None else delay)
    if hit is None or hit.fault.what in ("reset", "stall"):
        return response
    if early:
        # Else what is left of a request that nobody has read would be reset with the connection.
        with contextlib.suppress(web.HTTPException):
            await request.read()
    if hit.fault.what == "html":
        return _page(200, "Sign in", "Please sign in to your proxy to go on.")
    if hit.fault.what == "half-json":
        return _half(response, hit)
    return _storage_error(hit.fault) if host == "download" else _api_error(hit.fault)


def status_of(response: web.StreamResponse, hits: Hits) -> int:
    """The status the client will see; 0 when it gets no answer."""
    return 0 if hits.answer is not None and hits.answer.fault.what == "reset" else response.status


async def finish(request: web.Request, response: web.StreamResponse, hits: Hits) -> None:
    """Break the connection where that is what the faults want: to be called once the request is on record."""
    transport = request.transport
    if transport is None:
        return
    hit = hits.answer
    if hit is not None and hit.fault.what == "reset":
        with contextlib.suppress(web.HTTPException):
            await request.read()
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    elif hit is not None and hit.fault.what == "stall":
        body = _body(response)
        transport.write(_head(response, len(body)) + bytes(body[: hit.fault.at or 0]))
        await _while_connected(request, None)
    elif "break" in hits.spoiled and response.status in (200, 206):
        body = _body(response)
        # Closed, not reset: a reset could overtake the bytes before it, and fewer than `at` would arrive.
        transport.write(_head(response, len(body)) + bytes(body[: hits.spoiled["break"].byte(len(body))]))
        transport.close()


def etag(true: str) -> str:
    """The file's ETag, as the request that is being answered is to see it."""
    hit = _SPOILED.get().get("etag")
    # The form of an upload in parts, which no one takes for an MD5: that the file is another one is the fault,
    # not that its checksum is wrong.
    return true if hit is None else f'"{true.strip(chr(34))}-{hit.number + 1}"'


def ignores_ranges() -> bool:
    """Whether the request is to be answered by a server that knows no ranges."""
    return "no-range" in _SPOILED.get()


def spoil(content: memoryview) -> memoryview:
    """The body as the request is to get it: cut short, with a bit flipped, or as it is."""
    cut = _SPOILED.get().get("cut")
    if cut is not None:
        content = content[: cut.byte(len(content))]
    flip = _SPOILED.get().get("flip")
    if flip is not None and content:
        changed = bytearray(content)
        changed[flip.byte(len(changed))] ^= 1 << flip.draws.randrange(8)
        content = memoryview(changed)
    return content


async def _while_connected(request: web.Request, seconds: float | None) -> None:
    """Wait for so long, None for ever, or until the client hangs up, which aiohttp does not tell a handler."""
    loop = asyncio.get_running_loop()
    ends = None if seconds is None else loop.time() + seconds
    while request.transport is not None and not request.transport.is_closing():
        left = _LOOK_SECONDS if ends is None else min(_LOOK_SECONDS, ends - loop.time())
        if left <= 0:
            return
        await asyncio.sleep(left)


def _body(response: web.StreamResponse) -> memoryview:
    if isinstance(response, FileResponse):
        return response.content
    body = response.body if isinstance(response, web.Response) else b""
    return memoryview(body if isinstance(body, (bytes, bytearray)) else b"")


def _head(response: web.StreamResponse, length: int) -> bytes:
    headers = {**response.headers, "Content-Length": str(length)}
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode()


def _half(response: web.StreamResponse, hit: Hit) -> web.Response:
    body = bytes(_body(response))
    at = hit.byte(len(body)) if hit.fault.at is not None else len(body) // 2
    return web.Response(status=response.status, body=body[:at], content_type="application/json", charset="utf-8")


def _api_error(fault: Fault) -> web.Response:
    what = str(fault.what)
    status = int(what)
    body = fault.body or ("json" if status < 500 else "html" if status in _PHRASES else "text")
    if body == "html":
        response = _page(status, f"{status} {_phrase(status)}", "The server could not answer the request.")
    elif body == "text":
        response = web.Response(status=status, text=f"{status} {_phrase(status)}")
    else:
        response = web.json_response(_JSON[what][body == "json2"], status=status)
    return _with_phrase_and_wait(response, fault)


def _storage_error(fault: Fault) -> web.Response:
    what = str(fault.what)
    status = int(what)
    now = datetime.now(UTC)
    if what == "403":
        ended = (now - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        details = {"X-Amz-Expires": "604800", "Expires": ended, "ServerTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        refused = Refused(403, "AccessDenied", "Request has expired", details)
    elif what in _STORAGE:
        refused = Refused(status, *_STORAGE[what])
    else:
        # None of S3's own: it comes from something in between.
        page = _page(status, f"{status} {_phrase(status)}", "The server could not answer the request.")
        return _with_phrase_and_wait(page, fault)
    response = web.Response(status=status, body=refused.as_xml(), content_type="application/xml")
    return _with_phrase_and_wait(response, fault)


def _with_phrase_and_wait(response: web.Response, fault: Fault) -> web.Response:
    response.set_status(response.status, _phrase(response.status))
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    elif fault.retry_date is not None:
        # A date has whole seconds; what is cut off here must not make the wait shorter than was asked for.
        moment = datetime.now(UTC) + timedelta(seconds=fault.retry_date, microseconds=999_999)
        response.headers["Retry-After"] = format_datetime(moment, usegmt=True)
    return response


def _page(status: int, title: str, words: str) -> web.Response:
    page = _PAGE.format(title=escape(title), words=escape(words))
    return web.Response(status=status, text=page, content_type="text/html")


def _phrase(status: int) -> str:
    return _PHRASES.get(status) or http.HTTPStatus(status).phrase
