# SPDX-License-Identifier: Apache-2.0
"""Read the first page of each resource, and estimate the requests of a complete walk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

from airflow_provider_chartmogul.api.pagination import MAX_PAGE_BYTES, PAGE_SIZE, parse_page
from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.api.resources import RESOURCES, Resource
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_json_object
from airflow_provider_chartmogul.client.sync_client import SyncClient
from airflow_provider_chartmogul.exceptions import ChartMogulError, HTTPStatusError, NotFoundError
from airflow_provider_chartmogul.runtime.task_log import TaskLog

#: How long requests are retried after 429, 5xx and connection errors, in seconds for the whole check.
_RETRY_SECONDS = 30.0


@dataclass(frozen=True)
class Sample:
    """
    The first page of a list, or the error that kept it from being read.

    :param rows: the rows, at most 200
    :param has_more: whether there is another page
    :param total_pages: the number of pages of the whole list; ``None`` where ChartMogul does not report it
    :param error: why the page could not be read; ``None`` if it could
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    has_more: bool = False
    total_pages: int | None = None
    error: ChartMogulError | None = None

    @property
    def problem(self) -> str:
        """The HTTP status or the class of the error; not the server's message, which may contain names."""
        if isinstance(self.error, HTTPStatusError):
            return str(self.error.status)
        return type(self.error).__name__ if self.error else ""

    @property
    def pages(self) -> tuple[int, bool]:
        """The number of pages of the whole list, and whether it is only a minimum."""
        if self.total_pages is not None:
            return max(1, self.total_pages), False
        return (2, True) if self.has_more else (1, False)

    @property
    def minimum_rows(self) -> int:
        """The minimum number of rows of the whole list."""
        pages, _ = self.pages
        return (pages - 1) * PAGE_SIZE + 1 if pages > 1 else len(self.rows)


class Reader:
    """
    Reads single pages, and counts the requests.

    :param log: receives errors in the server's own words
    """

    def __init__(self, client: SyncClient, log: TaskLog) -> None:
        self._client = client
        self._log = log
        self._give_up_at = time.monotonic() + _RETRY_SECONDS
        self.requests = 0

    def read(
        self, resource: Resource, query: Mapping[str, str], *, parent_uuid: str | None = None, path: str | None = None
    ) -> Sample:
        """
        Return the first page for a query.

        :param query: added to the resource's defaults
        :param parent_uuid: the row of the parent to list under, for a resource with a parent
        :param path: a path instead of the resource's own
        """
        paging = {"per_page": str(PAGE_SIZE)} if resource.is_paged else {}
        request = ApiRequest(
            "GET",
            (path or resource.path).replace("{uuid}", quote(parent_uuid or "", safe="")),
            partial(_parse_sample, resource=resource, parent_uuid=parent_uuid),
            query={**resource.build_query(None), **paging, **query},
            max_response_bytes=MAX_PAGE_BYTES,
        )
        self.requests += 1
        try:
            return self._client.send(request, retry_seconds=max(0.0, self._give_up_at - time.monotonic()))
        except ChartMogulError as error:
            self._log.info("%s failed: %s", request, error)
            return Sample(error=error)


def read_samples(reader: Reader, today: date) -> dict[str, Sample | None]:
    """
    Return the first page of each resource of the catalogue.

    A resource with a parent is read for the first row of the parent; ``None`` means that there is no such row.

    :param today: today in UTC; metrics are read for the day before
    """
    samples: dict[str, Sample | None] = {}
    for name, resource in RESOURCES.items():
        if resource.has_window:
            yesterday = (today - timedelta(days=1)).isoformat()
            samples[name] = reader.read(resource, {"start-date": yesterday, "end-date": yesterday})
        elif resource.parent is None:
            sample = reader.read(resource, {})
            if isinstance(sample.error, NotFoundError) and resource.fallback_path is not None:
                sample = reader.read(resource, {}, path=resource.fallback_path)
            samples[name] = sample
        else:
            parent = samples[resource.parent]
            uuids = [row["uuid"] for row in parent.rows if isinstance(row.get("uuid"), str)] if parent else []
            samples[name] = reader.read(resource, {}, parent_uuid=uuids[0]) if uuids else None
    return samples


def walk_requests(resource: Resource, samples: Mapping[str, Sample | None]) -> tuple[int, bool] | None:
    """
    Return the number of requests of a complete walk, and whether it is only a minimum; ``None`` if it is not known.

    A resource with a parent needs a walk of the parent, and at least one request for each of its rows.
    """
    sample = samples[resource.name]
    if resource.parent is None:
        return sample.pages if sample is not None and sample.error is None else None
    parent = samples[resource.parent]
    if parent is None or parent.error is not None:
        return None
    pages, is_minimum = parent.pages
    has_longer_lists = sample is not None and sample.has_more
    return pages + parent.minimum_rows, is_minimum or pages > 1 or has_longer_lists


def _parse_sample(response: ApiResponse, resource: Resource, parent_uuid: str | None) -> Sample:
    page = parse_page(response, resource, parent_uuid)
    content = parse_json_object(response)
    meta = content.get("meta")
    pages = content.get("total_pages", meta.get("total_pages") if isinstance(meta, dict) else None)
    is_number = isinstance(pages, int) and not isinstance(pages, bool)
    return Sample(page.rows, page.has_more, pages if is_number else None)
