# SPDX-License-Identifier: Apache-2.0
"""The plugin of the benchmark of small transfers: it reads hook lineage, as OpenLineage's plugin does."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowPlugin, HookLineageReader


class LineageReaderPlugin(AirflowPlugin):
    """Makes Airflow collect hook lineage."""

    name = "bench_lineage_reader"
    hook_lineage_readers = [HookLineageReader]  # noqa: RUF012 - as Airflow's documentation has it
