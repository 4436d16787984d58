# SPDX-License-Identifier: Apache-2.0
"""
The API without I/O: requests, responses, redaction and retries.

Any response gives a result or one of the package's own errors, and no error shows the key or a signed URL.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_chartmogul.api import account, exports
from airflow_provider_chartmogul.api.exports import (
    ACTIVITY_TYPES,
    ActivitiesExport,
    ExportRequest,
    ExportStatus,
    validate_activity_type,
    validate_export_id,
)
from airflow_provider_chartmogul.api.redaction import MESSAGE_LIMIT, redact_urls
from airflow_provider_chartmogul.api.requests import ApiRequest, authorization_header
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_response, parse_retry_after
from airflow_provider_chartmogul.api.retries import Retries, may_retry, retry_delay
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    ConnectionSettingsError,
    HTTPStatusError,
    InvalidExportIdError,
    InvalidRequestError,
    NoResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestFailedError,
    RetryLaterError,
    ServerError,
    UnexpectedResponseError,
)
from tests.unit.values import API_KEY, EXPORT_ID, FILE_URL, NOW, SIGNATURE, export_response


def parse(status: int, body: bytes = b"", **headers: str) -> dict[str, Any]:
    response = ApiResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    return parse_response(account.get_account(), response, api_key=API_KEY, now=NOW)


def error_of(status: int, body: bytes = b"", **headers: str) -> ChartMogulError:
    with pytest.raises(ChartMogulError) as raised:
        parse(status, body, **headers)
    return raised.value


# The export and its status


@pytest.mark.parametrize(
    ("word", "status", "terminal"),
    [
        ("pending", ExportStatus.PENDING, False),
        ("processing", ExportStatus.PROCESSING, False),
        ("succeeded", ExportStatus.SUCCEEDED, True),
        ("successful", ExportStatus.SUCCEEDED, True),
        ("failed", ExportStatus.FAILED, True),
        ("Succeeded ", ExportStatus.SUCCEEDED, True),
        ("archiving", ExportStatus.UNKNOWN, False),
        ("unknown", ExportStatus.UNKNOWN, False),
    ],
)
def test_parse_status(word: str, status: ExportStatus, terminal: bool) -> None:
    assert ExportStatus.parse(word) is status
    assert status.is_terminal is terminal


def test_unreadable_echo_does_not_count_as_open() -> None:
    echo = {"start_date": "1.1.2024", "end_date": 1704153600, "activity_type": ["churn"]}
    export = ActivitiesExport.from_response(export_response(params={"params": echo}))
    assert (export.start_date, export.end_date, export.activity_type) == (None, None, None)
    assert export.unreadable == ("start_date", "end_date", "activity_type")
    assert export.request == ExportRequest()
    readable = ActivitiesExport.from_response(export_response())
    assert readable.unreadable == ()
    assert readable.request == ExportRequest(
        datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 12, 31, tzinfo=UTC), "new_biz"
    )


@pytest.mark.parametrize(
    "request_",
    [
        ExportRequest(),
        ExportRequest(start=NOW),
        ExportRequest(end=NOW, activity_type="churn"),
        ExportRequest(NOW, NOW + timedelta(microseconds=1), "new_biz"),
    ],
)
def test_export_request_survives_serialization(request_: ExportRequest) -> None:
    serialized = json.loads(json.dumps(request_.serialize()))
    assert ExportRequest.deserialize(serialized) == request_


def test_export_request_fingerprint_tells_requests_and_accounts_apart() -> None:
    requests = [ExportRequest(), ExportRequest(start=NOW), ExportRequest(end=NOW), ExportRequest(activity_type="churn")]
    fingerprints = {request.fingerprint(account) for request in requests for account in ("a", "b")}
    assert len(fingerprints) == 8
    assert ExportRequest(NOW).fingerprint("a") == ExportRequest(NOW).fingerprint("a")


def test_parse_recorded_export() -> None:
    export = ActivitiesExport.from_response(export_response())
    assert export == ActivitiesExport(
        id=EXPORT_ID,
        status=ExportStatus.SUCCEEDED,
        status_word="succeeded",
        file_url=FILE_URL,
        activity_type="new_biz",
        start_date=datetime(2020, 1, 1, tzinfo=UTC),
        end_date=datetime(2020, 12, 31, tzinfo=UTC),
        created_at=datetime(2021, 7, 9, 14, 37, 32, tzinfo=UTC),
        expires_at=datetime(2021, 7, 16, 14, 37, 43, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-01",
        "2020-01-01T00:00:00",
        "2020-01-01T00:00:00Z",
        "2020-01-01T00:00:00.000+00:00",
        "2020-01-01 00:00:00 +0000",
        "2020-01-01 01:00:00 +0100",
        "2020-01-01 00:00:00 UTC",
    ],
)
def test_parse_every_recorded_date_format(text: str) -> None:
    export = ActivitiesExport.from_response(export_response(params={"params": {"start_date": text}}))
    assert export.start_date == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("params", [None, {}, {"params": None}, {"params": {}}, {"params": []}, "x", []])
def test_export_without_params(params: object) -> None:
    export = ActivitiesExport.from_response(export_response(params=params))
    assert (export.activity_type, export.start_date, export.end_date) == (None, None, None)


@pytest.mark.parametrize("file_url", [None, "", 7, ["https://x"]])
def test_export_without_file_url(file_url: object) -> None:
    assert ActivitiesExport.from_response(export_response(file_url=file_url)).file_url is None


def test_export_with_missing_and_unknown_keys() -> None:
    export = ActivitiesExport.from_response({"id": EXPORT_ID, "status": "pending", "progress": {"done": 3}})
    assert (export.id, export.status, export.file_url, export.expires_at) == (
        EXPORT_ID,
        ExportStatus.PENDING,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"status": None}, "no status"),
        ({"status": " "}, "no status"),
        ({"status": 3}, "no status"),
        ({"id": None}, "no usable ID"),
        ({"id": ""}, "no usable ID"),
        ({"id": "../account"}, "no usable ID"),
    ],
)
def test_export_without_id_or_status_is_unexpected(changes: dict[str, Any], missing: str) -> None:
    with pytest.raises(UnexpectedResponseError, match=missing):
        ActivitiesExport.from_response(export_response(**changes))


def test_repr_of_export_hides_file_url() -> None:
    export = ActivitiesExport.from_response(export_response())
    for text in (repr(export), str(export), f"{export}"):
        assert "file_url" not in text
        assert "amazonaws" not in text
        assert SIGNATURE not in text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(
    st.sampled_from(["id", "status", "file_url", "params", "expires_at", "created_at", "other"]), json_values
)


@given(objects, json_values)
def test_any_json_object_is_an_export_or_unexpected(content: dict[str, Any], params: object) -> None:
    for candidate in (content, export_response(**content), export_response(params={"params": params})):
        try:
            export = ActivitiesExport.from_response(candidate)
        except UnexpectedResponseError:
            continue
        times = (export.start_date, export.end_date, export.created_at, export.expires_at)
        assert all(time is None or time.tzinfo is not None for time in times)
        assert validate_export_id(export.id) == export.id


# Export IDs and activity types


@pytest.mark.parametrize("value", [EXPORT_ID, f"  {EXPORT_ID}\n", "a", "A_1-b", "x" * 100])
def test_valid_export_ids(value: str) -> None:
    assert validate_export_id(value) == value.strip()


@pytest.mark.parametrize("value", [None, ""])
def test_empty_export_id_is_reported_as_empty(value: object) -> None:
    with pytest.raises(InvalidExportIdError, match=r"^export_id is empty.*create\.output"):
        validate_export_id(value)


@pytest.mark.parametrize(
    "value",
    [
        " ",
        "None",
        "none",
        "NULL",
        "nan",
        "undefined",
        "../account",
        "a/b",
        "a?b",
        "a#b",
        "a%2Fb",
        "a b",
        "a\nb",
        "-a",
        "é",
        "\uff11\uff12",
        "x" * 101,
        7,
        True,
        [EXPORT_ID],
        {"id": EXPORT_ID},
        b"abc",
    ],
)
def test_invalid_export_ids(value: object) -> None:
    with pytest.raises(InvalidExportIdError, match=r"^export_id cannot be ") as raised:
        validate_export_id(value)
    assert raised.value.permanent
    assert isinstance(raised.value, ValueError)


def test_signed_url_as_export_id_is_redacted() -> None:
    with pytest.raises(InvalidExportIdError) as raised:
        validate_export_id(f"https://s3.example/a.zip?X-Amz-Signature={SIGNATURE}")
    assert SIGNATURE[:8] not in str(raised.value)


@given(st.text(max_size=120) | st.text("ab/.?#%\\: \t\r\n\0", max_size=12))
@example("..")
@example("a\n")
def test_export_id_never_changes_the_path(text: str) -> None:
    try:
        request = exports.get_activities_export(text)
    except InvalidExportIdError:
        return
    prefix, _, last = request.path.rpartition("/")
    assert prefix == "/activities_export"
    assert last
    assert last.isascii()
    assert last.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("value", [None, "new_biz", "reactivation", "expansion", "contraction", "churn"])
def test_valid_activity_types(value: str | None) -> None:
    assert validate_activity_type(value) == value
    assert validate_activity_type("all") is None


@pytest.mark.parametrize("value", ["", "None", "NEW_BIZ", " churn", "new_biz,churn", "refund", 1, ["churn"]])
def test_invalid_activity_type_lists_valid_ones(value: object) -> None:
    with pytest.raises(ValueError, match="activity_type cannot be") as raised:
        validate_activity_type(value)
    assert repr(value) in str(raised.value)
    assert all(allowed in str(raised.value) for allowed in ACTIVITY_TYPES)


# Requests


@pytest.mark.parametrize(
    ("request_", "method", "target"),
    [
        (account.ping(), "GET", "/v1/ping"),
        (account.get_account(), "GET", "/v1/account"),
        (exports.get_activities_export(EXPORT_ID), "GET", f"/v1/activities_export/{EXPORT_ID}"),
    ],
)
def test_requests_without_a_body(request_: ApiRequest[Any], method: str, target: str) -> None:
    assert (request_.method, request_.target, request_.data) == (method, target, None)
    assert request_.headers == {"Accept": "application/json"}
    assert request_.is_idempotent


def test_query_parameters_are_encoded() -> None:
    request = ApiRequest(
        "GET", "/customers", lambda response: response, query={"email": "a+b@example.com", "x": "1 &2"}
    )
    assert request.target == "/v1/customers?email=a%2Bb%40example.com&x=1+%262"
    assert str(request) == "GET /customers"


@pytest.mark.parametrize(
    ("start", "end", "activity_type", "body"),
    [
        (None, None, None, {}),
        (datetime(2024, 1, 1, tzinfo=UTC), None, None, {"start-date": "2024-01-01T00:00:00Z"}),
        (None, datetime(2024, 1, 1), None, {"end-date": "2024-01-01T00:00:00Z"}),
        (
            datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC),
            "churn",
            {"start-date": "2023-12-31T23:00:00Z", "end-date": "2024-01-01T00:00:00Z", "type": "churn"},
        ),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999), None, "all", {"start-date": "1969-12-31T23:59:59Z"}),
    ],
)
def test_create_request_has_hyphenated_keys_and_utc_times(
    start: datetime | None, end: datetime | None, activity_type: str | None, body: dict[str, str]
) -> None:
    request = exports.create_activities_export(ExportRequest(start, end, activity_type))
    assert (request.method, request.target, request.is_idempotent) == ("POST", "/v1/activities_export", False)
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.data or b"") == body


def test_create_request_rejects_an_unknown_type() -> None:
    with pytest.raises(ValueError, match="activity_type cannot be 'refund'"):
        exports.create_activities_export(ExportRequest(activity_type="refund"))


def test_authorization_has_key_as_user_name() -> None:
    scheme, _, credentials = authorization_header(API_KEY).partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(credentials).decode() == f"{API_KEY}:"


# Responses

STATUS_TABLE = [
    (400, InvalidRequestError, "permanent"),
    (401, AuthenticationError, "permanent"),
    (402, RequestFailedError, "neither"),
    (403, PermissionDeniedError, "permanent"),
    (404, NotFoundError, "permanent"),
    (408, RetryLaterError, "transient"),
    (418, HTTPStatusError, "neither"),
    (422, InvalidRequestError, "permanent"),
    (425, RetryLaterError, "transient"),
    (429, RateLimitError, "transient"),
    (500, ServerError, "transient"),
    (502, ServerError, "transient"),
    (503, ServerError, "transient"),
    (504, ServerError, "transient"),
    (520, ServerError, "transient"),
    (524, ServerError, "transient"),
]


@pytest.mark.parametrize(("status", "cls", "kind"), STATUS_TABLE)
def test_error_class_of_each_status(status: int, cls: type[HTTPStatusError], kind: str) -> None:
    error = error_of(status, b'{"error":"reason"}')
    assert type(error) is cls
    assert isinstance(error, HTTPStatusError)
    assert (error.permanent, error.transient) == (kind == "permanent", kind == "transient")
    assert (error.status, error.message, error.retry_after) == (status, "reason", None)
    assert str(error).startswith(f"ChartMogul responded with {status}: reason")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"code":400,"message":"Parameter \\"name\\" is missing","param":"name"}', 'Parameter "name" is missing'),
        (b'{"code":401,"message":"No valid API key provided","param":null}', "No valid API key provided"),
        (b'{"error":"Export not found"}', "Export not found"),
        (b'{"errors":{"start-date":"is invalid"}}', "start-date: is invalid"),
        (b'{"errors":{"type":["is odd","is unknown"]}}', "type: is odd, is unknown"),
        (
            b'{"type":["is unknown"],"error_details":[{"param":"type","code":"x","message":"is unknown"}]}',
            "type: is unknown",
        ),
        (b"500 Internal Server Error\n", "500 Internal Server Error"),
        (b"<html><head><title>\n 502 Bad\n Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        (b"<title></title>", "(no text)"),
        (b"", "(no text)"),
        (b"{}", "{}"),
        (b"[1, 2]", "[1, 2]"),
        (b"null", "null"),
        (b'{"errors":{}}', '{"errors":{}}'),
        (b'{"message":null,"error":"reason"}', "reason"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_error_shows_chartmoguls_message(body: bytes, message: str) -> None:
    error = error_of(400, body)
    assert isinstance(error, InvalidRequestError)
    assert error.message.startswith(message)
    assert message in str(error)


def test_error_names_the_parameter() -> None:
    assert "(parameter name)" in str(error_of(400, b'{"message":"is missing","param":"name"}'))


def test_success_returns_its_object() -> None:
    assert parse(200, b'{"data":"pong!"}') == {"data": "pong!"}
    assert parse(201, b"{}") == {}


@pytest.mark.parametrize("body", [b"", b"[]", b'"pong!"', b"null", b"<html></html>", b'{"id":"1', b"\xff", b"1" * 5000])
def test_success_without_an_object_is_unexpected(body: bytes) -> None:
    error = error_of(200, body)
    assert type(error) is UnexpectedResponseError
    assert error.transient
    assert "not a JSON object" in str(error)


@pytest.mark.parametrize("status", [200, 422])
def test_deep_nesting_raises_own_error(status: int) -> None:
    for body in (b"[" * 200_000, b'{"a":' * 200_000):
        assert isinstance(error_of(status, body), UnexpectedResponseError | HTTPStatusError)


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_redirect_is_unexpected(status: int) -> None:
    error = error_of(status, b"", Location=FILE_URL)
    assert type(error) is UnexpectedResponseError
    assert "not followed" in str(error)
    assert SIGNATURE not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(text.encode(), id=name)
        for name, text in {
            "message": json.dumps({"message": f"GET {FILE_URL} with {API_KEY} failed"}),
            "param": json.dumps({"message": "no", "param": f"{FILE_URL}:{API_KEY}"}),
            "error": json.dumps({"error": FILE_URL + " " + API_KEY}),
            "errors": json.dumps({"errors": {API_KEY: [FILE_URL]}}),
            "nested": json.dumps({"errors": {"x": {"url": FILE_URL, "key": API_KEY}}}),
            "field": json.dumps({FILE_URL: [API_KEY]}),
            "list": json.dumps([FILE_URL, API_KEY]),
            "text": f"{API_KEY}\n{FILE_URL}",
            "title": f"<title>{API_KEY} {FILE_URL}</title>",
            "header": f"you sent {authorization_header(API_KEY)}",
            "truncated JSON": json.dumps(export_response())[:-30],
            "truncated JSON, slashes escaped": json.dumps(export_response()).replace("/", "\\/")[:-30],
            "no scheme": FILE_URL.removeprefix("https:"),
            "upper case": FILE_URL.replace("https", "HTTPS"),
        }.items()
    ],
)
@pytest.mark.parametrize("status", [200, 302, 400, 422, 500])
def test_no_error_shows_the_key_or_a_signature(status: int, body: bytes) -> None:
    shown = ""
    try:
        parse(status, body)  # some of these bodies are JSON objects, which are no error with 200
    except ChartMogulError as error:
        shown = f"{error} {error!r} {vars(error)}"
    assert bool(shown) or status == 200
    assert API_KEY not in shown
    assert authorization_header(API_KEY).removeprefix("Basic ") not in shown
    assert SIGNATURE[:16] not in shown


around = st.text(max_size=80) | st.text("\"'<>?{}[]:,\\ \n\t", max_size=20)


@given(
    status=st.sampled_from([200, 302, 400, 401, 422, 429, 500]),
    parts=st.lists(st.one_of(around, st.sampled_from([API_KEY, FILE_URL])), max_size=6),
    gap=st.sampled_from(["", " ", "\n", ", "]),
    shape=st.sampled_from(["text", "message", "error", "errors", "field", "list", "title", "cut"]),
    padding=st.integers(0, MESSAGE_LIMIT + 20),
)
def test_no_error_shows_the_key_or_a_query_for_any_body(
    status: int, parts: list[str], gap: str, shape: str, padding: int
) -> None:
    text = "x" * padding + gap.join(parts)
    body = {
        "text": text,
        "message": json.dumps({"message": text, "param": text}),
        "error": json.dumps({"error": text}),
        "errors": json.dumps({"errors": {text: [text]}}),
        "field": json.dumps({"name": [text, {"deep": text}], "error_details": text}),
        "list": json.dumps([text]),
        "title": f"<title>{text}</title>",
        "cut": json.dumps({"file_url": text})[:-1],
    }[shape]
    shown = ""
    try:
        parse(status, body.encode("utf-8", "replace"))
    except ChartMogulError as error:
        shown = str(error)
    assert API_KEY not in shown
    assert "X-Amz-" not in shown
    assert len(shown) <= MESSAGE_LIMIT * 2


@given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=40))
def test_any_response_is_an_object_or_own_error(status: int, body: bytes, retry_after: str) -> None:
    try:
        content = parse(status, body, Retry_After=retry_after)
    except ChartMogulError:
        return
    assert 200 <= status < 300
    assert isinstance(content, dict)


def test_long_message_is_truncated() -> None:
    error = error_of(500, b"word " * 1000)
    assert isinstance(error, HTTPStatusError)
    assert len(error.message) == MESSAGE_LIMIT
    assert error.message.endswith("…")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see https://a.example/b?c=d&e=f now", "see https://a.example/b?... now"),
        ("('https://a.example/b?c=d')", "('https://a.example/b?...')"),
        ("https://a.example/b", "https://a.example/b"),
        ("what? https://a.example", "what? https://a.example"),
        ("http://a?x=1 http://b?y=2", "http://a?... http://b?..."),
    ],
)
def test_redact_urls(text: str, clean: str) -> None:
    assert redact_urls(text) == clean


# Retries


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Wed, 31 Jan 2024 12:00:30 GMT", 30.0),
        ("Wed, 31 Jan 2024 12:00:30", 30.0),
        ("Wed, 31 Jan 2024 13:00:30 +0100", 30.0),
        ("Wed, 31 Jan 2024 11:59:00 GMT", 0.0),
    ],
)
def test_parse_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=40) | st.text("0123456789", max_size=400) | st.text("MonJan 0123456789:,+-GMT", max_size=40))
@example("9" * 400)
@example("Mon, 01 Jan 2024 00:00:00 +99999999999999999999")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_any_retry_after_is_none_or_finite(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_sets_the_delay(status: int) -> None:
    error = error_of(status, b"slow down", Retry_After="17")
    assert isinstance(error, HTTPStatusError)
    assert error.retry_after == 17.0
    assert 17.0 <= retry_delay(1, error) <= 18.0
    assert 17.0 <= retry_delay(9, error) <= 18.0


@pytest.mark.parametrize("retry_after", ["0", "Wed, 31 Jan 2024 11:59:00 GMT"])
def test_elapsed_retry_after_backs_off(retry_after: str) -> None:
    """A server that always says 'now', or whose clock is behind, is not called twice a second."""
    error = error_of(503, b"down", Retry_After=retry_after)
    assert all(30.0 <= retry_delay(9, error) <= 60.0 for _ in range(100))


GET = exports.get_activities_export(EXPORT_ID)
POST = exports.create_activities_export(ExportRequest())


@pytest.mark.parametrize(
    ("error", "retries_get", "retries_post"),
    [
        (RateLimitError(429, "x"), True, True),
        (NoResponseError("refused", sent=False), True, True),
        (NoResponseError("reset", sent=True), True, False),
        (ServerError(503, "x"), True, False),
        (RetryLaterError(408, "x"), True, False),
        (ServerError(500, "x"), True, False),
        (UnexpectedResponseError("x"), True, False),
        (RequestFailedError(402, "x"), False, False),
        (HTTPStatusError(418, "x"), False, False),
        (AuthenticationError(401, "x"), False, False),
        (InvalidRequestError(422, "x"), False, False),
        (NotFoundError(404, "x"), False, False),
        (ConnectionSettingsError("x"), False, False),
    ],
)
def test_may_retry(error: ChartMogulError, retries_get: bool, retries_post: bool) -> None:
    assert may_retry(GET, error) is retries_get
    assert may_retry(POST, error) is retries_post


def test_retries_end_with_their_time() -> None:
    retries = Retries(GET, give_up_at=10.0)
    error = ServerError(503, "busy")
    assert 0.5 <= retries.delay_after(error, now=5.0) <= 1.0
    assert 1.0 <= retries.delay_after(error, now=6.0) <= 2.0
    with pytest.raises(ServerError):
        retries.delay_after(error, now=9.0)


def test_retries_raise_what_must_not_be_retried() -> None:
    with pytest.raises(ServerError):
        Retries(POST, give_up_at=10.0).delay_after(ServerError(500, "x"), now=0.0)
    with pytest.raises(NotFoundError):
        Retries(GET, give_up_at=10.0).delay_after(NotFoundError(404, "x"), now=0.0)


@pytest.mark.parametrize(("failures", "most"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60), (5000, 60)])
def test_backoff_grows_to_a_minute(failures: int, most: float) -> None:
    delays = [retry_delay(failures, ServerError(500, "x")) for _ in range(200)]
    assert all(most / 2 <= delay <= most for delay in delays)
    assert len(set(delays)) > 1
