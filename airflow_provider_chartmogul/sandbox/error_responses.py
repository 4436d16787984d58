# SPDX-License-Identifier: Apache-2.0
"""Exceptions that a request handler raises to respond with an error, in the API's form or in S3's."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape


class ApiErrorResponse(Exception):
    """An error response of the API.

    :param status: the HTTP status.
    :param body: the JSON body.
    """

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the body that most of the API's errors have."""
    return {"code": status, "message": message, "param": param}


def bad_request(message: str, param: str | None = None) -> ApiErrorResponse:
    """Return a 400 in the API's form.

    :param param: the parameter that is wrong; `None` where the whole request is.
    """
    return ApiErrorResponse(400, error_body(400, message, param))


class S3ErrorResponse(Exception):
    """An error response of S3.

    :param status: the HTTP status.
    :param code: S3's error code, such as `NoSuchKey`.
    :param message: S3's error message.
    :param details: further elements of the XML body, by name.
    """

    def __init__(self, status: int, code: str, message: str, details: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details or {}

    def as_xml(self) -> bytes:
        """Return the XML body."""
        elements = {"Code": self.code, "Message": self.message, **self.details}
        body = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        # Details may repeat request headers that are not UTF-8.
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{body}</Error>'.encode(errors="replace")
