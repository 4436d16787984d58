# SPDX-License-Identifier: Apache-2.0
"""
Download a signed URL to a local file, in constant memory; resume after an interruption.

The URL is a credential: no log line, exception or ``repr`` contains it. The API key is not sent along, since S3 would
refuse the request. This module imports requests, so it is imported inside functions only.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from airflow_provider_chartmogul.api.retries import retry_delay
from airflow_provider_chartmogul.client.guarded_session import GuardedSession, describe_error
from airflow_provider_chartmogul.exceptions import DownloadError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.refusals import Refusal, read_error, refusal_reason
from airflow_provider_chartmogul.storage.signed_urls import (
    check_file_url,
    find_url_problem,
    hide_queries_in_logs,
    without_tracing,
)

_CHUNK = 1 << 18
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')

#: This many interruptions in a row without a new byte end the download.
MAX_INTERRUPTIONS = 5

#: Shortest time between two log lines about progress.
PROGRESS_SECONDS = 10.0


class _InterruptedError(Exception):
    """The download was interrupted; the message says how, without a URL."""


class _Session(GuardedSession):
    """
    A session without a key. It follows redirects to other hosts, since no key can leak.

    :ivar redirect_problem: why a redirect was not followed. Not raised, since the frames of requests hold the URL.
    """

    def __init__(self, timeout: float, *, plain_http_allowed: bool) -> None:
        super().__init__("", None, timeout)
        self.redirect_problem: str | None = None
        self._plain_http_allowed = plain_http_allowed

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = requests.Session.get_redirect_target(self, resp)
        if target is None:
            return None
        self.redirect_problem = find_url_problem(target, plain_http_allowed=self._plain_http_allowed, base=resp.url)
        return None if self.redirect_problem else target


class _Source:
    """Where the file comes from: an object, so that a traceback that shows local variables does not show the URL."""

    def __init__(self, get_url: Callable[[], str], *, plain_http_allowed: bool) -> None:
        self._get_url = get_url
        self._plain_http_allowed = plain_http_allowed
        self.renew()

    def renew(self) -> None:
        self.url = self._get_url()
        check_file_url(self.url, plain_http_allowed=self._plain_http_allowed)


class _Target:
    """The local file while it grows, and the server's headers about it."""

    def __init__(self, file: IO[bytes], on_size: Callable[[int], None], on_start_over: Callable[[], None]) -> None:
        self._file = file
        self._on_size = on_size
        self._on_start_over = on_start_over
        self.etag: str | None = None
        self.encoding: str | None = None
        self.total: int | None = None
        self._etag_is_md5 = False
        self.size = 0
        self.start_over()

    def start_over(self) -> None:
        if self.size:
            self._on_start_over()
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self.size += len(chunk)
        if self._etag_is_md5:
            self._md5.update(chunk)

    def read_headers(self, response: requests.Response) -> None:
        """Take over what the server says about the file when it starts to send all of it."""
        headers = response.headers
        self.etag = headers.get("ETag")
        self.encoding = headers.get("Content-Encoding")
        length = headers.get("Content-Length", "")
        self.total = int(length) if length.isdecimal() else None
        if self.total is not None:
            self._on_size(self.total)
        # With KMS or a customer's key, S3's ETag looks like an MD5 but is not one.
        is_encrypted = "kms" in headers.get("x-amz-server-side-encryption", "") or (
            "x-amz-server-side-encryption-customer-algorithm" in headers
        )
        self._etag_is_md5 = bool(self.etag and _MD5_ETAG.fullmatch(self.etag)) and not is_encrypted

    @property
    def matches_etag(self) -> bool:
        """Whether the MD5 is that of the ETag; ``True`` if the ETag is not an MD5."""
        return not self._etag_is_md5 or self.etag == f'"{self._md5.hexdigest()}"'

    def finish(self, log: TaskLog) -> None:
        self._file.flush()
        if not self.matches_etag:
            # Some stores have ETags that look like an MD5 but are not; the archive has checksums of its own.
            log.warning(
                "The %d bytes that were downloaded do not have the MD5 that the ETag %s seems to be; the checksums in "
                "the archive decide",
                self.size,
                self.etag,
            )


class _Progress:
    """Log the progress from time to time, and stop if the task is cancelled."""

    def __init__(self, log: TaskLog, cancellation: Cancellation) -> None:
        self._log = log
        self._cancellation = cancellation
        self._started = self._last = time.monotonic()

    def update(self, target: _Target) -> None:
        self._cancellation.check()
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        percent = f" ({100 * target.size / target.total:.0f} %)" if target.total else ""
        rate = target.size / (now - self._started) / 1e6
        self._log.info("Downloaded %.1f MB%s, %.1f MB/s", target.size / 1e6, percent, rate)


def download(
    get_url: Callable[[], str],
    path: Path,
    *,
    timeout: float,
    plain_http_allowed: bool,
    log: TaskLog,
    cancellation: Cancellation | None = None,
    on_size: Callable[[int], None] = lambda size: None,
    on_start_over: Callable[[], None] = lambda: None,
) -> int:
    """
    Download a signed URL to a local file.

    After an interruption the download is resumed (``Range`` and ``If-Match``); it starts over if the server ignores
    ranges or the file has changed. No HEAD is sent, since the URL is signed for GET.

    :param get_url: returns the URL; called once more for a fresh one if the storage refuses the first
    :param path: the local file, created or overwritten
    :param timeout: seconds to wait for a connection, and for the next bytes
    :param plain_http_allowed: whether the file may be downloaded by http, as from a sandbox
    :param cancellation: stops the download when the task is cancelled
    :param on_size: called with the size in bytes before the file is written, if the server says it
    :param on_start_over: called before bytes in the file are replaced, so that a concurrent reader can discard them
    :return: size of the file in bytes
    :raises DownloadRefusedError: if the storage refuses the fresh URL, too
    :raises DownloadError: if the file cannot be downloaded completely
    :raises TaskCancelledError: if the task is cancelled
    """
    cancellation = cancellation or Cancellation()
    source = _Source(get_url, plain_http_allowed=plain_http_allowed)
    progress = _Progress(log, cancellation)
    interruptions = furthest = 0
    is_fresh = False
    hide_queries_in_logs()
    # Closing the file is inside, since it fails again if the last bytes could not be written.
    with (
        _explain_write_errors(path.parent),
        without_tracing(),
        _Session(timeout, plain_http_allowed=plain_http_allowed) as session,
        path.open("wb") as file,
    ):
        target = _Target(file, on_size, on_start_over)
        while True:
            cancellation.check()
            try:
                refusal = _receive(session, source, target, progress)
                if refusal is None:
                    break
            except _InterruptedError as error:
                problem = str(error)
            else:
                if is_fresh:
                    raise refusal.as_error(urlsplit(source.url).hostname)
                log.info("The storage refuses the file URL (%s); requesting a fresh one", refusal.message)
                source.renew()
                is_fresh = True
                continue
            # Only bytes that no attempt had before count as progress: a file that is started over again and again
            # has none.
            if target.size > furthest:
                furthest, interruptions, is_fresh = target.size, 0, False
            interruptions += 1
            if interruptions >= MAX_INTERRUPTIONS:
                raise DownloadError(
                    f"the download was interrupted {interruptions} times in a row at byte {target.size}: {problem}"
                )
            delay = retry_delay(interruptions, DownloadError())
            log.warning("Download interrupted at byte %d (%s); resuming in %.0f s", target.size, problem, delay)
            time.sleep(delay)
        target.finish(log)
        if _is_gzip(path, target.encoding):
            on_start_over()
            _decode_gzip(path)
        return path.stat().st_size


@contextlib.contextmanager
def _explain_write_errors(folder: Path) -> Iterator[None]:
    """Name the folder that cannot be written to."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"could not write to {folder}: {error.strerror or error}; set download_dir to another folder"
        ) from error


def _receive(session: _Session, source: _Source, target: _Target, progress: _Progress) -> Refusal | None:
    """
    Send one request and write the body of the response.

    :return: ``None`` if the file is complete, or why the storage refuses the URL
    :raises _InterruptedError: if it ended too early
    :raises DownloadError: for a response that a retry within this task will not change
    """
    headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
    if target.size:
        headers["Range"] = f"bytes={target.size}-"
        if target.etag and not target.etag.startswith("W/"):
            headers["If-Match"] = target.etag
    has_no_end = is_empty = True
    try:
        with session.get(source.url, headers=headers, stream=True) as response:
            if session.redirect_problem:
                raise DownloadError(f"the storage redirects, and {session.redirect_problem}")
            refusal = _check_status(response, target)
            if refusal is not None:
                return refusal
            has_no_end = target.total is None and not response.raw.chunked
            # read1 returns what has arrived. A chunk that is waited for is lost when the connection breaks.
            while chunk := response.raw.read1(_CHUNK, decode_content=False):
                is_empty = False
                target.append(chunk)
                progress.update(target)
        problem = None
        if target.total is not None and target.size != target.total:
            problem = f"{target.size} of {target.total} bytes arrived"
        elif has_no_end and (is_empty or not target.matches_etag):
            # A response that breaks within its headers looks like this, too: http.client ignores the missing rest.
            problem = "the connection ended, and the server did not send the length of the file"
    except requests.RequestException as error:
        problem = describe_error(error)
    except urllib3.exceptions.ReadTimeoutError:
        problem = "no bytes arrived within the timeout"
    except urllib3.exceptions.HTTPError as error:
        problem = f"the connection broke ({type(error).__name__})"
    # Raised out here, so that an error that quotes the request is not chained to it.
    if problem is not None:
        raise _InterruptedError(problem)
    return None


def _check_status(response: requests.Response, target: _Target) -> Refusal | None:
    """Prepare the target for the body, or return why the storage refuses the URL."""
    status = response.status_code
    if status == 200:
        target.read_headers(response)
        target.start_over()
        return None
    if status == 206 and target.size:
        if _continues(response, target):
            return None
        target.start_over()
        raise _InterruptedError("the server sent another part than was requested; starting over")
    code, message = read_error(response)
    if status in (412, 416) and target.size:
        target.start_over()
        raise _InterruptedError(f"the file on the server has changed ({message}); starting over")
    if status in (408, 425, 429) or status >= 500:
        raise _InterruptedError(f"the storage responded {message}")
    if (reason := refusal_reason(status, code, message)) is not None:
        return Refusal(reason, message)
    raise DownloadError(
        f"the storage did not send the file, it responded {message}. A retry of the task tries again; if the result is "
        "the same, clear the task that creates the export and those after it."
    )


def _continues(response: requests.Response, target: _Target) -> bool:
    """Whether a partial response goes on where the target ends, in the same file."""
    part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if part is None or int(part[1]) != target.size:
        return False
    if (response.headers.get("ETag"), response.headers.get("Content-Encoding")) != (target.etag, target.encoding):
        return False
    total = None if part[3] == "*" else int(part[3])
    # Another total is another file, or a header that ended in the middle of the number.
    if total is None or total == target.total or (target.total is None and int(part[2]) < total):
        target.total = target.total if total is None else total
        return True
    return False


def _is_gzip(path: Path, encoding: str | None) -> bool:
    """Whether a body that was announced as gzip is gzip: some objects have the header, but a plain body."""
    with path.open("rb") as file:
        return encoding in ("gzip", "x-gzip") and file.read(2) == b"\x1f\x8b"


def _decode_gzip(path: Path) -> None:
    """Decompress a file in place."""
    decoded = path.with_name(f"{path.name}.decoded")
    try:
        with gzip.open(path) as source, decoded.open("wb") as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DownloadError(
            f"the server sent Content-Encoding: gzip, but the body is not sound gzip: {error}"
        ) from error
    decoded.replace(path)
