# SPDX-License-Identifier: Apache-2.0
"""
The compared ways to transfer an export, one per process: ``python -m bench.transfer_variants NAME FORMAT API TARGET``.

Each process first loads what a worker has loaded when it calls ``execute()``: Airflow's task runner with its plugins,
and the DAG file. What a transfer imports itself is part of the measurement, which is printed as JSON: ``wall`` and
``cpu`` (user and system, all threads) in seconds, ``memory``, the bytes by which the process's peak memory (Linux's
``VmHWM``) exceeds its memory before the transfer, and ``startup``, the seconds of processor time before the transfer.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.server import EXPORT_ID, file_url

#: Seconds that the script waits for its server: the same as the package.
_TIMEOUT = 30

Transfer = Callable[[], None]


def load_airflow() -> None:
    """Load what Airflow loads in a task's process before it reads the DAG file."""
    try:
        # A worker's processes are forked from one that has loaded the supervisor.
        import_module("airflow.sdk.execution_time.supervisor")
        task_runner = import_module("airflow.sdk.execution_time.task_runner")
    except ImportError:  # Airflow 2
        task_runner = import_module("airflow.models.taskinstance")
    task_runner.get_listener_manager()


def script(output_format: str, api: str, target: Path) -> Transfer:
    """Return what a careful user writes: check the archive in memory, and rename the file when it is complete."""
    unfinished = target.with_name(f".{target.name}.unfinished")

    def transfer() -> None:
        import requests

        response = requests.get(file_url(api), timeout=_TIMEOUT)
        response.raise_for_status()
        content = response.content
        with zipfile.ZipFile(BytesIO(content)) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            (name,) = archive.namelist()
            if output_format == "zip":
                unfinished.write_bytes(content)
            elif output_format == "csv":
                unfinished.write_bytes(archive.read(name))
            elif output_format == "csv.gz":
                unfinished.write_bytes(gzip.compress(archive.read(name)))
            else:
                import pandas

                with archive.open(name) as text:
                    table = pandas.read_csv(text, dtype=str, keep_default_na=False)
                table.to_parquet(unfinished, compression="zstd", index=False)
        os.replace(unfinished, target)

    return transfer


def operator(output_format: str, api: str, target: Path, *, isal: bool) -> Transfer:
    """
    Return the package's operator as a worker runs it.

    :param isal: decompress with isal; without it, with zlib, as on platforms for which isal has no wheel
    """
    if not isal:
        # Makes the import fail, as if isal were not installed.
        sys.modules["isal"] = None  # type: ignore[assignment]
    os.environ["AIRFLOW_CONN_CHARTMOGUL_DEFAULT"] = json.dumps(
        {"conn_type": "chartmogul", "host": api, "password": "the-api-key-of-the-benchmark"}
    )
    from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
        ActivitiesExportToObjectStorageOperator,
    )

    task = ActivitiesExportToObjectStorageOperator(
        task_id="transfer", export_id=EXPORT_ID, destination=f"file://{target}"
    )
    context: Any = {"ti": TaskInstance(), "task": task}

    def transfer() -> None:
        task.execute(context)
        used = import_module("airflow_provider_chartmogul.formats.archive")._zlib.__name__
        if (used == "isal.isal_zlib") != isal:
            raise RuntimeError(f"the archive was decompressed with {used}")

    return transfer


class TaskInstance:
    """The part of a task instance that the operator uses."""

    try_number = 1

    def xcom_push(self, key: str, value: Any) -> None:
        pass


VARIANTS: dict[str, Callable[[str, str, Path], Transfer]] = {
    "script": script,
    "isal": partial(operator, isal=True),
    "zlib": partial(operator, isal=False),
}


def memory(field: str) -> int:
    """Return the process's current memory (``VmRSS``) or its peak (``VmHWM``), in bytes."""
    match = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise RuntimeError(f"this system does not report {field}")
    return int(match[1]) * 1024


def measure(transfer: Transfer) -> dict[str, float]:
    memory_before = memory("VmRSS")
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    transfer()
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    startup = before.ru_utime + before.ru_stime
    return {"wall": wall, "cpu": cpu, "memory": max(0, memory("VmHWM") - memory_before), "startup": startup}


def main() -> None:
    name, output_format, api, target = sys.argv[1:]
    # Airflow logs to standard output, which has to carry the measurement alone.
    output, sys.stdout = sys.stdout, sys.stderr
    load_airflow()
    print(json.dumps(measure(VARIANTS[name](output_format, api, Path(target)))), file=output)


if __name__ == "__main__":
    main()
