# SPDX-License-Identifier: Apache-2.0
"""
A transfer that is killed by SIGKILL, a hundred times: the object is the old one or the complete new one.

A child process runs the whole operator; the servers of the download and of S3 are in this process. The moment of the
kill is drawn with a fixed seed: over the length of an undisturbed run, and more densely after the last byte of the
download, when the object is written and published. A limit on the size of files stands in for a full disk.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.integration.killable import publish, transfer

KILLS = 25
OLD = b"the old object"

#: Enough for three parts of five MiB, S3's smallest, and hardly compressible.
TEXT = b"uuid,date\n" + b"".join(
    base64.b64encode(random.Random(seed).randbytes(57_000)) + b",2024-01-01\n" for seed in range(190)
)
_PARTS = {"chunksize": 5 << 20}


#: The same in ten columns: small as an archive, large as a table.
WIDE = (
    b",".join(b"c%d" % number for number in range(10))
    + b"\n"
    + b"".join(b",".join([base64.b64encode(random.Random(seed).randbytes(24))] * 10) + b"\n" for seed in range(15_000))
)


def archive_of(text: bytes, method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr(zipfile.ZipInfo("activities.csv"), text, method)
    return stream.getvalue()


ARCHIVE = archive_of(TEXT, zipfile.ZIP_STORED)


class Exports:
    """ChartMogul with one finished export and a slow storage; ``all_sent`` is set after the last byte."""

    def __init__(self) -> None:
        self.archive = ARCHIVE
        self.all_sent = threading.Event()
        exports = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def do_GET(self) -> None:
                if self.path.startswith("/v1/"):
                    url = f"{exports.url}/file.zip?X-Amz-Signature=signature"
                    export = {"id": "e-1", "status": "succeeded", "file_url": url, "params": {}}
                    self._begin(json.dumps(export).encode())
                    return
                archive = exports.archive
                self._begin(archive[:1], len(archive))
                size = len(archive) // 20
                for at in range(1, len(archive), size):
                    self.wfile.write(archive[at : at + size])
                    time.sleep(0.002)
                exports.all_sent.set()

            def _begin(self, body: bytes, length: int | None = None) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(length or len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        extra = {"requests_per_second": 1000}
        self.connection_json = json.dumps(
            {"conn_type": "chartmogul", "host": self.url, "password": "key", "extra": extra}
        )

    def __enter__(self) -> Exports:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture(scope="module")
def exports() -> Iterator[Exports]:
    with Exports() as running:
        yield running


class Child:
    """A process that runs a transfer, or a part of one."""

    def __init__(self, work: Callable[..., None], *arguments: Any, **limits: Any) -> None:
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(["tests.integration.killable"])
        self._result, theirs = forks.Pipe(duplex=False)
        self._process = forks.Process(target=work, args=(*arguments, theirs), kwargs=limits, daemon=True)
        self._process.start()
        theirs.close()

    def kill(self) -> bool:
        """Kill it by SIGKILL; return whether it was still working."""
        self._process.kill()
        self._process.join()
        return not self._result.poll() or self._receive() is None

    def result(self) -> str | None:
        """Wait for its result; ``None`` if it ends without one."""
        result = self._receive()
        self._process.join()
        return result

    def _receive(self) -> str | None:
        try:
            return str(self._result.recv())
        except EOFError:
            return None


class Folder:
    """file://"""

    def __init__(self, root: Path, name: str) -> None:
        self._folder, self._name = root / "lake", name
        self._folder.mkdir()
        self.parameters = {"destination": f"file://{self._folder}/{name}"}
        self.environment: dict[str, str] = {}

    def write(self, content: bytes) -> None:
        (self._folder / self._name).write_bytes(content)

    def read(self) -> bytes:
        return (self._folder / self._name).read_bytes()

    def others(self) -> list[str]:
        return sorted(name for name in os.listdir(self._folder) if name != self._name)


class Bucket:
    """s3://"""

    def __init__(self, endpoint: str, name: str) -> None:
        self._client = boto3.client("s3", endpoint_url=endpoint)
        self._bucket, self._name = f"kills-{hashlib.md5(name.encode()).hexdigest()}", name
        self._client.create_bucket(Bucket=self._bucket)
        self.parameters = {"destination": f"s3://lake@{self._bucket}/{name}", "upload_options": _PARTS}
        connection = {"conn_type": "aws", "extra": {"endpoint_url": endpoint}}
        self.environment = {"AIRFLOW_CONN_LAKE": json.dumps(connection)}

    def write(self, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._name, Body=content)

    def read(self) -> bytes:
        return bytes(self._client.get_object(Bucket=self._bucket, Key=self._name)["Body"].read())

    def parts(self) -> int:
        """Return the number of parts that it was uploaded in, according to S3's ETag."""
        etag = self._client.head_object(Bucket=self._bucket, Key=self._name)["ETag"]
        return int(etag.strip('"').partition("-")[2] or 1)

    def others(self) -> list[str]:
        objects = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        return sorted(item["Key"] for item in objects if item["Key"] != self._name)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@dataclass
class Durations:
    """Durations of an undisturbed run in seconds: up to the last byte of the download, and from there to the end."""

    download: float
    publish: float


@pytest.mark.parametrize("output_format", ["zip", "csv.gz"])
@pytest.mark.parametrize("scheme", ["file", "s3"])
def test_killed_transfer_leaves_the_old_or_the_complete_new_object(
    scheme: str, output_format: str, exports: Exports, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = f"x.{output_format}"
    store = Folder(tmp_path, name) if scheme == "file" else Bucket(request.getfixturevalue("s3_endpoint"), name)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    parameters = {**store.parameters, "download_dir": str(temporary)}
    environment = {**store.environment, "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": exports.connection_json}

    def undisturbed() -> tuple[bytes, Durations]:
        """Run the next try, which succeeds and leaves nothing but the object."""
        exports.all_sent.clear()
        began = time.monotonic()
        child = Child(transfer, parameters, environment)
        assert exports.all_sent.wait(60)
        sent = time.monotonic()
        assert child.result() == "done"
        durations = Durations(sent - began, time.monotonic() - sent)
        assert (os.listdir(temporary), store.others()) == ([], [])
        return store.read(), durations

    undisturbed()
    new, durations = undisturbed()
    assert not isinstance(store, Bucket) or store.parts() == 3
    assert (new if output_format == "zip" else gzip.decompress(new)) == (ARCHIVE if output_format == "zip" else TEXT)
    draw = random.Random(f"{scheme} {output_format}")
    counts = {"download": 0, "after it, old": 0, "after it, new": 0, "done": 0}
    store.write(OLD)
    kills = 0
    # Kills that come too late do not count. Bounded, in case that the machine is so fast that all do.
    for number in range(10 * KILLS):
        if kills == KILLS:
            break
        exports.all_sent.clear()
        child = Child(transfer, parameters, environment)
        if number % 3 == 0:
            time.sleep(draw.uniform(0, durations.download + durations.publish))
        else:
            # Counted from the event, so that a slow machine makes no difference.
            assert exports.all_sent.wait(60)
            time.sleep(draw.uniform(0, durations.publish))
        all_sent = exports.all_sent.is_set()
        was_working = child.kill()

        published = store.read()
        kills += was_working
        assert published in (OLD, new), f"try {number}: {len(published)} bytes"
        left = [*os.listdir(temporary), *store.others()] if scheme == "file" else os.listdir(temporary)
        assert [other for other in left if not other.startswith(".")] == []
        assert scheme == "file" or store.others() == []
        phase = f"after it, {'old' if published == OLD else 'new'}" if all_sent else "download"
        counts[phase if was_working else "done"] += 1
        if was_working and (kills % 10 == 0 or kills == KILLS):
            assert undisturbed()[0] == new
            published = new
        if published != OLD:
            store.write(OLD)
    print(f"{scheme}, {output_format}, {durations}: killed during {counts}")
    assert kills == KILLS


@pytest.mark.parametrize(
    ("output_format", "archive", "limit", "error"),
    [
        ("zip", ARCHIVE, 4 << 20, "DownloadError"),
        ("csv.gz", ARCHIVE, 4 << 20, "DownloadError"),
        # All of it stays in the file's buffer until the end.
        ("zip", archive_of(TEXT[:5000], zipfile.ZIP_STORED), 1000, "DownloadError"),
        # The archive fits, the table does not.
        ("csv", archive_of(WIDE, zipfile.ZIP_DEFLATED), 3 << 20, "InsufficientDiskSpaceError"),
        ("parquet", archive_of(WIDE, zipfile.ZIP_DEFLATED), 3 << 20, "InsufficientDiskSpaceError"),
    ],
)
def test_full_disk_leaves_the_old_object(
    output_format: str,
    archive: bytes,
    limit: int,
    error: str,
    exports: Exports,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the archive is downloaded or converted; the error names the folder, and what to do."""
    monkeypatch.setattr(exports, "archive", archive)
    assert (len(archive) > limit) == (error == "DownloadError")
    store, temporary = Folder(tmp_path, f"x.{output_format}"), tmp_path / "temporary"
    temporary.mkdir()
    store.write(OLD)
    parameters = {**store.parameters, "download_dir": str(temporary)}
    environment = {"AIRFLOW_CONN_CHARTMOGUL_DEFAULT": exports.connection_json}

    message = Child(transfer, parameters, environment, file_bytes=limit).result() or ""

    assert message.startswith(f"{error}: could not write to {temporary}")
    assert "File too large" in message
    assert "download_dir" in message
    assert (store.read(), store.others(), os.listdir(temporary)) == (OLD, [], [])
    assert Child(transfer, parameters, environment).result() == "done"


@pytest.mark.parametrize("limit", [0, 1, 100_000, len(ARCHIVE) - 1])
def test_full_destination_keeps_the_old_object(limit: int, tmp_path: Path) -> None:
    store, file = Folder(tmp_path, "x.zip"), tmp_path / "archive.zip"
    file.write_bytes(ARCHIVE)
    store.write(OLD)

    message = Child(publish, file, store.parameters["destination"], file_bytes=limit).result() or ""

    assert message.startswith(f"ObjectStorageError: could not write {store.parameters['destination']}")
    assert "File too large" in message
    assert (store.read(), store.others()) == (OLD, [])
    assert Child(publish, file, store.parameters["destination"], file_bytes=len(ARCHIVE)).result() == "done"
    assert (store.read(), store.others()) == (ARCHIVE, [])
