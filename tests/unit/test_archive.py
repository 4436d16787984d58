# SPDX-License-Identifier: Apache-2.0
"""
An archive is accepted exactly if ``zipfile`` opens it and every CRC-32 is right; anything else is an ``ArchiveError``.

Small archives are damaged systematically: every byte changed, every length truncated.
"""

from __future__ import annotations

import csv
import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.exceptions import ArchiveError
from airflow_provider_chartmogul.formats.archive import Archive, Content, HashedFile
from airflow_provider_chartmogul.formats.csv_text import MAX_HEADER_BYTES, CsvScanner, read_columns

Members = dict[str, bytes]

CSV = b"Date,Type,MRR\n2024-01-01,new_biz,100\n"


def zipped(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def streamed(members: Members) -> bytes:
    """As written by a program that cannot seek: the sizes and the CRC-32 follow each member."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            self.content += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return bytes(pipe.content)


def commented(members: Members) -> bytes:
    stream = io.BytesIO(zipped(members))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.comment = b"written for a test"
    return stream.getvalue()


def stored(members: Members) -> bytes:
    return zipped(members, zipfile.ZIP_STORED)


WRITERS: list[Callable[[Members], bytes]] = [zipped, stored, streamed, commented]


def check_file(path: Path) -> Content:
    with Archive(path) as archive:
        return archive.check()


def check(tmp_path: Path, content: bytes) -> Content:
    path = tmp_path / "archive.zip"
    path.write_bytes(content)
    return check_file(path)


def read_all(path: Path) -> list[bytes]:
    """Read every member with zipfile."""
    with zipfile.ZipFile(path) as archive:
        return [archive.read(info) for info in archive.infolist()]


def extract(path: Path) -> set[bytes]:
    """Extract the CSV in every way; all of them should give the same text."""
    texts = set()
    with Archive(path) as archive:
        text, compressed = io.BytesIO(), io.BytesIO()
        archive.write_csv(HashedFile(text))
        archive.write_csv_gz(HashedFile(compressed))
        texts |= {text.getvalue(), gzip.decompress(compressed.getvalue()), b"".join(archive.read_csv())}
    return texts


def error_message(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ArchiveError) as raised:
        check(tmp_path, content)
    assert not raised.value.permanent
    return str(raised.value)


# Sound archives


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("members", "content"),
    [
        ({"a.csv": CSV}, Content(("a.csv",), ("Date", "Type", "MRR"))),
        ({"a.csv": b"\xef\xbb\xbf" + CSV}, Content(("a.csv",), ("Date", "Type", "MRR"))),
        ({"a.csv": b'"a,b","c ""d""","e\nf"\r\n1,2,3\r\n'}, Content(("a.csv",), ("a,b", 'c "d"', "e\nf"))),
        ({"a.csv": "Größe,日付\n".encode()}, Content(("a.csv",), ("Größe", "日付"))),
        ({"a.csv": b"one"}, Content(("a.csv",), ("one",))),
        ({"a.csv": b""}, Content(("a.csv",), ())),
        ({"a.csv": b"\n1,2\n"}, Content(("a.csv",), ("1", "2"))),
        ({"a.csv": b'"never closed\n1,2\n'}, Content(("a.csv",), None)),
        ({"a.csv": CSV, "b.csv": CSV}, Content(("a.csv", "b.csv"), None)),
        ({"folder/": b"", "folder/a.csv": CSV}, Content(("folder/a.csv",), ("Date", "Type", "MRR"))),
        ({"größe.csv": CSV}, Content(("größe.csv",), ("Date", "Type", "MRR"))),
        ({"..a..csv": CSV}, Content(("..a..csv",), ("Date", "Type", "MRR"))),
        ({}, Content((), None)),
    ],
)
def test_sound_archive_is_accepted(
    tmp_path: Path, write: Callable[[Members], bytes], members: Members, content: Content
) -> None:
    assert check(tmp_path, write(members)) == content


def test_member_name_may_contain_a_time(tmp_path: Path) -> None:
    # The name of the CSV is not documented.
    name = "activities-2024-01-01T00:00:00Z.csv"
    assert check(tmp_path, zipped({name: CSV})).members == (name,)


def test_archive_of_many_megabytes(tmp_path: Path) -> None:
    content = CSV + b"2024-01-01,new_biz,100\n" * 300_000
    assert check(tmp_path, zipped({"a.csv": content})).columns == ("Date", "Type", "MRR")


@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_member_content_is_accepted(tmp_path: Path, content: bytes) -> None:
    assert check(tmp_path, zipped({"a.csv": content})).members == ("a.csv",)


def with_descriptor_flag(members: Members) -> bytes:
    """Bit 3 announces a descriptor after the member, but the sizes are in front and there is no descriptor."""
    content = bytearray(zipped(members))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 8
    return bytes(content)


def with_local_fields(changes: bytes) -> Callable[[Members], bytes]:
    """Other values for the CRC-32 and the sizes in the member's own header than in the directory."""

    def write(members: Members) -> bytes:
        content = zipped(members)
        return content[:14] + changes + content[14 + len(changes) :]

    return write


def with_padded_member(members: Members) -> bytes:
    """Bytes between the end of the DEFLATE stream and the end of the member."""
    content = bytearray(zipped(members))
    directory = content.index(b"PK\x01\x02")
    for place in (18, directory + 20):
        struct.pack_into("<L", content, place, struct.unpack_from("<L", content, place)[0] + 3)
    struct.pack_into("<L", content, len(content) - 6, directory + 3)
    return bytes(content[:directory] + b"pad" + content[directory:])


UNUSUAL: dict[str, Callable[[Members], bytes]] = {
    "a line feed at the end": lambda members: zipped(members) + b"\n",
    "100 zero bytes at the end": lambda members: zipped(members) + bytes(100),
    "a trailing line feed after a comment": lambda members: commented(members) + b"\n",
    "a text in front": lambda members: b"#!/bin/sh\n" + zipped(members),
    "a descriptor flag without a descriptor": with_descriptor_flag,
    "a wrong CRC-32 in the local header": with_local_fields(b"\1\2\3\4"),
    "wrong sizes in the local header": with_local_fields(b"\1\2\3\4" * 3),
    "no sizes in the local header": with_local_fields(bytes(12)),
    "padding after the DEFLATE stream": with_padded_member,
    "a wrong number of entries": lambda members: zipped(members)[:-14] + b"\7\0\7\0" + zipped(members)[-10:],
}


@pytest.mark.parametrize("habit", UNUSUAL)
def test_archive_that_zipfile_accepts_is_accepted(tmp_path: Path, habit: str) -> None:
    path = tmp_path / "archive.zip"
    content = UNUSUAL[habit]({"a.csv": CSV})
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert check_file(path) == Content(("a.csv",), ("Date", "Type", "MRR"))
    assert extract(path) == {CSV}
    start = content.index(b"a.csv") + 5
    for place in range(start, start + 10):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArchiveError):
            check_file(path)


# Archives that are not sound


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"x", b"<html>Not here</html>", b"\x1f\x8b\x08\x00" + bytes(50), bytes(5000), CSV),
        b"<?xml?><Error></Error>",
    ],
)
def test_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    message = error_message(tmp_path, content)
    assert f"({len(content)} bytes) is not a sound zip archive: File is not a zip file" in message
    assert "A retry downloads it again" in message


@pytest.mark.parametrize("write", WRITERS)
def test_truncated_archive_is_refused(tmp_path: Path, write: Callable[[Members], bytes]) -> None:
    content = write({"a.csv": CSV, "b.csv": CSV})
    # Without a comment, whose end zipfile does not miss.
    for length in range(1, content.rindex(b"PK\x05\x06") + 22):
        error_message(tmp_path, content[:length])


@pytest.mark.parametrize("write", WRITERS)
def test_missing_byte_of_a_member_is_refused(tmp_path: Path, write: Callable[[Members], bytes]) -> None:
    content = write({"a.csv": CSV})
    for start in range(content.index(b"a.csv") + 5, content.index(b"PK\x01\x02") - 24):
        error_message(tmp_path, content[:start] + content[start + 1 :])


def test_wrong_checksum_is_refused(tmp_path: Path) -> None:
    content = stored({"a.csv": CSV})
    message = error_message(tmp_path, content.replace(b"new_biz", b"new_bit"))
    assert "is not a sound zip archive: a.csv has a bad CRC-32" in message
    assert "A retry downloads it again" in message


@pytest.mark.parametrize("write", [zipped, stored])
def test_member_larger_than_announced_is_refused(tmp_path: Path, write: Callable[[Members], bytes]) -> None:
    content = bytearray(write({"a.csv": CSV}))
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, len(CSV) - 1)
    assert "larger than the archive's directory says" in error_message(tmp_path, bytes(content))


def test_directory_that_lists_nothing_is_refused(tmp_path: Path) -> None:
    """A single flipped bit can make the directory empty, and an empty table would be published."""
    content = bytearray(zipped({"a.csv": CSV}))
    struct.pack_into("<L", content, len(content) - 10, 0)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == []
    assert "does not list all members" in error_message(tmp_path, bytes(content))


def test_entry_hidden_in_a_comment_is_refused(tmp_path: Path) -> None:
    """A single flipped bit can turn the rest of the directory into a comment, and the README into the table."""
    content = bytearray(zipped({"README.txt": b"hello", "a.csv": CSV}))
    struct.pack_into("<H", content, content.index(b"PK\x01\x02") + 32, 64)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["README.txt"]
    assert "does not list all members" in error_message(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "name", ["/a.csv", "../a.csv", "a/../../b.csv", "..", "\\a.csv", "..\\a.csv", "C:\\a.csv", "c:/a.csv", "C:a.csv"]
)
def test_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert "leads out of the archive's folder" in error_message(tmp_path, zipped({name: CSV}))


@pytest.mark.parametrize("name", ["", ".", "./.", "\0a.csv"])
def test_member_without_a_name_is_accepted_or_refused(tmp_path: Path, name: str) -> None:
    placeholder = "x" * len(name)
    content = zipped({placeholder: CSV})
    if name:
        content = content.replace(placeholder.encode(), name.encode())
    assert extracts_or_refuses(tmp_path / "archive.zip", content, CSV)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    message = error_message(tmp_path, zipped({"a.csv": CSV}, method))
    assert f"member 'a.csv' is compressed by method {method}" in message


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.csv": CSV}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    assert "'a.csv' is encrypted" in error_message(tmp_path, bytes(content))


def extracts_or_refuses(path: Path, damaged: bytes, text: bytes) -> bool:
    """Whether a damaged archive is refused, or still gives the right CSV."""
    path.write_bytes(damaged)
    try:
        check_file(path)
        return extract(path) == {text}
    except ArchiveError:
        return True


SMALL: list[Members] = [
    {"a.csv": b"x,y\n1,2\n1,2\n"},
    {"é.csv": b"x,y\n1,2\n1,2\n"},
    {"a.csv": b"x,y\n1,2\n1,2\n", "b": b"y\n2\n"},
]


@pytest.mark.parametrize("members", SMALL, ids=["one", "not ASCII", "two"])
@pytest.mark.parametrize("write", WRITERS)
def test_damaged_byte_is_refused_or_changes_nothing(
    tmp_path: Path, write: Callable[[Members], bytes], members: Members
) -> None:
    content = write(members)
    wrong = []
    for place in range(len(content)):
        for mask in (1 << place % 8, 1, 64, 128, 255, content[place]):
            damaged = bytearray(content)
            damaged[place] ^= mask
            try:
                if not extracts_or_refuses(tmp_path / "archive.zip", bytes(damaged), b"x,y\n1,2\n1,2\n"):
                    wrong.append((place, mask, "other text"))
            except Exception as error:
                wrong.append((place, mask, repr(error)))
    assert wrong == []


@given(
    content=st.sampled_from([write(members) for write in WRITERS for members in SMALL]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_changed_bytes_raise_an_archive_error_or_none(
    tmp_path: Path, content: bytes, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path / "archive.zip"
    path.write_bytes(damaged)
    try:
        found = check_file(path)
    except ArchiveError:
        return
    assert len(read_all(path)) >= len(found.members) > 0


def test_archive_whose_end_record_hides_all_members_is_refused(tmp_path: Path) -> None:
    """The first member's signature is damaged, too, so that nothing but the bytes in front of the directory is left."""
    damaged = bytearray(WRITERS[0](SMALL[0]))
    damaged[0] = 0
    end = damaged.rindex(b"PK\x05\x06")
    damaged[end + 8 : end + 16] = bytes(8)
    path = tmp_path / "archive.zip"
    path.write_bytes(damaged)
    with pytest.raises(ArchiveError):
        check_file(path)


@given(st.binary(max_size=200).map(lambda noise: b"PK\x03\x04" + noise) | st.binary(min_size=1, max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_refused(tmp_path: Path, noise: bytes) -> None:
    error_message(tmp_path, noise)


# Columns and rows


@given(
    text=st.lists(st.sampled_from(["a", "é", ",", '"', '"', '""', "\n", "\r\n", "\r"]), max_size=20).map("".join),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    bom=st.booleans(),
)
@example(text='id,name\n1,5" pipe\n2,x\n3,y\n', sizes=[256], bom=False)
@example(text='id,name\n1,"5"" pipe"\n2,"two\nlines"\n\n', sizes=[3], bom=True)
@hypothesis_settings(max_examples=1000)
def test_rows_are_those_of_a_csv_reader(text: str, sizes: list[int], bom: bool) -> None:
    scanner = CsvScanner()
    if bom:
        scanner.feed(b"\xef\xbb\xbf")
    content, place = text.encode(), 0
    while place < len(content):
        size = sizes[place % len(sizes)]
        scanner.feed(content[place : place + size])
        place += size
    records = [record for record in csv.reader(io.StringIO(text, newline="")) if record]
    assert scanner.rows == max(0, len(records) - 1)
    # The header of a CSV that ends within it, in quotes, is unknown.
    assert scanner.columns in (tuple(records[0]) if records else (), None)
    assert scanner.columns is not None or len(records) == 1


def test_rows_of_a_file_of_quotes_are_counted_in_constant_memory() -> None:
    scanner = CsvScanner()
    for _ in range(1000):
        scanner.feed(b'"' * 999)
        assert len(scanner._held_quotes) <= 2
    assert scanner.rows == 0


def test_header_is_read_up_to_a_limit() -> None:
    header = b"x" * (MAX_HEADER_BYTES - 1) + b"\n"
    assert read_columns(header) == ("x" * (MAX_HEADER_BYTES - 1),)
    assert read_columns(b"x" * MAX_HEADER_BYTES) is None
