# SPDX-License-Identifier: Apache-2.0
"""
A load in a process of its own, which a test may kill, or run beside another.

The fork server of ``multiprocessing`` imports this module once, so that a process that it forks begins at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

# What the operator imports when it runs.
import duckdb  # noqa: F401
import pyarrow.csv
import pyarrow.parquet  # noqa: F401
from airflow.providers.postgres.hooks import postgres  # noqa: F401

from airflow_provider_chartmogul.warehouse import load as _load  # noqa: F401
from tests.warehouse_cases import run_load


def load(
    source: Any, parameters: Mapping[str, Any], environment: Mapping[str, str], result: Connection, start: Any = None
) -> None:
    """
    Run the operator; send ``done``, or the type and message of its error.

    :param start: a barrier to wait at before the load begins
    """
    os.environ.update(environment)
    if start is not None:
        start.wait(60)
    try:
        run_load(source, **parameters)
    except Exception as error:
        result.send(f"{type(error).__name__}: {error}")
    else:
        result.send("done")
