# SPDX-License-Identifier: Apache-2.0
"""
A transfer in a process of its own, which a test may kill.

The fork server of ``multiprocessing`` imports this module once. A process that it forks has everything imported, but
neither threads nor file systems yet, and starts working within milliseconds.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# What the operator imports when it runs.
import s3fs  # noqa: F401
from airflow.providers.amazon.aws.fs import s3  # noqa: F401

from airflow_provider_chartmogul.storage.object_storage import StoredObject
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.task_runner import run_task


def transfer(
    parameters: Mapping[str, Any], environment: Mapping[str, str], result: Connection, file_bytes: int | None = None
) -> None:
    """
    Run the operator; send ``done``, or the type and message of its error.

    :param file_bytes: the size in bytes that no file may exceed, as if the disk were full
    """
    os.environ.update(environment)
    operator = ActivitiesExportToObjectStorageOperator(task_id="move", export_id="e-1", **parameters)
    _run(lambda: run_task(operator), result, file_bytes)


def publish(file: Path, destination: str, result: Connection, file_bytes: int) -> None:
    """Run the last step alone, and send the same."""
    _run(lambda: StoredObject.parse(destination).publish(file), result, file_bytes)


def _run(work: Callable[[], Any], result: Connection, file_bytes: int | None) -> None:
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        work()
    except Exception as error:
        result.send(f"{type(error).__name__}: {error}")
    else:
        result.send("done")
