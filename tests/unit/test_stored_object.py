# SPDX-License-Identifier: Apache-2.0
"""Destinations are parsed, and local files are published completely or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat import sdk
from fsspec import asyn
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.exceptions import DestinationError, ObjectExistsError, ObjectStorageError
from airflow_provider_chartmogul.runtime.temporary_files import hidden_file, temporary_folder
from airflow_provider_chartmogul.storage.file_systems import FileSystemObject
from airflow_provider_chartmogul.storage.object_storage import StoredObject
from tests.unit.values import ROOT, run_python


@pytest.mark.parametrize(
    ("destination", "conn_id", "parsed", "uri"),
    [
        ("s3://b/k.zip", None, StoredObject("s3", "b", "k.zip"), "s3://b/k.zip"),
        ("s3://b/a/b/k.zip", None, StoredObject("s3", "b", "a/b/k.zip"), "s3://b/a/b/k.zip"),
        ("s3://aws@b/k.zip", None, StoredObject("s3", "b", "k.zip", "aws"), "s3://b/k.zip"),
        ("s3://b/k.zip", "aws", StoredObject("s3", "b", "k.zip", "aws"), "s3://b/k.zip"),
        ("s3://aws@b/k.zip", "aws", StoredObject("s3", "b", "k.zip", "aws"), "s3://b/k.zip"),
        ("s3://b/k.zip", "", StoredObject("s3", "b", "k.zip"), "s3://b/k.zip"),
        ("s3://b/me@home/k.zip", None, StoredObject("s3", "b", "me@home/k.zip"), "s3://b/me@home/k.zip"),
        ("s3://b//k.zip", None, StoredObject("s3", "b", "/k.zip"), "s3://b//k.zip"),
        ("s3://b/a b,c#d%20.zip", None, StoredObject("s3", "b", "a b,c#d%20.zip"), "s3://b/a b,c#d%20.zip"),
        ("gs://google@b/k.csv", None, StoredObject("gs", "b", "k.csv", "google"), "gs://b/k.csv"),
        ("file:///data/k.zip", None, StoredObject("file", "", "/data/k.zip"), "file:///data/k.zip"),
        ("file://local@/data/k.zip", None, StoredObject("file", "", "/data/k.zip", "local"), "file:///data/k.zip"),
        ("/data/k.zip", None, StoredObject("file", "", "/data/k.zip"), "file:///data/k.zip"),
    ],
)
def test_destination_is_parsed(destination: str, conn_id: str | None, parsed: StoredObject, uri: str) -> None:
    stored = StoredObject.parse(destination, conn_id)
    assert stored == parsed
    assert stored.uri == uri
    assert stored.name == uri.rpartition("/")[2]


def test_credentials_in_a_destination_are_refused_and_not_shown() -> None:
    with pytest.raises(DestinationError, match="write the name of an Airflow connection there") as caught:
        StoredObject.parse("s3://AKIDEXAMPLE:wJalrXUtnFEMI@bucket/key.zip")
    assert "AKIDEXAMPLE" not in str(caught.value)
    assert "wJalrXUtnFEMI" not in str(caught.value)


@pytest.mark.parametrize(
    "destination",
    [
        "s3://",
        "s3://b",
        "s3://b/",
        "s3://b/folder/",
        "s3:///k.zip",
        "s3://aws@/k.zip",
        "://b/k.zip",
        "file://",
        "file:///",
        "file:///folder/",
        "file://host/k.zip",
        "folder/k.zip",
        "./k.zip",
        "k.zip",
        "/",
        "",
    ],
)
def test_incomplete_name_is_refused(destination: str) -> None:
    with pytest.raises(DestinationError, match="is not the full name of one object, such as s3://") as raised:
        StoredObject.parse(destination)
    assert repr(destination) in str(raised.value)
    assert raised.value.permanent


def test_two_connections_are_refused() -> None:
    with pytest.raises(DestinationError, match="contains the connection 'a', but object_storage_conn_id is 'b'"):
        StoredObject.parse("s3://a@bucket/k.zip", "b")


names = st.text(st.characters(exclude_characters="/@?"), min_size=1, max_size=12)


@given(
    scheme=st.sampled_from(["s3", "gs", "abfss", "memory"]),
    bucket=names,
    parts=st.lists(names, min_size=1, max_size=4),
    conn_id=st.none() | st.text("abc_-0", min_size=1),
    inline=st.booleans(),
)
def test_parsed_name_is_unchanged(
    scheme: str, bucket: str, parts: list[str], conn_id: str | None, inline: bool
) -> None:
    key = "/".join(parts)
    before = f"{conn_id}@" if conn_id and inline else ""
    stored = StoredObject.parse(f"{scheme}://{before}{bucket}/{key}", None if inline else conn_id)
    assert stored == StoredObject(scheme, bucket, key, conn_id)
    assert StoredObject.parse(stored.uri, conn_id) == stored
    assert stored.name == parts[-1]


@given(st.text(max_size=40) | st.text("s3:/@file.b", max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        stored = StoredObject.parse(text)
    except DestinationError:
        return
    assert stored.key
    assert stored.scheme
    assert not stored.key.endswith("/")
    assert (stored.scheme == "file") == (not stored.bucket)


# Local files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"all of it")
    return path


def at(path: Path) -> StoredObject:
    return StoredObject.parse(f"file://{path}")


@pytest.mark.parametrize("name", ["k.zip", "with space.zip", "größe.zip", ".hidden.zip", "x" * 251 + ".zip", "ж" * 120])
def test_file_is_published_alone(tmp_path: Path, source: Path, name: str) -> None:
    target = tmp_path / "new" / "folders" / name
    stored = at(target)
    assert not stored.exists()
    stored.publish(source)
    assert target.read_bytes() == b"all of it"
    assert list(target.parent.iterdir()) == [target]
    assert source.exists()
    assert stored.exists()
    assert stored.size() == len(b"all of it")


def test_mode_is_that_of_other_files(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "k.zip"
    at(target).publish(source)
    assert target.stat().st_mode == source.stat().st_mode


def test_existing_file_is_replaced(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "k.zip"
    target.write_bytes(b"something much longer than before")
    at(target).publish(source)
    assert target.read_bytes() == b"all of it"


def test_exclusive_leaves_existing_file(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out" / "k.zip"
    at(target).publish(source, exclusive=True)
    source.write_bytes(b"later")
    with pytest.raises(ObjectExistsError, match=r"k\.zip already exists, and if_exists is 'fail'"):
        at(target).publish(source, exclusive=True)
    assert target.read_bytes() == b"all of it"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("exclusive", [False, True])
def test_failure_leaves_nothing(tmp_path: Path, exclusive: bool) -> None:
    target = tmp_path / "k.zip"
    with pytest.raises(ObjectStorageError, match=r"could not write file://.*FileNotFoundError"):
        at(target).publish(tmp_path / "not there", exclusive=exclusive)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_that_name_is_an_error(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out" / "k.zip").mkdir(parents=True)
    with pytest.raises(ObjectStorageError, match="could not write file://"):
        at(tmp_path / "out" / "k.zip").publish(source)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["k.zip"]


def test_upload_options_are_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(DestinationError, match="upload_options are for object stores"):
        at(tmp_path / "k.zip").publish(source, options={"ACL": "private"})
    assert not (tmp_path / "k.zip").exists()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out" / "k.zip"
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    program = (
        "import sys, pathlib\n"
        "from airflow_provider_chartmogul.storage.object_storage import StoredObject\n"
        "StoredObject.parse(sys.argv[1]).publish(pathlib.Path(sys.argv[2]))\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(target), str(large)], cwd=ROOT)
    try:
        while other.poll() is None and not any(path.stat().st_size for path in target.parent.glob(".*")):
            time.sleep(0.001)
        other.send_signal(signal.SIGSTOP)  # while it writes
        [hidden] = list(target.parent.iterdir())
        assert hidden.name.startswith(".")
        at(target).publish(source)
        assert set(target.parent.iterdir()) == {target, hidden}
        other.kill()
        other.wait()
        assert hidden.exists()
        at(target).publish(source)
    finally:
        other.kill()
        other.wait()
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == b"all of it"


class NetworkFolder:
    """
    ``flock`` as on NFS, or on a file system without locks.

    NFS turns it into a lock of ``fcntl``, which requires that the file is open for writing (flock(2)).
    """

    def __init__(self, *, has_locks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_locks, self._flock = has_locks, fcntl.flock
        monkeypatch.setattr(fcntl, "flock", self.flock)

    def flock(self, descriptor: int, operation: int) -> None:
        if not self.has_locks:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._flock(descriptor, operation)


@pytest.mark.parametrize("has_locks", [True, False], ids=["NFS", "without locks"])
def test_network_folder(has_locks: bool, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, temporary = tmp_path / "out" / "k.zip", tmp_path / "temporary"
    temporary.mkdir()
    target.parent.mkdir()
    NetworkFolder(has_locks=has_locks, monkeypatch=monkeypatch)
    with temporary_folder(str(temporary)) as held, hidden_file(target) as hidden:
        (held / "archive.zip").write_bytes(b"in use by another process")
        with temporary_folder(str(temporary)) as another:
            assert another != held
        at(target).publish(source)
        assert (held / "archive.zip").exists()
        assert set(target.parent.iterdir()) == {target, hidden}
    assert target.read_bytes() == b"all of it"
    assert list(temporary.iterdir()) == []
    # What a killed process left is removed where locks show that it is abandoned.
    (temporary / held.name).mkdir()
    (target.parent / hidden.name).touch()
    with temporary_folder(str(temporary)):
        at(target).publish(source)
        assert (temporary / held.name).exists() is not has_locks
    assert (target.parent / hidden.name).exists() is not has_locks


def test_many_writers_of_one_name_succeed(tmp_path: Path) -> None:
    target = tmp_path / "out" / "k.zip"
    sources = []
    for number in range(8):
        sources.append(tmp_path / f"source-{number}")
        sources[-1].write_bytes(bytes([number]) * 300_000)
    failures: list[BaseException] = []
    start = threading.Barrier(len(sources))

    def write(file: Path) -> None:
        try:
            for _ in range(10):
                start.wait()
                at(target).publish(file)
        except BaseException as error:
            failures.append(error)
            start.abort()

    threads = [threading.Thread(target=write, args=(file,)) for file in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [error for error in failures if not isinstance(error, threading.BrokenBarrierError)] == []
    assert target.read_bytes() in [file.read_bytes() for file in sources]
    assert os.listdir(target.parent) == ["k.zip"]


def test_one_of_many_exclusive_writers_succeeds(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out" / "k.zip"
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def write() -> None:
        start.wait()
        try:
            at(target).publish(source, exclusive=True)
            outcomes.append("written")
        except ObjectExistsError:
            outcomes.append("exists")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["exists"] * 7 + ["written"]


def test_unknown_scheme_names_what_to_install() -> None:
    with pytest.raises(DestinationError, match="this worker has no file system for nosuch://") as raised:
        StoredObject.parse("nosuch://b/k.zip").prepare()
    assert raised.value.permanent
    assert "s3" in str(raised.value)


def test_local_destination_loads_no_file_system_registry(tmp_path: Path) -> None:
    """Airflow's registry imports the file systems of all providers, such as boto3."""
    program = (
        "import sys, pathlib\n"
        "from airflow_provider_chartmogul.storage.object_storage import StoredObject\n"
        "source = pathlib.Path(sys.argv[1], 'source'); source.write_bytes(b'x')\n"
        "stored = StoredObject.parse(f'file://{sys.argv[1]}/k.zip')\n"
        "stored.prepare(); stored.publish(source, exclusive=True)\n"
        "assert stored.exists() and stored.size() == 1 and stored.equals(source)\n"
        "print([name for name in ('fsspec', 'boto3', 's3fs', 'airflow.io', 'airflow.sdk.io') if name in sys.modules])\n"
    )
    assert run_python(program, str(tmp_path)).strip() == "[]"


def test_object_store_loads_no_file_system_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would import the file systems of all installed providers."""

    def fail(*_: object) -> None:
        raise AssertionError("the registry was loaded")

    monkeypatch.setattr(import_module(f"{sdk.io.__name__}.store"), "ObjectStore", fail)
    StoredObject.parse("s3://b/k.zip").prepare()
    with pytest.raises(ObjectStorageError, match="the registry was loaded"):
        StoredObject.parse("nosuch://b/k.zip").prepare()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP])
def test_exclusive_works_without_hard_links(
    number: int, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on gcsfuse and SMB."""

    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    test_exclusive_leaves_existing_file(tmp_path, source)
    test_one_of_many_exclusive_writers_succeeds(tmp_path / "many", source)


def test_failed_rename_without_hard_links_leaves_nothing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ObjectStorageError, match="could not write"):
        at(tmp_path / "out" / "k.zip").publish(source, exclusive=True)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EBADF])
def test_file_system_without_fsync(number: int, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    at(tmp_path / "k.zip").publish(source)
    assert (tmp_path / "k.zip").read_bytes() == b"all of it"


@pytest.mark.parametrize("content", [b"all of it", b"all of ut", b"all", b""])
def test_equality_is_that_of_the_content(content: bytes, tmp_path: Path, source: Path) -> None:
    (tmp_path / "k.zip").write_bytes(content)
    os.utime(tmp_path / "k.zip", (1, 1))
    os.utime(source, (1, 1))
    assert at(tmp_path / "k.zip").equals(source) is (content == b"all of it")


# File systems that are not object stores, such as SFTP


class RemoteFolder(LocalFileSystem):
    """A file system that writes in place and can rename, and whose connection may break."""

    protocol = "sftp"
    cachable = False
    breaks_after: int | None = None

    def put_file(self, path: str, target: str, **_: object) -> None:
        content = Path(path).read_bytes()
        Path(target).write_bytes(content[: self.breaks_after])
        if self.breaks_after is not None:
            raise ConnectionError("the connection was lost")


class AsyncRemoteFolder(AsyncFileSystem):
    """The same, asynchronous as Airflow's file system for SFTP."""

    protocol = "sftp"
    cachable = False
    breaks_after: int | None = None

    async def _put_file(self, path: str, target: str, **_: object) -> None:
        RemoteFolder.put_file(self, path, target)  # type: ignore[arg-type]

    async def _info(self, path: str, **_: object) -> dict[str, object]:
        return {"name": path, "type": "file", "size": os.stat(path).st_size}

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        os.makedirs(path, exist_ok=exist_ok)

    async def _mv(self, path: str, target: str) -> None:
        os.rename(path, target)

    async def _rm_file(self, path: str, **_: object) -> None:
        os.unlink(path)


Remote = tuple[Any, StoredObject]


@pytest.fixture(params=[RemoteFolder, AsyncRemoteFolder])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    # sshfs does so, too.
    monkeypatch.setattr(asyn, "async_methods", [*asyn.async_methods, "_mv"])
    stored = StoredObject("sftp", "host", "unused")
    file_system = request.param()
    remote_object = FileSystemObject("sftp", str(tmp_path / "out" / "k.zip"), None)
    remote_object.__dict__["_fs"] = file_system
    stored.__dict__["_object"] = remote_object
    return file_system, stored


@pytest.mark.parametrize("exclusive", [False, True])
def test_interrupted_upload_to_a_file_system_leaves_the_old_object(
    exclusive: bool, remote: Remote, tmp_path: Path, source: Path
) -> None:
    file_system, stored = remote
    if not exclusive:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "k.zip").write_bytes(b"before")
    before = [path.read_bytes() for path in tmp_path.glob("out/*")]
    file_system.breaks_after = 4
    with pytest.raises(ObjectStorageError, match="the connection was lost"):
        stored.publish(source, exclusive=exclusive)
    assert [path.read_bytes() for path in tmp_path.glob("out/*")] == before
    file_system.breaks_after = None
    stored.publish(source, exclusive=exclusive)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["k.zip"]
    assert (tmp_path / "out" / "k.zip").read_bytes() == b"all of it"


def test_exclusive_upload_to_a_file_system_leaves_the_other_object(
    remote: Remote, tmp_path: Path, source: Path
) -> None:
    _, stored = remote
    stored.publish(source, exclusive=True)
    source.write_bytes(b"later")
    with pytest.raises(ObjectExistsError):
        stored.publish(source, exclusive=True)
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"all of it"]
