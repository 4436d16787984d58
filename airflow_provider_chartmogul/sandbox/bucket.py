# SPDX-License-Identifier: Apache-2.0
"""The sandbox's download host on aiohttp.server: finished exports at presigned URLs, answered as S3 does.

It is as strict as S3 where emulators are not: an Authorization header next to the signed URL is refused, and
so are a signature for anything else than this very request (a HEAD, another path, one more query parameter)
and one that has expired. Errors are XML.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from email.utils import format_datetime

from aiohttp import web

from airflow_provider_chartmogul.sandbox import mischief
from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.presigned import Refused, check
from airflow_provider_chartmogul.sandbox.server import KEEP_ALIVE_SECONDS, count_connections, watch

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class BucketServer:
    """The download host of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        app = web.Application(middlewares=[watch(account, "download")])
        app.router.add_route("*", "/{key:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=0.1)
        count_connections(account, "download", self.runner)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._object(request)
        except Refused as refusal:
            return _error(refusal)

    async def _object(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            raise Refused(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
                "string parameter or the Authorization header should be specified",
                # S3 repeats the header, key and all: who prints the body of an error prints the key.
                {"ArgumentName": "Authorization", "ArgumentValue": authorization},
            )
        path = check(
            request.method,
            request.raw_path,
            request.headers.get("Host", ""),
            secret=self._account.url_secret,
            now=datetime.now(UTC),
        )
        export = self._account.export_at(path)
        if export is None:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.", {"Key": path.lstrip("/")})
        archive = await asyncio.to_thread(self._account.archive, export)
        etag = mischief.etag(archive.etag)
        if not _matches(request.headers.get("If-Match"), etag):
            raise Refused(
                412,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
                {"Condition": "If-Match"},
            )
        size = len(archive.content)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/zip",
            "ETag": etag,
            "Last-Modified": format_datetime(export.created_at, usegmt=True),
        }
        first, last, status = 0, size - 1, 200
        wanted = _RANGE.fullmatch(request.headers.get("Range", "").strip())
        if mischief.ignores_ranges():
            wanted = None
            del headers["Accept-Ranges"]
        if wanted is not None and wanted.group() != "bytes=-":
            first, last = _bounds(wanted.group(1), wanted.group(2), size)
            if first > last:
                # A range that ends before it begins is no range at all, and ignored.
                first, last = 0, size - 1
            else:
                status = 206
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        content = mischief.spoil(memoryview(archive.content)[first : last + 1])
        return mischief.FileResponse(status=status, headers=headers, content=content)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """The first and last byte of a range: `5-9`, `5-` or `-5`. A reversed one comes out reversed.

    :raises Refused: 416 where no byte of the object is in it.
    """
    if first:
        begin, end = int(first), min(int(last), size - 1) if last else size - 1
        reversed_as_sent = bool(last) and int(last) < begin
        satisfiable = begin < size or reversed_as_sent
    else:
        begin, end = max(0, size - int(last)), size - 1
        satisfiable = int(last) > 0
    if not satisfiable:
        raise Refused(
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            {"RangeRequested": f"bytes={first}-{last}", "ActualObjectSize": str(size)},
        )
    return begin, end


def _matches(condition: str | None, etag: str) -> bool:
    if condition is None or condition.strip() == "*":
        return True
    # S3 takes an ETag without its quotes as well.
    return etag.strip('"') in (one.strip().strip('"') for one in condition.split(","))


def _error(refusal: Refused) -> web.Response:
    headers = {}
    if refusal.status == 416:
        headers["Content-Range"] = f"bytes */{refusal.details['ActualObjectSize']}"
    return web.Response(status=refusal.status, headers=headers, body=refusal.as_xml(), content_type="application/xml")
