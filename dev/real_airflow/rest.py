# SPDX-License-Identifier: Apache-2.0
"""Airflow's public REST API as a client speaks it: version 2, and Airflow 2.11's version 1 in what it differs.

The two are nearly one: the same resources under the same names, once ``root`` is put before them. What differs is how
one logs in, what a new run may leave out, and how logs and XComs are handed over.
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
    """Airflow did not do what was asked of it; the message says what it said instead."""


class ApiError(RealAirflowError):
    """The REST API answered with an error; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def quoted(part: str) -> str:
    """Text as one part of a path."""
    return urllib.parse.quote(part, safe="")


class RestApi(ABC):
    """Calls, with what they answer. Paths begin at the server's root: ``{root}/dags``.

    :param base_url: where the page and the API are.
    :param login: user name and password, for an Airflow that wants them.
    """

    root: str
    health_path: str

    def __init__(self, base_url: str, login: tuple[str, str]) -> None:
        self._base_url = base_url
        self._login = login
        # Airflow listens here and nowhere else: a proxy from the environment has no part in it.
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies)
        )

    def call(self, method: str, path: str, body: Json | None = None, *, authorized: bool = True) -> Any:
        """Send a request and give the JSON of its answer; an answer that is an error is an :class:`ApiError`."""
        return json.loads(self._send(method, path, body, authorized=authorized) or b"null")

    def get(self, path: str, *, authorized: bool = True) -> Json:
        """A GET whose answer is an object."""
        reply: Json = self.call("GET", path, authorized=authorized)
        return reply

    def health(self) -> Json:
        """The status of each component."""
        return self.get(self.health_path, authorized=False)

    @abstractmethod
    def new_run(self, body: Json) -> Json:
        """What is posted for a run, from what version 2 takes."""

    @abstractmethod
    def xcom_path(self, task_path: str, key: str, map_index: int) -> str:
        """Where an XCom is to be had as the value that it is."""

    @abstractmethod
    def log(self, task_path: str, try_number: int, map_index: int) -> str:
        """The log of one try, as text."""

    @abstractmethod
    def _authorization(self) -> dict[str, str]:
        """The headers that say who asks."""

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
            with self._opener.open(request, timeout=30) as reply:
                answer: bytes = reply.read()
        except urllib.error.HTTPError as error:
            words = error.read().decode("utf-8", "replace")[:2000]
            raise ApiError(f"{method} {path}: {error.code} {words}", error.code) from None
        return answer


class RestApiV2(RestApi):
    """Airflow 3's, which lets everybody in who asks for a token (``SIMPLE_AUTH_MANAGER_ALL_ADMINS``)."""

    root = "/api/v2"
    health_path = "/api/v2/monitor/health"
    _token: str | None = None

    def new_run(self, body: Json) -> Json:
        return body

    def xcom_path(self, task_path: str, key: str, map_index: int) -> str:
        # `deserialize` would need the classes; what is stored is what a test wants to see.
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
            reply = self.get(f"{task_path}/logs/{try_number}?{urllib.parse.urlencode(query)}")
            content = reply["content"]
            records = content if isinstance(content, list) else [content]
            lines += [_log_line(record) for record in records]
            following = reply.get("continuation_token")
            if not following or following == token or not records:
                return "\n".join(lines)
            token = following

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            self._token = str(self.get("/auth/token", authorized=False)["access_token"])
        return {"Authorization": f"Bearer {self._token}"}


class RestApiV1(RestApi):
    """Airflow 2's, with a user name and a password. It can go when Airflow 2.11 does."""

    root = "/api/v1"
    health_path = "/api/v1/health"

    def new_run(self, body: Json) -> Json:
        # Its runs always have a logical date; where none is given, now.
        return {name: value for name, value in body.items() if value is not None}

    def xcom_path(self, task_path: str, key: str, map_index: int) -> str:
        return f"{task_path}/xcomEntries/{quoted(key)}?map_index={map_index}&stringify=false"

    def log(self, task_path: str, try_number: int, map_index: int) -> str:
        # As JSON, the text would be the `repr` of a list of tuples.
        path = f"{task_path}/logs/{try_number}?map_index={map_index}&full_content=true"
        return self._send("GET", path, None, authorized=True, accept="text/plain").decode("utf-8", "replace")

    def _authorization(self) -> dict[str, str]:
        # Once for all: to check the password costs the webserver 0.1 s, the session that it opens then costs nothing.
        if any(cookie.name == "session" for cookie in self._cookies):
            return {}
        return {"Authorization": "Basic " + base64.b64encode(":".join(self._login).encode()).decode()}


def _log_line(record: Any) -> str:
    """One line of a task's log out of what the API gives: a structured record, or plain text."""
    if not isinstance(record, dict):
        return str(record)
    known = {"timestamp", "level", "event", "logger", "filename", "lineno", "loc", "error_detail"}
    known |= {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
    time_of_day = str(record.get("timestamp") or "")[11:19]
    parts = [time_of_day, f"{record.get('level') or '':<8}".upper(), str(record.get("event", ""))]
    more = " ".join(f"{name}={value}" for name, value in record.items() if name not in known and value is not None)
    line = " ".join(filter(None, [*parts, more])) if time_of_day else str(record.get("event", ""))
    for error in record.get("error_detail") or []:
        for frame in error.get("frames") or []:
            line += f"\n    File {frame.get('filename')}, line {frame.get('lineno')}, in {frame.get('name')}"
        line += f"\n    {error.get('exc_type')}: {error.get('exc_value')}"
    return line
