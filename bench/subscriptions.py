# SPDX-License-Identifier: Apache-2.0
"""
``python -m bench subscriptions``: how much of the account's rate a walk under every customer uses, and what is refused.

ChartMogul lists subscriptions for one customer at a time. The server enforces the limits that ChartMogul documents, 40
requests a second and 20 connections, and counts requests that it refuses, too. The package is compared with a script
that keeps 20 connections busy and repeats what is refused.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.docs import BenchError, markdown_table, paragraph, report_missed_limits, write_docs
from bench.list_server import serving_list
from bench.pages import page_count, pages_of
from bench.transfer import FOLDER, ROOT, empty_folder, environment, print_progress
from bench.transfer_variants import Transfer, measure
from bench.waiting_sandbox import CONNECTIONS, RATE
from bench.walk_variants import API_KEY, operator, read_pages

CUSTOMERS, QUICK_CUSTOMERS = 2_000, 200

#: Seconds that a request and its response take together.
LATENCIES = (0.05, 0.3)

#: The part of the rate that the package uses at least.
MIN_SHARE = 0.9

#: Seconds after which the script sends a refused request again.
_RETRY_SECONDS = 1.0

#: Seconds after which a run is considered to hang.
_RUN_SECONDS = 1800


@dataclass(frozen=True)
class Measurement:
    """
    The result of one variant at one latency.

    :param rate: requests per second that were not refused
    :param refused: number of requests that were refused
    :param connections: the most connections that were open at once
    :param wall: seconds of wall-clock time
    :param cpu: seconds of processor time
    """

    rate: float
    refused: int
    connections: int
    wall: float
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.rate:.1f} requests/s, {self.refused:,} refused, {self.connections} connections, {self.wall:.0f} s"
        )


def package(api: str, folder: Path) -> Transfer:
    """Return the package's operator, with the account's limits."""
    return operator(
        "subscriptions", "jsonl.gz", api, folder, {"requests_per_second": RATE, "max_connections": CONNECTIONS}
    )


def script(api: str, folder: Path) -> Transfer:
    """Return what a user writes: as many threads as the account may have connections, and retries."""
    import requests

    session = requests.Session()
    session.auth = (API_KEY, "")
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS))

    def rows_of(customer: dict[str, Any]) -> list[dict[str, Any]]:
        while True:
            response = session.get(f"{api}/v1/customers/{customer['uuid']}/subscriptions", timeout=30)
            if response.status_code not in (429, 503):
                response.raise_for_status()
                return [{"customer_uuid": customer["uuid"], **row} for row in response.json()["entries"]]
            time.sleep(_RETRY_SECONDS)

    def transfer() -> None:
        customers = [customer for page in read_pages("customers", api) for customer in page]
        with (
            gzip.open(folder / "subscriptions.jsonl.gz", "wt", encoding="utf-8") as file,
            ThreadPoolExecutor(CONNECTIONS) as threads,
        ):
            for rows in threads.map(rows_of, customers):
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return transfer


VARIANTS: dict[str, Callable[[str, Path], Transfer]] = {"package": package, "script": script}


def run_variant(variant: str, customers: int, latency: float) -> Measurement:
    """
    Run a variant in a process of its own, against a server of its own.

    :raises BenchError: if it fails, or loses a row
    """
    pages = pages_of("customers", customers, FOLDER / "pages")
    folder = empty_folder()
    with serving_list("customers", pages, latency, rate=RATE, connections=CONNECTIONS) as server:
        command = [sys.executable, "-m", "bench.subscriptions", variant, server.url, str(folder)]
        process = subprocess.run(
            command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
        )
    if process.returncode:
        raise BenchError(f"{variant} failed:\n{process.stderr[-4000:]}")
    with gzip.open(folder / "subscriptions.jsonl.gz") as lines:
        rows = [json.loads(line)["customer_uuid"] for line in lines]
    if len(set(rows)) != customers or len(rows) != customers:
        raise BenchError(f"{variant} wrote {len(rows)} rows for {customers} customers")
    if server.requests - server.refused != customers + page_count(customers):
        raise BenchError(f"{variant} sent {server.requests} requests, of which {server.refused} were refused")
    costs = json.loads(process.stdout.splitlines()[-1])
    return Measurement(server.rate, server.refused, server.connections, costs["wall"], costs["cpu"])


def report(measurements: dict[tuple[str, float], Measurement], customers: int) -> str:
    """Return the measurements as a Markdown table with a description."""
    rows = [
        (
            f"{1000 * latency:.0f} ms",
            {"package": "this package", "script": "20 threads with retries"}[variant],
            f"{measurement.rate:.1f} ({measurement.rate / RATE:.2f} of the limit)",
            f"{measurement.refused:,}",
            str(measurement.connections),
            f"{measurement.wall:.0f} s, {measurement.cpu:.1f} s",
        )
        for (variant, latency), measurement in sorted(measurements.items(), key=lambda item: item[0][1])
    ]
    header = ("latency", "", "requests/s", "refused (429, 503)", "connections", "wall clock, processor")
    description = (
        f"Subscriptions of {customers:,} customers, one request each, from a server that enforces {RATE} requests a "
        f"second and {CONNECTIONS} connections, and counts refused requests, too. The script sends a refused request "
        f"again after {_RETRY_SECONDS:.0f} s. One run each; Python {platform.python_version()}, {os.cpu_count()} cores."
    )
    return f"{paragraph(description)}\n\n{markdown_table(header, rows)}"


def missed_limits(measurements: dict[tuple[str, float], Measurement], min_share: float = MIN_SHARE) -> list[str]:
    """Return a message for each limit that the package misses."""
    missed = []
    for (variant, latency), measurement in measurements.items():
        if variant == "package" and measurement.rate < min_share * RATE:
            missed.append(f"{measurement.rate:.1f} requests/s at {1000 * latency:.0f} ms")
        if variant == "package" and measurement.refused:
            missed.append(f"{measurement.refused} requests were refused at {1000 * latency:.0f} ms")
    return missed


def main(arguments: Sequence[str]) -> int:
    """
    Run the benchmark and print its table.

    :param arguments: command line arguments
    :return: exit status: 0, or 1 if the benchmark failed or a limit was exceeded
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench subscriptions", description="Rate of a walk under customers."
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CUSTOMERS} customers instead of {CUSTOMERS:,}")
    parser.add_argument("--write-docs", action="store_true", help="write the table to docs/costs.md")
    options = parser.parse_args(arguments)
    customers = QUICK_CUSTOMERS if options.quick else CUSTOMERS
    measurements: dict[tuple[str, float], Measurement] = {}
    try:
        for latency in LATENCIES:
            for variant in VARIANTS:
                measurements[variant, latency] = measurement = run_variant(variant, customers, latency)
                print_progress(f"{1000 * latency:.0f} ms, {variant}: {measurement}")
        text = report(measurements, customers)
        print(text)
        if options.write_docs:
            write_docs("subscriptions", text)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(FOLDER / "work")
    # A short walk spends much of its time with its first and its last requests.
    missed = missed_limits(measurements, 0.0 if options.quick else MIN_SHARE)
    return report_missed_limits(missed)


def _measure_variant() -> None:
    """Measure one variant in this process: ``python -m bench.subscriptions NAME API FOLDER``."""
    name, api, folder = sys.argv[1:]
    # Airflow logs to standard output, which has to carry the measurement alone.
    output, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(measure(VARIANTS[name](api, Path(folder)))), file=output)


if __name__ == "__main__":
    _measure_variant()
