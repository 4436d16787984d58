# SPDX-License-Identifier: Apache-2.0
"""
The settings of a connection, in every form in which people write one: fields, JSON, URI.

Airflow's own ``Connection`` parses them, so that a change in how it parses a URI is noticed here.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.api import account
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.exceptions import ConnectionSettingsError
from tests.unit.values import API_KEY

DEFAULT = "https://api.chartmogul.com"


def settings(**fields: Any) -> ConnectionSettings:
    parts: dict[str, Any] = {
        "host": None,
        "schema": None,
        "port": None,
        "login": None,
        "password": API_KEY,
        "extra": {},
    }
    return ConnectionSettings.from_parts("cm", **{**parts, **fields})


def error_text(**fields: Any) -> str:
    with pytest.raises(ConnectionSettingsError) as raised:
        settings(**fields)
    assert raised.value.permanent
    text = str(raised.value)
    assert text.startswith("connection 'cm'")
    assert API_KEY not in text
    return text


@pytest.mark.parametrize(
    ("host", "schema", "port", "base_url"),
    [
        (None, None, None, DEFAULT),
        ("", "", None, DEFAULT),
        ("  ", None, None, DEFAULT),
        (None, "http", 8080, "https://api.chartmogul.com:8080"),
        ("https://api.chartmogul.com", None, None, DEFAULT),
        ("https://api.chartmogul.com/", None, None, DEFAULT),
        ("https://api.chartmogul.com/v1", None, None, DEFAULT),
        ("https://api.chartmogul.com/v1/", None, None, DEFAULT),
        (" https://api.chartmogul.com\n", None, None, DEFAULT),
        ("HTTPS://API.ChartMogul.com", None, None, DEFAULT),
        ("api.chartmogul.com", None, None, DEFAULT),
        ("api.chartmogul.com", "https", None, DEFAULT),
        ("api.chartmogul.com/v1", "https", 443, "https://api.chartmogul.com:443"),
        ("127.0.0.1", "http", 8080, "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "http", None, "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "https", 9, "http://127.0.0.1:8080"),
        ("http://localhost", None, 8080, "http://localhost:8080"),
        ("http://[::1]:8080", None, None, "http://[::1]:8080"),
        ("https://proxy.example/chartmogul/v1/", None, None, "https://proxy.example/chartmogul"),
    ],
)
def test_base_url(host: str | None, schema: str | None, port: int | None, base_url: str) -> None:
    parsed = settings(host=host, schema=schema, port=port)
    assert parsed.base_url == base_url
    assert parsed.url(account.ping()) == f"{base_url}/v1/ping"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"host": "ftp://api.chartmogul.com"}, "the schema must be http or https, not 'ftp'"),
        ({"host": "api.chartmogul.com", "schema": "chartmogul"}, "the schema must be http or https, not 'chartmogul'"),
        ({"host": "https://"}, "the host name is missing or invalid"),
        ({"host": "https://:8080"}, "the host name is missing or invalid"),
        ({"host": "api chartmogul.com"}, "the host name is missing or invalid"),
        ({"host": "https://api.chartmogul.com:x"}, "host or port is malformed"),
        ({"host": "https://api.chartmogul.com:70000"}, "host or port is malformed"),
        ({"host": "https://[::1"}, "host or port is malformed"),
        ({"host": f"https://{API_KEY}@api.chartmogul.com"}, "belongs in the password field"),
        ({"host": f"https://user:{API_KEY}@api.chartmogul.com"}, "belongs in the password field"),
        ({"host": f"https://api.chartmogul.com?key={API_KEY}"}, "query or fragment"),
        ({"host": f"https://api.chartmogul.com#{API_KEY}"}, "query or fragment"),
    ],
)
def test_invalid_hosts_are_rejected_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    assert reason in error_text(**fields)


@pytest.mark.parametrize(
    ("login", "password", "key"),
    [
        (None, "a-key", "a-key"),
        ("a-key", None, "a-key"),
        ("a-key", "", "a-key"),
        ("a-key", "  ", "a-key"),
        ("login", "a-key", "a-key"),
        (None, "a-key\n", "a-key"),
        (" a-key ", None, "a-key"),
    ],
)
def test_key_is_the_password_or_else_the_login(login: str | None, password: str | None, key: str) -> None:
    assert settings(login=login, password=password).api_key == key


@pytest.mark.parametrize("login", [None, "", " \n"])
@pytest.mark.parametrize("password", [None, "", " \n"])
def test_missing_key_error_says_where_it_belongs(login: str | None, password: str | None) -> None:
    assert "has no API key: put it in the password field" in error_text(login=login, password=password)


def test_repr_of_settings_hides_the_key() -> None:
    parsed = settings(host="http://127.0.0.1:1")
    assert API_KEY not in repr(parsed)
    assert API_KEY not in str(parsed)


@pytest.mark.parametrize(
    ("extra", "limits"),
    [
        ({}, (30.0, 10.0, 4)),
        ({"timeout": None, "requests_per_second": "", "max_connections": None}, (30.0, 10.0, 4)),
        ({"timeout": 5, "requests_per_second": 0.5, "max_connections": 20}, (5.0, 0.5, 20)),
        ({"timeout": "5", "requests_per_second": "0.5", "max_connections": "20"}, (5.0, 0.5, 20)),
        ({"max_connections": 2.0, "timeout": " 1e1 "}, (10.0, 10.0, 2)),
        ({"unknown": "ignored"}, (30.0, 10.0, 4)),
    ],
)
def test_limits(extra: dict[str, Any], limits: tuple[float, float, int]) -> None:
    parsed = settings(extra=extra)
    assert (parsed.timeout, parsed.requests_per_second, parsed.max_connections) == limits
    assert type(parsed.max_connections) is int


@pytest.mark.parametrize("name", ["timeout", "requests_per_second", "max_connections"])
@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, "0", "-2.5", "fast", "1,5", "nan", "inf", float("nan"), float("inf"), True, False, [], {}),
        pytest.param(10**400, id="more than a float holds"),
    ],
)
def test_invalid_limits_are_rejected_by_name(name: str, value: object) -> None:
    text = error_text(extra={name: value})
    assert f"extra '{name}'" in text
    assert len(text) < 300


@pytest.mark.parametrize("value", [1.5, "2.5", 0.5])
def test_max_connections_must_be_a_whole_number(value: object) -> None:
    assert "'max_connections' must be a whole number of at least 1" in error_text(extra={"max_connections": value})


@pytest.mark.parametrize(
    ("host", "plain", "unencrypted"),
    [
        (None, False, False),
        ("http://localhost:8080", True, False),
        ("http://127.0.0.1:8080", True, False),
        ("http://[::1]:8080", True, False),
        ("http://chartmogul.internal", True, True),
        ("https://chartmogul.internal", False, False),
    ],
)
def test_plain_http(host: str | None, plain: bool, unencrypted: bool) -> None:
    parsed = settings(host=host)
    assert (parsed.is_plain_http, parsed.sends_key_unencrypted) == (plain, unencrypted)


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"conn_type": "chartmogul", "password": API_KEY}),
        json.dumps({"conn_type": "chartmogul", "password": API_KEY, "host": DEFAULT}),
        json.dumps({"conn_type": "http", "login": API_KEY, "host": "api.chartmogul.com", "schema": "https"}),
        json.dumps({"conn_type": "chartmogul", "password": API_KEY, "extra": {"timeout": 30}}),
        json.dumps({"conn_type": "chartmogul", "password": API_KEY, "extra": '{"timeout": "30"}'}),
        f"chartmogul://:{API_KEY}@",
        f"chartmogul://{API_KEY}@",
        f"chartmogul://:{API_KEY}@api.chartmogul.com",
        f"chartmogul://:{API_KEY}@api.chartmogul.com/https",
        f"chartmogul://:{API_KEY}@https%3A%2F%2Fapi.chartmogul.com%2Fv1",
        f"chartmogul://:{API_KEY}@/?timeout=30&max_connections=4",
        f"http://{API_KEY}:@api.chartmogul.com/https",
        f"https://{API_KEY}:@api.chartmogul.com",
        json.dumps({"password": API_KEY}),
    ],
)
def test_connection_formats(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook

    monkeypatch.setenv("AIRFLOW_CONN_CM", value)
    connection = ChartMogulHook.get_connection("cm")
    parsed = ConnectionSettings.from_connection(connection)
    assert parsed == ConnectionSettings(DEFAULT, API_KEY)


@given(
    host=st.none() | st.text(max_size=30) | st.from_regex(r"(https?://)?[a-z.:@/?#\[\]0-9]{0,20}", fullmatch=True),
    schema=st.none() | st.sampled_from(["http", "https", "x", " "]),
    port=st.none() | st.integers(0, 70000),
)
def test_any_host_is_an_origin_or_rejected(host: str | None, schema: str | None, port: int | None) -> None:
    try:
        parsed = settings(host=host, schema=schema, port=port)
    except ConnectionSettingsError:
        return
    parts = urlsplit(parsed.base_url)
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert (parts.username, parts.password, parts.query, parts.fragment) == (None, None, "", "")
