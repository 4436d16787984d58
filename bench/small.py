# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench small``: the fixed cost of a transfer, for exports of some kilobytes, compared with a script.

The variants of ``python -m bench transfer`` run in turn, each time in a process of its own. The package runs once more
with a plugin that reads hook lineage, since Airflow's collector then imports the assets of all installed providers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.archives import archive_of
from bench.docs import BenchError, markdown_table, paragraph, write_docs
from bench.server import serving
from bench.transfer import FOLDER, Measurement, empty_folder, print_progress, run_variant

FORMATS = ("zip", "csv.gz")
KILOBYTES = (10, 1_000)
RUNS, QUICK_RUNS = 11, 1

_NO_PLUGINS, _LINEAGE_PLUGINS = FOLDER / "plugins", Path(__file__).parent / "lineage_plugins"

#: Variants of ``transfer_variants`` and Airflow's plugins, in the order in which they run.
VARIANTS = {
    "script": ("script", _NO_PLUGINS),
    "package": ("isal", _NO_PLUGINS),
    "package with a lineage reader": ("isal", _LINEAGE_PLUGINS),
}


@dataclass(frozen=True)
class Case:
    """
    The measurements of one output format and archive size.

    :param size: kilobytes of the archive
    """

    output_format: str
    size: int
    by_variant: dict[str, Measurement]


def run_case(output_format: str, size: int, runs: int) -> Case:
    """
    Run all variants in turn, ``runs`` times.

    :raises BenchError: if a variant fails
    """
    measurements: dict[str, list[Measurement]] = {name: [] for name in VARIANTS}
    with serving(archive_of(size * 1_000, FOLDER / "archives")) as api:
        for number in range(1, runs + 1):
            for name, (variant, plugins) in VARIANTS.items():
                target = empty_folder() / f"object.{output_format}"
                measurement = run_variant(
                    variant, output_format, api, target, AIRFLOW__CORE__PLUGINS_FOLDER=str(plugins)
                )
                measurements[name].append(measurement)
                print_progress(f"{output_format}, {size} kB, run {number} of {runs}, {name}: {measurement}")
    return Case(output_format, size, {name: Measurement.median_of(of) for name, of in measurements.items()})


def table(cases: Sequence[Case]) -> str:
    """Return the measurements as a Markdown table, in milliseconds."""
    header = ("format", "archive", *VARIANTS, "ratio to script")
    rows = [
        (
            case.output_format,
            f"{case.size:,} kB",
            *(f"{1000 * one.wall:.0f} ms, {1000 * one.cpu:.0f} ms" for one in case.by_variant.values()),
            f"**{case.by_variant['package'].cpu / case.by_variant['script'].cpu:.1f}**",
        )
        for case in cases
    ]
    return markdown_table(header, rows)


def report(cases: Sequence[Case], runs: int) -> str:
    """Return the table with a description."""
    startup = median(case.by_variant["package"].startup for case in cases)
    packages = ("apache-airflow", "apache-airflow-providers-amazon", "requests")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    description = (
        "Wall-clock and processor time from `execute()` to the published object, with all that is imported on the way; "
        f"medians of {runs} runs in turn, in a process of its own each. The last column compares processor times. "
        f"Before that, Airflow itself used {startup:.1f} s of processor time in each process, for its task runner and "
        "the DAG file. Where a plugin reads hook lineage, as OpenLineage's does, Airflow's collector imports the "
        "assets of all installed providers, here boto3 for Amazon's: the difference of the last two times is Airflow's "
        "own. "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {versions}."
    )
    return f"{paragraph(description)}\n\n{table(cases)}"


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark and print its table.

    :param arguments: command line arguments
    :return: exit status: 0, or 1 if the benchmark failed
    """
    parser = argparse.ArgumentParser(prog="python -m bench small", description="Fixed cost of a transfer.")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each variant (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one run, to check the benchmark itself")
    parser.add_argument("--write-docs", action="store_true", help="write the table to docs/costs.md")
    options = parser.parse_args(arguments)
    runs = QUICK_RUNS if options.quick else options.runs
    try:
        cases = [run_case(name, size, runs) for name in FORMATS for size in KILOBYTES]
        print(report(cases, runs))
        if options.write_docs:
            write_docs("small", report(cases, runs))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(FOLDER / "work")
    return 0
