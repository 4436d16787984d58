# SPDX-License-Identifier: Apache-2.0
"""
Flip every bit of an archive: it is refused, or the CSV that comes out of it is right.

What is accepted is read by other readers than the package's own: zipfile, gzip and pyarrow.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from airflow_provider_chartmogul.exceptions import ArchiveError
from airflow_provider_chartmogul.formats import archive as archive_module
from airflow_provider_chartmogul.formats.archive import Archive
from airflow_provider_chartmogul.formats.parquet import write_parquet
from tests.integration.servers import Response
from tests.integration.transfers import serve_export, transfer

_DRAW = random.Random(20)
CSV = b"uuid,date,mrr\n" + b"".join(
    b"%s,2024-01-%02d,%d\n" % (_DRAW.randbytes(6).hex().encode(), n, n) for n in range(1, 9)
)
README = b"hello, hello, hello, hello\n"


class _Pipe(io.RawIOBase):
    """A file that cannot seek, so that zipfile writes sizes and CRC-32 after each member."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self.content += data
        return len(data)


def zipped(
    members: dict[str, bytes] | None = None,
    method: int = zipfile.ZIP_DEFLATED,
    *,
    streamed: bool = False,
    zip64: bool = False,
    comment: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    pipe = _Pipe() if streamed else io.BytesIO()
    with zipfile.ZipFile(pipe, "w", method) as archive:  # type: ignore[arg-type]
        for name, content in (members or {"activities.csv": CSV}).items():
            info = zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6))
            info.compress_type, info.external_attr, info.extra = method, 0o100644 << 16, extra
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(content)
        archive.comment = comment
    return bytes(pipe.content) if isinstance(pipe, _Pipe) else pipe.getvalue()


def with_zip64_end(archive: bytes) -> bytes:
    """The same archive with the additional end record of large archives."""
    _, _, _, here, entries, size, place, _ = struct.unpack("<4sHHHHLLH", archive[-22:])
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, here, entries, size, place)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place + size, 1)
    full = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return archive[:-22] + record + locator + full


#: A time in the extra fields, as many programs write it.
_EXTRA = struct.pack("<HHBL", 0x5455, 5, 1, 1_700_000_000)

ARCHIVES = {
    "deflated": zipped(),
    "stored": zipped(method=zipfile.ZIP_STORED),
    "Zip64": zipped(zip64=True),
    "Zip64 at the end": with_zip64_end(zipped()),
    "streamed": zipped(streamed=True),
    "streamed, Zip64": zipped(streamed=True, zip64=True),
    "commented": zipped(comment=b"written for a test"),
    "with extra fields": zipped(extra=_EXTRA),
    "two members": zipped({"activities.csv": CSV, "README.txt": README}),
    "in a folder": zipped({"folder/": b"", "folder/activities.csv": CSV}),
    # A flip turns the 'o' into a slash.
    "no suffix": zipped({"o": CSV}),
}


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit >> 3] + bytes([content[bit >> 3] ^ 1 << (bit & 7)]) + content[(bit >> 3) + 1 :]


def read_all(content: bytes) -> list[bytes]:
    """Read every member with zipfile."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        return [opened.read(info) for info in opened.infolist()]


def test_archives_here_are_sound(tmp_path: Path) -> None:
    for content in ARCHIVES.values():
        assert CSV in read_all(content)
        (tmp_path / "x.zip").write_bytes(content)
        with Archive(tmp_path / "x.zip") as archive:
            archive.check()


@pytest.fixture
def _inflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setattr(archive_module, "_zlib", zlib)


#: Every kind with isal. Without it only the inflating differs, not what is read around it.
KINDS = [
    *(("isal", kind) for kind in ARCHIVES),
    *(("zlib", kind) for kind in ("deflated", "streamed", "streamed, Zip64", "two members")),
]


@pytest.mark.usefixtures("_inflate")
@pytest.mark.parametrize(("_inflate", "kind"), KINDS, indirect=["_inflate"])
class TestFlippedBits:
    def test_as_zip(self, kind: str, tmp_path: Path) -> None:
        content, path = ARCHIVES[kind], tmp_path / "x.zip"
        members = read_all(content)
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            info = opened.infolist()[-1]
        end = content.index(info.filename.encode()) + len(info.filename) + info.compress_size
        wrong, accepted = [], set()
        for bit in range(8 * len(content)):
            damaged = flipped(content, bit)
            path.write_bytes(damaged)
            try:
                with Archive(path) as archive:
                    archive.check()
            except ArchiveError:
                continue
            accepted.add(bit >> 3)
            try:
                if read_all(damaged) != members:
                    wrong.append((bit >> 3, bit & 7, "other content"))
            except Exception as error:
                wrong.append((bit >> 3, bit & 7, repr(error)))
        assert wrong == []
        # The last byte of a DEFLATE stream may have bits without a meaning, the others have none.
        assert accepted.isdisjoint(range(end - info.compress_size + 40, end - 1))

    def test_as_csv_and_csv_gz(self, kind: str, tmp_path: Path) -> None:
        content, path = ARCHIVES[kind], tmp_path / "x.zip"
        readers: dict[str, Callable[[bytes], bytes]] = {"csv": bytes, "csv_gz": gzip.decompress}
        wrong = []
        for bit in range(8 * len(content)):
            path.write_bytes(flipped(content, bit))
            for name, read in readers.items():
                written = io.BytesIO()
                try:
                    with Archive(path) as archive:
                        getattr(archive, f"write_{name}")(written)
                except ArchiveError:
                    continue
                try:
                    if read(written.getvalue()) != CSV:
                        wrong.append((name, bit >> 3, bit & 7, "other rows"))
                except Exception as error:
                    wrong.append((name, bit >> 3, bit & 7, repr(error)))
        assert wrong == []


@pytest.mark.parametrize("kind", ARCHIVES)
def test_as_parquet(kind: str, tmp_path: Path) -> None:
    content, path = ARCHIVES[kind], tmp_path / "x.zip"
    write_parquet(iter([CSV]), tmp_path / "expected.parquet")
    expected = pq.read_table(tmp_path / "expected.parquet")
    # Parquet has the same reader as csv, so some bit of every other byte is enough.
    for bit in range(0, 8 * len(content), 11):
        path.write_bytes(flipped(content, bit))
        try:
            with Archive(path) as archive:
                write_parquet(archive.read_csv(), tmp_path / "x.parquet")
        except ArchiveError:
            continue
        assert pq.read_table(tmp_path / "x.parquet").equals(expected), (bit >> 3, bit & 7)


@pytest.mark.parametrize("output_format", ["zip", "csv", "csv.gz", "parquet"])
def test_through_the_operator(output_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, target = ARCHIVES["deflated"], tmp_path / f"x.{output_format}"
    bits = random.Random(7).sample(range(8 * len(content)), 30)
    served = iter(bits)
    target.write_bytes(b"before")
    with serve_export(lambda request: Response(200, flipped(content, next(served))), monkeypatch):
        for bit in bits:
            with contextlib.suppress(ArchiveError):
                transfer("e-1", f"file://{target}")
            published = target.read_bytes()
            if published != b"before":
                assert _rows(published, output_format) == CSV, bit
                target.write_bytes(b"before")
            assert list(tmp_path.iterdir()) == [target]


def _rows(published: bytes, output_format: str) -> bytes:
    if output_format == "zip":
        (content,) = read_all(published)
        return content
    if output_format == "parquet":
        table = pq.read_table(io.BytesIO(published))
        return b"".join(
            ",".join(row).encode() + b"\n" for row in [table.column_names, *(r.values() for r in table.to_pylist())]
        )
    return gzip.decompress(published) if output_format == "csv.gz" else published
