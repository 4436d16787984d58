# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench transfer``: the cost of transferring an export, compared with a careful user's script.

The variants run several times in turn (A B C A B C …), so that a slow moment of the machine affects all of them, and
each time in a process of its own; the medians are reported. The server is another process on this machine and the
destination is a folder, so that no network is measured. Compare the ratios: the seconds depend on the machine.
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
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from bench.archives import archive_of
from bench.docs import BenchError, markdown_table, paragraph, report_missed_limits, write_docs
from bench.server import file_url, serving

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"

FORMATS = ("zip", "csv", "csv.gz", "parquet")
#: In the order in which they run. curl only downloads and is the lower bound.
VARIANTS = ("script", "isal", "zlib", "curl")
MEGABYTES = (50, 500)
RUNS = 5

#: Limits on the package's time relative to the script's, by format and megabytes of the archive.
MAX_RATIO = {("zip", 50): 0.8, ("csv.gz", 50): 0.12, ("zip", 500): 0.4, ("csv.gz", 500): 0.1}

#: Seconds after which a run is considered to hang.
_RUN_SECONDS = 1800


class SupportsRead(Protocol):
    """A file opened for reading, or an object that decompresses one."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Measurement:
    """
    The cost of one run, or the median of several.

    :param wall: seconds of wall-clock time
    :param cpu: seconds of processor time
    :param memory: bytes by which the process grew at its peak; ``None`` if not measured
    :param startup: seconds of processor time that the process had used before
    """

    wall: float
    cpu: float
    memory: float | None
    startup: float = 0.0

    @classmethod
    def median_of(cls, runs: Sequence[Measurement]) -> Measurement:
        memory = [run.memory for run in runs if run.memory is not None]
        return cls(
            wall=median(run.wall for run in runs),
            cpu=median(run.cpu for run in runs),
            memory=median(memory) if memory else None,
            startup=median(run.startup for run in runs),
        )

    def __str__(self) -> str:
        memory = "" if self.memory is None else f", {self.memory / 1e6:.0f} MB"
        return f"{self.wall:.2f} s, {self.cpu:.2f} s{memory}"


@dataclass(frozen=True)
class Case:
    """
    The measurements of one output format and archive size.

    :param size: megabytes of the archive
    """

    output_format: str
    size: int
    by_variant: dict[str, Measurement]

    def ratio(self, variant: str) -> float:
        """Return the variant's time divided by the script's."""
        return self.by_variant[variant].wall / self.by_variant["script"].wall


def run_case(output_format: str, size: int, runs: int) -> Case:
    """
    Run all variants in turn, ``runs`` times.

    :raises BenchError: if a variant fails or writes another content than the script
    """
    archive = archive_of(size * 1_000_000, FOLDER / "archives")
    measurements: dict[str, list[Measurement]] = {variant: [] for variant in VARIANTS}
    digests: dict[str, str] = {}
    with serving(archive) as api:
        for number in range(1, runs + 1):
            for variant in VARIANTS:
                target = empty_folder() / f"object.{output_format}"
                if variant == "curl":
                    measurement = _run_curl(api, target)
                else:
                    measurement = run_variant(variant, output_format, api, target)
                measurements[variant].append(measurement)
                print_progress(f"{output_format}, {size} MB, run {number} of {runs}, {variant}: {measurement}")
                if number == 1:
                    digests[variant] = _digest(target, "zip" if variant == "curl" else output_format)
    if output_format != "zip":
        # curl has downloaded the archive without converting it.
        del digests["curl"]
    different = [variant for variant, digest in digests.items() if digest != digests["script"]]
    if different:
        raise BenchError(f"{output_format}: {', '.join(different)} wrote another content than the script")
    return Case(output_format, size, {variant: Measurement.median_of(of) for variant, of in measurements.items()})


def empty_folder() -> Path:
    """Return an empty folder for a run's output, after the previous run's has been written to disk."""
    folder = FOLDER / "work"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    os.sync()
    return folder


def environment() -> dict[str, str]:
    """Return this process's environment without the machine's settings for Airflow and proxies."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "CHARTMOGUL")) and not name.lower().endswith("_proxy")
    }
    home = FOLDER / "airflow"
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "TMPDIR": str(FOLDER / "work" / "tmp"),
    }


def run_variant(variant: str, output_format: str, api: str, target: Path, **variables: str) -> Measurement:
    """
    Run a variant in a process of its own.

    :param variables: environment variables of the process
    :raises BenchError: if it fails
    """
    command = [sys.executable, "-m", "bench.transfer_variants", variant, output_format, api, str(target)]
    process = subprocess.run(
        command,
        env=environment() | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    if process.returncode:
        raise BenchError(f"{variant}, {output_format} failed:\n{process.stderr[-4000:]}")
    return Measurement(**json.loads(process.stdout.splitlines()[-1]))


def _run_curl(api: str, target: Path) -> Measurement:
    """Run ``curl -o``. The whole process is measured, since it loads almost nothing; its memory is not."""
    started = time.perf_counter()
    with subprocess.Popen(["curl", "-sS", "-o", str(target), file_url(api)], env=environment()) as process:
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"curl failed with exit status {process.returncode}")
    return Measurement(wall, usage.ru_utime + usage.ru_stime, None)


def _digest(path: Path, output_format: str) -> str:
    """Return the SHA-256 of an object's CSV; for Parquet, whose bytes differ by writer, the rows and columns."""
    if output_format == "parquet":
        from pyarrow import parquet

        metadata = parquet.read_metadata(path)
        return f"{metadata.num_rows} rows of {metadata.schema.names}"
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
    """Return the measurements as a Markdown table."""
    header = ("format", "archive", "script", "this package", "without isal", "curl", "ratio to script")
    rows = [
        (
            case.output_format,
            f"{case.size} MB",
            *(str(case.by_variant[variant]) for variant in VARIANTS),
            f"**{case.ratio('isal'):.2f}**, {case.ratio('zlib'):.2f}",
        )
        for case in cases
    ]
    return markdown_table(header, rows)


def report(cases: Sequence[Case], runs: int) -> str:
    """Return the table with a description."""
    packages = ["isal", *(["pandas", "pyarrow"] if any(case.output_format == "parquet" for case in cases) else [])]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    description = (
        "Wall-clock seconds, processor seconds, and memory by which the process grew, from `execute()` to the "
        "published object, with all that is imported on the way, in a process that has loaded Airflow's task runner; "
        f"medians of {runs} runs in turn. Python {platform.python_version()}, {os.cpu_count()} cores, {versions}. The "
        "server runs on the same machine, and the destination is a folder. The last column is the package's time "
        "divided by the script's, with isal and without."
    )
    return f"{paragraph(description)}\n\n{table(cases)}"


def missed_limits(cases: Iterable[Case]) -> list[str]:
    """Return a message for each limit that the package exceeds."""
    return [
        f"the transfer of {case.size} MB as {case.output_format} took {case.ratio('isal'):.2f} times the script's "
        f"time; the limit is {limit}"
        for case in cases
        if (limit := MAX_RATIO.get((case.output_format, case.size))) and case.ratio("isal") > limit
    ]


def print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark and print its table.

    :param arguments: command line arguments
    :return: exit status: 0, or 1 if the benchmark failed or a limit was exceeded
    """
    parser = argparse.ArgumentParser(prog="python -m bench transfer", description="Cost of transferring an export.")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each variant (default %(default)s)")
    parser.add_argument("--megabytes", type=int, nargs="+", default=MEGABYTES, help="archive sizes")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--quick", action="store_true", help="one run at 5 MB, to check the benchmark itself")
    parser.add_argument("--write-docs", action="store_true", help="write the table to docs/costs.md")
    options = parser.parse_args(arguments)
    if options.quick:
        options.runs, options.megabytes = 1, [5]
    try:
        if shutil.which("curl") is None:
            raise BenchError("curl is not installed; it is one of the variants")
        cases = [run_case(name, size, options.runs) for name in options.formats for size in options.megabytes]
        print(report(cases, options.runs))
        if options.write_docs:
            write_docs("transfer", report(cases, options.runs))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(FOLDER / "work")
    missed = missed_limits(cases)
    return report_missed_limits(missed)
