# SPDX-License-Identifier: Apache-2.0
"""Decide whether and when a request is sent again; the sync and the async client share this."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    HTTPStatusError,
    NoResponseError,
    RateLimitError,
    RetryLaterError,
)

if TYPE_CHECKING:
    from airflow_provider_chartmogul.api.requests import ApiRequest

_MAX_BACKOFF_SECONDS = 60.0

#: The statuses below 500 that are retried, with their errors. All from 500 on are retried as ``ServerError``.
RETRIED_STATUSES: dict[int, type[HTTPStatusError]] = {
    408: RetryLaterError,
    425: RetryLaterError,
    429: RateLimitError,
}


class Retries:
    """
    The retries of one request.

    :param give_up_at: when to stop retrying, in seconds of a monotonic clock
    """

    def __init__(self, request: ApiRequest[Any], *, give_up_at: float) -> None:
        self._request = request
        self._give_up_at = give_up_at
        self._failures = 0

    def delay_after(self, error: ChartMogulError, now: float) -> float:
        """
        Return the seconds to wait before the next attempt.

        :param now: the current time of the clock of ``give_up_at``
        :raises ChartMogulError: ``error`` itself, if the request must not be sent again or there is no time left
        """
        self._failures += 1
        delay = retry_delay(self._failures, error)
        if not may_retry(self._request, error) or now + delay > self._give_up_at:
            raise error
        return delay


def may_retry(request: ApiRequest[Any], error: ChartMogulError) -> bool:
    """
    Whether the same request may be sent again after this error.

    A POST is repeated only if ChartMogul cannot have acted on it: after 429, and after a failed connect. Two POSTs
    create two exports.
    """
    if not error.transient:
        return False
    if request.is_idempotent:
        return True
    return isinstance(error, RateLimitError) or (isinstance(error, NoResponseError) and not error.sent)


def retry_delay(failures: int, error: ChartMogulError) -> float:
    """
    Return the seconds to wait before the next attempt.

    That is the server's ``Retry-After`` plus up to a second of jitter; without one it is exponential, from one second
    to a minute, of which half is jitter. A ``Retry-After`` of zero, such as a date in the past, is ignored.

    :param failures: number of failures in a row, from 1
    """
    retry_after = getattr(error, "retry_after", None)
    if retry_after:
        return float(retry_after) + random.uniform(0.0, 1.0)
    ceiling = min(_MAX_BACKOFF_SECONDS, 2.0 ** min(failures - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)
