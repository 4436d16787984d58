# SPDX-License-Identifier: Apache-2.0
"""The account behind the sandbox: its settings, its limits, its exports and the record of what it was asked.

Nothing here speaks HTTP: `server.py` (the API) and `bucket.py` (the download host) do, and ask an `Account`
what to answer. They run in one event loop; users read and change an account from their own threads. So the
settings are plain attributes, each read once where it is needed, and the two collections that grow are
written and copied under a lock.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from airflow_provider_chartmogul.sandbox.company import ACTIVITY_TYPES, Company, to_zip
from airflow_provider_chartmogul.sandbox.counters import Counters, Host
from airflow_provider_chartmogul.sandbox.faults import Faults

log = logging.getLogger("airflow_provider_chartmogul.sandbox")

LONGEST_URL_SECONDS = 604_800
"""Seven days: S3 signs no URL for longer."""

DONE = ("succeeded", "successful")
"""The two words for done: the recordings' and the reference's."""

SETTINGS = ("export_seconds", "outcome", "url_seconds", "fresh_urls", "requests_per_second", "max_connections")
"""The parameters that can be changed while it runs."""

_KEPT_REQUESTS = 200_000
_KEPT_EXPORTS = 100_000
_SHARE_PENDING = 0.25

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,6})?)?( ?(Z|[+-]\d{2}:?\d{2}))?)?", re.ASCII)


class Rejected(Exception):
    """A request the API does not accept, with the status and the body it answers."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


def bad_request(message: str, param: str | None) -> Rejected:
    """A 400 in the shape the API gives it."""
    return Rejected(400, {"code": 400, "message": message, "param": param})


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request the sandbox answered; `status` is 0 where it was stopped before it could, or a fault reset it.

    `host` says which of the two servers it came to. `path` is as it was sent, without the query. `headers`
    have lower-case names; of `authorization` only the scheme is kept. `started` is `time.monotonic()` at the
    moment the request's head had been read. `fault` is the text of the faults that hit it, empty where none did.
    """

    host: Host
    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    started: float
    fault: str = ""


@dataclass(frozen=True, slots=True)
class SeenExport:
    """One export that was made.

    `params` are as the API echoes them: `activity_type`, `start_date`, `end_date`, each only if it was given.
    """

    id: str
    params: dict[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """What an export is asked for; None where a parameter was left out."""

    start: datetime | None
    end: datetime | None
    activity_type: str | None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Window:
        """Read the parameters of a create request. Unknown ones are ignored, as the API does.

        :raises Rejected: 400 for a date that is none, 422 for an unknown type or an end before the start.
        """
        start = _date(params, "start-date")
        end = _date(params, "end-date")
        activity_type = params.get("type")
        if activity_type is not None and activity_type not in ACTIVITY_TYPES:
            raise Rejected(422, {"errors": {"type": "is not included in the list"}})
        if start is not None and end is not None and end < start:
            raise Rejected(422, {"errors": {"end-date": "must not be before start-date"}})
        return cls(start, end, activity_type)

    def echo(self) -> dict[str, str]:
        """The parameters as the API repeats them; those left out stay out."""
        echoed: dict[str, str] = {}
        if self.activity_type is not None:
            echoed["activity_type"] = self.activity_type
        if self.start is not None:
            echoed["start_date"] = _echo(self.start)
        if self.end is not None:
            echoed["end_date"] = _echo(self.end)
        return echoed


def _date(params: Mapping[str, Any], name: str) -> datetime | None:
    value = params.get(name)
    if value is None:
        return None
    try:
        if not isinstance(value, str) or not _DATE.fullmatch(value):
            raise ValueError(value)
        moment = datetime.fromisoformat(value.replace(" +", "+").replace(" -", "-").replace(" Z", "Z"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_request(f'Parameter "{name}" is malformed', name) from None


def _echo(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", "seconds") + " +0000"


@dataclass(slots=True)
class Export:
    """One export of the account, with what becomes of it."""

    id: str
    path: str
    window: Window
    outcome: str
    created_at: datetime
    made: float
    final: str | None = None
    signed_at: datetime | None = None
    url_seconds: int = 0

    def expires_at(self) -> datetime | None:
        """When the URL last signed for it expires; None while there is none."""
        return None if self.signed_at is None else self.signed_at + timedelta(seconds=self.url_seconds)


@dataclass(frozen=True, slots=True)
class Archive:
    """The finished file: its bytes and its ETag, quoted as in the header."""

    content: bytes
    etag: str


class Account:
    """A ChartMogul account, without the network. See `Sandbox` for the parameters.

    :raises ValueError: for a setting that makes no sense, naming it.
    """

    def __init__(
        self,
        *,
        api_key: str,
        export_seconds: float,
        customers: int,
        seed: int,
        requests_per_second: int | None,
        max_connections: int | None,
        url_seconds: int,
        fresh_urls: bool,
        outcome: str,
    ) -> None:
        if not api_key or ":" in api_key:
            raise ValueError("api_key must not be empty and, being a Basic user name, have no colon")
        self.export_seconds = export_seconds
        self.requests_per_second = requests_per_second
        self.max_connections = max_connections
        self.url_seconds = url_seconds
        self.fresh_urls = fresh_urls
        self.outcome = outcome
        for name, value in self.settings.items():
            _check_setting(name, value)
        self.api_key = api_key
        self.faults = Faults()
        self.counters = Counters()
        self.company = Company(seed, customers)
        self.url_secret = secrets.token_hex(20)
        self._account_uuid = uuid.uuid5(uuid.NAMESPACE_URL, f"sandbox/{seed}/{customers}")
        self._lock = threading.Lock()
        self._requests: deque[SeenRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._exports: dict[str, Export] = {}
        self._by_path: dict[str, Export] = {}
        self._admitted: deque[float] = deque()
        self._packing = threading.Lock()
        # Downloads are resumed and repeated; content is a function of the window, so a few are enough.
        self._packed = lru_cache(maxsize=8)(self._pack)

    # What users look at and change, from their own threads.

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that can be changed while it runs, as they are now; a copy."""
        return {name: getattr(self, name) for name in SETTINGS}

    def change(self, settings: Mapping[str, Any]) -> None:
        """Change some of `settings`: all that are given or, when one makes no sense, none.

        :raises ValueError: for a value that makes no sense or an unknown name, naming it.
        """
        for name, value in settings.items():
            _check_setting(name, value)
        for name, value in settings.items():
            setattr(self, name, value)

    @property
    def requests(self) -> list[SeenRequest]:
        """The requests answered so far, oldest first; a copy. The last 200,000 are kept."""
        with self._lock:
            return list(self._requests)

    @property
    def exports(self) -> list[SeenExport]:
        """The exports made so far, oldest first; a copy. The last 100,000 are kept, and known to the API."""
        with self._lock:
            made = list(self._exports.values())
        return [SeenExport(export.id, export.window.echo(), export.created_at) for export in made]

    def truth(self, start: datetime | None, end: datetime, activity_type: str | None = None) -> list[dict[str, str]]:
        """What an export of this window holds: rows as `csv.DictReader` gives them, all values text.

        :param start: the window's first moment; None means from the company's founding. A datetime without a
            time zone is UTC.
        :param end: the moment at which it is over, not included. An export without an `end-date` goes up to
            its own `created_at`.
        :param activity_type: one of the API's types; None means all of them.
        :raises ValueError: for any other type.
        """
        return [row.as_text() for row in self.company.activities(start, end, activity_type)]

    def export_states(self) -> dict[str, int]:
        """How many of `exports` are in which state now; a copy."""
        with self._lock:
            made = list(self._exports.values())
        return dict(sorted(Counter(self._state(export) for export in made).items()))

    def amend(self, *, added: Iterable[Mapping[str, object]] = (), removed: Iterable[str] = ()) -> None:
        """Change the company's history: exports downloaded from now on, and `truth`, have it as it is then::

            row = sandbox.truth(start, end)[0]
            sandbox.amend(removed=[row["uuid"]])                                      # one is gone
            sandbox.amend(added=[{**row, "uuid": "new", "date": "2024-01-02T12:00"}])   # one is backdated

        :param added: rows as `truth` gives them; a date without a time zone is UTC. One whose `uuid` is removed in
            the same call is edited.
        :param removed: values of `uuid`; one that no activity has changes nothing.
        :raises ValueError: for a row that makes no sense; then nothing has changed.
        """
        with self._packing:
            self.company.amend(added=added, removed=removed)
            self._packed.cache_clear()

    # What the servers ask.

    def saw(self, request: SeenRequest) -> None:
        """Put a request on record, just before it is answered."""
        with self._lock:
            self._requests.append(request)
        self.counters.answered(request.host, request.status, faulty=bool(request.fault))
        fault = f" ({request.fault})" if request.fault else ""
        log.info("%s %s %s %d%s", request.host, request.method, request.path, request.status, fault)

    def knows(self, key: str, password: str) -> bool:
        """Whether these are the account's credentials: the key as the user name, and no password."""
        return hmac.compare_digest(key.encode(), self.api_key.encode()) and not password

    def admit(self) -> bool:
        """Whether one more request now stays within `requests_per_second`. Refused ones are not counted."""
        limit = self.requests_per_second
        if limit is None:
            return True
        now = time.monotonic()
        while self._admitted and now - self._admitted[0] >= 1.0:
            self._admitted.popleft()
        if len(self._admitted) >= limit:
            return False
        self._admitted.append(now)
        return True

    def create(self, window: Window) -> Export:
        """Make an export of the window; how it ends is this moment's `outcome`."""
        export = Export(
            id=str(uuid.uuid4()),
            path=f"/activities-{self._account_uuid}-{uuid.uuid4()}.zip",
            window=window,
            outcome=self.outcome,
            # Whole seconds, as the reply has them: where it is the end of the window, both must agree.
            created_at=datetime.now(UTC).replace(microsecond=0),
            made=time.monotonic(),
        )
        with self._lock:
            self._exports[export.id] = export
            self._by_path[export.path] = export
            if len(self._exports) > _KEPT_EXPORTS:
                oldest = self._exports.pop(next(iter(self._exports)))
                del self._by_path[oldest.path]
        return export

    def export(self, export_id: str) -> Export | None:
        """The export with this ID, or None."""
        return self._exports.get(export_id)

    def export_at(self, path: str) -> Export | None:
        """The export whose file is at this path of the download host, or None."""
        return self._by_path.get(path)

    def look(self, export: Export) -> str:
        """The export's status now, and a URL signed if it is due one.

        Ready `export_seconds` after it was made, as that setting stands now; what is over stays over.
        """
        status = self._state(export)
        if status in (*DONE, "failed") and status == export.outcome:
            export.final = status
        if status in DONE:
            now = datetime.now(UTC).replace(microsecond=0)
            expires_at = export.expires_at()
            if expires_at is None or (self.fresh_urls and now >= expires_at):
                export.signed_at, export.url_seconds = now, int(self.url_seconds)
        return status

    def _state(self, export: Export) -> str:
        """The export's status now, with nothing changed by looking."""
        if export.final is not None:
            return export.final
        if export.outcome not in (*DONE, "failed", "never"):
            return export.outcome
        ready_in = self.export_seconds
        age = time.monotonic() - export.made
        if export.outcome != "never" and age >= ready_in:
            return export.outcome
        return "pending" if age < ready_in * _SHARE_PENDING else "processing"

    def archive(self, export: Export) -> Archive:
        """The export's file. Takes up to seconds; call it from a worker thread."""
        window = export.window
        # One at a time, so that many who ask for the same file at once wait for one to make it.
        with self._packing:
            return self._packed(window.start, window.end or export.created_at, window.activity_type)

    def _pack(self, start: datetime | None, end: datetime, activity_type: str | None) -> Archive:
        content = to_zip(self.company.activities(start, end, activity_type))
        return Archive(content, f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"')


def _check_setting(name: str, value: Any) -> None:
    """
    :raises ValueError: for a value the setting cannot have, or a name that is none of a setting.
    """
    whole = type(value) is int
    if name == "export_seconds":
        good, wanted = type(value) in (int, float) and math.isfinite(value) and value >= 0, "0 or more"
    elif name == "url_seconds":
        good, wanted = whole and 0 <= value <= LONGEST_URL_SECONDS, f"a whole number from 0 to {LONGEST_URL_SECONDS}"
    elif name in ("requests_per_second", "max_connections"):
        good, wanted = value is None or (whole and value >= 0), "a whole number from 0 on, or none at all"
    elif name == "fresh_urls":
        good, wanted = type(value) is bool, "true or false"
    elif name == "outcome":
        good, wanted = isinstance(value, str) and value != "", "a word"
    else:
        raise ValueError(f"no such setting: {name}; known: {', '.join(SETTINGS)}")
    if not good:
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
