# SPDX-License-Identifier: Apache-2.0
"""
Walk a resource that ChartMogul lists for one row of another resource at a time, such as the subscriptions of customers.

That is at least one request for each row of the parent, so as many walks run at a time as the connection allows, each
in a thread. The parent is walked ahead of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_chartmogul.api.pagination import PAGE_SIZE, Page, row_uuid
from airflow_provider_chartmogul.api.resources import Resource, get_resource
from airflow_provider_chartmogul.exceptions import NotFoundError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog

if TYPE_CHECKING:
    from airflow_provider_chartmogul.client.sync_client import SyncClient

T = TypeVar("T")

#: So few rows of the parent may be deleted during a walk, or 1 % of them, before their 404s are taken for an error.
_FEW_DELETED_ROWS = 3

#: Walks under the next page of the parent begin when this many are left.
_WALKS_AHEAD = PAGE_SIZE // 2

_CHECK_SECONDS = 0.2


def iter_child_pages(
    client: SyncClient,
    resource: Resource,
    query: Mapping[str, str],
    *,
    include_raw_rows: bool = False,
    retry_seconds: float,
    cancellation: Cancellation,
    log: TaskLog,
) -> Generator[Page, None, None]:
    """
    Yield the pages under every row of the parent, in the order of the parent's rows.

    Rows of the parent that are deleted before their turn are skipped and counted; many of them are an error. Only as
    many pages are held as there are in the walks of about one page of the parent.

    :param query: as ``Resource.build_query`` returns it
    :param include_raw_rows: whether pages have the bytes of each row
    :param retry_seconds: how long to keep retrying transient failures of one page, in seconds
    :param cancellation: when it is cancelled, or the caller stops iterating, no more requests are sent
    :raises TaskCancelledError: if the task was cancelled
    :raises ChartMogulError: if a page cannot be read
    """
    assert resource.parent is not None
    parent = get_resource(resource.parent)
    stopping = Cancellation()
    walks: deque[Future[list[Page] | NotFoundError]] = deque()
    # A row that moved during the walk comes twice.
    seen: set[str] = set()
    missing = 0
    not_found: NotFoundError | None = None

    def read(parent_uuid: str) -> list[Page] | NotFoundError:
        pages = client.walk(
            resource,
            query,
            parent_uuid=parent_uuid,
            include_raw_rows=include_raw_rows,
            retry_seconds=retry_seconds,
            cancellation=stopping,
            paced=True,
        )
        try:
            return list(pages)
        except NotFoundError as error:
            return error

    def result(future: Future[T]) -> T:
        # The task's own thread only waits, so that it notices a cancellation whatever the threads wait for.
        while not wait([future], timeout=_CHECK_SECONDS).done:
            cancellation.check()
        return future.result()

    def finish_first_walk() -> list[Page]:
        nonlocal missing, not_found
        pages = result(walks.popleft())
        if isinstance(pages, NotFoundError):
            not_found, missing = pages, missing + 1
            return []
        return pages

    parents = client.walk(
        parent, parent.build_query(None), retry_seconds=retry_seconds, cancellation=stopping, paced=True
    )
    threads = ThreadPoolExecutor(client.max_connections, thread_name_prefix="chartmogul")
    try:
        next_page = threads.submit(next, parents, None)
        while (page := result(next_page)) is not None:
            # Before the walks under this page, so that the threads never run out of them.
            next_page = threads.submit(next, parents, None)
            for row in page.rows:
                if (uuid := row_uuid(row, parent)) not in seen:
                    seen.add(uuid)
                    walks.append(threads.submit(read, uuid))
            while len(walks) > _WALKS_AHEAD:
                yield from finish_first_walk()
        while walks:
            yield from finish_first_walk()
    finally:
        stopping.cancel()
        # Requests that are under way end by themselves, by their timeout at the latest; nothing waits for them.
        threads.shutdown(wait=False, cancel_futures=True)
    if not_found is not None:
        if missing > max(_FEW_DELETED_ROWS, len(seen) // 100) or missing == len(seen):
            # So many are not deleted during a walk; without them the snapshot would be incomplete.
            raise not_found
        log.warning("Skipped %d of the %d %s, which were deleted during the walk", missing, len(seen), parent.name)
