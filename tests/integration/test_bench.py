# SPDX-License-Identifier: Apache-2.0
"""
That the benchmark measures what it says: every way writes the same rows, and the figures get where they belong.

No figure is judged here. By hand to Parquet and curl need what the tests do not; ``make bench ARGS=--quick`` runs them.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bench import tasks, transfer
from bench.archives import archive_of
from bench.server import serving
from bench.transfer import BenchError, Case, Measured


def test_an_archive_is_the_same_each_time_and_as_large_as_asked_for(tmp_path: Path) -> None:
    first, second = (archive_of(300_000, tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    assert 300_000 <= first.stat().st_size <= 400_000
    assert archive_of(300_000, tmp_path / "one") == first
    with zipfile.ZipFile(first) as archive:
        (info,) = archive.infolist()
        assert 2 < info.file_size / info.compress_size < 3.5, "it compresses as real text does"


@pytest.mark.parametrize("output_format", ["zip", "csv", "csv.gz"])
def test_every_way_writes_the_same(output_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    written = set()
    with serving(archive_of(300_000, tmp_path)) as api:
        for way in ("hand", "isal", "zlib"):
            target = transfer._fresh_folder() / f"object.{output_format}"
            measured = transfer._run_way(way, output_format, api, target)
            assert measured.wall > 0
            assert measured.cpu > 0
            assert measured.memory is not None
            written.add(transfer._digest(target, output_format))
    assert len(written) == 1


def test_a_way_that_fails_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    damaged = tmp_path / "damaged.zip"
    content = bytearray(archive_of(300_000, tmp_path).read_bytes())
    content[150_000] ^= 0xFF
    damaged.write_bytes(content)
    with serving(damaged) as api:
        for way in ("hand", "isal"):
            with pytest.raises(BenchError, match=f"{way}, zip failed"):
                transfer._run_way(way, "zip", api, transfer._fresh_folder() / "object.zip")


def test_the_table_goes_between_its_marks() -> None:
    slow, fast = Measured(4.0, 3.0, 2e9), Measured(1.0, 0.5, 3e6)
    figures = transfer.table(
        [Case("zip", 50, {"hand": slow, "isal": fast, "zlib": slow, "curl": Measured(0.1, 0.1, None)})]
    )
    assert "| 4.00 s, 3.00 s, 2000 MB | 1.00 s, 0.50 s, 3 MB |" in figures
    assert "**0.25**, 1.00" in figures
    start, end = transfer.MARKS
    assert transfer.with_block(f"a\n{start}\nold\n{end}\nb", figures) == f"a\n{start}\n{figures}\n{end}\nb"
    for text in ("", start, f"{end}{start}", f"{start}{end}{start}"):
        with pytest.raises(BenchError):
            transfer.with_block(text, figures)


@pytest.mark.parametrize("marks", [transfer.MARKS, tasks.MARKS])
def test_the_readme_has_the_marks(marks: tuple[str, str]) -> None:
    assert "figures" in transfer.with_block(transfer.README.read_text(), "figures", marks)


def test_medians() -> None:
    runs = [Measured(wall, wall / 2, wall * 10) for wall in (3.0, 1.0, 100.0)]
    assert Measured.median_of(runs) == Measured(3.0, 1.5, 30.0)


def test_every_start_of_a_worker_is_counted_once_and_for_its_dag() -> None:
    """Also where the system gives a process ID a second time."""
    lines = [
        line
        for created, dag_id, task_id in (
            (1.0, "one_task", "activities"),
            (2.0, "one_task", "activities"),
            (3.0, "x", "y"),
        )
        for line in (
            {"pid": 7, "what": "start", "created": created},
            {"pid": 7, "what": "task", "dag_id": dag_id, "task_id": task_id},
            {"pid": 7, "what": "end", "seconds": created, "cpu": created / 2},
        )
    ]
    written = [json.dumps(line) for line in lines]
    counted = tasks.read_starts(written, "one_task")
    assert counted == tasks.Measured({"activities": 2}, 3.0, 1.5)
    assert (counted.started, tasks.read_starts(written, "x").started) == (2, 1)
    with pytest.raises(BenchError, match="of 2 processes of one_task, 1 have told their end"):
        tasks.read_starts(written[:5], "one_task")


def test_half_of_the_starts_is_what_must_hold() -> None:
    half, more = (
        {way: tasks.Measured({way: count}, 8.0, 4.0) for way, count in zip(tasks.WAYS, counts, strict=True)}
        for counts in ((20, 40), (21, 40))
    )
    assert "| worker processes started | 20 | 40 | **0.50** |" in tasks.table(half, 10)
    assert tasks.missed(half) == []
    assert tasks.missed(more) == ["the one-task way has started 21 processes, the other 40"]
