# SPDX-License-Identifier: Apache-2.0
"""Read why a storage does not serve a signed URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from airflow_provider_chartmogul.api.redaction import MESSAGE_LIMIT, redact_urls
from airflow_provider_chartmogul.exceptions import DownloadRefusedError, RefusalReason

if TYPE_CHECKING:
    import requests

#: Codes of S3 and Google Cloud Storage for a signature, or a signer's temporary key, whose time is over.
_EXPIRED_CODES = ("ExpiredToken", "TokenRefreshRequired")


@dataclass(frozen=True)
class Refusal:
    """
    A response that refuses a URL.

    :param message: status, code and message of the storage, without anything that is signed
    """

    reason: RefusalReason
    message: str

    def as_error(self, host: str | None) -> DownloadRefusedError:
        """Return the error for a host that refuses a fresh URL, too."""
        what = f"{host} refuses the file URL, and a fresh one too: {self.message}"
        if self.reason is RefusalReason.MISSING:
            what = f"{host} has no file at the file URL: {self.message}"
        elif self.reason is RefusalReason.FORBIDDEN:
            what += (
                f". Unless the URL has expired, something between this worker and {host} denies the request: a "
                "firewall, a proxy, or an endpoint or bucket policy"
            )
        return DownloadRefusedError(what, self.reason)


def refusal_reason(status: int, code: str, message: str) -> RefusalReason | None:
    """Return why a storage refuses a URL; ``None`` for another error."""
    if status in (404, 410):
        return RefusalReason.MISSING
    if code in _EXPIRED_CODES or (status == 403 and "expired" in message.lower()):
        return RefusalReason.EXPIRED
    return RefusalReason.FORBIDDEN if status in (401, 403) else None


def read_error(response: requests.Response) -> tuple[str, str]:
    """Return the code of an error, and a message with status, code and the storage's own message."""
    from urllib3.exceptions import DecodeError

    try:
        body = response.raw.read(65536, decode_content=True).decode("utf-8", "replace")
    except DecodeError:
        body = ""
    # Only these two elements of the XML: others quote what was signed.
    matches = (re.search(rf"<{tag}>(.*?)</{tag}>", body) for tag in ("Code", "Message"))
    code, text = (match[1].strip() if match else "" for match in matches)
    message = f"{response.status_code} {': '.join(filter(None, (code, text)))}".strip()
    for received in (*response.history, response):
        for values in parse_qs(urlsplit(received.url).query).values():
            for value in values:
                message = message.replace(value, "...") if len(value) > 5 else message
    return code, redact_urls(message)[:MESSAGE_LIMIT]
