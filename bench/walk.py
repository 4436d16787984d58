# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench walk``: the cost of reading a resource into objects, compared with a bare loop, a script, and dlt.

The variants run several times in turn (A B C A B C …), so that a slow moment of the machine affects all of them, and
each time in a process of its own; the medians are reported. The server is another process on this machine, its pages
were serialized before, and the destination is a folder. Compare the ratios: the seconds depend on the machine.

With latency, only the bare loop and the package run: the others' costs are the same.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.docs import BenchError, markdown_table, paragraph, report_missed_limits, write_docs
from bench.list_server import serving_list
from bench.pages import page_count, pages_of
from bench.transfer import FOLDER, ROOT, Measurement, empty_folder, environment, print_progress
from bench.walk_variants import VARIANTS

ROWS = {"customers": 100_000, "invoices": 50_000}
QUICK_ROWS = {"customers": 2_000, "invoices": 1_000}
FORMATS = ("jsonl.gz", "parquet")
RUNS = 5

#: Seconds before each response, in the runs with latency.
LATENCY = 0.05
VARIANTS_WITH_LATENCY = ("read", "package")

#: Rows of the two walks whose memory is compared.
MEMORY_ROWS, QUICK_MEMORY_ROWS = (40_000, 200_000), (400, 2_000)

#: Limits by format: processor time and, with latency, wall-clock time relative to the bare loop's; added memory in MB.
MAX_CPU_RATIO = {"jsonl.gz": 2.0, "parquet": 3.5}
MAX_WALL_RATIO = {"jsonl.gz": 1.1, "parquet": 1.3}
MAX_MEMORY = {"jsonl.gz": 25, "parquet": 160}

#: MB that the longer of the two walks may take beyond the shorter one, and bytes for each of its additional rows to
#: know those that come twice.
MAX_GROWTH, KEY_BYTES = 25, 100

#: Seconds after which a run is considered to hang.
_RUN_SECONDS = 1800


@dataclass(frozen=True)
class Case:
    """
    The measurements of one resource and output format.

    :param rows: rows of the resource
    :param latency: seconds before each response
    """

    resource: str
    output_format: str
    rows: int
    latency: float
    by_variant: dict[str, Measurement]

    def cpu_ratio(self, variant: str) -> float:
        """Return the variant's processor time divided by the bare loop's."""
        return self.by_variant[variant].cpu / self.by_variant["read"].cpu

    def wall_ratio(self, variant: str) -> float:
        """Return the variant's wall-clock time divided by the bare loop's."""
        return self.by_variant[variant].wall / self.by_variant["read"].wall

    def __str__(self) -> str:
        return f"{self.resource} to {self.output_format}" + (
            f" at {1000 * self.latency:.0f} ms" if self.latency else ""
        )


def run_case(resource: str, output_format: str, rows: int, runs: int, latency: float = 0.0) -> Case:
    """
    Run the variants in turn, ``runs`` times.

    :raises BenchError: if a variant fails, sends another number of requests than pages, or loses a row
    """
    measurements: dict[str, list[Measurement]] = {}
    for number in range(1, runs + 1):
        for variant in VARIANTS_WITH_LATENCY if latency else VARIANTS:
            measurement = run_variant(variant, resource, output_format, rows, latency)
            measurements.setdefault(variant, []).append(measurement)
            what = f"{resource}, {output_format}, {1000 * latency:.0f} ms"
            print_progress(f"{what}, run {number} of {runs}, {variant}: {measurement}")
    medians = {variant: Measurement.median_of(of) for variant, of in measurements.items()}
    return Case(resource, output_format, rows, latency, medians)


def run_variant(variant: str, resource: str, output_format: str, rows: int, latency: float = 0.0) -> Measurement:
    """
    Run a variant in a process of its own, against a server of its own.

    :raises BenchError: if it fails, sends another number of requests than pages, or writes another number of rows
    """
    pages = pages_of(resource, rows, FOLDER / "pages")
    folder = empty_folder()
    with serving_list(resource, pages, latency) as server:
        command = [
            sys.executable,
            "-m",
            "bench.walk_variants",
            variant,
            resource,
            output_format,
            server.url,
            str(folder),
        ]
        process = subprocess.run(
            command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
        )
    if process.returncode:
        raise BenchError(f"{variant}, {resource}, {output_format} failed:\n{process.stderr[-4000:]}")
    if server.requests != page_count(rows):
        raise BenchError(f"{variant} sent {server.requests} requests for {page_count(rows)} pages of {resource}")
    if variant != "read" and (written := count_rows(folder, resource, output_format)) != rows:
        raise BenchError(f"{variant} wrote {written} of {rows} rows of {resource} to {output_format}")
    return Measurement(**json.loads(process.stdout.splitlines()[-1]))


def count_rows(folder: Path, resource: str, output_format: str) -> int:
    """Return the number of rows of the main table."""
    # dlt writes to a folder per table, in one file or several.
    paths = [*folder.glob(f"{resource}.{output_format}"), *folder.glob(f"dlt/bench/{resource}/*.{output_format}")]
    if output_format == "parquet":
        from pyarrow import parquet

        return sum(parquet.read_metadata(path).num_rows for path in paths)
    rows = 0
    for path in paths:
        with gzip.open(path) as lines:
            rows += sum(1 for _ in lines)
    return rows


def measure_growth(resource: str, output_format: str, rows: Sequence[int]) -> tuple[float, float]:
    """Return the package's peak memory in bytes for two numbers of rows."""
    shorter, longer = (run_variant("package", resource, output_format, number).memory or 0.0 for number in rows)
    print_progress(f"{resource}, {output_format}, {rows} rows: {shorter / 1e6:.0f} MB and {longer / 1e6:.0f} MB")
    return shorter, longer


def table(cases: Sequence[Case]) -> str:
    """Return the measurements without latency as a Markdown table."""
    header = ("rows", "format", "bare loop", "this package", "script", "dlt", "CPU / bare loop's")
    rows = [
        (
            f"{case.rows:,} {case.resource}",
            case.output_format,
            *(str(case.by_variant[variant]) for variant in VARIANTS),
            f"**{case.cpu_ratio('package'):.1f}**, {case.cpu_ratio('script'):.1f}, {case.cpu_ratio('dlt'):.1f}",
        )
        for case in cases
        if not case.latency
    ]
    return markdown_table(header, rows)


def latency_table(cases: Sequence[Case]) -> str:
    """Return the measurements with latency as a Markdown table."""
    header = ("rows", "format", "bare loop", "this package", "time / bare loop's")
    rows = [
        (
            f"{case.rows:,} {case.resource}",
            case.output_format,
            *(str(case.by_variant[variant]) for variant in VARIANTS_WITH_LATENCY),
            f"**{case.wall_ratio('package'):.2f}**",
        )
        for case in cases
        if case.latency
    ]
    return markdown_table(header, rows)


def report(
    cases: Sequence[Case],
    growth: dict[tuple[str, str], tuple[float, float]],
    memory_rows: Sequence[int],
    runs: int,
) -> str:
    """Return the tables with descriptions."""
    packages = ("isal", "requests", "pandas", "pyarrow", "dlt")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    times = f"medians of {runs} runs in turn" if runs > 1 else "one run"
    description = (
        f"Wall-clock seconds, processor seconds, and peak memory beyond that of the imports; {times}, in a process of "
        f"its own each. Python {platform.python_version()}, {os.cpu_count()} cores, {versions}. "
        "The server runs on the same machine and sends pages of 200 rows that were serialized before; the destination "
        "is a folder. The last column is the processor time of this package, of the script and of dlt, divided by the "
        "bare loop's. Every walk sent exactly one request per page."
    )
    with_latency = f"The same with a latency of {1000 * LATENCY:.0f} ms per request:"
    short, long = memory_rows
    memory = "; ".join(
        f"{resource} to {output_format} {before / 1e6:.0f} MB and {after / 1e6:.0f} MB"
        for (resource, output_format), (before, after) in growth.items()
    )
    growth_text = f"Peak memory of this package for {short:,} and {long:,} rows: {memory}."
    parts = (paragraph(description), table(cases), with_latency, latency_table(cases), paragraph(growth_text))
    return "\n\n".join(parts)


def missed_limits(
    cases: Iterable[Case], growth: dict[tuple[str, str], tuple[float, float]], memory_rows: Sequence[int]
) -> list[str]:
    """Return a message for each limit that the package exceeds."""
    missed = []
    for case in cases:
        name, memory = case.output_format, case.by_variant["package"].memory or 0.0
        if case.latency:
            if case.wall_ratio("package") > MAX_WALL_RATIO[name]:
                missed.append(f"{case} took {case.wall_ratio('package'):.2f} times the bare loop's time")
        else:
            if case.cpu_ratio("package") > MAX_CPU_RATIO[name]:
                missed.append(f"{case} took {case.cpu_ratio('package'):.2f} times the bare loop's processor time")
            if memory > MAX_MEMORY[name] * 1e6:
                missed.append(f"{case} took {memory / 1e6:.0f} MB of memory")
    allowed = MAX_GROWTH * 1e6 + KEY_BYTES * (memory_rows[1] - memory_rows[0])
    for (resource, output_format), (before, after) in growth.items():
        if after - before > allowed:
            missed.append(f"{resource} to {output_format} took {(after - before) / 1e6:.0f} MB more for more rows")
    return missed


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark and print its tables.

    :param arguments: command line arguments
    :return: exit status: 0, or 1 if the benchmark failed or a limit was exceeded
    """
    parser = argparse.ArgumentParser(prog="python -m bench walk", description="Cost of reading a resource.")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each variant (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one run with few rows, to check the benchmark itself")
    parser.add_argument("--write-docs", action="store_true", help="write the tables to docs/costs.md")
    options = parser.parse_args(arguments)
    rows, memory_rows = (QUICK_ROWS, QUICK_MEMORY_ROWS) if options.quick else (ROWS, MEMORY_ROWS)
    runs = 1 if options.quick else options.runs
    kinds = [(resource, output_format) for resource in rows for output_format in FORMATS]
    try:
        cases = [
            run_case(resource, output_format, rows[resource], runs, latency)
            for latency in (0.0, LATENCY)
            for resource, output_format in kinds
        ]
        growth = {kind: measure_growth(*kind, memory_rows) for kind in kinds}
        text = report(cases, growth, memory_rows, runs)
        print(text)
        if options.write_docs:
            write_docs("walk", text)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(FOLDER / "work")
    # A few pages take no longer than what is done once.
    missed = [] if options.quick else missed_limits(cases, growth, memory_rows)
    return report_missed_limits(missed)
