# SPDX-License-Identifier: Apache-2.0
"""
The check of an archive: what is sound passes, with its header; what is not is an ``ArchiveError`` and nothing else.

The damage is systematic: every byte of a small archive in turn, every place to cut it short.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.exceptions import ArchiveError
from airflow_provider_chartmogul.formats.archive import Archive, Content

Members = dict[str, bytes]

CSV = b"Date,Type,MRR\n2024-01-01,new_biz,100\n"


def zipped(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def streamed(members: Members) -> bytes:
    """As programs write that cannot seek: sizes and CRC come after each member."""

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
            with archive.open(zipfile.ZipInfo(name), "w") as member:
                member.write(content)
    return bytes(pipe.content)


def commented(members: Members) -> bytes:
    stream = io.BytesIO(zipped(members))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.comment = b"made by nobody"
    return stream.getvalue()


def stored(members: Members) -> bytes:
    return zipped(members, zipfile.ZIP_STORED)


WRITERS: list[Callable[[Members], bytes]] = [zipped, stored, streamed, commented]


def check_archive(path: Path) -> Content:
    with Archive(path) as archive:
        return archive.check()


def check_file(path: Path) -> Content:
    with Archive(path) as archive:
        return archive.check()


def check(tmp_path: Path, content: bytes) -> Content:
    path = tmp_path / "archive.zip"
    path.write_bytes(content)
    return check_file(path)


def refusal(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ArchiveError) as raised:
        check(tmp_path, content)
    assert not raised.value.permanent
    return str(raised.value)


def contents_of(path: Path) -> list[bytes]:
    with zipfile.ZipFile(path) as archive:
        return [archive.read(info) for info in archive.infolist()]


# What is sound


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("members", "facts"),
    [
        ({"a.csv": CSV}, Content(("a.csv",), ("Date", "Type", "MRR"))),
        ({"a.csv": b"\xef\xbb\xbf" + CSV}, Content(("a.csv",), ("Date", "Type", "MRR"))),
        ({"a.csv": b'"a,b","c ""d""","e\nf"\r\n1,2,3\r\n'}, Content(("a.csv",), ("a,b", 'c "d"', "e\nf"))),
        ({"a.csv": "Größe,日付\n".encode()}, Content(("a.csv",), ("Größe", "日付"))),
        ({"a.csv": b"one"}, Content(("a.csv",), ("one",))),
        ({"a.csv": b""}, Content(("a.csv",), None)),
        ({"a.csv": b"\n1,2\n"}, Content(("a.csv",), None)),
        ({"a.csv": CSV, "b.csv": CSV}, Content(("a.csv", "b.csv"), None)),
        ({"folder/": b"", "folder/a.csv": CSV}, Content(("folder/a.csv",), ("Date", "Type", "MRR"))),
        ({"größe.csv": CSV}, Content(("größe.csv",), ("Date", "Type", "MRR"))),
        ({"..a..csv": CSV}, Content(("..a..csv",), ("Date", "Type", "MRR"))),
        ({}, Content((), None)),
    ],
)
def test_a_sound_archive(tmp_path: Path, write: Callable[[Members], bytes], members: Members, facts: Content) -> None:
    assert check(tmp_path, write(members)) == facts


def test_a_file_name_may_hold_a_time_of_day(tmp_path: Path) -> None:
    # The name of the CSV is documented nowhere.
    name = "activities-2024-01-01T00:00:00Z.csv"
    assert check(tmp_path, zipped({name: CSV})).members == (name,)


def test_an_archive_of_many_megabytes(tmp_path: Path) -> None:
    content = CSV + b"2024-01-01,new_biz,100\n" * 300_000
    assert check(tmp_path, zipped({"a.csv": content})).columns == ("Date", "Type", "MRR")


@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_member_holds_the_archive_is_sound(tmp_path: Path, content: bytes) -> None:
    assert check(tmp_path, zipped({"a.csv": content})).members == ("a.csv",)


# What is not


def test_an_empty_file(tmp_path: Path) -> None:
    text = refusal(tmp_path, b"")
    assert "it is empty" in text
    assert "A retry downloads it again" in text


@pytest.mark.parametrize(
    "content",
    [b"x", b"<html>Not here</html>", b"\x1f\x8b\x08\x00" + bytes(50), bytes(5000), CSV, b"<?xml?><Error></Error>"],
)
def test_no_zip(tmp_path: Path, content: bytes) -> None:
    text = refusal(tmp_path, content)
    assert f"({len(content)} bytes) is no zip archive" in text


@pytest.mark.parametrize("write", WRITERS)
def test_cut_short_anywhere(tmp_path: Path, write: Callable[[Members], bytes]) -> None:
    content = write({"a.csv": CSV, "b.csv": CSV})
    for length in range(1, len(content)):
        refusal(tmp_path, content[:length])


@pytest.mark.parametrize("write", WRITERS)
def test_something_missing_in_the_middle_or_at_the_front(tmp_path: Path, write: Callable[[Members], bytes]) -> None:
    content = write({"a.csv": CSV})
    for start in range(0, content.index(b"PK\x01\x02") - 1):
        refusal(tmp_path, content[:start] + content[start + 1 :])


def test_a_wrong_checksum(tmp_path: Path) -> None:
    content = stored({"a.csv": CSV})
    text = refusal(tmp_path, content.replace(b"new_biz", b"new_bit"))
    assert "is a damaged or cut-short zip archive" in text
    assert "CRC-32" in text
    assert "A retry downloads it again" in text


@pytest.mark.parametrize("by", [-1, 1, 1000])
@pytest.mark.parametrize("write", [zipped, stored])
def test_a_wrong_length(tmp_path: Path, write: Callable[[Members], bytes], by: int) -> None:
    content = bytearray(write({"a.csv": CSV}))
    directory = content.index(b"PK\x01\x02")
    struct.pack_into("<L", content, directory + 24, len(CSV) + by)
    refusal(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "name", ["/a.csv", "../a.csv", "a/../../b.csv", "..", "\\a.csv", "..\\a.csv", "C:\\a.csv", "c:/a.csv", "C:a.csv"]
)
def test_a_name_that_climbs(tmp_path: Path, name: str) -> None:
    assert "climbs out of a folder" in refusal(tmp_path, zipped({name: CSV}))


@pytest.mark.parametrize("name", ["", ".", "./.", "\0a.csv"])
def test_a_member_without_a_name_is_no_other_error(tmp_path: Path, name: str) -> None:
    placeholder = "x" * len(name)
    content = zipped({placeholder: CSV})
    if name:
        content = content.replace(placeholder.encode(), name.encode())
    assert same_or_refused(tmp_path / "archive.zip", content, [CSV])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression(tmp_path: Path, method: int) -> None:
    text = refusal(tmp_path, zipped({"a.csv": CSV}, method))
    assert f"compressed by method {method}" in text
    assert "'a.csv'" in text


def test_an_encrypted_member(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.csv": CSV}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    assert "'a.csv' is encrypted" in refusal(tmp_path, bytes(content))


def same_or_refused(path: Path, damaged: bytes, whole: list[bytes]) -> bool:
    """Whether what is damaged either is refused, or gives the same bytes (names have no checksum in a zip)."""
    path.write_bytes(damaged)
    try:
        check_file(path)
    except ArchiveError:
        return True
    return contents_of(path) == whole


SMALL: list[Members] = [
    {"a.csv": b"x,y\n1,2\n1,2\n"},
    {"é.csv": b"x\n1\n"},
    {"a": b"x\n1\n", "b": b"y\n2\n"},
]


@pytest.mark.parametrize("members", SMALL, ids=["one", "not ASCII", "two"])
@pytest.mark.parametrize("write", WRITERS)
def test_any_damaged_byte_is_refused_or_changes_nothing(
    tmp_path: Path, write: Callable[[Members], bytes], members: Members
) -> None:
    content = write(members)
    bad = []
    for place in range(len(content)):
        for mask in (1 << place % 8, 1, 64, 128, 255, content[place]):
            damaged = bytearray(content)
            damaged[place] ^= mask
            try:
                fine = same_or_refused(tmp_path / "archive.zip", bytes(damaged), list(members.values()))
            except Exception as error:
                bad.append((place, mask, repr(error)))
            else:
                if not fine:
                    bad.append((place, mask, "other members"))
    assert bad == []


@given(
    content=st.sampled_from([write(members) for write in WRITERS for members in SMALL]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_changed_bytes_are_an_archive_error_or_none(
    tmp_path: Path, content: bytes, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path / "archive.zip"
    path.write_bytes(damaged)
    try:
        facts = check_file(path)
    except ArchiveError:
        return
    assert len(contents_of(path)) >= len(facts.members) > 0


@given(st.binary(max_size=200).map(lambda noise: b"PK\x03\x04" + noise) | st.binary(min_size=1, max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_refused(tmp_path: Path, noise: bytes) -> None:
    refusal(tmp_path, noise)
