# SPDX-License-Identifier: Apache-2.0
"""
Keep signed URLs to themselves: a signed URL is a credential, and whoever reads it can download the file.

They are not registered with Airflow's masking: ``dag.test()`` at DEBUG logs every value that it is asked to mask.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from airflow_provider_chartmogul.api.redaction import redact_urls
from airflow_provider_chartmogul.exceptions import DownloadError

_QUERY = re.compile(r"\?\S*")

#: urllib3's loggers that log URLs, each by its name: a filter does not apply to the loggers below.
_URL_LOGGERS = tuple(
    f"urllib3.{name}" for name in ("connectionpool", "connection", "response", "poolmanager", "util.retry")
)


class _QueryFilter(logging.Filter):
    """Remove queries from log records: at DEBUG, urllib3 logs the path and query of every request."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_QUERY.sub("?...", arg) if isinstance(arg, str) else arg for arg in record.args)
        record.msg = redact_urls(str(record.msg))
        return True


_QUERY_FILTER = _QueryFilter()


def hide_queries_in_logs() -> None:
    """Keep the queries of URLs out of urllib3's log lines; calling it again has no effect."""
    # A filter, since the level of urllib3's loggers is the user's choice.
    for name in _URL_LOGGERS:
        logging.getLogger(name).addFilter(_QUERY_FILTER)


@contextlib.contextmanager
def without_tracing() -> Iterator[None]:
    """
    Suppress OpenTelemetry's and Sentry's instrumentation of HTTP clients, which records the URLs of requests.

    Sentry's breadcrumbs of this time are lost; log lines and errors are not.
    """
    with contextlib.ExitStack() as stack:
        # Neither is a dependency, and what is not loaded instruments nothing.
        if opentelemetry := sys.modules.get("opentelemetry.instrumentation.utils"):
            stack.enter_context(opentelemetry.suppress_instrumentation())
        if sentry := sys.modules.get("sentry_sdk"):
            stack.enter_context(sentry.isolation_scope())
            # Spans without a transaction are not sent.
            sentry.get_current_scope().span = None
        yield


def check_file_url(url: str, *, plain_http_allowed: bool) -> None:
    """
    Check a URL before anything is sent to it.

    :param plain_http_allowed: whether http may be used, too, as with a sandbox
    :raises DownloadError: for a URL that may not be used
    """
    problem = find_url_problem(url, plain_http_allowed=plain_http_allowed)
    # A traceback that shows local variables must not show it.
    del url
    if problem is not None:
        raise DownloadError(problem)


def find_url_problem(url: str, *, plain_http_allowed: bool, base: str = "") -> str | None:
    """
    Return why a file must not be downloaded from a URL; ``None`` if it may be.

    :param base: what a relative URL is relative to
    """
    try:
        parts = urlsplit(urljoin(base, url))
        _ = parts.port
    except ValueError:
        return "the file URL is malformed; a retry requests it again"
    if parts.scheme in ("https", "http" if plain_http_allowed else "https") and parts.hostname:
        return None
    return (
        f"the file URL has the scheme {parts.scheme!r} (host {parts.hostname!r}), but only https is used for "
        "downloads; http is used, too, if the connection's own host is reached by http"
    )
