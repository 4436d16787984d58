# SPDX-License-Identifier: Apache-2.0
"""The settings of an Airflow connection of type ``chartmogul``: base URL, API key and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_chartmogul.api.requests import API_VERSION, DEFAULT_BASE_URL, ApiRequest
from airflow_provider_chartmogul.exceptions import ConnectionSettingsError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: Types of Airflow connections that may have ChartMogul's API key. Hand-written DAGs use the type ``http``.
_CONNECTION_TYPES = ("chartmogul", "http", "https", "generic", "", None)


@dataclass(frozen=True)
class ConnectionSettings:
    """
    Validated settings of a connection.

    :param base_url: URL of the API, without its version
    :param api_key: not part of the ``repr``
    :param timeout: seconds to wait for a connection, and for each response
    :param requests_per_second: this process's share of the account's 40 requests per second
    :param max_connections: this process's share of the account's 20 connections
    """

    base_url: str
    api_key: str = field(repr=False)
    timeout: float = 30.0
    requests_per_second: float = 10.0
    max_connections: int = 4

    @classmethod
    def from_parts(
        cls,
        conn_id: str,
        *,
        host: str | None,
        schema: str | None,
        port: int | None,
        login: str | None,
        password: str | None,
        extra: Mapping[str, Any],
    ) -> ConnectionSettings:
        """
        Validate the fields of an Airflow connection.

        The API key is the password or, if that is empty, the login, where hand-written HTTP connections have it. The
        host is a base URL, or a host name with ``schema`` and ``port``.

        :raises ConnectionSettingsError: names the field and what belongs there
        """
        if not isinstance(extra, Mapping):
            raise ConnectionSettingsError(
                f"connection '{conn_id}': extra must be a JSON object, such as {{\"timeout\": 30}}"
            )
        # A key from a mounted secret often ends with a line feed.
        api_key = (password or "").strip() or (login or "").strip()
        if not api_key:
            raise ConnectionSettingsError(
                f"connection '{conn_id}' has no API key: put it in the password field "
                "(in ChartMogul: Profile, API keys)"
            )
        max_connections = _positive(conn_id, extra, "max_connections", cls.max_connections)
        if max_connections < 1 or max_connections != int(max_connections):
            raise ConnectionSettingsError(
                f"connection '{conn_id}': extra 'max_connections' must be a whole number of at least 1"
            )
        return cls(
            base_url=_base_url(conn_id, host, schema, port),
            api_key=api_key,
            timeout=_positive(conn_id, extra, "timeout", cls.timeout),
            requests_per_second=_positive(conn_id, extra, "requests_per_second", cls.requests_per_second),
            max_connections=int(max_connections),
        )

    @classmethod
    def from_connection(cls, connection: Any) -> ConnectionSettings:
        """
        Validate an Airflow ``Connection``; see ``from_parts``.

        :raises ConnectionSettingsError: also for a connection of another type, whose password is not an API key
        """
        if connection.conn_type not in _CONNECTION_TYPES:
            raise ConnectionSettingsError(
                f"connection '{connection.conn_id}' is of type {connection.conn_type}, not chartmogul: name the "
                "connection that has ChartMogul's API key"
            )
        return cls.from_parts(
            connection.conn_id,
            host=connection.host,
            schema=connection.schema,
            port=connection.port,
            login=connection.login,
            password=connection.password,
            extra=connection.extra_dejson,
        )

    @property
    def is_plain_http(self) -> bool:
        """Whether the host is reached without TLS, such as a sandbox."""
        return self.base_url.startswith("http://")

    @property
    def sends_key_unencrypted(self) -> bool:
        """Whether the API key crosses a network without TLS."""
        return self.is_plain_http and urlsplit(self.base_url).hostname not in _LOOPBACK

    def url(self, request: ApiRequest[Any]) -> str:
        """Return the full URL of a request."""
        return self.base_url + request.target


def _base_url(conn_id: str, host: str | None, schema: str | None, port: int | None) -> str:
    text = (host or "").strip() or DEFAULT_BASE_URL
    if "://" not in text:
        text = f"{(schema or '').strip() or 'https'}://{text}"

    def invalid(problem: str) -> ConnectionSettingsError:
        return ConnectionSettingsError(
            f"connection '{conn_id}': {problem}; the host is a base URL such as {DEFAULT_BASE_URL}, "
            "or a host name with schema and port"
        )

    try:
        parts = urlsplit(text)
        port = parts.port or port
    except ValueError:
        raise invalid("the host or port is malformed") from None
    if parts.scheme not in ("http", "https"):
        raise invalid(f"the schema must be http or https, not {parts.scheme!r}")
    if not parts.hostname or any(c.isspace() for c in text) or ".." in parts.hostname:
        raise invalid("the host name is missing or invalid")
    if parts.username is not None or parts.password is not None:
        raise invalid("the host contains a user name or API key, which belongs in the password field")
    if parts.query or parts.fragment:
        raise invalid("the host contains a query or fragment")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/").removesuffix(f"/{API_VERSION}")
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{path}"


def _positive(conn_id: str, extra: Mapping[str, Any], name: str, default: float) -> float:
    value = extra.get(name)
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ConnectionSettingsError(
            f"connection '{conn_id}': extra '{name}' must be a number above 0, not {str(value)[:40]!r}"
        )
    return number
