# SPDX-License-Identifier: Apache-2.0
"""
A resource as the source of a transfer: all of its rows, read page by page into one local file per table.

Nothing is written at the destination before the walk is complete.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_chartmogul.api.resources import Resource, Table
from airflow_provider_chartmogul.client.sync_client import SyncClient
from airflow_provider_chartmogul.exceptions import InsufficientDiskSpaceError
from airflow_provider_chartmogul.intervals.interval import Interval
from airflow_provider_chartmogul.lineage.assets import asset_uri
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.sources.row_files import ResourceOutput, RowFiles
from airflow_provider_chartmogul.storage.delivery import LocalFile
from airflow_provider_chartmogul.storage.object_metadata import METADATA_KEY, encode_metadata

#: Seconds between two lines about the progress of a walk.
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class ResourceSource:
    """
    What a transfer reads: a resource, its query and its window.

    :param chartmogul_conn_id: the Airflow connection of its account
    :param base_url: base URL of the API
    :param resource: the resource
    :param query: the query of its requests, without paging
    :param query_params: the query parameters that the user gave
    :param extracted_at: when the walk began
    :param interval: the window, for a resource that has one
    :param column_types: the types that the user gave, by column
    :param column_selection: ``columns`` or ``exclude_columns``, as the user gave it
    """

    chartmogul_conn_id: str
    base_url: str
    resource: Resource
    query: Mapping[str, str]
    query_params: Mapping[str, Any] | None
    extracted_at: datetime
    interval: Interval | None = None
    column_types: Mapping[str, str] | None = None
    column_selection: Mapping[str, Sequence[str]] | None = None

    @property
    def uri(self) -> str:
        """The URI of the asset that the objects are made from."""
        return asset_uri(self.base_url, self.resource.name)

    def metadata(self, table: Table, *, already_existed: bool) -> dict[str, Any]:
        """
        Return the metadata about a table's content.

        :param already_existed: the object holds the rows of an earlier walk
        """
        start, end = (self.interval.start, self.interval.end) if self.interval else (None, None)
        return {
            "resource": self.resource.name,
            "table": table.name,
            "query_params": dict(self.query_params) if self.query_params else None,
            "extracted_at": None if already_existed else self.extracted_at.isoformat(),
            "interval_start": start and start.isoformat(),
            "interval_end": end and end.isoformat(),
            # The days of a window, in the time zone that metrics are counted in.
            "start_date": self.query.get("start-date"),
            "end_date": self.query.get("end-date"),
            "column_types": dict(self.column_types)
            if self.column_types and table is self.resource.main_table
            else None,
            "column_selection": self.column_selection
            and {parameter: list(names) for parameter, names in self.column_selection.items()},
            # Only exports have these.
            "activity_type": None,
            "export_id": None,
            "exported_at": None,
            "chartmogul_conn_id": self.chartmogul_conn_id,
        }


def fetch_rows(
    client: SyncClient,
    source: ResourceSource,
    output: ResourceOutput,
    folder: Path,
    *,
    retry_seconds: float,
    log: TaskLog,
    cancellation: Cancellation,
) -> dict[str, LocalFile]:
    """
    Read all rows of a resource into local files, and return these by table.

    :param folder: where the files are created
    :param retry_seconds: how long to keep retrying transient failures of one page, in seconds
    :raises TaskCancelledError: if the task was cancelled
    :raises ChartMogulError: if the walk fails
    """
    footers = {
        table.name: {
            METADATA_KEY: encode_metadata(
                {**source.metadata(table, already_existed=False), "format": output.output_format}
            )
        }
        for table in output.tables
    }
    files = RowFiles(folder, output, source.extracted_at, footers)
    name = source.resource.name
    pages = rows = 0
    log.info("Reading %s", name)
    started = last_logged = time.monotonic()
    walk = client.iter_pages(
        source.resource,
        source.query,
        include_raw_rows=output.needs_raw_rows,
        retry_seconds=retry_seconds,
        cancellation=cancellation,
    )
    with _disk_errors(folder), files.open(), closing(walk):
        for page in walk:
            cancellation.check()
            files.write(page)
            if page.summary is not None and output.keeps_all_columns:
                summary = ", ".join(f"{key} {value}" for key, value in page.summary.items())
                log.info("Summary of the %s: %s", name, summary)
            pages, rows, now = pages + 1, rows + len(page.rows), time.monotonic()
            if now - last_logged >= PROGRESS_SECONDS:
                last_logged = now
                log.info("Read %d pages of %s: %d rows, %.0f rows/s", pages, name, rows, rows / (now - started))
    log.info("Finished reading %s (rows: %d, pages: %d, %.1f s)", name, rows, pages, time.monotonic() - started)
    return files.finish(log)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Name the folder that cannot be written to."""
    try:
        yield
    except OSError as error:
        raise InsufficientDiskSpaceError(
            f"could not write to {folder} ({error.strerror or error}): give another folder as download_dir"
        ) from error
