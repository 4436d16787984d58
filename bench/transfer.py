# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench transfer``: what moving an export costs, beside what a careful user would write by hand.

Every way runs several times, one after the other in turn (A B C A B C ...) so that a slow moment of the machine meets
all of them, each time in a process of its own, and the median is taken. The server is a process of its own on this
machine and the destination a folder, so that no network is measured. The ratios are what to look at: seconds are this
machine's.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from bench.archives import archive_of
from bench.server import file_url, serving

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"
README = ROOT / "docs" / "costs.md"
MARKS = ("<!-- bench:transfer -->", "<!-- /bench:transfer -->")

FORMATS = ("zip", "csv", "csv.gz", "parquet")
#: In the order they run; curl, which only downloads, is the floor.
WAYS = ("hand", "isal", "zlib", "curl")
MEGABYTES = (50, 500)
RUNS = 5

#: A single run that takes longer has hung.
_RUN_SECONDS = 1800


class SupportsRead(Protocol):
    """A file opened for reading, or what unpacks one."""

    def read(self, size: int, /) -> bytes: ...


class BenchError(Exception):
    """The benchmark cannot go on, or a way did not do what it is measured at."""


@dataclass(frozen=True)
class Measured:
    """Seconds of wall clock and of processor, and the bytes a process grew by; None where not looked for."""

    wall: float
    cpu: float
    memory: float | None

    @classmethod
    def median_of(cls, runs: Sequence[Measured]) -> Measured:
        grown = [run.memory for run in runs if run.memory is not None]
        return cls(median(r.wall for r in runs), median(r.cpu for r in runs), median(grown) if grown else None)

    def __str__(self) -> str:
        grown = "" if self.memory is None else f", {self.memory / 1e6:.0f} MB"
        return f"{self.wall:.2f} s, {self.cpu:.2f} s{grown}"


@dataclass(frozen=True)
class Case:
    """One format at one size (in megabytes of archive), and what came out by way."""

    output_format: str
    size: int
    by_way: dict[str, Measured]

    def ratio(self, way: str) -> float:
        """The way's time as a part of the hand-written way's."""
        return self.by_way[way].wall / self.by_way["hand"].wall


def run_case(output_format: str, size: int, runs: int) -> Case:
    """
    Run all ways in turn, ``runs`` times.

    :raises BenchError: when one fails, or writes something else than the others
    """
    archive = archive_of(size * 1_000_000, FOLDER / "archives")
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    digests: dict[str, str] = {}
    with serving(archive) as api:
        for number in range(1, runs + 1):
            for way in WAYS:
                target = _fresh_folder() / f"object.{output_format}"
                measured = _run_curl(api, target) if way == "curl" else _run_way(way, output_format, api, target)
                found[way].append(measured)
                _say(f"{output_format}, {size} MB, run {number} of {runs}, {way}: {measured}")
                if number == 1:
                    digests[way] = _digest(target, "zip" if way == "curl" else output_format)
    wrong = [way for way in WAYS if digests[way] != digests["hand"] and (way != "curl" or output_format == "zip")]
    if wrong:
        raise BenchError(f"{output_format}: {', '.join(wrong)} did not write what the hand-written way wrote")
    return Case(output_format, size, {way: Measured.median_of(runs_of) for way, runs_of in found.items()})


def _fresh_folder() -> Path:
    """An empty folder for what a run writes, with nothing left to be written of the run before it."""
    folder = FOLDER / "work"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    os.sync()
    return folder


def _environment() -> dict[str, str]:
    """This process's, without what a machine's Airflow and proxies are told."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "CHARTMOGUL")) and not name.lower().endswith("_proxy")
    }
    home = FOLDER / "airflow"
    return kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "TMPDIR": str(FOLDER / "work" / "tmp"),
    }


def _run_way(way: str, output_format: str, api: str, target: Path) -> Measured:
    command = [sys.executable, "-m", "bench.transfer_ways", way, output_format, api, str(target)]
    done = subprocess.run(
        command, env=_environment(), cwd=ROOT, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
    )
    if done.returncode:
        raise BenchError(f"{way}, {output_format} failed:\n{done.stderr[-4000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _run_curl(api: str, target: Path) -> Measured:
    """``curl -o``. It has next to nothing to load, so all of the process is measured; its memory is of no interest."""
    started = time.perf_counter()
    with subprocess.Popen(["curl", "-sS", "-o", str(target), file_url(api)], env=_environment()) as process:
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"curl failed with {process.returncode}")
    return Measured(wall, used.ru_utime + used.ru_stime, None)


def _digest(path: Path, output_format: str) -> str:
    """The SHA-256 of the CSV in an object; of a Parquet file its shape, as there are many ways to write one."""
    if output_format == "parquet":
        from pyarrow import parquet

        facts = parquet.read_metadata(path)
        return f"{facts.num_rows} rows of {facts.schema.names}"
    if output_format == "zip":
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as text:
            return _sha256(text)
    with gzip.open(path) if output_format == "csv.gz" else path.open("rb") as text:
        return _sha256(text)


def _sha256(file: SupportsRead) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def table(cases: Sequence[Case]) -> str:
    """The figures as a Markdown table."""
    rows = [
        ("format", "archive", "by hand", "this package", "without isal", "curl", "time by hand = 1"),
        *(
            (
                case.output_format,
                f"{case.size} MB",
                *(str(case.by_way[way]) for way in WAYS),
                f"**{case.ratio('isal'):.2f}**, {case.ratio('zlib'):.2f}",
            )
            for case in cases
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def story(cases: Sequence[Case], runs: int) -> str:
    """The table, and what it takes to read it."""
    used = ["isal", *(["pandas", "pyarrow"] if any(case.output_format == "parquet" for case in cases) else [])]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in used)
    return (
        f"Seconds of wall clock, of processor, and megabytes of memory on top of what was imported; medians of {runs} "
        f"runs, in turn,\nPython {platform.python_version()}, {os.cpu_count()} cores, {versions}; the server on the "
        "same machine, the destination a folder.\nThe last column is the package's time as a part of the hand-written "
        f"way's, with isal and without.\n\n{table(cases)}"
    )


def with_block(text: str, block: str, marks: tuple[str, str] = MARKS) -> str:
    """
    Put the block between its marks.

    :raises BenchError: when the text does not have the two marks, each once
    """
    before, start, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (start and end) or text.count(marks[0]) != 1 or text.count(marks[1]) != 1:
        raise BenchError(f"the text needs {marks[0]} and {marks[1]}, each once")
    return f"{before}{start}\n{block}\n{end}{after}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(told: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench transfer", description="What moving an export costs.")
    parser.add_argument("--runs", type=int, default=RUNS, help="how often each way runs (default %(default)s)")
    parser.add_argument("--megabytes", type=int, nargs="+", default=MEGABYTES, help="sizes of the archive")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--quick", action="store_true", help="one run at 5 MB: does the benchmark itself work?")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    args = parser.parse_args(told)
    if args.quick:
        args.runs, args.megabytes = 1, [5]
    try:
        if shutil.which("curl") is None:
            raise BenchError("curl is needed, and is not on PATH")
        cases = [run_case(name, size, args.runs) for name in args.formats for size in args.megabytes]
        print(story(cases, args.runs))
        if args.write_readme:
            README.write_text(with_block(README.read_text(), story(cases, args.runs)))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(FOLDER / "work")
    return 0
