# SPDX-License-Identifier: Apache-2.0
"""
The transport of a worker: a ``requests.Session`` that guards the API key, and one request sent by it.

It knows nothing of exports; what an answer means is ``airflow_provider_chartmogul.api``'s business. This module
loads requests, so only functions import it.
"""

from __future__ import annotations

import ssl
import time
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationParseError, MaxRetryError, NewConnectionError
from urllib3.exceptions import SSLError as Urllib3SSLError

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.api.requests import ApiRequest, authorization_header
from airflow_provider_chartmogul.api.responses import MAX_RESPONSE_BYTES
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.exceptions import ConnectionSettingsError, NoResponseError, UnexpectedResponseError

USER_AGENT = f"airflow-provider-chartmogul/{__version__}"

#: What urllib3 says when the connection was never made, so that the server saw nothing of the request.
_NEVER_SENT = (NewConnectionError, ConnectTimeoutError, LocationParseError)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default_port


class ForeignRedirectError(requests.exceptions.InvalidURL):
    """A redirect led to another host (or from https to http), and was not followed."""


class _CertificatesError(requests.exceptions.SSLError):
    """The certificates that the environment says are to be trusted cannot be read."""


class GuardedSession(requests.Session):
    """
    A session that keeps a key to its own host, and to no other.

    It authenticates requests to the host (scheme and port included) of ``base_url`` and no others, follows no
    redirect away from it, reads no ``.netrc``, and puts a timeout on every request. Proxies and certificate
    bundles of the environment are used as requests does.

    :param base_url: where the key belongs
    :param api_key: the key; None for a session that authenticates nowhere
    :param timeout: seconds to wait for a connection and for each answer, where a request says nothing else
    """

    def __init__(self, base_url: str, api_key: str | None, timeout: float) -> None:
        super().__init__()
        self._home = _origin(base_url)
        self._authorization = authorization_header(api_key) if api_key else None
        self._timeout = timeout
        self.headers["User-Agent"] = USER_AGENT
        # A session with an 'auth' of its own never looks into .netrc.
        self.auth = self._authenticate

    def _authenticate(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._authorization and _origin(request.url or "") == self._home:
            request.headers["Authorization"] = self._authorization
        return request

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Authenticate a redirected request anew (requests itself would look into ``.netrc`` here)."""
        self._authenticate(prepared_request)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        if target is None:
            return None
        # Neither URL is shown: either may be signed.
        here = urlsplit(resp.url).hostname
        try:
            there = urljoin(resp.url, target)
            foreign = _origin(there) != _origin(resp.url)
        except ValueError:
            raise ForeignRedirectError(f"the server at {here} redirected to an address that is none") from None
        if foreign:
            raise ForeignRedirectError(
                f"the server at {here} redirected to another host, {urlsplit(there).hostname}, which is not followed"
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
            # Bare, and so like an error of a file that is being written: a bundle of certificates that is not there.
            raise _CertificatesError(str(error)) from None


def was_sent(error: requests.RequestException) -> bool:
    """Whether the server may have seen the request; False only where that is certain."""
    if isinstance(error, requests.ConnectTimeout):
        return False
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    if isinstance(reason, Urllib3SSLError):
        # A certificate is refused in the handshake; any other error of TLS may come while an answer is read.
        return not (reason.args and isinstance(reason.args[0], ssl.SSLCertVerificationError))
    return not isinstance(reason, _NEVER_SENT)


def what_happened(error: requests.RequestException) -> str:
    """
    A transport error in words that hold no URL.

    The texts of requests and urllib3 quote the path and query of the request, which may be a presigned one.
    """
    if isinstance(error, ForeignRedirectError):
        return str(error)
    if isinstance(error, requests.TooManyRedirects):
        return "it redirects in circles"
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within the timeout"
    if isinstance(error, requests.Timeout):
        return "no answer within the timeout"
    cause = error.args[0] if error.args else error
    reason: Any = cause.reason if isinstance(cause, MaxRetryError) else cause
    if isinstance(error, requests.exceptions.SSLError):
        # The innermost is OpenSSL's own word, such as 'certificate verify failed'.
        return f"TLS failed: {reason}"
    if isinstance(reason, NewConnectionError):
        return "the connection could not be made: " + str(reason).rpartition(": ")[2]
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused or failed"
    # What requests itself says comes as text, which may hold the URL.
    return f"the connection broke ({type(error if isinstance(reason, str) else reason).__name__})"


def send(session: requests.Session, settings: ConnectionSettings, request: ApiRequest) -> requests.Response:
    """
    Send one request, once, and read its whole answer.

    :raises NoResponseError: when nothing that could be read came back
    :raises ConnectionSettingsError: where the environment is such that nothing can be sent
    """
    headers = {"Accept": "application/json"}
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    # The timeout is for each read; a server that sends a byte now and then must not hold a worker for ever.
    until = time.monotonic() + 2 * settings.timeout
    try:
        response = session.request(
            request.method,
            settings.url(request),
            data=request.data,
            headers=headers,
            allow_redirects=False,
            stream=True,
        )
        with response:
            body = bytearray()
            while len(body) < MAX_RESPONSE_BYTES and (part := response.raw.read1(65536, decode_content=True)):
                body += part
                if time.monotonic() > until:
                    raise requests.ReadTimeout
            response._content = bytes(body)
            return response
    except _CertificatesError as error:
        raise ConnectionSettingsError(f"the certificates that the environment names cannot be read: {error}") from None
    except ForeignRedirectError as error:
        raise UnexpectedResponseError(f"{error}; check the connection's host") from None
    except requests.RequestException as error:
        problem, sent = what_happened(error), was_sent(error)
    except (HTTPError, UnicodeError) as error:
        # Of urllib3 itself: while the body is read, and for a host that cannot be one.
        sent = not isinstance(error, (LocationParseError, UnicodeError))
        problem = "the connection broke while the answer was read" if sent else "the host cannot be one"
    # Raised out here, so that the error of requests, which quotes the request, is not chained to it.
    raise NoResponseError(f"no answer from ChartMogul at {settings.base_url}: {problem}", sent=sent)
