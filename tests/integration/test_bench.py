# SPDX-License-Identifier: Apache-2.0
"""
Tests that the benchmarks measure what they report: equal output of the variants, correct counts, tables in the docs.

No measurement is judged here. The script's Parquet needs pandas, and ``curl`` needs curl; ``make bench ARGS=--quick``
runs both.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bench import docs, tasks, transfer
from bench.archives import archive_of
from bench.docs import BenchError
from bench.server import serving
from bench.transfer import Case, Measurement
from bench.waiting_sandbox import busiest_second


def test_archive_is_reproducible_and_has_the_requested_size(tmp_path: Path) -> None:
    first, second = (archive_of(300_000, tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    assert 300_000 <= first.stat().st_size <= 400_000
    assert archive_of(300_000, tmp_path / "one") == first
    with zipfile.ZipFile(first) as archive:
        (info,) = archive.infolist()
        assert 2 < info.file_size / info.compress_size < 3.5, "real text compresses about 2.5:1"


@pytest.mark.parametrize("output_format", ["zip", "csv", "csv.gz"])
def test_variants_write_the_same_content(output_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    digests = set()
    with serving(archive_of(300_000, tmp_path)) as api:
        for variant in ("script", "isal", "zlib"):
            target = transfer._empty_folder() / f"object.{output_format}"
            measurement = transfer._run_variant(variant, output_format, api, target)
            assert measurement.wall > 0
            assert measurement.cpu > 0
            assert measurement.memory is not None
            digests.add(transfer._digest(target, output_format))
    assert len(digests) == 1


def test_failing_variant_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    damaged = tmp_path / "damaged.zip"
    content = bytearray(archive_of(300_000, tmp_path).read_bytes())
    content[150_000] ^= 0xFF
    damaged.write_bytes(content)
    with serving(damaged) as api:
        for variant in ("script", "isal"):
            with pytest.raises(BenchError, match=f"{variant}, zip failed"):
                transfer._run_variant(variant, "zip", api, transfer._empty_folder() / "object.zip")


def test_table_has_measurements_and_ratios() -> None:
    slow, fast = Measurement(4.0, 3.0, 2e9), Measurement(1.0, 0.5, 3e6)
    table = transfer.table(
        [Case("zip", 50, {"script": slow, "isal": fast, "zlib": slow, "curl": Measurement(0.1, 0.1, None)})]
    )
    assert "| 4.00 s, 3.00 s, 2000 MB | 1.00 s, 0.50 s, 3 MB |" in table
    assert "**0.25**, 1.00" in table


def test_table_replaces_the_text_between_its_markers() -> None:
    begin, end = "<!-- bench:tasks -->", "<!-- /bench:tasks -->"
    page = docs.replace_table(f"a\n{begin}\nold\n{end}\nb", "tasks", "new\ntable")
    assert page == f"a\n{begin}\nnew\ntable\n{end}\nb"
    for text in ("", begin, f"{end}{begin}", f"{begin}{end}{begin}"):
        with pytest.raises(BenchError, match="each once and in this order"):
            docs.replace_table(text, "tasks", "new")


@pytest.mark.parametrize("name", ["transfer", "tasks", "waiting"])
def test_page_has_the_markers_of_every_benchmark(name: str) -> None:
    assert "new table" in docs.replace_table(docs.COSTS.read_text(), name, "new table")


def test_median_is_taken_of_each_figure() -> None:
    runs = [Measurement(wall, wall / 2, wall * 10) for wall in (3.0, 1.0, 100.0)]
    assert Measurement.median_of(runs) == Measurement(3.0, 1.5, 30.0)


def test_busiest_second_may_start_at_any_time() -> None:
    assert busiest_second([0.0, 0.9, 1.0, 1.5, 1.85, 3.0]) == 4
    assert busiest_second([]) == 0


def test_each_process_is_counted_once_for_its_dag() -> None:
    """The system may reuse a process ID."""
    records = [
        record
        for created, dag_id, task_id in (
            (1.0, "one_task", "activities"),
            (2.0, "one_task", "activities"),
            (3.0, "x", "y"),
        )
        for record in (
            {"pid": 7, "event": "start", "created": created},
            {"pid": 7, "event": "task", "dag_id": dag_id, "task_id": task_id},
            {"pid": 7, "event": "end", "seconds": created, "cpu": created / 2},
        )
    ]
    lines = [json.dumps(record) for record in records]
    measurement = tasks.count_processes(lines, "one_task")
    assert measurement == tasks.Measurement({"activities": 2}, 3.0, 1.5)
    assert (measurement.total, tasks.count_processes(lines, "x").total) == (2, 1)
    with pytest.raises(BenchError, match="only 1 of 2 processes of one_task have recorded their end"):
        tasks.count_processes(lines[:5], "one_task")


def test_more_than_half_of_the_processes_exceeds_the_limit() -> None:
    half, more = (
        {
            variant: tasks.Measurement({variant: count}, 8.0, 4.0)
            for variant, count in zip(tasks.VARIANTS, counts, strict=True)
        }
        for counts in ((20, 40), (21, 40))
    )
    assert ["worker processes", "20", "40", "**0.50**"] in [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in tasks.report(half, 10).splitlines()
    ]
    assert tasks.missed_limits(half) == []
    assert tasks.missed_limits(more) == ["one_task started 21 processes, three_tasks 40"]
