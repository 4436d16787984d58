# SPDX-License-Identifier: Apache-2.0
"""The sandbox's admin address on aiohttp.server: what it has counted, and its faults and settings while it runs.

It has a port of its own, which is none of ChartMogul's: what is asked here counts among no requests,
connections and limits, and needs no key. It shows neither the key nor a signed URL.

* `GET /`: a page of the counters, which loads itself again
* `GET /counters`: the same as JSON; `POST /reset` begins to count anew
* `GET /faults`, `POST /faults` (the text form, or JSON), `DELETE /faults`, `DELETE /faults/{id}`
* `GET /settings`, `PATCH /settings` (a JSON object)
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from html import escape
from typing import Any

from aiohttp import web

from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.counters import HOSTS, NO_ANSWER
from airflow_provider_chartmogul.sandbox.faults import AddedFault, Fault, parse_faults

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ADDRESSES = "GET /, GET /counters, POST /reset, GET|POST|DELETE /faults, DELETE /faults/ID, GET|PATCH /settings"

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class AdminServer:
    """The admin address of one account.

    :param account: what it shows and changes.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        app = web.Application(middlewares=[_errors_as_json])
        app.router.add_get("/", self._page)
        app.router.add_get("/counters", self._counters)
        app.router.add_post("/reset", self._reset)
        app.router.add_get("/faults", self._faults)
        app.router.add_post("/faults", self._add_faults)
        app.router.add_delete("/faults", self._clear_faults)
        app.router.add_delete("/faults/{id}", self._remove_fault)
        app.router.add_get("/settings", self._settings)
        app.router.add_patch("/settings", self._change_settings)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def _page(self, request: web.Request) -> web.Response:
        page = render(counters(self._account), self._account.settings, f"http://{request.host}")
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def _counters(self, request: web.Request) -> web.Response:
        return _json(counters(self._account))

    async def _reset(self, request: web.Request) -> web.Response:
        self._account.counters.reset()
        return _json(counters(self._account))

    async def _faults(self, request: web.Request) -> web.Response:
        return _json(_as_json(self._account.faults))

    async def _add_faults(self, request: web.Request) -> web.Response:
        text = (await request.read()).decode().strip()
        if text.startswith(("{", "[", '"')):
            given = json.loads(text)
            faults = [Fault.from_json(one) for one in (given if isinstance(given, list) else [given])]
        else:
            faults = parse_faults(text)
        if not faults:
            raise ValueError("a fault is wanted in the body, such as retrieve:429;times=5")
        return _json(_as_json(self._account.faults.add(*faults)), status=201)

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._account.faults.clear()
        return _json([])

    async def _remove_fault(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        found = [added for added in self._account.faults if str(added.id) == wanted]
        if not found:
            return _json({"error": f"there is no fault {wanted}"}, status=404)
        self._account.faults.remove(*found)
        return _json(_as_json(self._account.faults))

    async def _settings(self, request: web.Request) -> web.Response:
        return _json(self._account.settings)

    async def _change_settings(self, request: web.Request) -> web.Response:
        given = json.loads(await request.read())
        if not isinstance(given, dict):
            raise ValueError('a JSON object is wanted, such as {"outcome": "failed"}')
        self._account.change(given)
        return _json(self._account.settings)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except json.JSONDecodeError as error:
        return _json({"error": f"the body is no JSON: {error}"}, status=400)
    except (ValueError, RecursionError) as error:
        return _json({"error": str(error)}, status=400)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        return _json({"error": f"there is no {request.method} {request.path}; there are: {_ADDRESSES}"}, error.status)


def counters(account: Account) -> dict[str, Any]:
    """All that is counted: of each host, the exports by state, and the faults."""
    return {
        **account.counters.as_json(),
        "exports": account.export_states(),
        "faults": _as_json(account.faults),
    }


def _as_json(faults: Iterable[AddedFault]) -> list[dict[str, Any]]:
    return [{"id": one.id, "fault": str(one.fault), "hits": one.hits, "over": one.over} for one in faults]


def _json(content: Any, status: int = 200) -> web.Response:
    # With a line's end, for the shell this is mostly read in.
    return web.Response(
        text=json.dumps(content, indent=2) + "\n", status=status, content_type="application/json", headers=_HEADERS
    )


_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #1f2933; background: #f5f7f9; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
p { margin: .25rem 0 1.25rem; color: #52606d; }
section { background: #fff; border: 1px solid #d9e2ec; border-radius: 8px; padding: 1rem 1.25rem; margin: 0 0 1rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-top: 1px solid #eef2f6; vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
tr:first-child > * { border-top: 0; }
th { font-weight: 400; color: #52606d; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.big { font-size: 1.35rem; font-weight: 600; }
td.bad { color: #b42318; font-weight: 600; }
.over, .none { color: #616e7c; }
code, pre { font: 14px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; }
""".strip()

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2">
<title>ChartMogul sandbox</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>ChartMogul sandbox</h1>
<p>Counting for {seconds}. This page loads itself again every two seconds.</p>
<div class="two">
{hosts}
</div>
<section>
<h2>Faults</h2>
{faults}
</section>
<div class="two">
<section>
<h2>Exports</h2>
{exports}
</section>
<section>
<h2>Settings</h2>
{settings}
</section>
</div>
<section>
<h2>From a shell</h2>
<pre>{shell}</pre>
</section>
</main>
</body>
</html>
"""

_TITLES = {"api": "API", "download": "Download host"}


def render(counted: dict[str, Any], settings: dict[str, Any], url: str) -> str:
    """The page.

    :param counted: what `counters` gives.
    :param settings: the account's.
    :param url: the admin address as it was called, without a slash at the end.
    """
    shell = "\n".join(
        (
            f"curl {url}/counters",
            f"curl -d 'retrieve:429;retry_after=2;times=5' {url}/faults",
            f"curl -X DELETE {url}/faults",
            f"""curl -X PATCH -d '{{"outcome": "failed"}}' {url}/settings""",
            f"curl -X POST {url}/reset",
        )
    )
    return _PAGE.format(
        style=_STYLE,
        seconds=escape(_duration(counted["seconds"])),
        hosts="\n".join(_host(_TITLES[host], counted[host], settings if host == "api" else {}) for host in HOSTS),
        faults=_faults_table(counted["faults"]),
        exports=_table((state, _count(number)) for state, number in counted["exports"].items()),
        settings=_table((name, _value(value)) for name, value in settings.items()),
        shell=escape(shell),
    )


def _host(title: str, numbers: dict[str, Any], settings: dict[str, Any]) -> str:
    rate, connections = numbers["per_second"], numbers["connections"]
    cells = [
        ("Requests so far", _count(numbers["requests"]), "n big"),
        ("Requests in the last second", _count(rate["now"]), "n big"),
        ("in the busiest second", _of(rate["busiest"], settings.get("requests_per_second")), "n"),
        ("a second on average", _average(rate["average"]), "n"),
        ("Connections open", _count(connections["now"]), "n big"),
        ("most open at a time", _of(connections["most"], settings.get("max_connections")), "n"),
        *(
            (f"Refused with {status}", _count(number), "n bad" if number else "n")
            for status, number in numbers["refused"].items()
        ),
        ("Hit by faults", _count(numbers["hit_by_faults"]), "n"),
        *(
            ("No answer" if status == NO_ANSWER else f"Answered {status}", _count(number), "n")
            for status, number in numbers["answers"].items()
            if status not in numbers["refused"]
        ),
    ]
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="{kind}">{value}</td></tr>' for name, value, kind in cells
    )
    return f"<section>\n<h2>{escape(title)}</h2>\n<table>\n{rows}\n</table>\n</section>"


def _faults_table(faults: list[dict[str, Any]]) -> str:
    if not faults:
        return '<span class="none">none</span>'
    rows = ['<tr><th scope="col">ID</th><th scope="col">Fault</th><th scope="col">Hits</th><th scope="col"></th></tr>']
    for one in faults:
        state, kind = ("over", ' class="over"') if one["over"] else ("on", "")
        rows.append(
            f"<tr{kind}><td>{one['id']}</td><td><code>{escape(one['fault'])}</code></td>"
            f"<td>{_count(one['hits'])}</td><td>{state}</td></tr>"
        )
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _table(pairs: Iterable[tuple[str, str]]) -> str:
    rows = [f'<tr><th scope="row">{escape(name)}</th><td class="n">{value}</td></tr>' for name, value in pairs]
    return "<table>\n" + "\n".join(rows) + "\n</table>" if rows else '<span class="none">none</span>'


def _count(number: int) -> str:
    return f"{number:,}"


def _average(number: float) -> str:
    return f"{number:,.2f}"


def _of(number: int, limit: int | None) -> str:
    return _count(number) if limit is None else f"{_count(number)} (limit {_count(limit)})"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "no limit", True: "yes", False: "no"}[value]
    return escape(f"{value:,}" if isinstance(value, (int, float)) else f"{value:.100}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number or unit == "s")
