# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: what one is, how it is written down, and which of them hit a request.

`HELP` has all places, kinds and options. Nothing here speaks HTTP: `mischief.py` does to requests what is drawn
here.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

PLACES = ("ping", "account", "create", "retrieve", "api", "download", "any")
"""Where a fault can be."""

STATUSES = ("400", "401", "402", "403", "404", "422", "429", "500", "502", "503", "504", "520", "524")
"""The kinds that are an HTTP status."""

BODIES = ("json", "json2", "text", "html")
"""Bodies of the API's error statuses: `json2` is the second of the shapes that 404 and 422 come in."""

HELP = """\
A fault is PLACE:KIND, then as many ;OPTION=VALUE as wanted. Several are separated by white space.

  retrieve:429;retry_after=2;times=5    download:break;p=0.2    create:reset;when=after;times=1

places
  ping account create retrieve   one of the API's requests
  api                            all of the API's
  download                       all of the download host's
  any                            all

kinds that give another answer; of several, the first that was added has the request
  400 401 402 403 404 422 429    that status, with the API's JSON
  500 502 503 504 520 524        that status, with text or, 520 and 524, HTML
                                 (at the download host S3's XML: 403 is the URL that expired, 503 SlowDown)
  html                           200, and HTML where JSON or the archive should be
  half-json                      200, and the JSON up to its middle, or to byte 'at' (API only)
  reset                          no answer: the connection is reset
  stall                          the head, 'at' bytes of the body (0), then nothing until the client hangs up

kinds that spoil the answer; they add up
  slow                           it comes 'delay' seconds later (5)
  break                          the connection ends after 'at' bytes of the body (downloads only, as are all below)
  cut                            the body ends after 'at' bytes, and the head says that this is all
  flip                           one bit of byte 'at' is another
  etag                           the file has another ETag at each request
  no-range                       Range is ignored: 200 and the whole file

options: how often; without any, every request until the fault is taken away
  times=N          N requests, then no more
  p=P              each with the probability P, above 0 and up to 1
  skip=N           not the first N
  for_seconds=S    for S seconds from when it is added
  seed=N           for what is drawn, p and bytes: the same seed, the same draws

options: what happens
  when=before      the request is not acted on (default), or
  when=after       it is, and then its answer is replaced: the export is made, and nobody is told
                   (statuses, html, reset)
  retry_after=S    a Retry-After of S seconds (statuses)
  retry_date=S     the same as a date, S seconds ahead
  body=B           json, json2 (the other shape of 404 and 422), text or html (statuses at the API)
  at=BYTE          counted from 0 in the body of this one answer, beyond its end means at its end; drawn by default
  delay=S          seconds (slow)
"""
"""The grammar, as the command line shows it."""

_OFTEN = ("times", "p", "skip", "for_seconds", "seed")

TAKES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(STATUSES, ("retry_after", "retry_date", "body", "when", *_OFTEN)),
    "html": ("when", *_OFTEN),
    "half-json": ("at", *_OFTEN),
    "reset": ("when", *_OFTEN),
    "stall": ("at", *_OFTEN),
    "slow": ("delay", *_OFTEN),
    "break": ("at", *_OFTEN),
    "cut": ("at", *_OFTEN),
    "flip": ("at", *_OFTEN),
    "etag": _OFTEN,
    "no-range": _OFTEN,
}
"""All kinds, and the options each takes."""

SPOILING = ("slow", "break", "cut", "flip", "etag", "no-range")
"""The kinds that leave the answer to others and spoil it."""

_DOWNLOAD_ONLY = ("break", "cut", "flip", "etag", "no-range")
_API_PLACES = ("ping", "account", "create", "retrieve", "api")
_KEPT_SPENT = 20


@dataclass(frozen=True)
class _Option:
    """How an option is read from text, and what it may be; `wanted` completes 'must be'."""

    read: Callable[[str], Any]
    holds: Callable[[Any], bool]
    wanted: str


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _word(*known: str) -> _Option:
    return _Option(str, lambda value: value in known, " or ".join(known))


_OPTIONS: dict[str, _Option] = {
    "times": _Option(int, _whole(1), "a whole number from 1 on"),
    "p": _Option(float, lambda value: _number(value) and 0 < value <= 1, "a number above 0 and up to 1"),
    "skip": _Option(int, _whole(0), "a whole number from 0 on"),
    "for_seconds": _Option(float, lambda value: _number(value) and value > 0, "a number above 0"),
    "seed": _Option(int, lambda value: type(value) is int, "a whole number"),
    "when": _word("before", "after"),
    "retry_after": _Option(int, _whole(0), "a whole number of seconds from 0 on"),
    "retry_date": _Option(int, lambda value: type(value) is int and abs(value) <= 10**9, "a whole number of seconds"),
    "body": _word(*BODIES),
    "at": _Option(int, _whole(0), "a whole number of bytes from 0 on"),
    "delay": _Option(float, lambda value: _number(value) and value >= 0, "a number of seconds from 0 on"),
}


@dataclass(frozen=True)
class Fault:
    """One fault: `str()` gives its text form, `parse()` reads it.

    Which requests at its place are hit: all of them, less what these options say, which can be combined:

    :param on: the place; one of `PLACES`.
    :param what: the kind; one of `TAKES`, a status also as a number.
    :param times: so many requests, then no more.
    :param p: each with this probability, drawn from `seed`: the same seed, the same draws.
    :param skip: not the first so many.
    :param for_seconds: for so long, from when the fault is added.
    :param seed: for `p` and for bytes that are drawn.

    And what happens to them, by kind:

    :param when: `before` the request is acted on or `after` it was: a POST that made the export, though its
        answer is lost. For statuses, `html` and `reset`.
    :param retry_after: a Retry-After header of so many seconds. For statuses.
    :param retry_date: the same, as the date so many seconds ahead; negative for one that has passed.
    :param body: one of `BODIES`, for statuses at the API. By default JSON up to 429, text from 500 on, and the
        page of the proxy in front for 520 and 524.
    :param at: the byte of this answer's body at which it happens, from 0; past the end means at the end. By
        default one that is drawn, for `half-json` the middle, for `stall` 0.
    :param delay: seconds, for `slow`.
    :raises ValueError: for what is not known or makes no sense, naming what is known.
    """

    on: str
    what: str | int
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "what", str(self.what))
        if self.on not in PLACES:
            raise ValueError(f"no such place for a fault: {self.on!r}; known: {', '.join(PLACES)}")
        if self.what not in TAKES:
            raise ValueError(f"no such fault: {self.what!r}; known: {', '.join(TAKES)}")
        if self.what in _DOWNLOAD_ONLY and self.on != "download":
            raise ValueError(f"{self.what} is a fault of downloads: write download:{self.what}")
        if self.what == "half-json" and self.on not in _API_PLACES:
            raise ValueError(f"half-json is a fault of the API: its place is one of {', '.join(_API_PLACES)}")
        for name, value in self.options().items():
            if name not in TAKES[self.what]:
                raise ValueError(f"{self.what} has no {name}; it takes: {', '.join(TAKES[self.what])}")
            if not _OPTIONS[name].holds(value):
                raise ValueError(f"{name} must be {_OPTIONS[name].wanted}, not {value!r}")
        if self.retry_after is not None and self.retry_date is not None:
            raise ValueError("retry_after and retry_date are the same header: give one of them")
        if self.body is not None and self.on == "download":
            raise ValueError("body is for the API's errors: those of the download host are S3's")
        if self.body == "json2" and self.what not in ("404", "422"):
            raise ValueError("body=json2 is for 404 and 422, which come in two shapes")
        if self.body == "json" and str(self.what) >= "500":
            raise ValueError(f"{self.what} is no answer of the API itself, and never JSON: body is text or html")

    def options(self) -> dict[str, Any]:
        """The options that were given, by name."""
        given = {one.name: getattr(self, one.name) for one in fields(self)[2:]}
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        return ";".join((f"{self.on}:{self.what}", *(f"{name}={value}" for name, value in self.options().items())))

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read the text form: `PLACE:KIND`, then `;OPTION=VALUE` as often as wanted.

        :raises ValueError: for what is not that, naming what is known.
        """
        head, *rest = text.strip().split(";")
        on, colon, what = head.partition(":")
        if not colon:
            raise ValueError(f"a fault is PLACE:KIND;OPTION=VALUE;..., such as retrieve:429;times=5, not {text!r}")
        options: dict[str, Any] = {}
        for part in rest:
            name, equals, value = part.partition("=")
            if not equals or name not in _OPTIONS:
                known = TAKES.get(what, tuple(_OPTIONS))
                raise ValueError(f"no such option in {text!r}: {part!r}; known: {', '.join(known)}, each as NAME=VALUE")
            if name in options:
                raise ValueError(f"{name} is there twice in {text!r}")
            try:
                options[name] = _OPTIONS[name].read(value)
            except ValueError:
                raise ValueError(f"{name} must be {_OPTIONS[name].wanted}, not {value!r}") from None
        return cls(on, what, **options)

    @classmethod
    def from_json(cls, value: Any) -> Fault:
        """Read a fault out of JSON: an object with the parameters' names, or the text form as a string.

        :raises ValueError: as above.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"a fault is an object or a string, not {value!r:.100}")
        unknown = sorted(str(name) for name in value if name not in ("on", "what", *_OPTIONS))
        if unknown:
            raise ValueError(f"no such option: {', '.join(unknown)}; known: on, what, {', '.join(_OPTIONS)}")
        if "on" not in value or "what" not in value:
            raise ValueError('a fault needs "on" (the place) and "what" (the kind)')
        return cls(**value)

    def as_json(self) -> dict[str, Any]:
        """The fault as `from_json` reads it."""
        return {"on": self.on, "what": self.what, **self.options()}


class AddedFault:
    """A fault of a running sandbox, with what has become of it.

    `id` names it at the admin address; `hits` is how many requests it has hit, and `over` says that it will hit
    no more.
    """

    def __init__(self, number: int, fault: Fault) -> None:
        self.id = number
        self.fault = fault
        self.hits = 0
        self._seen = 0
        self._ends = math.inf if fault.for_seconds is None else time.monotonic() + fault.for_seconds
        # Not the seed alone: two faults with the same one would hit the same requests.
        self._draws = random.Random(f"{fault.seed or 0} {fault.on} {fault.what}")

    @property
    def over(self) -> bool:
        """Whether it will hit no more: its requests or its seconds are used up."""
        return (self.fault.times is not None and self.hits >= self.fault.times) or time.monotonic() >= self._ends

    def __repr__(self) -> str:
        return f"<{self.fault}: {self.hits} hits{', over' if self.over else ''}>"

    def hit(self) -> Hit | None:
        """One more request at its place: whether it is hit. To be called under the lock of `Faults`."""
        if self.over:
            return None
        self._seen += 1
        if self._seen <= (self.fault.skip or 0):
            return None
        if self.fault.p is not None and self._draws.random() >= self.fault.p:
            return None
        self.hits += 1
        return Hit(self.fault, self.hits, random.Random(self._draws.getrandbits(64)))


@dataclass(frozen=True)
class Hit:
    """That a fault hits a request; `number` is the how manieth of this fault's it is, from 1."""

    fault: Fault
    number: int
    draws: random.Random

    def byte(self, length: int) -> int:
        """The byte at which it happens, in a body of `length` bytes; 0 in an empty one."""
        last = max(0, length - 1)
        return self.draws.randint(min(1, last), last) if self.fault.at is None else min(self.fault.at, last)


@dataclass(frozen=True)
class Hits:
    """What hits one request: the fault whose answer it gets, if any, and those that spoil it, by kind."""

    answer: Hit | None
    spoiled: dict[str, Hit]

    def __str__(self) -> str:
        return " ".join(str(hit.fault) for hit in (*self.spoiled.values(), self.answer) if hit is not None)


class Faults:
    """The faults of a sandbox, in the order in which they were added. All methods may be called from any thread.

    Of those that give another answer, the first that hits a request has it, and the others do not count it.
    Those that spoil the answer add up, and are left aside, `slow` excepted, where it is another one anyway.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added: list[AddedFault] = []
        self._count = 0

    def __iter__(self) -> Iterator[AddedFault]:
        """Those that are on, and the last few that are over."""
        with self._lock:
            return iter(list(self._added))

    def add(self, *faults: Fault | str) -> list[AddedFault]:
        """Add faults, each a `Fault` or its text form; all of them or, when one makes no sense, none.

        :return: one for each, which tell how often they have hit.
        :raises ValueError: as `Fault` does.
        """
        read = [fault if isinstance(fault, Fault) else Fault.parse(fault) for fault in faults]
        with self._lock:
            added = [AddedFault(self._count + number, fault) for number, fault in enumerate(read, 1)]
            self._count += len(added)
            spent = [one for one in self._added if one.over][:-_KEPT_SPENT]
            self._added = [one for one in self._added if one not in spent] + added
        return added

    def remove(self, *added: AddedFault) -> None:
        """Take these away; those that are gone already are no error."""
        with self._lock:
            self._added = [one for one in self._added if one not in added]

    def clear(self) -> None:
        """Take all of them away."""
        with self._lock:
            self._added = []

    def draw(self, host: str, request: str) -> Hits | None:
        """Which faults hit a request; None when none does.

        :param host: `api` or `download`.
        :param request: one of `PLACES` that says more, or the host again.
        """
        if not self._added:
            return None
        answer: Hit | None = None
        spoiled: dict[str, Hit] = {}
        with self._lock:
            here = [one for one in self._added if one.fault.on in ("any", host, request)]
            for one in here:
                if one.fault.what not in SPOILING and answer is None:
                    answer = one.hit()
            for one in here:
                what = str(one.fault.what)
                if what in SPOILING and what not in spoiled and (answer is None or what == "slow"):
                    hit = one.hit()
                    if hit is not None:
                        spoiled[what] = hit
        return Hits(answer, spoiled) if answer is not None or spoiled else None


def parse_faults(text: str) -> list[Fault]:
    """Read any number of faults in their text form, with white space between them.

    :raises ValueError: as `Fault.parse` does.
    """
    return [Fault.parse(one) for one in text.split()]
