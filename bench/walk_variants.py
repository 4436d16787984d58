# SPDX-License-Identifier: Apache-2.0
"""
The compared ways to read a list, one per process: ``python -m bench.walk_variants NAME RESOURCE FORMAT API FOLDER``.

Imports and set-up happen before the measurement starts, which is printed as in ``bench.transfer_variants``. The main
table is written to ``RESOURCE.FORMAT`` in the folder; dlt writes to folders of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.transfer_variants import TaskInstance, Transfer, measure

API_KEY = "the-api-key-of-the-benchmark"

#: Where the rows are in a page.
ROWS_KEYS = {"customers": "entries", "invoices": "invoices"}

#: Tables nested in the rows, by their key and name.
NESTED = {"customers": {}, "invoices": {"line_items": "invoice_line_items", "transactions": "invoice_transactions"}}

_TIMEOUT = 30


def read_pages(resource: str, api: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page: the least that reads a list."""
    import requests

    with requests.Session() as session:
        session.auth = (API_KEY, "")
        query = {"per_page": "200"}
        while True:
            response = session.get(f"{api}/v1/{resource}", params=query, timeout=_TIMEOUT)
            response.raise_for_status()
            page = response.json()
            yield page[ROWS_KEYS[resource]]
            if not page["has_more"]:
                return
            query["cursor"] = page["cursor"]


def read(resource: str, output_format: str, api: str, folder: Path) -> Transfer:
    """Return the bare loop, which writes nothing."""
    import requests  # noqa: F401 - read_pages uses it

    def transfer() -> None:
        for _ in read_pages(resource, api):
            pass

    return transfer


def script(resource: str, output_format: str, api: str, folder: Path) -> Transfer:
    """Return what a user writes: a line of JSON per row, or the tables that pandas makes of all rows."""
    import requests  # noqa: F401 - read_pages uses it

    target = folder / f"{resource}.{output_format}"
    if output_format == "parquet":
        import pandas
        import pyarrow.parquet  # noqa: F401 - pandas loads it to write

        def write_tables() -> None:
            rows = [row for page in read_pages(resource, api) for row in page]
            for key, name in NESTED[resource].items():
                items = [{**item, "invoice_uuid": row["uuid"]} for row in rows for item in row.pop(key)]
                pandas.json_normalize(items).to_parquet(folder / f"{name}.parquet", compression="zstd", index=False)
            pandas.json_normalize(rows).to_parquet(target, compression="zstd", index=False)

        return write_tables

    def write_lines() -> None:
        with gzip.open(target, "wt", encoding="utf-8") as file:
            for page in read_pages(resource, api):
                for row in page:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write_lines


def operator(
    resource: str, output_format: str, api: str, folder: Path, limits: dict[str, int] | None = None
) -> Transfer:
    """
    Return the package's operator as a worker runs it.

    :param limits: the limits of its connection; ``None`` is a rate that nothing here reaches
    """
    connection = {"conn_type": "chartmogul", "host": api, "password": API_KEY}
    os.environ["AIRFLOW_CONN_CHARTMOGUL_DEFAULT"] = json.dumps(
        {**connection, "extra": limits or {"requests_per_second": 100_000}}
    )
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    from airflow_provider_chartmogul.client import sync_client  # noqa: F401 - the operator uses it
    from airflow_provider_chartmogul.sources import resource as source  # noqa: F401 - the operator uses it
    from airflow_provider_chartmogul.storage.object_storage import StoredObject
    from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator

    if output_format == "parquet":
        import pyarrow

        from airflow_provider_chartmogul.formats import tables  # noqa: F401

        # pyarrow imports pandas, where it is installed, with its first array.
        pyarrow.array([])
    destination = f"file://{folder}/{{table}}.{output_format}"
    task = ChartMogulToObjectStorageOperator(task_id="walk", resource=resource, destination=destination)
    StoredObject.parse(f"file://{folder}/object").prepare()
    # Airflow creates the collector on its first use, and then imports the assets of all providers.
    get_hook_lineage_collector()
    context: Any = {"ti": TaskInstance(), "task": task}

    def transfer() -> None:
        task.execute(context)

    return transfer


def dlt(resource: str, output_format: str, api: str, folder: Path) -> Transfer:
    """Return a pipeline of dlt, with its defaults, from its REST API source to files."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
    import dlt
    from dlt.sources.rest_api import rest_api_source

    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}/dlt"),
        dataset_name="bench",
    )
    source = rest_api_source(
        {
            "client": {
                "base_url": f"{api}/v1/",
                "auth": {"type": "http_basic", "username": API_KEY, "password": ""},
                "paginator": {
                    "type": "cursor",
                    "cursor_path": "cursor",
                    "cursor_param": "cursor",
                    "has_more_path": "has_more",
                },
            },
            "resource_defaults": {"write_disposition": "replace"},
            "resources": [
                {
                    "name": resource,
                    "endpoint": {
                        "path": resource,
                        "params": {"per_page": 200},
                        "data_selector": ROWS_KEYS[resource],
                    },
                }
            ],
        }
    )

    def transfer() -> None:
        info = pipeline.run(source, loader_file_format="jsonl" if output_format == "jsonl.gz" else "parquet")
        info.raise_on_failed_jobs()

    return transfer


#: In the order in which they run.
VARIANTS: dict[str, Callable[[str, str, str, Path], Transfer]] = {
    "read": read,
    "package": operator,
    "script": script,
    "dlt": dlt,
}


def main() -> None:
    name, resource, output_format, api, folder = sys.argv[1:]
    # Airflow logs to standard output, which has to carry the measurement alone.
    output, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(measure(VARIANTS[name](resource, output_format, api, Path(folder)))), file=output)


if __name__ == "__main__":
    main()
