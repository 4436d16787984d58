# SPDX-License-Identifier: Apache-2.0
"""
The transfer in a process of its own, which a test may kill.

Loaded ahead of time by ``multiprocessing``'s fork server: a process that is forked from it has everything imported
and nothing made yet, neither threads nor file systems, and is at work after milliseconds.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# What the operator would load when it runs.
import s3fs  # noqa: F401
from airflow.providers.amazon.aws.fs import s3  # noqa: F401

from airflow_provider_chartmogul.storage.object_storage import StoredObject
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.task_runner import run_task


def transfer(
    told: Mapping[str, Any], environment: Mapping[str, str], answer: Connection, file_bytes: int | None = None
) -> None:
    """
    Run the operator; say ``done``, or the type and text of what went wrong.

    :param file_bytes: no file may become larger, as if the disk were full then
    """
    os.environ.update(environment)
    operator = ActivitiesExportToObjectStorageOperator(task_id="move", export_id="e-1", **told)
    _run(lambda: run_task(operator), answer, file_bytes)


def publish(file: Path, destination: str, answer: Connection, file_bytes: int) -> None:
    """The last step alone, with the words as above."""
    _run(lambda: StoredObject.parse(destination).publish(file), answer, file_bytes)


def _run(what: Callable[[], Any], answer: Connection, file_bytes: int | None) -> None:
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        what()
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")
    else:
        answer.send("done")
