# SPDX-License-Identifier: Apache-2.0
"""What the sandbox records for tests to inspect: the requests it received and the exports it created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from airflow_provider_chartmogul.sandbox.counters import Host


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that the sandbox received.

    * `host`: the server that received it, `api` or `download`
    * `method`, `path`: as sent, the path without the query
    * `query`: the query parameters of a request to the API; empty for a download, whose query is secret
    * `status`: the response's HTTP status; 0 where a fault reset the connection or the sandbox stopped first
    * `headers`: the request's headers with lower-case names; of `authorization`, only the scheme
    * `started`: `time.monotonic()` when the request's head had been read
    * `fault`: the text form of the faults that hit the request; empty where none did
    """

    host: Host
    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    started: float
    fault: str = ""
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordedExport:
    """An export that was created.

    * `id`: the export's ID
    * `params`: the request's parameters as the API echoes them: `activity_type`, `start_date` and `end_date`,
      without those that the request left out
    * `created_at`: when it was created, in UTC
    """

    id: str
    params: dict[str, str]
    created_at: datetime
