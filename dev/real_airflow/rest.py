# SPDX-License-Identifier: Apache-2.0
"""
Clients for Airflow's public REST API: version 2, and version 1 of Airflow 2.11.

Both have almost the same resources below their ``root``. They differ in the login, the fields of a new run, and the
form of logs and XComs.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from http.cookiejar import CookieJar
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


class RealAirflowError(Exception):
    """Airflow failed, or did not reach the expected state; the message has its log or response."""


class ApiError(RealAirflowError):
    """The REST API responded with an error; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def quoted(part: str) -> str:
    """Percent-encode a segment of a URL path."""
    return urllib.parse.quote(part, safe="")


class RestApi(ABC):
    """
    Client for the REST API. Paths include the API's ``root``: ``{root}/dags``.

    :param base_url: URL of the UI and the API
    :param login: user name and password, for an Airflow that requires them
    """

    root: str
    health_path: str

    def __init__(self, base_url: str, login: tuple[str, str]) -> None:
        self._base_url = base_url
        self._login = login
        # Airflow is on this machine, so proxies from the environment are ignored.
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies)
        )

    def call(self, method: str, path: str, body: Json | None = None, *, authorized: bool = True) -> Any:
        """
        Send a request and return the response's JSON.

        :raises ApiError: if the response is an error
        """
        return json.loads(self._send(method, path, body, authorized=authorized) or b"null")

    def get(self, path: str, *, authorized: bool = True) -> Json:
        """GET a JSON object."""
        response: Json = self.call("GET", path, authorized=authorized)
        return response

    def health(self) -> Json:
        """Return the health of each component."""
        return self.get(self.health_path, authorized=False)

    @abstractmethod
    def run_body(self, body: Json) -> Json:
        """Convert the body of a request for a new run from version 2 to this version."""

    @abstractmethod
    def xcom_path(self, task_path: str, key: str, map_index: int) -> str:
        """Return the path of an XCom's value."""

    @abstractmethod
    def log(self, task_path: str, try_number: int, map_index: int) -> str:
        """Return the log of a try as text."""

    @abstractmethod
    def _authorization(self) -> dict[str, str]:
        """Return the headers that authenticate a request."""

    def _send(
        self, method: str, path: str, body: Json | None, *, authorized: bool, accept: str = "application/json"
    ) -> bytes:
        headers = {"Accept": accept}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if authorized:
            headers |= self._authorization()
        request = urllib.request.Request(self._base_url + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=120) as response:
                content: bytes = response.read()
        except urllib.error.HTTPError as error:
            message = error.read().decode("utf-8", "replace")[:2000]
            raise ApiError(f"{method} {path}: {error.code} {message}", error.code) from None
        return content


class RestApiV2(RestApi):
    """Airflow 3's API, which issues a token to everyone (``SIMPLE_AUTH_MANAGER_ALL_ADMINS``)."""

    root = "/api/v2"
    health_path = "/api/v2/monitor/health"
    _token: str | None = None

    def run_body(self, body: Json) -> Json:
        return body

    def xcom_path(self, task_path: str, key: str, map_index: int) -> str:
        # The stored value, since `deserialize` needs the value's classes.
        return f"{task_path}/xcomEntries/{quoted(key)}?map_index={map_index}"

    def log(self, task_path: str, try_number: int, map_index: int) -> str:
        lines: list[str] = []
        token: str | None = None
        while True:
            query: dict[str, Any] = {"map_index": map_index}
            if token:
                query["token"] = token
            else:
                query["full_content"] = "true"
            response = self.get(f"{task_path}/logs/{try_number}?{urllib.parse.urlencode(query)}")
            content = response["content"]
            records = content if isinstance(content, list) else [content]
            lines += [_log_line(record) for record in records]
            next_token = response.get("continuation_token")
            if not next_token or next_token == token or not records:
                return "\n".join(lines)
            token = next_token

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            self._token = str(self.get("/auth/token", authorized=False)["access_token"])
        return {"Authorization": f"Bearer {self._token}"}


class RestApiV1(RestApi):
    """Airflow 2's API, with user name and password. Remove it with the support for Airflow 2.11."""

    root = "/api/v1"
    health_path = "/api/v1/health"

    def run_body(self, body: Json) -> Json:
        # Every run of Airflow 2 has a logical date: the current time if the request has none.
        return {name: value for name, value in body.items() if value is not None}

    def xcom_path(self, task_path: str, key: str, map_index: int) -> str:
        return f"{task_path}/xcomEntries/{quoted(key)}?map_index={map_index}&stringify=false"

    def log(self, task_path: str, try_number: int, map_index: int) -> str:
        # In JSON, the log would be the `repr` of a list of tuples.
        path = f"{task_path}/logs/{try_number}?map_index={map_index}&full_content=true"
        return self._send("GET", path, None, authorized=True, accept="text/plain").decode("utf-8", "replace")

    def _authorization(self) -> dict[str, str]:
        # Checking the password takes the webserver 0.1 s, so the session cookie is used after the first request.
        if any(cookie.name == "session" for cookie in self._cookies):
            return {}
        return {"Authorization": "Basic " + base64.b64encode(":".join(self._login).encode()).decode()}


def _log_line(record: Any) -> str:
    """Format a record of a task's log, which the API returns as structured data or as plain text."""
    if not isinstance(record, dict):
        return str(record)
    known = {"timestamp", "level", "event", "logger", "filename", "lineno", "loc", "error_detail"}
    known |= {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
    time_of_day = str(record.get("timestamp") or "")[11:19]
    parts = [time_of_day, f"{record.get('level') or '':<8}".upper(), str(record.get("event", ""))]
    extra = " ".join(f"{name}={value}" for name, value in record.items() if name not in known and value is not None)
    line = " ".join(filter(None, [*parts, extra])) if time_of_day else str(record.get("event", ""))
    for error in record.get("error_detail") or []:
        for frame in error.get("frames") or []:
            line += f"\n    File {frame.get('filename')}, line {frame.get('lineno')}, in {frame.get('name')}"
        line += f"\n    {error.get('exc_type')}: {error.get('exc_value')}"
    return line
