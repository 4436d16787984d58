# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench loads``: the cost of loading an export into a warehouse, compared with a bare import.

The bare import is what a user writes by hand: DuckDB's own reader, or ``COPY``, into a temporary table with the cast of
the date; the check that every row has a UUID of its own; then delete and insert. Both replace the same rows of a table.
The variants run several times in turn, so that a slow moment of the machine affects all of them, and each time in a
process of its own; the medians are reported. PostgreSQL runs on the same machine. Compare the ratios: the seconds
depend on the machine.
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from airflow_provider_chartmogul.formats.archive import sha256_of
from airflow_provider_chartmogul.sandbox.company.activities import COLUMNS
from bench.archives import ROWS_PER_CHUNK, VERSION, csv_chunks
from bench.docs import BenchError, markdown_table, paragraph, report_missed_limits, write_docs
from bench.load_variants import TABLE, create_table
from bench.transfer import FOLDER, ROOT, Measurement, empty_folder, environment, print_progress

WAREHOUSES = ("duckdb", "postgres")
FORMATS = ("csv", "csv.gz", "parquet")
#: In the order in which they run.
VARIANTS = ("bare", "package")
ROWS = 2_000_000
QUICK_ROWS = 20_000
RUNS = 3

LABELS = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}

#: Limits on wall-clock time relative to the bare import's, by format.
MAX_RATIO = {"csv": 1.5, "csv.gz": 1.5, "parquet": 2.5}
#: Limits on memory in MB: for PostgreSQL the load's own, for DuckDB what exceeds the bare import's.
MAX_MEMORY = {"duckdb": 32, "postgres": 64}

#: Seconds after which a run is considered to hang.
_RUN_SECONDS = 1800


@dataclass(frozen=True)
class Case:
    """The measurements of one warehouse and format."""

    warehouse: str
    file_format: str
    rows: int
    by_variant: dict[str, Measurement]

    @property
    def ratio(self) -> float:
        """The package's time divided by the bare import's."""
        return self.by_variant["package"].wall / self.by_variant["bare"].wall

    @property
    def memory(self) -> float:
        """The bytes that the load takes: in all, or in DuckDB beyond the bare import's."""
        memory = self.by_variant["package"].memory or 0.0
        return memory - (self.by_variant["bare"].memory or 0.0) if self.warehouse == "duckdb" else memory

    def __str__(self) -> str:
        return f"{self.file_format} into {LABELS[self.warehouse]}"


def objects_of(rows: int, folder: Path) -> dict[str, Path]:
    """
    Return an export's objects by format, as the transfers write them, each beside a file with its checksum.

    :param rows: the rows of the export, a multiple of ``ROWS_PER_CHUNK``
    :param folder: folder for the objects, which are created if it does not have them yet
    """
    from airflow_provider_chartmogul.formats.parquet import write_parquet

    paths = {name: folder / f"export-{VERSION}-{rows}" / f"activities.{name}" for name in FORMATS}
    if all(path.with_name(f"{path.name}.sha256").exists() for path in paths.values()):
        return paths
    paths["csv"].parent.mkdir(parents=True, exist_ok=True)
    with paths["csv"].open("wb") as text, gzip.open(paths["csv.gz"], "wb", compresslevel=6) as compressed:
        for chunk in islice(csv_chunks(), rows // ROWS_PER_CHUNK):
            text.write(chunk)
            compressed.write(chunk)
    with paths["csv"].open("rb") as text:
        write_parquet(iter(lambda: text.read(1 << 20), b""), paths["parquet"])
    for path in paths.values():
        path.with_name(f"{path.name}.sha256").write_text(sha256_of(path))
    return paths


class Database:
    """A database whose table has the rows that each load replaces."""

    def uri(self) -> str:
        """Return where the database is, for a variant."""
        raise NotImplementedError

    def reset(self) -> None:
        """Give the table the rows that it had before the loads."""
        raise NotImplementedError

    def summary(self) -> tuple[object, ...]:
        """Return a summary of the table's rows, by which the variants are compared."""
        raise NotImplementedError


class DuckDBFile(Database):
    def __init__(self, export: Path) -> None:
        import duckdb

        self._original, self._path = FOLDER / "loads.duckdb", FOLDER / "work" / "loads.duckdb"
        self._original.unlink(missing_ok=True)
        with duckdb.connect(str(self._original)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(create_table("VARCHAR"))
            connection.execute(f"INSERT INTO {TABLE} BY NAME SELECT * FROM read_csv('{export}', all_varchar = true)")

    def uri(self) -> str:
        return str(self._path)

    def reset(self) -> None:
        empty_folder()
        shutil.copyfile(self._original, self._path)

    def summary(self) -> tuple[object, ...]:
        import duckdb

        with duckdb.connect(str(self._path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            row = connection.execute(f"SELECT count(*), sum(hash({', '.join(COLUMNS)})) FROM {TABLE}").fetchone()
        return tuple(row or ())


class PostgresDatabase(Database):
    def __init__(self, server: str, export: Path) -> None:
        self._server = server
        self._execute(create_table("TEXT").replace(TABLE, "original", 1))
        import psycopg

        with psycopg.connect(server, options="-c TimeZone=UTC") as connection, connection.cursor() as cursor:
            names = ", ".join(COLUMNS)
            with (
                export.open("rb") as text,
                cursor.copy(f"COPY original ({names}) FROM STDIN (FORMAT csv, HEADER)") as copy,
            ):
                while chunk := text.read(1 << 20):
                    copy.write(chunk)

    def uri(self) -> str:
        return self._server

    def reset(self) -> None:
        empty_folder()
        self._execute(f"DROP TABLE IF EXISTS {TABLE}, _chartmogul_loads")
        self._execute(f"CREATE TABLE {TABLE} AS TABLE original")
        self._execute("CHECKPOINT")

    def summary(self) -> tuple[object, ...]:
        text = f"concat_ws('|', {', '.join(COLUMNS)})"
        return self._execute(f"SELECT count(*), sum(hashtextextended({text}, 0)) FROM {TABLE}")[0]

    def _execute(self, sql: str) -> list[tuple[object, ...]]:
        import psycopg

        with psycopg.connect(self._server, options="-c TimeZone=UTC", autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def open_database(warehouse: str, export: Path) -> Iterator[Database]:
    """Create a database, and load an export's CSV into it."""
    if warehouse == "duckdb":
        yield DuckDBFile(export)
        return
    from tests.postgres import postgres_server

    with postgres_server() as server:
        yield PostgresDatabase(server, export)


def run_case(database: Database, warehouse: str, file_format: str, rows: int, runs: int) -> Case:
    """
    Run the variants in turn, ``runs`` times.

    :raises BenchError: if a variant fails, or loads other rows than the bare import
    """
    path = objects_of(rows, FOLDER / "objects")[file_format]
    measurements: dict[str, list[Measurement]] = {variant: [] for variant in VARIANTS}
    summaries = {}
    for number in range(1, runs + 1):
        for variant in VARIANTS:
            database.reset()
            measurement = _run_variant(variant, warehouse, path, database.uri())
            measurements[variant].append(measurement)
            print_progress(f"{file_format}, {LABELS[warehouse]}, run {number} of {runs}, {variant}: {measurement}")
            if number == 1:
                summaries[variant] = database.summary()
    if summaries["package"] != summaries["bare"]:
        raise BenchError(f"{file_format}, {LABELS[warehouse]}: the variants loaded different rows: {summaries}")
    return Case(warehouse, file_format, rows, {name: Measurement.median_of(of) for name, of in measurements.items()})


def _run_variant(variant: str, warehouse: str, path: Path, database: str) -> Measurement:
    command = [sys.executable, "-m", "bench.load_variants", variant, warehouse, str(path), database]
    process = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
    )
    if process.returncode:
        raise BenchError(f"{variant}, {warehouse}, {path.name} failed:\n{process.stderr[-4000:]}")
    return Measurement(**json.loads(process.stdout.splitlines()[-1]))


def report(cases: Sequence[Case], runs: int) -> str:
    """Return the measurements as a Markdown table with a description."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("duckdb", "psycopg", "pyarrow"))
    times = f"medians of {runs} runs in turn" if runs > 1 else "one run"
    description = (
        f"Wall-clock seconds, processor seconds of the task, and peak memory beyond that of the imports; {times}, each "
        f"in a process of its own. Python {platform.python_version()}, {os.cpu_count()} cores, {versions}. PostgreSQL "
        "runs on the same machine, and the objects are in a folder. Each load replaces all rows of a table."
    )
    header = ("rows", "format", "warehouse", "bare import", "this package", "ratio of times")
    rows = [
        (
            f"{case.rows:,}",
            case.file_format,
            LABELS[case.warehouse],
            *(str(case.by_variant[variant]) for variant in VARIANTS),
            f"**{case.ratio:.2f}**",
        )
        for case in cases
    ]
    return f"{paragraph(description)}\n\n{markdown_table(header, rows)}"


def missed_limits(cases: Iterable[Case]) -> list[str]:
    """Return a message for each limit that the package exceeds."""
    missed = []
    for case in cases:
        if case.ratio > MAX_RATIO[case.file_format]:
            missed.append(f"{case} took {case.ratio:.2f} times the bare import's time")
        if case.memory > MAX_MEMORY[case.warehouse] * 1e6:
            beyond = " beyond the bare import's" if case.warehouse == "duckdb" else ""
            missed.append(f"{case} took {case.memory / 1e6:.0f} MB of memory{beyond}")
    return missed


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark and print its table.

    :param arguments: command line arguments
    :return: exit status: 0, or 1 if the benchmark failed or a limit was exceeded
    """
    parser = argparse.ArgumentParser(prog="python -m bench loads", description="Cost of loading an export.")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each variant (default %(default)s)")
    parser.add_argument("--warehouses", nargs="+", choices=WAREHOUSES, default=WAREHOUSES)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--quick", action="store_true", help="one run with few rows, to check the benchmark itself")
    parser.add_argument("--write-docs", action="store_true", help="write the table to docs/costs.md")
    options = parser.parse_args(arguments)
    rows, runs = (QUICK_ROWS, 1) if options.quick else (ROWS, options.runs)
    cases = []
    try:
        export = objects_of(rows, FOLDER / "objects")["csv"]
        for warehouse in options.warehouses:
            with open_database(warehouse, export) as database:
                cases += [run_case(database, warehouse, name, rows, runs) for name in options.formats]
        text = report(cases, runs)
        print(text)
        if options.write_docs:
            write_docs("loads", text)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(FOLDER / "work")
    # With few rows, imports and set-up take most of the time, so the limits do not apply.
    missed = [] if options.quick else missed_limits(cases)
    return report_missed_limits(missed)
