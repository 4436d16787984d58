# SPDX-License-Identifier: Apache-2.0
"""A request to the API as a value, without sending it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlencode

if TYPE_CHECKING:
    from airflow_provider_chartmogul.api.responses import ApiResponse

DEFAULT_BASE_URL = "https://api.chartmogul.com"

API_VERSION = "v1"

#: Enough for any response but a page of a list; those recorded have a few hundred bytes.
MAX_RESPONSE_BYTES = 1_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class ApiRequest(Generic[T]):
    """
    A request to the API whose response is a ``T``.

    :param method: ``GET`` or ``POST``
    :param path: path below the API's version, such as ``/account``
    :param parse: turns a successful response into a ``T``, or raises ``UnexpectedResponseError``
    :param query: query parameters
    :param body: JSON body; ``None`` sends none
    :param max_response_bytes: size at which the client stops reading the response
    """

    method: str
    path: str
    parse: Callable[[ApiResponse], T] = field(repr=False, compare=False)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    max_response_bytes: int = MAX_RESPONSE_BYTES

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_idempotent(self) -> bool:
        """Whether sending the request twice has the same effect as sending it once."""
        return self.method == "GET"

    @property
    def target(self) -> str:
        """Path and query, to be appended to the base URL."""
        query = f"?{urlencode(self.query)}" if self.query else ""
        return f"/{API_VERSION}{self.path}{query}"

    @property
    def data(self) -> bytes | None:
        """The body as it is sent."""
        return None if self.body is None else json.dumps(self.body).encode()

    @property
    def headers(self) -> dict[str, str]:
        """Headers for the content that is sent and accepted."""
        accept = {"Accept": "application/json"}
        return accept if self.body is None else {**accept, "Content-Type": "application/json"}


def authorization_header(api_key: str) -> str:
    """Return the ``Authorization`` header: HTTP Basic with the API key as user name and an empty password."""
    return "Basic " + base64.b64encode(f"{api_key}:".encode()).decode()
