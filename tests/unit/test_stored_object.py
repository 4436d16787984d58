# SPDX-License-Identifier: Apache-2.0
"""The name of an object, taken apart and put together again; and a local file, published whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.exceptions import DestinationError, ObjectExistsError, ObjectStorageError
from airflow_provider_chartmogul.runtime.temporary_files import hidden_file, temporary_folder
from airflow_provider_chartmogul.storage.object_storage import StoredObject
from tests.unit.values import ROOT


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
def test_destinations(destination: str, conn_id: str | None, parsed: StoredObject, uri: str) -> None:
    found = StoredObject.parse(destination, conn_id)
    assert found == parsed
    assert found.uri == uri
    assert found.name == uri.rpartition("/")[2]


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
def test_what_is_not_the_full_name_of_an_object(destination: str) -> None:
    with pytest.raises(DestinationError, match="is not the full name of one object, such as s3://") as raised:
        StoredObject.parse(destination)
    assert repr(destination) in str(raised.value)
    assert raised.value.permanent


def test_two_connections_are_one_too_many() -> None:
    with pytest.raises(DestinationError, match="names the connection 'a', and object_storage_conn_id another, 'b'"):
        StoredObject.parse("s3://a@bucket/k.zip", "b")


names = st.text(st.characters(exclude_characters="/@?"), min_size=1, max_size=12)


@given(
    scheme=st.sampled_from(["s3", "gs", "abfss", "memory"]),
    bucket=names,
    parts=st.lists(names, min_size=1, max_size=4),
    conn_id=st.none() | st.text("abc_-0", min_size=1),
    inline=st.booleans(),
)
def test_a_name_comes_out_as_it_went_in(
    scheme: str, bucket: str, parts: list[str], conn_id: str | None, inline: bool
) -> None:
    key = "/".join(parts)
    before = f"{conn_id}@" if conn_id and inline else ""
    found = StoredObject.parse(f"{scheme}://{before}{bucket}/{key}", None if inline else conn_id)
    assert found == StoredObject(scheme, bucket, key, conn_id)
    assert StoredObject.parse(found.uri, conn_id) == found
    assert found.name == parts[-1]


@given(st.text(max_size=40) | st.text("s3:/@file.b", max_size=20))
def test_any_text_is_an_object_or_refused(text: str) -> None:
    try:
        found = StoredObject.parse(text)
    except DestinationError:
        return
    assert found.key
    assert found.scheme
    assert not found.key.endswith("/")
    assert (found.scheme == "file") == (not found.bucket)


# Published locally


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"all of it")
    return path


def at(path: Path) -> StoredObject:
    return StoredObject.parse(f"file://{path}")


@pytest.mark.parametrize("name", ["k.zip", "with space.zip", "größe.zip", ".hidden.zip", "x" * 251 + ".zip", "ж" * 120])
def test_all_of_a_file_and_nothing_else(tmp_path: Path, source: Path, name: str) -> None:
    target = tmp_path / "new" / "folders" / name
    stored = at(target)
    assert not stored.exists()
    stored.publish(source)
    assert target.read_bytes() == b"all of it"
    assert list(target.parent.iterdir()) == [target]
    assert source.exists()
    assert stored.exists()
    assert stored.size() == len(b"all of it")


def test_it_is_readable_as_other_files_are(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "k.zip"
    at(target).publish(source)
    assert target.stat().st_mode == source.stat().st_mode


def test_what_was_there_is_replaced(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "k.zip"
    target.write_bytes(b"something much longer than before")
    at(target).publish(source)
    assert target.read_bytes() == b"all of it"


def test_exclusive_leaves_what_was_there(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out" / "k.zip"
    at(target).publish(source, exclusive=True)
    source.write_bytes(b"later")
    with pytest.raises(ObjectExistsError, match=r"k\.zip already exists, and if_exists is 'fail'"):
        at(target).publish(source, exclusive=True)
    assert target.read_bytes() == b"all of it"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_failure_leaves_no_trace(tmp_path: Path, exclusive: bool) -> None:
    target = tmp_path / "k.zip"
    with pytest.raises(ObjectStorageError, match=r"could not write file://.*FileNotFoundError"):
        at(target).publish(tmp_path / "not there", exclusive=exclusive)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_name_is_an_error(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out" / "k.zip").mkdir(parents=True)
    with pytest.raises(ObjectStorageError, match="could not write file://"):
        at(tmp_path / "out" / "k.zip").publish(source)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["k.zip"]


def test_options_are_for_object_stores(tmp_path: Path, source: Path) -> None:
    with pytest.raises(DestinationError, match="upload_options are for object stores"):
        at(tmp_path / "k.zip").publish(source, options={"ACL": "private"})
    assert not (tmp_path / "k.zip").exists()


def test_what_a_killed_one_left_is_removed_but_not_what_another_is_writing(tmp_path: Path, source: Path) -> None:
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
        other.send_signal(signal.SIGSTOP)  # in the middle of its writing
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
    What a folder of NFS, or of a file system without locks, says to ``flock``.

    NFS makes of it a lock of ``fcntl``, which is given for what is open for writing only (flock(2)).
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
def test_a_folder_of_a_network(has_locks: bool, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, scratch = tmp_path / "out" / "k.zip", tmp_path / "scratch"
    scratch.mkdir()
    target.parent.mkdir()
    NetworkFolder(has_locks=has_locks, monkeypatch=monkeypatch)
    with temporary_folder(str(scratch)) as held, hidden_file(target) as hidden:
        (held / "archive.zip").write_bytes(b"what another is working on")
        with temporary_folder(str(scratch)) as another:
            assert another != held
        at(target).publish(source)
        assert (held / "archive.zip").exists()
        assert set(target.parent.iterdir()) == {target, hidden}
    assert target.read_bytes() == b"all of it"
    assert list(scratch.iterdir()) == []
    # What a killed one left, of which it can be told that nobody holds it, is removed.
    (scratch / held.name).mkdir()
    (target.parent / hidden.name).touch()
    with temporary_folder(str(scratch)):
        at(target).publish(source)
        assert (scratch / held.name).exists() is not has_locks
    assert (target.parent / hidden.name).exists() is not has_locks


def test_many_writers_of_one_name_all_succeed(tmp_path: Path) -> None:
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


def test_of_many_exclusive_writers_one_succeeds(tmp_path: Path, source: Path) -> None:
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


def test_an_unknown_scheme_names_what_to_install() -> None:
    with pytest.raises(DestinationError, match="there is no file system for nosuch://") as raised:
        StoredObject.parse("nosuch://b/k.zip").prepare()
    assert raised.value.permanent
    assert "s3" in str(raised.value)
