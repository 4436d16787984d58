# SPDX-License-Identifier: Apache-2.0
"""An S3 that can stall and lose responses, for one object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.integration.servers import RecordedRequest, Response, ScriptedServer


class FakeS3:
    """
    As much of S3 as the upload of one object needs.

    ``on_part`` and ``on_put`` return the response to an uploaded part and to an upload as a whole.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.content: bytes | None = None
        self.open_uploads: set[str] = set()
        self.failed_condition = "<Condition>If-None-Match</Condition>"
        self.on_part: Callable[[], Response] = lambda: Response(headers={"ETag": '"part"'})
        self.on_put: Callable[[], Response] = lambda: Response(headers={"ETag": '"whole"'})
        self.server = ScriptedServer(self._respond)
        # A unique name, since Airflow keeps a connection's file system for the life of the process.
        conn_id = f"s3_{self.server.url.rpartition(':')[2]}"
        self.destination = f"s3://{conn_id}@bucket/x.zip"
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{conn_id.upper()}",
            json.dumps({"conn_type": "aws", "extra": {"endpoint_url": self.server.url, "region_name": "us-east-1"}}),
        )

    @property
    def completed_uploads(self) -> list[RecordedRequest]:
        """The requests that completed a multipart upload."""
        return [request for request in self.server.requests if request.method == "POST" and "uploadId=" in request.path]

    def _respond(self, request: RecordedRequest) -> Response:
        query = request.path.partition("?")[2]
        if request.method == "POST" and "uploadId=" not in query:
            upload = f"upload-{len(self.open_uploads)}"
            self.open_uploads.add(upload)
            return _xml(f"<Bucket>bucket</Bucket><Key>x.zip</Key><UploadId>{upload}</UploadId>")
        if request.method == "DELETE":
            self.open_uploads.discard(query.partition("uploadId=")[2].partition("&")[0])
            return Response(204)
        if request.method == "PUT" and "partNumber=" in query:
            return self.on_part()
        if request.method == "PUT":
            if "if-none-match" in request.headers and self.content is not None:
                error = f"<Error><Code>PreconditionFailed</Code>{self.failed_condition}</Error>"
                return Response(412, error.encode())
            self.content = _decode_chunks(request)
            return self.on_put()
        if self.content is None:
            return Response(404, b"" if request.method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>")
        return _get(request, self.content)


def _get(request: RecordedRequest, content: bytes) -> Response:
    if "list-type" in request.path:
        return _xml(f"<Contents><Key>x.zip</Key><Size>{len(content)}</Size></Contents>")
    headers = {"ETag": '"whole"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    if request.method == "HEAD":
        return Response(200, headers={**headers, "Content-Length": str(len(content))})
    requested_range = request.headers.get("range", f"0-{len(content) - 1}")
    first, last = (int(part) for part in re.findall(r"\d+", requested_range))
    headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
    return Response(206, content[first : last + 1], headers)


def _xml(content: str) -> Response:
    return Response(body=f"<Result>{content}</Result>".encode(), headers={"Content-Type": "application/xml"})


def _decode_chunks(request: RecordedRequest) -> bytes:
    """Return the content of an upload, which the client may send in chunks with checksums (``aws-chunked``)."""
    if "aws-chunked" not in request.headers.get("content-encoding", ""):
        return request.body
    content, rest = b"", request.body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            return content
        content, rest = content + rest[:length], rest[length + 2 :]
