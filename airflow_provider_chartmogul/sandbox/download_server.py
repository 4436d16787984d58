# SPDX-License-Identifier: Apache-2.0
"""The sandbox's download host on aiohttp.server: finished exports at presigned URLs, with S3's responses.

Unlike emulators, it is as strict as S3. It refuses an Authorization header beside the signed URL, a signature for
another request (HEAD, another path, an additional query parameter), and an expired URL. Errors are XML.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from email.utils import format_datetime

from aiohttp import web

from airflow_provider_chartmogul.sandbox import fault_injection
from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.error_responses import S3ErrorResponse
from airflow_provider_chartmogul.sandbox.middleware import create_runner, request_middleware
from airflow_provider_chartmogul.sandbox.presigned import verify

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class DownloadServer:
    """The download host of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        app = web.Application(middlewares=[request_middleware(account, "download")])
        app.router.add_route("*", "/{key:.*}", self._respond)
        self.runner = create_runner(account, "download", app)

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._get_object(request)
        except S3ErrorResponse as error:
            return _error_response(error)

    async def _get_object(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            raise S3ErrorResponse(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
                "string parameter or the Authorization header should be specified",
                # S3 repeats the header with the key in it, so that logging the error's body leaks the key.
                {"ArgumentName": "Authorization", "ArgumentValue": authorization},
            )
        path = verify(
            request.method,
            request.raw_path,
            request.headers.get("Host", ""),
            secret=self._account.url_secret,
            now=datetime.now(UTC),
        )
        export = self._account.export_by_path(path)
        if export is None:
            raise S3ErrorResponse(404, "NoSuchKey", "The specified key does not exist.", {"Key": path.lstrip("/")})
        file = await asyncio.to_thread(self._account.export_file, export)
        etag = fault_injection.modify_etag(file.etag)
        if not _matches_etag(request.headers.get("If-Match"), etag):
            raise S3ErrorResponse(
                412,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
                {"Condition": "If-Match"},
            )
        size = len(file.content)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/zip",
            "ETag": etag,
            "Last-Modified": format_datetime(export.created_at, usegmt=True),
        }
        first, last, status = 0, size - 1, 200
        byte_range = _RANGE.fullmatch(request.headers.get("Range", "").strip())
        if fault_injection.ignores_range():
            byte_range = None
            del headers["Accept-Ranges"]
        if byte_range is not None and byte_range.group() != "bytes=-":
            first, last = _range_bounds(byte_range.group(1), byte_range.group(2), size)
            if first > last:
                # A range that ends before it starts is invalid, and therefore ignored.
                first, last = 0, size - 1
            else:
                status = 206
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        content = fault_injection.modify_body(memoryview(file.content)[first : last + 1])
        return fault_injection.BytesResponse(status=status, headers=headers, content=content)


def _range_bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte of a range `5-9`, `5-` or `-5`. For a reversed one, first exceeds last.

    :raises S3ErrorResponse: 416 where the range contains no byte of the object.
    """
    if first:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        is_reversed = bool(last) and int(last) < start
        is_satisfiable = start < size or is_reversed
    else:
        start, end = max(0, size - int(last)), size - 1
        is_satisfiable = int(last) > 0
    if not is_satisfiable:
        raise S3ErrorResponse(
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            {"RangeRequested": f"bytes={first}-{last}", "ActualObjectSize": str(size)},
        )
    return start, end


def _matches_etag(condition: str | None, etag: str) -> bool:
    if condition is None or condition.strip() == "*":
        return True
    # S3 accepts an ETag without its quotes as well.
    return etag.strip('"') in (part.strip().strip('"') for part in condition.split(","))


def _error_response(error: S3ErrorResponse) -> web.Response:
    headers = {}
    if error.status == 416:
        headers["Content-Range"] = f"bytes */{error.details['ActualObjectSize']}"
    return web.Response(status=error.status, headers=headers, body=error.as_xml(), content_type="application/xml")
