# SPDX-License-Identifier: Apache-2.0
"""Check what an API key may read, and return a report without names, keys or UUIDs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.api.resources import RESOURCES, Resource
from airflow_provider_chartmogul.check.findings import find_answers
from airflow_provider_chartmogul.check.samples import Reader, Sample, read_samples, walk_requests
from airflow_provider_chartmogul.client.sync_client import SyncClient
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitError,
    RequestFailedError,
    ServerError,
)
from airflow_provider_chartmogul.runtime.task_log import TaskLog

#: The account's settings that the report includes. Its name and ID are left out.
_ACCOUNT_SETTINGS = (
    "time_zone",
    "currency",
    "week_start_on",
    "churn_recognition",
    "churn_when_zero_mrr",
    "auto_churn_subscription",
    "refund_handling",
    "proximate_movement_reclassification",
)

_REASONS = {
    AuthenticationError: "the key is refused for this resource",
    RequestFailedError: "the request failed; the account's plan may not include this",
    PermissionDeniedError: "the key may not read this, or the account's plan does not include it",
    NotFoundError: "the account does not have this endpoint",
    RateLimitError: "the rate limit was exceeded repeatedly; check again when fewer tasks use this account",
    ServerError: "ChartMogul responded with a server error repeatedly",
    PaginationError: "the response is not a page of this resource",
}


def check_account(
    client: SyncClient, *, requests_per_second: float, now: datetime, log: TaskLog
) -> tuple[dict[str, Any], list[str]]:
    """
    Read the first page of each resource, and try to answer the questions that ChartMogul's documentation leaves open.

    :param requests_per_second: the client's rate limit, from which the duration of each walk is computed
    :param now: the current time
    :param log: receives errors in the server's own words
    :return: the report, in which ChartMogul's texts may still contain identities, and the identities to remove
    """
    reader = Reader(client, log)
    samples = read_samples(reader, now.date())
    account_sample = samples["account"]
    account = account_sample.rows[0] if account_sample and account_sample.rows else None
    findings = find_answers(reader, samples, account or {})
    report = {
        "version": __version__,
        "checked_at": now.strftime("%Y-%m-%dT%H:%MZ"),
        "official_host": False,
        # Includes the ping that the caller has sent.
        "requests": reader.requests + 1,
        "account": {name: account.get(name) for name in _ACCOUNT_SETTINGS} if account else None,
        "resources": {name: _describe(resource, samples, requests_per_second) for name, resource in RESOURCES.items()},
        "findings": findings,
    }
    identities = [str((account or {}).get(key) or "") for key in ("name", "id")]
    return report, identities


def _describe(resource: Resource, samples: dict[str, Sample | None], requests_per_second: float) -> dict[str, Any]:
    sample = samples[resource.name]
    if sample is None:
        return {"readable": None, "reason": f"needs a row of {resource.parent}, but none could be read"}
    if sample.error is not None:
        reasons = [reason for error, reason in _REASONS.items() if isinstance(sample.error, error)]
        reason = reasons[0] if reasons else "no usable response"
        return {"readable": False, "problem": sample.problem, "reason": reason}
    requests, is_minimum = walk_requests(resource, samples) or (1, True)
    return {
        "readable": True,
        "rows": len(sample.rows),
        "requests": requests,
        "requests_is_minimum": is_minimum,
        "seconds": requests / requests_per_second,
    }
