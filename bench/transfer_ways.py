# SPDX-License-Identifier: Apache-2.0
"""
The ways to move an export that are compared, one a process: ``python -m bench.transfer_ways WAY FORMAT API TARGET``.

Everything is imported, and clients are made, before anything is measured. What was measured is printed as JSON:
``wall`` and ``cpu`` (user and system, all threads) in seconds, and ``memory``, the bytes by which the process grew at
its highest (Linux's ``VmHWM``) above what it held before.
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
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.server import EXPORT_ID, file_url

#: Where the hand-written way has to wait for its server: as long as the package does.
_TIMEOUT = 30

Work = Callable[[], None]


def by_hand(output_format: str, api: str, target: Path) -> Work:
    """What a careful user writes: the archive in memory and checked, the object hidden until it is whole."""
    import requests

    if output_format == "parquet":
        import pandas
        import pyarrow.parquet  # noqa: F401 - which pandas loads when it writes

    unfinished = target.with_name(f".{target.name}.unfinished")

    def work() -> None:
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
                with archive.open(name) as text:
                    table = pandas.read_csv(text, dtype=str, keep_default_na=False)
                table.to_parquet(unfinished, compression="zstd", index=False)
        os.replace(unfinished, target)

    return work


def by_package(output_format: str, api: str, target: Path, *, isal: bool) -> Work:
    """The operator, as a worker runs it; inflating by isal or, as where isal has no wheel, by zlib."""
    if not isal:
        # As if it were not installed.
        sys.modules["isal"] = None  # type: ignore[assignment]
    os.environ["AIRFLOW_CONN_CHARTMOGUL_DEFAULT"] = json.dumps(
        {"conn_type": "chartmogul", "host": api, "password": "the-api-key-of-the-benchmark"}
    )
    from airflow_provider_chartmogul.formats import archive
    from airflow_provider_chartmogul.storage import download, object_storage
    from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
        ActivitiesExportToObjectStorageOperator,
    )

    if (archive._zlib.__name__ == "isal.isal_zlib") != isal or not download:
        raise RuntimeError(f"the archive is inflated by {archive._zlib.__name__}")
    if output_format == "parquet":
        from airflow_provider_chartmogul.formats import parquet  # noqa: F401
    destination = f"file://{target}"
    operator = ActivitiesExportToObjectStorageOperator(task_id="move", export_id=EXPORT_ID, destination=destination)
    object_storage.StoredObject.parse(destination).prepare()
    context: Any = {"ti": _TaskInstance(), "task": operator}

    def work() -> None:
        operator.execute(context)

    return work


class _TaskInstance:
    """As much of a task instance as the operator uses."""

    try_number = 1

    def xcom_push(self, key: str, value: Any) -> None:
        pass


WAYS: dict[str, Callable[[str, str, Path], Work]] = {
    "hand": by_hand,
    "isal": lambda *told: by_package(*told, isal=True),
    "zlib": lambda *told: by_package(*told, isal=False),
}


def memory(name: str) -> int:
    """``VmRSS``, what this process holds, or ``VmHWM``, what it held at its highest; in bytes."""
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"this system does not tell {name}")
    return int(found[1]) * 1024


def measured(work: Work) -> dict[str, float]:
    held = memory("VmRSS")
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    work()
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "memory": max(0, memory("VmHWM") - held)}


def main() -> None:
    way, output_format, api, target = sys.argv[1:]
    # Nothing else may come between: Airflow's logs go to standard output.
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(measured(WAYS[way](output_format, api, Path(target)))), file=answers)


if __name__ == "__main__":
    main()
