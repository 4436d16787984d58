# SPDX-License-Identifier: Apache-2.0
"""An archive whose first member is read while it arrives is accepted, refused and converted as any other."""

from __future__ import annotations

import io
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_chartmogul.exceptions import ArchiveError
from airflow_provider_chartmogul.formats.archive import Archive, Content, HashedFile
from airflow_provider_chartmogul.formats.arriving_archive import ArrivingArchive, arriving_archive
from airflow_provider_chartmogul.formats.csv_text import CsvScanner
from tests.unit.test_archive import CSV, UNUSUAL, WRITERS, Members, commented, stored, streamed, zipped

LARGE = CSV + b"".join(b"2024-01-01,new_biz,%d\n" % (n * n) for n in range(60_000))
#: Writers of archives that begin with a compressed member.
READ_AHEAD = [zipped, streamed, commented]


def arrive(archive: ArrivingArchive, content: bytes, size: int = 1 << 20) -> None:
    with archive.path.open("wb", buffering=0) as file:
        for start in range(0, len(content), size):
            file.write(content[start : start + size])


def outcome(opened: Archive) -> tuple[Content, Content, bytes]:
    """Return the content of an archive, and its CSV as gzip."""
    target = io.BytesIO()
    return opened.check(), opened.write_csv_gz(HashedFile(target)), target.getvalue()


def outcome_or_error(path: Path, archive: ArrivingArchive | None = None) -> object:
    try:
        with Archive(path, archive and archive.first_member) as opened:
            return outcome(opened)
    except ArchiveError as error:
        return str(error)


@pytest.mark.parametrize(("text", "size"), [(CSV, 1), (CSV, 29), (CSV, 1000), (LARGE, 1000), (LARGE, 1 << 20)])
@pytest.mark.parametrize("write", READ_AHEAD)
def test_member_is_not_read_again(
    write: Callable[[Members], bytes], text: bytes, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with arriving_archive(tmp_path / "a.zip", read_ahead=True, count_rows=True) as archive:
        arrive(archive, write({"a.csv": text}), size)
        found = archive.first_member(len(text))
        assert found is not None
        assert (found.size, found.crc) == (len(text), zlib.crc32(text))
        expected = outcome_or_error(archive.path)
        monkeypatch.delattr(Archive, "_read")
        assert outcome_or_error(archive.path, archive) == expected


@pytest.mark.parametrize("name", [*UNUSUAL, "stored", "two members", "the CSV is not the first", "empty"])
def test_unusual_archive_is_read_as_without_a_thread(name: str, tmp_path: Path) -> None:
    others = {
        "stored": stored({"a.csv": CSV}),
        "two members": zipped({"a.csv": CSV, "README.txt": b"hello"}),
        "the CSV is not the first": zipped({"README.txt": b"hello", "a.csv": CSV}),
        "empty": zipped({}),
    }
    with arriving_archive(tmp_path / "a.zip", read_ahead=True, count_rows=True) as archive:
        arrive(archive, others.get(name) or UNUSUAL[name]({"a.csv": CSV}))
        result = outcome_or_error(archive.path, archive)
    assert isinstance(result, tuple)
    assert result == outcome_or_error(archive.path)


@pytest.mark.parametrize("write", WRITERS)
def test_damaged_byte_has_the_same_result_as_without_a_thread(
    write: Callable[[Members], bytes], tmp_path: Path
) -> None:
    content = write({"a.csv": CSV, "b.txt": b"hello"})
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        with arriving_archive(tmp_path / f"{place}.zip", read_ahead=True, count_rows=True) as archive:
            arrive(archive, bytes(damaged))
            assert outcome_or_error(archive.path, archive) == outcome_or_error(archive.path)


@pytest.mark.parametrize("length", [0, 1, 29, 30, 40, -30])
def test_truncated_archive_has_the_same_error_as_without_a_thread(length: int, tmp_path: Path) -> None:
    with arriving_archive(tmp_path / "a.zip", read_ahead=True, count_rows=True) as archive:
        arrive(archive, zipped({"a.csv": CSV})[:length])
        error = outcome_or_error(archive.path, archive)
    assert "is not a sound zip archive" in str(error)
    assert error == outcome_or_error(archive.path)


def test_thread_stops_beyond_the_size_in_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive may expand to a thousand times its size."""
    chunks = []

    def feed(scanner: CsvScanner, chunk: bytes) -> None:
        chunks.append(chunk)
        assert archive._has_ended.wait(60), "first_member() was not called"

    monkeypatch.setattr(CsvScanner, "feed", feed)
    with arriving_archive(tmp_path / "a.zip", read_ahead=True, count_rows=True) as archive:
        arrive(archive, zipped({"a.csv": CSV * 100_000}))
        assert archive.first_member(100) is None
    assert len(chunks) <= 1


def test_download_that_starts_over_is_read_again(tmp_path: Path) -> None:
    """The result for the first bytes does not apply to those that replace them."""
    other = CSV.replace(b"100", b"200")
    with arriving_archive(tmp_path / "a.zip", read_ahead=True, count_rows=True) as archive:
        arrive(archive, zipped({"a.csv": CSV})[:50])
        archive.discard()
        arrive(archive, zipped({"a.csv": other}))
        assert archive.first_member(len(other)) is None
        assert outcome_or_error(archive.path, archive) == outcome_or_error(archive.path)
    with zipfile.ZipFile(archive.path) as opened:
        assert opened.read("a.csv") == other


def test_error_of_the_file_system_is_left_to_the_download(tmp_path: Path) -> None:
    with arriving_archive(tmp_path / "missing" / "a.zip", read_ahead=True, count_rows=True) as archive:
        assert archive.first_member(len(CSV)) is None


def test_thread_ends_with_the_task(tmp_path: Path) -> None:
    before = threading.active_count()

    def run() -> None:
        with arriving_archive(tmp_path / "a.zip", read_ahead=True, count_rows=True) as archive:
            arrive(archive, zipped({"a.csv": LARGE})[:5000])
            assert threading.active_count() == before + 1
            raise TimeoutError

    with pytest.raises(TimeoutError):
        run()
    assert threading.active_count() == before


def test_without_read_ahead_there_is_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with arriving_archive(tmp_path / "a.zip", read_ahead=False, count_rows=False) as archive:
        arrive(archive, zipped({"a.csv": CSV}))
        assert threading.active_count() == before
        assert archive.first_member(len(CSV)) is None
