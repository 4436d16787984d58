# SPDX-License-Identifier: Apache-2.0
"""
A presigned URL to a local file: in constant memory, resumed after a break, checked.

The URL is a credential. It is in no log line (urllib3's own included), no exception and no ``repr``; the API key
does not go with it, which S3 would refuse. This module loads requests, so only functions import it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

import requests
import urllib3.exceptions
from airflow.providers.common.compat.sdk import mask_secret

from airflow_provider_chartmogul.api.redaction import MESSAGE_LIMIT, redact_urls
from airflow_provider_chartmogul.api.retries import retry_delay
from airflow_provider_chartmogul.client.guarded_session import GuardedSession, describe_error
from airflow_provider_chartmogul.exceptions import (
    DownloadError,
    DownloadRefusedError,
)
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog

_CHUNK = 1 << 18
_QUERY = re.compile(r"\?\S*")
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')

#: So many breaks in a row that brought no byte end the download.
MAX_BREAKS = 5

#: At most a line of progress in so many seconds.
PROGRESS_SECONDS = 10.0


class _BreakError(Exception):
    """The download stopped in the middle; ``str`` says how, without a URL."""


@dataclass(frozen=True)
class Downloaded:
    """A file that is whole: its size in bytes and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


class _NoQueriesFilter(logging.Filter):
    """Take the queries out of log records: urllib3 logs path and query of every request at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_QUERY.sub("?...", arg) if isinstance(arg, str) else arg for arg in record.args)
        record.msg = redact_urls(str(record.msg))
        return True


_NO_QUERIES = _NoQueriesFilter()

#: Filters hold for one logger each, not for those below it.
_URL_LOGGERS = tuple(
    f"urllib3.{name}" for name in ("connectionpool", "connection", "response", "poolmanager", "util.retry")
)


def hide_signed_urls(url: str) -> None:
    """Keep a presigned URL out of the logs of this process: urllib3's lines, and Airflow's masking."""
    # A filter, not a level: what users want to see of urllib3 is theirs to say. Adding it again does nothing.
    for name in _URL_LOGGERS:
        logging.getLogger(name).addFilter(_NO_QUERIES)
    parts = urlsplit(url)
    if parts.query:
        mask_secret(f"{parts.path}?{parts.query}")
        for name, values in parse_qs(parts.query).items():
            if "signature" in name.lower() or "token" in name.lower() or "credential" in name.lower():
                for value in values:
                    mask_secret(value)


def check_file_url(url: str, *, plain_http_allowed: bool) -> None:
    """
    Check where a file URL leads before anything is sent there.

    :param plain_http_allowed: whether the connection's own host is plain http, as a sandbox is
    :raises DownloadError: for another scheme than https, or no host
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise DownloadError("the export's file URL is malformed; a retry asks ChartMogul for it again") from None
    allowed = ("https", "http") if plain_http_allowed else ("https",)
    if parts.scheme not in allowed or not parts.hostname:
        raise DownloadError(
            f"the export's file URL has the scheme {parts.scheme!r} (host {parts.hostname!r}), and only https "
            "is downloaded from; plain http only where the connection's host is plain http itself"
        )


class _Source:
    """Where the file comes from; its URL is in no ``repr``, and so in no traceback that shows variables."""

    def __init__(self, get_url: Callable[[], str], *, plain_http_allowed: bool) -> None:
        self._get_url = get_url
        self._plain_http_allowed = plain_http_allowed
        self.url = ""
        self.renew()

    def renew(self) -> None:
        """Get a URL, or a fresh one, and see to it that it leads where it may and stays out of the logs."""
        self.url = self._get_url()
        check_file_url(self.url, plain_http_allowed=self._plain_http_allowed)
        hide_signed_urls(self.url)


class _Target:
    """The local file as it grows, and what has been seen of it."""

    def __init__(self, file: IO[bytes], on_size: Callable[[int], None]) -> None:
        self._file = file
        self._on_size = on_size
        self.etag: str | None = None
        self.total: int | None = None
        self.etag_is_md5 = False
        self.start_over()

    def start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self.etag_is_md5:
            self._md5.update(chunk)

    def describe(self, response: requests.Response) -> None:
        """Remember what the server says of the file when it starts to send all of it."""
        headers = response.headers
        self.etag = headers.get("ETag")
        length = headers.get("Content-Length", "")
        self.total = int(length) if length.isdecimal() else None
        if self.total is not None:
            self._on_size(self.total)
        # With KMS or a customer's key, S3's ETag looks like an MD5 and is none.
        encrypted = "kms" in headers.get("x-amz-server-side-encryption", "") or (
            "x-amz-server-side-encryption-customer-algorithm" in headers
        )
        self.etag_is_md5 = bool(self.etag and _MD5_ETAG.fullmatch(self.etag)) and not encrypted

    @property
    def has_its_checksum(self) -> bool:
        """Whether what came has the checksum the server gave; True also where it gave none."""
        return not self.etag_is_md5 or self.etag == f'"{self._md5.hexdigest()}"'

    def finish(self) -> Downloaded:
        self._file.flush()
        if not self.has_its_checksum:
            raise DownloadError(
                f"the {self.size} bytes that were downloaded do not have the checksum the server gave for "
                "them; a retry of the task downloads them again"
            )
        return Downloaded(self.size, self._sha256.hexdigest())


class _Progress:
    """A line in the task's log now and then; and the place where a task that was told to end does so."""

    def __init__(self, log: TaskLog, cancellation: Cancellation) -> None:
        self._log = log
        self._cancellation = cancellation
        self._started = self._last = time.monotonic()

    def made(self, target: _Target) -> None:
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
) -> Downloaded:
    """
    Download a presigned URL to a local file.

    After a break it goes on where it stopped (``Range`` and ``If-Match``); it starts over where the server
    ignores ranges or the file has changed. The URL is signed for GET, so no HEAD is sent.

    :param get_url: gives the URL; called again, for a fresh one, when that is refused (403)
    :param path: the local file, made or overwritten
    :param timeout: seconds to wait for a connection, and for bytes; no byte for so long is a break
    :param plain_http_allowed: see ``check_file_url``
    :param cancellation: ends the download when the task is told to end
    :param on_size: is told the size in bytes before any of it is written, where the server says it
    :raises DownloadRefusedError: when the fresh URL is refused too, before it brought a byte
    :raises DownloadError: when it cannot be had, whole and with the checksum the server gave
    """
    cancellation = cancellation or Cancellation()
    source = _Source(get_url, plain_http_allowed=plain_http_allowed)
    progress = _Progress(log, cancellation)
    breaks = furthest = 0
    renewed = False
    # Around the file's closing too, which fails again when its last bytes could not be written.
    with _write_errors(path.parent), GuardedSession(source.url, None, timeout) as session, path.open("wb") as file:
        target = _Target(file, on_size)
        while True:
            cancellation.check()
            try:
                refusal = _receive(session, source, target, progress)
                if refusal is None:
                    return target.finish()
            except _BreakError as error:
                problem = str(error)
            else:
                if renewed:
                    raise DownloadRefusedError(
                        f"the storage refuses the export's file URL, and a fresh one too: {refusal}; the export has "
                        "expired"
                    )
                log.info("The storage refuses the export's file URL (%s); asking for a fresh one", refusal)
                renewed = True
                source.renew()
                continue
            # Progress is what no try has had before: a file that is started over again and again makes none.
            if target.size > furthest:
                furthest, breaks, renewed = target.size, 0, False
            breaks += 1
            if breaks >= MAX_BREAKS:
                raise DownloadError(f"the download broke {breaks} times in a row at byte {target.size}: {problem}")
            delay = retry_delay(breaks, DownloadError())
            log.warning("The download broke at byte %d (%s), going on in %.0f s", target.size, problem, delay)
            time.sleep(delay)


@contextlib.contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Say which folder it is that cannot be written to."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"could not write to {folder}: {error.strerror or error}; download_dir names another folder"
        ) from error


def _receive(session: requests.Session, source: _Source, target: _Target, progress: _Progress) -> str | None:
    """
    Send one request and take all it brings.

    Gives None when the file is whole, or what the storage said when it refused the URL.

    :raises _BreakError: when it stopped before the end
    :raises DownloadError: for an answer that asking again will not change
    """
    headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
    if target.size:
        headers["Range"] = f"bytes={target.size}-"
        if target.etag and not target.etag.startswith("W/"):
            headers["If-Match"] = target.etag
    ends_anywhere = came = False
    try:
        with session.get(source.url, headers=headers, stream=True) as response:
            refusal = _check_status(response, target)
            if refusal is not None:
                return refusal
            ends_anywhere = target.total is None and not response.raw.chunked
            # read1, which gives what has come: a chunk that is waited for is lost when the connection breaks.
            while chunk := response.raw.read1(_CHUNK, decode_content=False):
                came = True
                target.append(chunk)
                progress.made(target)
        problem = None
        if target.total is not None and target.size != target.total:
            problem = f"{target.size} of {target.total} bytes came"
        elif ends_anywhere and not (came and target.has_its_checksum):
            # Such is also an answer that breaks within its headers: http.client takes what there is for all of them.
            problem = "the connection ended, and nothing had said where the file does"
    except requests.RequestException as error:
        problem = describe_error(error)
    except urllib3.exceptions.ReadTimeoutError:
        problem = "no bytes within the timeout"
    except urllib3.exceptions.HTTPError as error:
        problem = f"the connection broke ({type(error).__name__})"
    # Raised out here, so that no error that quotes the request is chained to it.
    if problem is not None:
        raise _BreakError(problem)
    return None


def _check_status(response: requests.Response, target: _Target) -> str | None:
    """Make the target ready for what comes; give the storage's words when it refuses the URL."""
    status = response.status_code
    if status == 200:
        target.describe(response)
        target.start_over()
        return None
    if status == 206 and target.size:
        sent_range = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if sent_range and int(sent_range[1]) == target.size and response.headers.get("ETag") == target.etag:
            total = None if sent_range[3] == "*" else int(sent_range[3])
            # Another size is another file, or a header that was cut short in the middle of the number.
            if total is None or total == target.total or (target.total is None and int(sent_range[2]) < total):
                target.total = target.total if total is None else total
                return None
        target.start_over()
        raise _BreakError("the server sent another part than was asked for, starting over")
    said = _storage_message(response)
    if status in (412, 416) and target.size:
        target.start_over()
        raise _BreakError(f"the file has changed at the server ({said}), starting over")
    if status == 403:
        return said
    if status == 429 or status >= 500:
        raise _BreakError(f"the storage answered {said}")
    raise DownloadError(
        f"the storage would not give the export's file: it answered {said}. A retry tries again; should it be the same "
        "then, clear the task that creates the export and those after it."
    )


def _storage_message(response: requests.Response) -> str:
    """Status, code and message of an S3 error; nothing else of its XML, which quotes what was signed."""
    body = response.raw.read(65536, decode_content=True).decode("utf-8", "replace")
    words = [found[1].strip() for tag in ("Code", "Message") if (found := re.search(rf"<{tag}>(.*?)</{tag}>", body))]
    said = f"{response.status_code} {': '.join(words)}".strip()
    for values in parse_qs(urlsplit(response.url).query).values():
        for value in values:
            said = said.replace(value, "...") if len(value) > 5 else said
    return redact_urls(said)[:MESSAGE_LIMIT]
