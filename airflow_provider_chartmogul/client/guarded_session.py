# SPDX-License-Identifier: Apache-2.0
"""A ``requests.Session`` that keeps the API key to its own host. Loads requests, so import it in functions only."""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, MaxRetryError, NewConnectionError
from urllib3.exceptions import SSLError as Urllib3SSLError

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.api.requests import authorization_header
from airflow_provider_chartmogul.api.responses import proxy_refusal
from airflow_provider_chartmogul.client.environment import describe_tls_error
from airflow_provider_chartmogul.exceptions import ConnectionSettingsError, ForeignRedirectError

USER_AGENT = f"airflow-provider-chartmogul/{__version__}"

#: urllib3 raises these if there was no connection, so that the server has not seen the request.
_CONNECT_ERRORS = (NewConnectionError, ConnectTimeoutError, LocationParseError)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default_port


class GuardedSession(requests.Session):
    """
    A session that sends the API key to its own host only.

    It authenticates requests to the scheme, host and port of ``base_url`` and no others, refuses redirects to another
    host, does not read ``.netrc``, and sets a timeout on every request. The environment's proxies and CA bundles
    apply as usual.

    :param base_url: the host that the key belongs to
    :param api_key: the key; ``None`` authenticates no request
    :param timeout: seconds to wait for a connection and for each read, unless a request sets its own
    """

    def __init__(self, base_url: str, api_key: str | None, timeout: float) -> None:
        super().__init__()
        self._home = _origin(base_url)
        self._authorization = authorization_header(api_key) if api_key else None
        self._timeout = timeout
        self.headers["User-Agent"] = USER_AGENT
        # A session with its own 'auth' does not read .netrc.
        self.auth = self._authenticate

    def _authenticate(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._authorization and _origin(request.url or "") == self._home:
            request.headers["Authorization"] = self._authorization
        return request

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Authenticate a redirected request; requests itself would read ``.netrc`` here."""
        self._authenticate(prepared_request)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        if target is None:
            return None
        # The message has host names only, because either URL may be signed.
        host = urlsplit(resp.url).hostname
        try:
            location = urljoin(resp.url, target)
            is_foreign = _origin(location) != _origin(resp.url)
        except ValueError:
            raise ForeignRedirectError(f"the server at {host} redirected to a malformed address") from None
        if is_foreign:
            raise ForeignRedirectError(
                f"the server at {host} redirected to another host, {urlsplit(location).hostname}, which is not "
                "followed; check the connection's host"
            )
        return target

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._timeout
        try:
            return super().send(request, **kwargs)
        except requests.RequestException:
            raise
        except OSError as error:
            # requests raises a plain OSError if the CA bundle does not exist, which looks like a full disk to callers.
            raise ConnectionSettingsError(f"the CA bundle of the environment cannot be read: {error}") from None


def was_sent(error: requests.RequestException) -> bool:
    """Return whether the server may have seen the request; ``False`` means that it certainly has not."""
    # requests raises ProxyError only if the proxy could not be reached, or refused to connect.
    if isinstance(error, (requests.ConnectTimeout, requests.exceptions.ProxyError)):
        return False
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    if isinstance(reason, Urllib3SSLError):
        # A certificate is rejected during the handshake; other TLS errors can occur while the response is read.
        return not (reason.args and isinstance(reason.args[0], ssl.SSLCertVerificationError))
    return not isinstance(reason, _CONNECT_ERRORS)


def describe_error(error: requests.RequestException) -> str:
    """
    Describe a transport error without its URL.

    The messages of requests and urllib3 quote the path and query of the request, which may be signed.
    """
    if isinstance(error, requests.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, requests.ConnectTimeout):
        return "the connection timed out"
    if isinstance(error, requests.Timeout):
        return "the response timed out"
    cause = error.args[0] if error.args else error
    reason: Any = cause.reason if isinstance(cause, MaxRetryError) else cause
    if isinstance(error, requests.exceptions.SSLError):
        # The innermost error has OpenSSL's message, such as 'certificate verify failed'.
        return describe_tls_error(reason)
    if isinstance(reason, NewConnectionError):
        return "the connection failed: " + str(reason).rpartition(": ")[2]
    if isinstance(error, requests.exceptions.ProxyError):
        original = getattr(reason, "original_error", reason)
        refusal = re.match(r"Tunnel connection failed: (\d{3})\b", str(original))
        if refusal:
            return proxy_refusal(int(refusal[1]))
        return "the connection to the proxy failed: " + str(original).rpartition(": ")[2]
    # The error may have a text of requests itself, which may hold the URL.
    return f"the connection broke ({type(error if isinstance(reason, str) else reason).__name__})"
