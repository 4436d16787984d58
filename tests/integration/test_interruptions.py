# SPDX-License-Identifier: Apache-2.0
"""
A download that is interrupted, at any byte and in any way, gives the same file.

The server writes its responses as bytes to a socket and stops anywhere, also in the middle of a header. Hypothesis
draws how and where, the same each time.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import logging
import random
import re
import socket
import socketserver
import struct
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.api import retries
from airflow_provider_chartmogul.exceptions import ArchiveError, DownloadError, DownloadRefusedError
from airflow_provider_chartmogul.storage.download import MAX_INTERRUPTIONS, download
from tests.integration.transfers import transfer

LOG = logging.getLogger(__name__)

#: The same draws each time, without a deadline, since a shared machine is slow at times.
DETERMINISTIC = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def archive_of(rows: int, seed: int) -> bytes:
    """A zip of a CSV that hardly compresses."""
    draw = random.Random(seed)
    text = "uuid,date\n" + "".join(f"{base64.b64encode(draw.randbytes(24)).decode()},{n}\n" for n in range(rows))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(zipfile.ZipInfo("activities.csv"), text, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


#: The file, and two that replace it: one of another size, and one of the same size.
FILES = (archive_of(60, 1), archive_of(75, 2), archive_of(60, 3))
SMALL = (archive_of(5, 4),)


@dataclass(frozen=True)
class Step:
    """
    How the server responds to one request.

    :param cut: the byte of the response, headers included, after which the connection is closed; negative numbers
        count from its end, and larger ones are taken modulo its length
    :param body_cut: the same, counted from the end of the headers
    :param reset: close the connection by RST, which loses what is on its way
    :param file: the index of the file that is served from now on
    :param kind: ``plain``; ``no ranges`` (the whole file for every request); ``another part`` (206 from another byte
        than was requested); ``refused`` (403); ``busy`` (503)
    """

    cut: int | None = None
    body_cut: int | None = None
    reset: bool = False
    file: int | None = None
    kind: str = "plain"


@dataclass
class Behaviour:
    """How the server always responds: where the body ends, what its ETags are, whether it checks If-Match."""

    framing: str = "length"
    etag: str = "md5"
    checks_if_match: bool = True
    pieces: int = 1 << 16


@dataclass
class InterruptingServer:
    """A server with one file; it responds as the steps say, and correctly after the last of them."""

    steps: list[Step] = field(default_factory=list)
    behaviour: Behaviour = field(default_factory=Behaviour)
    files: tuple[bytes, ...] = FILES
    file: int = 0
    requests: list[dict[str, str]] = field(default_factory=list)
    urls: int = 0
    base: str = ""
    connection_json: str = ""

    def begin(self, steps: list[Step], behaviour: Behaviour, files: tuple[bytes, ...] = FILES) -> None:
        self.steps, self.behaviour, self.files = list(steps), behaviour, files
        self.file, self.requests, self.urls = 0, [], 0

    def get_url(self) -> str:
        self.urls += 1
        return f"{self.base}/file.zip?X-Amz-Signature=signature-{self.urls:04d}"

    def etag_of(self, file: int) -> str | None:
        digest = hashlib.md5(self.files[file]).hexdigest()
        return {"md5": f'"{digest}"', "opaque": f'"{digest}-3"', "weak": f'W/"{digest}"', "none": None}[
            self.behaviour.etag
        ]

    def response(self, path: str, headers: dict[str, str]) -> tuple[bytes, bool, bool]:
        """Return the bytes to send, whether to reset the connection, and whether to close it."""
        if path.startswith("/v1/"):
            export = {"id": "e-1", "status": "succeeded", "file_url": self.get_url(), "params": {}}
            return _head(200, ("Content-Type", "application/json"), body=json.dumps(export).encode()), False, False
        self.requests.append(headers)
        step = self.steps.pop(0) if self.steps else Step()
        self.file = self.file if step.file is None else step.file
        whole = self._whole(step, headers)
        cut = step.cut
        if step.body_cut is not None:
            cut = min(whole.index(b"\r\n\r\n") + 4 + step.body_cut, len(whole))
        elif cut is not None:
            cut %= len(whole)
        if cut is None:
            return whole, False, self.behaviour.framing == "close"
        return whole[:cut], step.reset, True

    def _whole(self, step: Step, headers: dict[str, str]) -> bytes:
        content, etag = self.files[self.file], self.etag_of(self.file)
        if step.kind == "refused":
            return _head(403, body=b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        if step.kind == "busy":
            return _head(503, body=b"<Error><Code>SlowDown</Code></Error>")
        fields = [("ETag", etag)] if etag else []
        requested = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if requested is None or step.kind == "no ranges":
            return self._framed(200, fields, content)
        if self.behaviour.checks_if_match and headers.get("if-match", etag) != etag:
            return _head(412, body=b"<Error><Code>PreconditionFailed</Code></Error>")
        start = int(requested[1])
        if step.kind == "another part":
            start = max(0, start - 7) if start % 2 else start + 7
        if start >= len(content):
            return _head(
                416, ("Content-Range", f"bytes */{len(content)}"), body=b"<Error><Code>InvalidRange</Code></Error>"
            )
        part = ("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        return self._framed(206, [*fields, part], content[start:])

    def _framed(self, status: int, fields: list[tuple[str, str]], body: bytes) -> bytes:
        if self.behaviour.framing == "length":
            return _head(status, *fields, body=body)
        if self.behaviour.framing == "close":
            return _head(status, *fields, ("Connection", "close"), length=False) + body
        size = self.behaviour.pieces
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return _head(status, *fields, ("Transfer-Encoding", "chunked"), length=False) + chunks + b"0\r\n\r\n"

    @contextlib.contextmanager
    def running(self) -> Iterator[InterruptingServer]:
        interrupting = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    while request := self.rfile.readline():
                        lines = iter(self.rfile.readline, b"\r\n")
                        headers = dict(line.decode().strip().lower().split(": ", 1) for line in lines)
                        content, reset, close = interrupting.response(request.split()[1].decode(), headers)
                        self.wfile.write(content)
                        if reset:
                            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        if close or reset:
                            return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

            def shutdown_request(self, request: Any) -> None:
                # Not shutdown(), which would end the connection before it can be reset.
                self.close_request(request)

        with Server(("127.0.0.1", 0), Handler) as server:
            self.base = f"http://127.0.0.1:{server.server_address[1]}"
            self.connection_json = json.dumps(
                {
                    "conn_type": "chartmogul",
                    "host": self.base,
                    "password": "key",
                    "extra": {"requests_per_second": 1000},
                }
            )
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            yield self
            server.shutdown()
            thread.join(10)


def _head(status: int, *fields: tuple[str, str], body: bytes = b"", length: bool = True) -> bytes:
    reason = {200: "OK", 206: "Partial Content", 403: "Forbidden", 412: "Precondition Failed", 503: "Slow Down"}
    sized = [("Content-Length", str(len(body)))] if length else []
    lines = [f"{name}: {value}\r\n" for name, value in [("Server", "AmazonS3"), *sized, *fields]]
    return f"HTTP/1.1 {status} {reason.get(status, '')}\r\n{''.join(lines)}\r\n".encode() + body


@pytest.fixture(scope="module")
def server() -> Iterator[InterruptingServer]:
    with InterruptingServer().running() as running:
        yield running


@pytest.fixture(autouse=True, scope="module")
def _no_backoff() -> Iterator[None]:
    """Retry without a delay."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interruptions") / "archive.zip"


def fetch(server: InterruptingServer, path: Path) -> int:
    return download(server.get_url, path, timeout=10, plain_http_allowed=True, log=LOG)


def assert_complete(server: InterruptingServer, path: Path, size: int) -> None:
    """Check that it is, byte for byte, the file that was served last."""
    content = server.files[server.file]
    assert path.read_bytes() == content
    assert size == len(content)


# The headers have about 200 bytes, the bodies 2,500 and more.
places = st.integers(0, 5000) | st.integers(0, 250) | st.integers(-12, -1)
kinds = st.sampled_from(["plain", "plain", "no ranges", "another part", "busy"])
interruptions = st.builds(Step, cut=places, reset=st.booleans(), kind=kinds)
framings = st.sampled_from(["length", "chunked"])
behaviours = st.builds(
    Behaviour,
    framing=framings,
    etag=st.sampled_from(["md5", "opaque", "weak"]),
    checks_if_match=st.booleans(),
    pieces=st.sampled_from([1 << 16, 1000, 37]),
)


class TestDownload:
    @settings(DETERMINISTIC, max_examples=300)
    @given(
        # Together with two more that these may cause (a changed file, one at the end) too few to give up.
        steps=st.lists(interruptions, max_size=MAX_INTERRUPTIONS - 3),
        changed_at=st.integers(0, 4),
        changed_to=st.sampled_from([0, 1, 2]),
        refused_at=st.none() | st.integers(0, 3),
        refused_cut=st.none() | places,
        behaviour=behaviours,
    )
    def test_interrupted_download_gives_the_whole_file(
        self,
        steps: list[Step],
        changed_at: int,
        changed_to: int,
        refused_at: int | None,
        refused_cut: int | None,
        behaviour: Behaviour,
        server: InterruptingServer,
        path: Path,
    ) -> None:
        """Closed and reset connections, a changed file, missing and wrong ranges, an expired URL, all mixed."""
        if changed_at < len(steps):
            steps[changed_at] = replace(steps[changed_at], file=changed_to)
        if refused_at is not None:
            steps.insert(refused_at, Step(kind="refused", cut=refused_cut))
        server.begin(steps, behaviour)
        assert_complete(server, path, fetch(server, path))
        assert server.urls <= 2

    @settings(DETERMINISTIC, max_examples=100)
    @given(
        # Counted from the end of the headers, so that every response has some bytes.
        pieces=st.lists(st.integers(1, 300), min_size=5, max_size=30),
        reset=st.booleans(),
        refused=st.sets(st.integers(1, 30), max_size=4),
        behaviour=behaviours,
    )
    def test_any_number_of_interruptions_is_tolerated_while_bytes_arrive(
        self,
        pieces: list[int],
        reset: bool,
        refused: set[int],
        behaviour: Behaviour,
        server: InterruptingServer,
        path: Path,
    ) -> None:
        server.begin([], behaviour)
        for number, piece in enumerate(pieces):
            if number in refused:
                server.steps.append(Step(kind="refused"))
            # A reset loses what the client has not read yet, so that there may be no progress.
            server.steps.append(Step(body_cut=piece, reset=reset and number % 3 == 0))
        assert_complete(server, path, fetch(server, path))

    @pytest.mark.parametrize(("framing", "etag"), [("length", "md5"), ("length", "none"), ("chunked", "opaque")])
    @pytest.mark.parametrize("reset", [False, True], ids=["hang-up", "reset"])
    def test_interruption_at_every_byte(
        self, framing: str, etag: str, reset: bool, server: InterruptingServer, path: Path
    ) -> None:
        """The first response ends at an even byte, and the second at the odd one after it."""
        behaviour = Behaviour(framing, etag, pieces=200)
        server.begin([], behaviour, SMALL)
        for cut in range(0, len(server.response("/file.zip", {})[0]), 2):
            server.begin([Step(cut=cut, reset=reset), Step(cut=cut + 1, reset=reset)], behaviour, SMALL)
            assert_complete(server, path, fetch(server, path))

    @settings(DETERMINISTIC, max_examples=60)
    @given(steps=st.lists(interruptions.map(lambda step: replace(step, kind="plain")), max_size=MAX_INTERRUPTIONS - 3))
    def test_missing_length_is_made_up_for_by_an_md5(
        self, steps: list[Step], server: InterruptingServer, path: Path
    ) -> None:
        """If the file ends with the connection, its checksum tells whether it is complete."""
        server.begin(steps, Behaviour("close", "md5"))
        assert_complete(server, path, fetch(server, path))

    def test_refused_fresh_url_is_an_error(self, server: InterruptingServer, path: Path) -> None:
        server.begin([Step(body_cut=500), Step(kind="refused"), Step(kind="refused")], Behaviour())
        with pytest.raises(DownloadRefusedError, match="fresh one too"):
            fetch(server, path)
        assert server.urls == 2

    def test_interruptions_without_progress_end_the_download(self, server: InterruptingServer, path: Path) -> None:
        server.begin([Step(cut=0)] * 50, Behaviour())
        with pytest.raises(DownloadError, match=f"interrupted {MAX_INTERRUPTIONS} times in a row"):
            fetch(server, path)
        assert len(server.requests) == MAX_INTERRUPTIONS


# Airflow raises the limit when it first copies an operator, and hypothesis warns about it.
@pytest.mark.filterwarnings("ignore:The recursion limit will not be reset")
class TestObject:
    """The same through the operator."""

    @pytest.mark.parametrize("output_format", ["zip", "csv.gz"])
    @settings(DETERMINISTIC, max_examples=30)
    @given(
        steps=st.lists(interruptions, max_size=MAX_INTERRUPTIONS - 3),
        changed_at=st.integers(0, 4),
        refused_at=st.none() | st.integers(0, 3),
        behaviour=behaviours,
    )
    def test_object_is_that_of_an_uninterrupted_download(
        self,
        steps: list[Step],
        changed_at: int,
        refused_at: int | None,
        behaviour: Behaviour,
        output_format: str,
        server: InterruptingServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if changed_at < len(steps):
            steps[changed_at] = replace(steps[changed_at], file=1)
        if refused_at is not None:
            steps.insert(refused_at, Step(kind="refused"))
        server.begin(steps, behaviour)
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json)
        temporary = tmp_path / "temporary"
        temporary.mkdir(exist_ok=True)

        transfer("e-1", f"file://{tmp_path}/lake/x.{output_format}", download_dir=str(temporary))

        published = (tmp_path / "lake" / f"x.{output_format}").read_bytes()
        if output_format == "zip":
            assert published == FILES[server.file]
        else:
            with zipfile.ZipFile(io.BytesIO(FILES[server.file])) as opened:
                assert gzip.decompress(published) == opened.read("activities.csv")
        assert [file.name for file in (tmp_path / "lake").iterdir()] == [f"x.{output_format}"]
        assert list(temporary.iterdir()) == []

    @pytest.mark.parametrize("output_format", ["zip", "csv.gz"])
    @settings(DETERMINISTIC, max_examples=40)
    @given(steps=st.lists(interruptions, min_size=1, max_size=MAX_INTERRUPTIONS - 3), changed_at=st.integers(0, 2))
    def test_changed_file_without_an_etag_is_whole_or_refused(
        self,
        steps: list[Step],
        changed_at: int,
        output_format: str,
        server: InterruptingServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Only the checksums in the archive show that the second half is that of another file."""
        steps[changed_at % len(steps)] = replace(steps[changed_at % len(steps)], file=2)
        server.begin(steps, Behaviour(etag="none"))
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json)
        target = tmp_path / f"x.{output_format}"
        target.write_bytes(b"before")
        with contextlib.suppress(ArchiveError):
            transfer("e-1", f"file://{target}")
        allowed = [b"before"]
        for content in FILES:
            with zipfile.ZipFile(io.BytesIO(content)) as opened:
                allowed.append(content if output_format == "zip" else opened.read("activities.csv"))
        published = target.read_bytes()
        if output_format == "csv.gz" and published != b"before":
            published = gzip.decompress(published)
        assert published in allowed
        assert [file.name for file in tmp_path.iterdir()] == [target.name]
