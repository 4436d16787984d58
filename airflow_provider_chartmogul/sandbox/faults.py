# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: what a fault is, and its text and JSON forms. `HELP` lists all places, kinds and options.

`active_faults.py` selects the faults that hit a request, `fault_injection.py` applies them to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

_WALKED_LISTS = (
    "customers",
    "contacts",
    "plans",
    "plan_groups",
    "plan_group_plans",
    "invoices",
    "subscription_events",
    "notes",
    "customer_notes",
    "opportunities",
    "tasks",
)
"""The lists whose cursors lead from row to row."""

LISTS = ("data_sources", *_WALKED_LISTS, "subscriptions", "metrics")
"""All lists."""

API_PLACES = ("ping", "account", "create", "retrieve", *LISTS, "lists", "api")
"""The API's endpoints, `lists` for all lists, and `api` for all endpoints."""

PLACES = (*API_PLACES, "download", "any")
"""Where a fault can be."""

_JSON_STATUSES = ("400", "401", "402", "403", "404", "422", "429")

STATUSES = (*_JSON_STATUSES, "408", "425", "500", "502", "503", "504", "520", "524")
"""The kinds that are an HTTP status."""

BODIES = ("json", "json2", "text", "html")
"""The bodies of the API's error responses: `json2` is the second of the forms that 404 and 422 come in."""

HELP = """\
A fault is PLACE:KIND, followed by any number of ;OPTION=VALUE. White space separates several faults.

  retrieve:429;retry_after=2;times=5    download:interrupt;p=0.2    create:reset;when=after;times=1
  lists:429;above=100;window=60         invoices:short-page         customers:customer-moved;skip=1;times=1

places
  ping account create retrieve   one endpoint of the API: create and retrieve are those of the activities export
  data_sources customers contacts plans plan_groups plan_group_plans invoices subscription_events notes
  customer_notes opportunities tasks subscriptions metrics
                                 one list of the API
  lists                          all lists of the API
  api                            all endpoints of the API
  download                       the download host
  any                            everything

kinds that replace the response; of several faults, the first that was added applies
  400 401 402 403 404 422 429    this status, with the API's JSON body
  408 425 500 502 503 504 520 524
                                 this status, with a text body or, for 520 and 524, an HTML body
                                 (at the download host with S3's XML: 403 is an expired URL, 503 is SlowDown)
  html                           200 with an HTML page in place of the JSON or the archive
  half-json                      the response's JSON, truncated in the middle or at byte 'at' (API only)
  reset                          no response: the connection is reset
  stall                          the response's head, 'at' bytes of its body (0), then nothing until the client
                                 closes the connection

kinds that modify the response; all of them apply
  slow                           a response 'delay' seconds (5) later
  interrupt                      the connection closes after 'at' bytes of the body

kinds that modify a download; all of them apply
  truncate                       the body ends after 'at' bytes, and Content-Length agrees
  flip                           one bit of byte 'at' is inverted
  etag                           another ETag in each response
  no-range                       Range is ignored: 200 and the whole file

kinds that modify a page of a list; all of them apply
  new-key                        rows have a key that they did not have before
  blank-amounts                  amounts and quantities are empty text
  other-types                    amounts and quantities are text, a retracted event's ID is a number
  empty-list                     no rows, as for a key without access to the list
  (and, except for data_sources, subscriptions and metrics)
  empty-page                     no rows, but has_more, and another cursor for the same position
  short-page                     'rows' rows (half of per_page), though more follow
  repeated-row                   the page starts with the last row of the page before
  stuck-cursor                   the request's cursor again, and has_more
  row-created                    after this page, a row is created: the newest one
  row-deleted                    after this page, the next row is deleted
  customer-moved                 after this page, the customer-since of a customer changes, so that the walk meets it
                                 again (to=later) or misses it (to=earlier) (customers only)

options for how often; by default every request is hit until the fault is removed
  times=N          N requests
  p=P              each request with probability P, above 0 and at most 1
  skip=N           not the first N requests
  for_seconds=S    for S seconds after the fault was added
  above=N          only requests above N in any 'window' seconds, as a limit of compute time does
  window=S         the seconds of 'above' (60)
  seed=N           for random choices (p, byte): the same seed makes the same choices

options for what happens
  when=before      the request is not processed (default)
  when=after       the request is processed, then its response is replaced: for example, the export is created, but
                   its ID is lost (statuses, html, reset)
  retry_after=S    a Retry-After header of S seconds (statuses)
  retry_date=S     the same header as a date, S seconds from now
  body=B           json, json2 (the other form of 404 and 422), text or html (statuses at the API)
  at=BYTE          a byte of this response's body, counted from 0; beyond its end means its end; random by default
  delay=S          seconds (slow)
  rows=N           the rows of a page (short-page)
  to=TO            later (default) or earlier (customer-moved)
"""
"""The text form, as the command line shows it."""

_FREQUENCY = ("times", "p", "skip", "for_seconds", "above", "window", "seed")

KIND_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(STATUSES, ("retry_after", "retry_date", "body", "when", *_FREQUENCY)),
    "html": ("when", *_FREQUENCY),
    "half-json": ("at", *_FREQUENCY),
    "reset": ("when", *_FREQUENCY),
    "stall": ("at", *_FREQUENCY),
    "slow": ("delay", *_FREQUENCY),
    "interrupt": ("at", *_FREQUENCY),
    "truncate": ("at", *_FREQUENCY),
    "flip": ("at", *_FREQUENCY),
    "etag": _FREQUENCY,
    "no-range": _FREQUENCY,
    "new-key": _FREQUENCY,
    "blank-amounts": _FREQUENCY,
    "other-types": _FREQUENCY,
    "empty-list": _FREQUENCY,
    "empty-page": _FREQUENCY,
    "short-page": ("rows", *_FREQUENCY),
    "repeated-row": _FREQUENCY,
    "stuck-cursor": _FREQUENCY,
    "row-created": _FREQUENCY,
    "row-deleted": _FREQUENCY,
    "customer-moved": ("to", *_FREQUENCY),
}
"""All kinds, and the options that each has."""

_DOWNLOAD_KINDS = ("truncate", "flip", "etag", "no-range")

_KIND_ENDPOINTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_DOWNLOAD_KINDS, ("download",)),
    **dict.fromkeys(("new-key", "blank-amounts", "other-types", "empty-list"), LISTS),
    **dict.fromkeys(
        ("empty-page", "short-page", "repeated-row", "stuck-cursor", "row-created", "row-deleted"), _WALKED_LISTS
    ),
    "customer-moved": ("customers",),
}
"""The endpoints of the kinds that not all endpoints have."""

MODIFYING_KINDS = ("slow", "interrupt", *_KIND_ENDPOINTS)
"""The kinds that modify the response instead of replacing it."""


@dataclass(frozen=True)
class _Option:
    """How an option is read from text, and which values are valid; `expected` completes 'must be'."""

    read: Callable[[str], Any]
    is_valid: Callable[[Any], bool]
    expected: str


def _is_int(minimum: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= minimum


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _one_of(*values: str) -> _Option:
    return _Option(str, lambda value: value in values, " or ".join(values))


_OPTIONS: dict[str, _Option] = {
    "times": _Option(int, _is_int(1), "a whole number of at least 1"),
    "p": _Option(float, lambda value: _is_number(value) and 0 < value <= 1, "a number above 0 and at most 1"),
    "skip": _Option(int, _is_int(0), "a whole number of at least 0"),
    "for_seconds": _Option(float, lambda value: _is_number(value) and value > 0, "a number above 0"),
    "seed": _Option(int, lambda value: type(value) is int, "a whole number"),
    "when": _one_of("before", "after"),
    "retry_after": _Option(int, _is_int(0), "a whole number of seconds, at least 0"),
    "retry_date": _Option(int, lambda value: type(value) is int and abs(value) <= 10**9, "a whole number of seconds"),
    "body": _one_of(*BODIES),
    "at": _Option(int, _is_int(0), "a whole number of bytes, at least 0"),
    "delay": _Option(float, lambda value: _is_number(value) and value >= 0, "a number of seconds, at least 0"),
    "above": _Option(int, _is_int(0), "a whole number of at least 0"),
    "window": _Option(float, lambda value: _is_number(value) and value > 0, "a number of seconds above 0"),
    "rows": _Option(int, _is_int(1), "a whole number of at least 1"),
    "to": _one_of("later", "earlier"),
}


@dataclass(frozen=True)
class Fault:
    """A fault; `str()` returns its text form, `parse()` reads it.

    By default a fault hits every request at its place. These options limit it, and can be combined:

    :param place: one of `PLACES`.
    :param kind: one of `KIND_OPTIONS`; a status may be a number.
    :param times: the number of requests to hit.
    :param p: the probability with which a request is hit.
    :param skip: the number of requests to leave alone first.
    :param for_seconds: how long requests are hit, in seconds since the fault was added.
    :param seed: seeds the random choices: the same seed makes the same choices.
    :param above: hits only the requests above this number within `window` seconds, as a limit of compute time does.
    :param window: the seconds of `above`; 60 by default.

    These say what happens to a request:

    :param when: `before` (default) replaces the response without processing the request; `after` processes it first,
        so that an export is created though its ID is lost. For statuses, `html` and `reset`.
    :param retry_after: the seconds of a Retry-After header. For statuses.
    :param retry_date: the same header as a date, in seconds from now; negative for a date in the past.
    :param body: one of `BODIES`, for statuses at the API. By default JSON for the API's own errors, an HTML page for
        520 and 524, which a proxy sends, and text for the others.
    :param at: the byte of this response's body at which the fault occurs, from 0; beyond the end means the end. By
        default random; for `half-json` the middle, for `stall` 0.
    :param delay: seconds, for `slow`.
    :param rows: the number of rows of a `short-page`; half of `per_page` by default.
    :param to: `later` (default) or `earlier`, for `customer-moved`.
    :raises ValueError: for an unknown or invalid value; the message lists the known ones.
    """

    place: str
    kind: str | int
    times: int | None = None
    p: float | None = None
    skip: int | None = None
    for_seconds: float | None = None
    seed: int | None = None
    when: str | None = None
    retry_after: int | None = None
    retry_date: int | None = None
    body: str | None = None
    at: int | None = None
    delay: float | None = None
    above: int | None = None
    window: float | None = None
    rows: int | None = None
    to: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", str(self.kind))
        if self.place not in PLACES:
            raise ValueError(f"unknown place: {self.place!r}; known places: {', '.join(PLACES)}")
        if self.kind not in KIND_OPTIONS:
            raise ValueError(f"unknown kind: {self.kind!r}; known kinds: {', '.join(KIND_OPTIONS)}")
        if self.kind in _DOWNLOAD_KINDS and self.place != "download":
            raise ValueError(f"{self.kind} is for downloads only: use download:{self.kind}")
        endpoints = _KIND_ENDPOINTS.get(self.kind, PLACES)
        if self.place not in endpoints and (self.place != "lists" or len(endpoints) == 1):
            known = (*endpoints, "lists") if len(endpoints) > 1 else endpoints
            raise ValueError(f"{self.kind} is for lists only: use one of {', '.join(known)} as its place")
        if self.kind == "half-json" and self.place not in API_PLACES:
            raise ValueError(f"half-json is for the API only: use one of {', '.join(API_PLACES)} as its place")
        for name, value in self.options().items():
            if name not in KIND_OPTIONS[self.kind]:
                raise ValueError(f"{self.kind} has no option {name}; it has: {', '.join(KIND_OPTIONS[self.kind])}")
            if not _OPTIONS[name].is_valid(value):
                raise ValueError(f"{name} must be {_OPTIONS[name].expected}, not {value!r}")
        if self.window is not None and self.above is None:
            raise ValueError("window needs above: the number of requests to leave alone within it")
        if self.retry_after is not None and self.retry_date is not None:
            raise ValueError("retry_after and retry_date set the same header: use one of them")
        if self.body is not None and self.place == "download":
            raise ValueError("body is for the API only: the download host responds with S3's XML")
        if self.body == "json2" and self.kind not in ("404", "422"):
            raise ValueError("body=json2 is for 404 and 422 only, which come in two forms")
        if self.body == "json" and self.kind not in _JSON_STATUSES:
            raise ValueError(f"{self.kind} does not come from the API itself, so its body is text or html, not JSON")

    def is_at(self, host: str, endpoint: str) -> bool:
        """Return whether the fault concerns an endpoint.

        :param host: `api` or `download`.
        :param endpoint: the API's endpoint as a place, or the host again.
        """
        if endpoint not in _KIND_ENDPOINTS.get(str(self.kind), (endpoint,)):
            return False
        return self.place in ("any", host, endpoint) or (self.place == "lists" and endpoint in LISTS)

    def options(self) -> dict[str, Any]:
        """Return the options that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        options = (f"{name}={value}" for name, value in self.options().items())
        return ";".join((f"{self.place}:{self.kind}", *options))

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read the text form: `PLACE:KIND`, followed by any number of `;OPTION=VALUE`.

        :raises ValueError: for an unknown or invalid value; the message lists the known ones.
        """
        head, *parts = text.strip().split(";")
        place, colon, kind = head.partition(":")
        if not colon:
            raise ValueError(f"a fault is PLACE:KIND;OPTION=VALUE;..., such as retrieve:429;times=5, not {text!r}")
        options: dict[str, Any] = {}
        for part in parts:
            name, equals, value = part.partition("=")
            if not equals or name not in _OPTIONS:
                known = KIND_OPTIONS.get(kind, tuple(_OPTIONS))
                raise ValueError(f"unknown option in {text!r}: {part!r}; known: {', '.join(known)}, each as NAME=VALUE")
            if name in options:
                raise ValueError(f"{name} occurs twice in {text!r}")
            try:
                options[name] = _OPTIONS[name].read(value)
            except ValueError:
                raise ValueError(f"{name} must be {_OPTIONS[name].expected}, not {value!r}") from None
        return cls(place, kind, **options)

    @classmethod
    def from_json(cls, value: Any) -> Fault:
        """Read a fault from JSON: an object with the parameters' names, or the text form as a string.

        :raises ValueError: for an unknown or invalid value; the message lists the known ones.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"a fault is a JSON object or string, not {value!r:.100}")
        unknown = sorted(str(name) for name in value if name not in ("place", "kind", *_OPTIONS))
        if unknown:
            raise ValueError(f"unknown options: {', '.join(unknown)}; known: place, kind, {', '.join(_OPTIONS)}")
        if "place" not in value or "kind" not in value:
            raise ValueError('a fault needs "place" and "kind"')
        return cls(**value)

    def as_json(self) -> dict[str, Any]:
        """Return the fault in the form that `from_json` reads."""
        return {"place": self.place, "kind": self.kind, **self.options()}


def parse_faults(text: str) -> list[Fault]:
    """Read faults in their text form, separated by white space.

    :raises ValueError: as `Fault.parse` does.
    """
    return [Fault.parse(part) for part in text.split()]
