# SPDX-License-Identifier: Apache-2.0
"""The page at the admin address."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from airflow_provider_chartmogul.sandbox.counters import HOSTS, NO_RESPONSE

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
.exhausted, .none { color: #616e7c; }
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
<p>Counters of the last {seconds}. This page reloads every two seconds.</p>
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
<h2>Commands</h2>
<pre>{commands}</pre>
</section>
</main>
</body>
</html>
"""

_TITLES = {"api": "API", "download": "Download host"}


def render(counters: dict[str, Any], settings: dict[str, Any], url: str) -> str:
    """Return the page as HTML.

    :param counters: the counters of each host, of exports and faults, as `GET /counters` returns them.
    :param settings: the account's settings.
    :param url: the admin address as the client called it, without a trailing slash.
    """
    commands = "\n".join(
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
        seconds=escape(_duration(counters["seconds"])),
        hosts="\n".join(_host(_TITLES[host], counters[host], settings if host == "api" else {}) for host in HOSTS),
        faults=_faults_table(counters["faults"]),
        exports=_table((status, _count(number)) for status, number in counters["exports"].items()),
        settings=_table((name, _setting(value)) for name, value in settings.items()),
        commands=escape(commands),
    )


def _host(title: str, numbers: dict[str, Any], settings: dict[str, Any]) -> str:
    rate, connections = numbers["per_second"], numbers["connections"]
    cells = [
        ("Requests", _count(numbers["requests"]), "n big"),
        ("Requests in the last second", _count(rate["now"]), "n big"),
        ("Requests in the busiest second", _with_limit(rate["busiest"], settings.get("requests_per_second")), "n"),
        ("Requests per second on average", f"{rate['average']:,.2f}", "n"),
        ("Open connections", _count(connections["now"]), "n big"),
        ("Most connections at a time", _with_limit(connections["most"], settings.get("max_connections")), "n"),
        *(
            (f"Refused with {status}", _count(number), "n bad" if number else "n")
            for status, number in numbers["refused"].items()
        ),
        ("Hit by faults", _count(numbers["hit_by_faults"]), "n"),
        *(
            ("No response" if status == NO_RESPONSE else f"Responses with {status}", _count(number), "n")
            for status, number in numbers["responses"].items()
            if status not in numbers["refused"]
        ),
    ]
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="{css}">{value}</td></tr>' for name, value, css in cells
    )
    return f"<section>\n<h2>{escape(title)}</h2>\n<table>\n{rows}\n</table>\n</section>"


def _faults_table(faults: list[dict[str, Any]]) -> str:
    if not faults:
        return '<span class="none">none</span>'
    rows = ['<tr><th scope="col">ID</th><th scope="col">Fault</th><th scope="col">Hits</th><th scope="col"></th></tr>']
    for fault in faults:
        state, css = ("exhausted", ' class="exhausted"') if fault["exhausted"] else ("active", "")
        rows.append(
            f"<tr{css}><td>{fault['id']}</td><td><code>{escape(fault['fault'])}</code></td>"
            f"<td>{_count(fault['hits'])}</td><td>{state}</td></tr>"
        )
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _table(cells: Iterable[tuple[str, str]]) -> str:
    rows = [f'<tr><th scope="row">{escape(name)}</th><td class="n">{value}</td></tr>' for name, value in cells]
    return "<table>\n" + "\n".join(rows) + "\n</table>" if rows else '<span class="none">none</span>'


def _count(number: int) -> str:
    return f"{number:,}"


def _with_limit(number: int, limit: int | None) -> str:
    return _count(number) if limit is None else f"{_count(number)} (limit {_count(limit)})"


def _setting(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "no limit", True: "yes", False: "no"}[value]
    return escape(f"{value:,}" if isinstance(value, (int, float)) else f"{value:.100}")


def _duration(seconds: float) -> str:
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds_left, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number or unit == "s")
