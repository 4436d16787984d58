# SPDX-License-Identifier: Apache-2.0
"""Decide whether and when a request is sent again."""

from __future__ import annotations

import random

from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.exceptions import ChartMogulError, NoResponseError, RateLimitError

_MAX_BACKOFF_SECONDS = 60.0


def may_repeat(request: ApiRequest, error: ChartMogulError) -> bool:
    """
    Whether the same request may be sent again after this error.

    A POST is repeated only where it cannot have been acted on: after 429, and after a connection that could
    not be made. Two POSTs make two exports.
    """
    if not error.transient:
        return False
    if request.repeatable:
        return True
    return isinstance(error, RateLimitError) or (isinstance(error, NoResponseError) and not error.sent)


def retry_delay(failures: int, error: ChartMogulError) -> float:
    """
    Seconds to wait after so many failures in a row (from 1).

    What the server asked for in ``Retry-After``, and a little more so that not all come back at once; else
    exponential from one second to a minute, with jitter (half of it fixed, half of it drawn). An asked-for time that
    is over already, as a date is where the clocks differ, says nothing of how long.
    """
    asked = getattr(error, "retry_after", None)
    if asked:
        return float(asked) + random.uniform(0.0, 1.0)
    ceiling = min(_MAX_BACKOFF_SECONDS, 2.0 ** min(failures - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)
