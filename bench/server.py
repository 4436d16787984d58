# SPDX-License-Identifier: Apache-2.0
"""
HTTP server for the transfer benchmark: ChartMogul's API with one finished export, and the storage with its archive.

``python -m bench.server ARCHIVE`` prints the server's URL as its first line and runs until its standard input is
closed. ``sendfile`` sends the archive, so that the benchmark measures the receiver. The ETag is the archive's MD5, as
S3's is for an object uploaded in one part, so that the package's check of it is measured too.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EXPORT_ID = "00000000-0000-4000-8000-000000000000"

#: As long as the query of a presigned URL. The signature is not a secret.
_FILE = "/activities.zip"
_QUERY = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Signature=" + "0" * 64


def file_url(base: str) -> str:
    """Return the archive's URL on the server at ``base``."""
    return f"{base}{_FILE}?{_QUERY}"


@contextmanager
def serving(archive: Path) -> Iterator[str]:
    """Run the server in a separate process and yield its base URL."""
    command = [sys.executable, "-m", "bench.server", str(archive)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        base = process.stdout.readline().strip()
        if not base:
            raise RuntimeError("the benchmark's server did not start")
        try:
            yield base
        finally:
            process.stdin.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archive: Path
    etag: str

    def do_GET(self) -> None:
        if self.path == f"/v1/activities_export/{EXPORT_ID}":
            self._send_export()
        elif self.path.partition("?")[0] == _FILE:
            self._send_file()
        else:
            self.send_error(404)

    def _send_export(self) -> None:
        body = json.dumps(
            {
                "id": EXPORT_ID,
                "status": "succeeded",
                "file_url": file_url(f"http://{self.headers['Host']}"),
                "params": {"kind": "activities", "params": {"start-date": "2024-01-01", "end-date": "2024-01-02"}},
                "created_at": "2024-01-02T00:00:00Z",
                "expires_at": "2099-01-01T00:00:00Z",
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self) -> None:
        size = self.archive.stat().st_size
        byte_range = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(byte_range[1]) if byte_range else 0
        self.send_response(206 if byte_range else 200)
        if byte_range:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(size - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", self.etag)
        self.end_headers()
        with self.archive.open("rb") as file:
            self.connection.sendfile(file, start)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    _Handler.archive = Path(sys.argv[1])
    with _Handler.archive.open("rb") as file:
        _Handler.etag = f'"{hashlib.file_digest(file, "md5").hexdigest()}"'
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Blocks until the parent process closes the pipe or ends.
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
