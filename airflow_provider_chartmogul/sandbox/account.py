# SPDX-License-Identifier: Apache-2.0
"""The sandbox's account: its settings, limits, exports and recorded requests. Nothing here does I/O.

The servers (`api_server.py`, `download_server.py`) run in one event loop, while tests read and change the account
from threads of their own. Settings are therefore plain attributes, each read once where it is needed, and the
collections that grow are changed and copied under a lock.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from airflow_provider_chartmogul.sandbox.active_faults import Faults
from airflow_provider_chartmogul.sandbox.company.activities import Activity, to_zip
from airflow_provider_chartmogul.sandbox.company.books import Books
from airflow_provider_chartmogul.sandbox.company.clock import to_seconds
from airflow_provider_chartmogul.sandbox.company.company import Company
from airflow_provider_chartmogul.sandbox.counters import Counters
from airflow_provider_chartmogul.sandbox.exports import Export, ExportFile, ExportParameters
from airflow_provider_chartmogul.sandbox.lists import Lists
from airflow_provider_chartmogul.sandbox.recording import RecordedExport, RecordedRequest
from airflow_provider_chartmogul.sandbox.settings import SETTINGS, check_setting, read_time_zone

log = logging.getLogger("airflow_provider_chartmogul.sandbox")

_MAX_RECORDED_REQUESTS = 200_000
_MAX_EXPORTS = 100_000


class Account:
    """A ChartMogul account without the network. `Sandbox` documents the parameters.

    :raises ValueError: for an invalid setting; the message names it.
    """

    def __init__(
        self,
        *,
        api_key: str,
        export_seconds: float,
        customers: int,
        seed: int,
        requests_per_second: int | None,
        max_connections: int | None,
        url_seconds: int,
        fresh_urls: bool,
        outcome: str,
        page_size: int,
        as_of: datetime | None,
        metrics_time_zone: str,
        two_currencies: bool,
    ) -> None:
        if not api_key or ":" in api_key:
            raise ValueError("api_key must not be empty, nor contain a colon, since it is a Basic user name")
        self.export_seconds = export_seconds
        self.requests_per_second = requests_per_second
        self.max_connections = max_connections
        self.url_seconds = url_seconds
        self.fresh_urls = fresh_urls
        self.outcome = outcome
        self.page_size = page_size
        self.as_of = as_of
        self.two_currencies = two_currencies
        for name, value in self.settings.items():
            check_setting(name, value)
        self.api_key = api_key
        self.faults = Faults()
        self.counters = Counters()
        self.company = Company(seed, customers)
        self.lists = Lists(self._books, read_time_zone("metrics_time_zone", metrics_time_zone))
        self.url_secret = secrets.token_hex(20)
        self._account_uuid = uuid.uuid5(uuid.NAMESPACE_URL, f"sandbox/{seed}/{customers}")
        self._lock = threading.Lock()
        self._requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED_REQUESTS)
        self._exports: dict[str, Export] = {}
        self._exports_by_path: dict[str, Export] = {}
        self._admitted: deque[float] = deque()
        self._file_lock = threading.Lock()
        # A file depends on the window and the type alone, and downloads are resumed: a few files are enough.
        self._cached_file = lru_cache(maxsize=8)(self._create_file)

    # For tests and the admin address, from any thread.

    @property
    def settings(self) -> dict[str, Any]:
        """A copy of the settings that can be changed while the sandbox runs."""
        return {name: getattr(self, name) for name in SETTINGS}

    def change_settings(self, settings: Mapping[str, Any]) -> None:
        """Change settings: all that are given, or none if one of them is invalid.

        :raises ValueError: for an invalid value or an unknown name; the message names the setting.
        """
        for name, value in settings.items():
            check_setting(name, value)
        for name, value in settings.items():
            setattr(self, name, value)

    @property
    def requests(self) -> list[RecordedRequest]:
        """A copy of the recorded requests, oldest first: at most the last 200,000."""
        with self._lock:
            return list(self._requests)

    @property
    def exports(self) -> list[RecordedExport]:
        """A copy of the created exports, oldest first: the last 100,000, which are those the API can retrieve."""
        with self._lock:
            exports = list(self._exports.values())
        return [RecordedExport(export.id, export.parameters.echo(), export.created_at) for export in exports]

    def expected_rows(
        self, start: datetime | None, end: datetime, activity_type: str | None = None
    ) -> list[dict[str, str]]:
        """Return the rows that an export of this window contains, as `csv.DictReader` returns them: all values text.

        :param start: the start of the window, inclusive; `None` for the founding of the company. A datetime without a
            time zone is UTC.
        :param end: the end of the window, exclusive. The window of an export without an `end-date` ends at its
            `created_at`.
        :param activity_type: one of the API's types; `None` for all of them.
        :raises ValueError: for an unknown type.
        """
        return [row.as_text() for row in self._activities(start, end, activity_type)]

    def rows(self, resource: str, query_params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return the rows that the API has for a resource at present, in its order.

        Like the API, it leaves out disabled rows and invalid invoices unless the query parameters ask for them. Rows
        that do not say what they belong to have one key more, in front: subscriptions `customer_uuid`, the plans of
        plan groups `plan_group_uuid`.

        :param resource: `account`, `data_sources`, `customers`, `contacts`, `plans`, `plan_groups`, `plan_group_plans`,
            `invoices`, `subscription_events`, `notes`, `customer_notes`, `opportunities`, `tasks`, `subscriptions` or
            `metrics`.
        :param query_params: the request's query parameters, such as `{"with_disabled": "true"}`. `metrics` needs
            `start-date` and `end-date`.
        :raises ValueError: for an unknown resource.
        """
        return self.lists.rows(resource, query_params or {})

    def present(self) -> datetime:
        """Return the moment as of which lists and metrics are: `as_of`, or the last midnight in UTC."""
        if self.as_of is not None:
            return self.as_of
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def amend(self, *, added: Iterable[Mapping[str, object]] = (), removed: Iterable[str] = ()) -> None:
        """Change the company's history, for later downloads, lists, metrics, `expected_rows` and `rows`::

            row = sandbox.expected_rows(start, end)[0]
            sandbox.amend(removed=[row["uuid"]])                                      # delete an activity
            sandbox.amend(added=[{**row, "uuid": "new", "date": "2024-01-02T12:00"}])   # add one in the past

        :param added: rows in the form of `expected_rows`; a date without a time zone is UTC. To edit an activity, pass
            its `uuid` in `removed` as well.
        :param removed: values of `uuid`; unknown ones are ignored.
        :raises ValueError: for an invalid row; nothing is changed then.
        """
        with self._file_lock, self.lists.lock:
            self.company.amend(added=added, removed=removed)
            self._cached_file.cache_clear()

    def export_statuses(self) -> dict[str, int]:
        """Return the number of exports by their current status."""
        with self._lock:
            exports = list(self._exports.values())
        return dict(sorted(Counter(export.status(self.export_seconds) for export in exports).items()))

    # For the servers.

    def record_request(self, request: RecordedRequest) -> None:
        """Record a request, count it and log it, before its response is sent."""
        with self._lock:
            self._requests.append(request)
        self.counters.response_ready(request.host, request.status, faulty=bool(request.fault))
        fault = f" ({request.fault})" if request.fault else ""
        log.info("%s %s %s %d%s", request.host, request.method, request.path, request.status, fault)

    def accepts_credentials(self, user_name: str, password: str) -> bool:
        """Return whether these are the account's credentials: the key as the user name, and an empty password."""
        return hmac.compare_digest(user_name.encode(), self.api_key.encode()) and not password

    def admit_request(self) -> bool:
        """Return whether a request is within the rate limit now. Refused requests do not count towards it."""
        limit = self.requests_per_second
        if limit is None:
            return True
        now = time.monotonic()
        while self._admitted and now - self._admitted[0] >= 1.0:
            self._admitted.popleft()
        if len(self._admitted) >= limit:
            return False
        self._admitted.append(now)
        return True

    def create_export(self, parameters: ExportParameters) -> Export:
        """Create an export, which will end with the present `outcome`."""
        export = Export(
            id=str(uuid.uuid4()),
            path=f"/activities-{self._account_uuid}-{uuid.uuid4()}.zip",
            parameters=parameters,
            outcome=self.outcome,
            # Whole seconds, as in the response: this is the end of the window where the request has none.
            created_at=datetime.now(UTC).replace(microsecond=0),
            created_monotonic=time.monotonic(),
        )
        with self._lock:
            self._exports[export.id] = export
            self._exports_by_path[export.path] = export
            if len(self._exports) > _MAX_EXPORTS:
                oldest = self._exports.pop(next(iter(self._exports)))
                del self._exports_by_path[oldest.path]
        return export

    def export_by_id(self, export_id: str) -> Export | None:
        """Return the export with this ID, or `None`."""
        return self._exports.get(export_id)

    def export_by_path(self, path: str) -> Export | None:
        """Return the export whose file has this path at the download host, or `None`."""
        return self._exports_by_path.get(path)

    def poll_export(self, export: Export) -> str:
        """Return the export's status under the present settings, with its URL signed if it needs one."""
        return export.poll(self.export_seconds, url_seconds=int(self.url_seconds), renew_expired_url=self.fresh_urls)

    def export_file(self, export: Export) -> ExportFile:
        """Return the export's file. This can take seconds: call it from a worker thread."""
        parameters = export.parameters
        # The lock makes concurrent downloads of one file wait for one thread to create it.
        with self._file_lock:
            return self._cached_file(parameters.start, parameters.end or export.created_at, parameters.activity_type)

    def _create_file(self, start: datetime | None, end: datetime, activity_type: str | None) -> ExportFile:
        content = to_zip(self._activities(start, end, activity_type))
        return ExportFile(content, f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"')

    def _books(self) -> Books:
        return self.company.books(self.present(), two_currencies=self.two_currencies)

    def _activities(self, start: datetime | None, end: datetime, activity_type: str | None) -> Iterator[Activity]:
        """Return the activities of a window, without those after `as_of`."""
        if self.as_of is not None:
            end = min(end, self.as_of, key=to_seconds)
        return self.company.activities(start, end, activity_type)
