# SPDX-License-Identifier: Apache-2.0
"""Command line of the sandbox: `python -m airflow_provider_chartmogul.sandbox`, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import datetime

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.faults import HELP, Fault, parse_faults


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65_535:
        raise ValueError(text)
    return value


def _faults(text: str) -> list[Fault]:
    try:
        return parse_faults(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# argparse uses these names in its messages: "invalid limit value".
_limit.__name__ = "limit"
_port.__name__ = "port"


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show default values where there is one, and keep the line breaks of the epilog."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_chartmogul.sandbox",
        description="Run a local ChartMogul: its API and its download host, with a made-up company.",
        formatter_class=_HelpFormatter,
        epilog=HELP,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 accepts connections from other machines")
    add("--port", type=_port, default=8765, help="port of the API; 0 chooses a free one")
    add("--download-port", type=_port, default=0, help="port of the download host; 0, the default, chooses a free one")
    add(
        "--admin-port",
        type=_port,
        default=0,
        help="port of the counters, faults and settings; 0, the default, chooses a free one",
    )
    add("--api-key", default="sandbox-api-key", help="the only valid API key")
    add("--export-seconds", type=float, default=3.0, help="seconds that an export takes")
    add("--customers", type=int, default=500, help="the company's customers from 2018 to 2040")
    add("--seed", type=int, default=1, help="selects one company")
    add(
        "--outcome",
        default="succeeded",
        help="how exports end: succeeded, successful, failed, never, or any other word as their status",
    )
    add("--url-seconds", type=int, default=604_800, help="seconds until a download URL expires")
    add("--stale-urls", action="store_true", help="do not replace an export's URL when it has expired")
    add("--requests-per-second", type=_limit, default=40, help="rate limit (429); 'none' for no limit")
    add("--max-connections", type=_limit, default=20, help="limit of connections (503); 'none' for no limit")
    add("--page-size", type=int, default=200, help="default and maximum of per_page in lists")
    add(
        "--as-of",
        type=datetime.fromisoformat,
        metavar="TIME",
        help="the company's present, as ISO 8601, UTC unless it says otherwise; by default the last midnight in UTC",
    )
    add("--metrics-time-zone", default="UTC", help="time zone of the days of metrics, such as Europe/Berlin")
    add("--two-currencies", action="store_true", help="some customers pay in US dollars, so that MRR does not add up")
    add(
        "--faults",
        metavar="FAULT",
        type=_faults,
        action="extend",
        default=[],
        help="faults from the start, as PLACE:KIND;OPTION=VALUE;..., such as 'retrieve:429;retry_after=2;times=5'; "
        "described below; can be repeated",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sandbox until SIGINT or SIGTERM.

    :param argv: the command line's arguments; `None` for those of the process.
    :return: the exit status: 0 after a signal, 1 if a port cannot be used.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        sandbox = Sandbox(
            host=options.host,
            port=options.port,
            download_port=options.download_port,
            admin_port=options.admin_port,
            api_key=options.api_key,
            export_seconds=options.export_seconds,
            customers=options.customers,
            seed=options.seed,
            requests_per_second=options.requests_per_second,
            max_connections=options.max_connections,
            url_seconds=options.url_seconds,
            fresh_urls=not options.stale_urls,
            outcome=options.outcome,
            page_size=options.page_size,
            as_of=options.as_of,
            metrics_time_zone=options.metrics_time_zone,
            two_currencies=options.two_currencies,
            faults=options.faults,
        )
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    # Before start(), so that a signal during the start ends the sandbox cleanly too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        sandbox.start()
    except OSError as error:
        print(error.strerror or error, file=sys.stderr, flush=True)
        return 1
    try:
        print(_start_message(sandbox), flush=True)
        stop.wait()
    finally:
        sandbox.stop()
    return 0


def _start_message(sandbox: Sandbox) -> str:
    connection = shlex.quote(sandbox.connection_json)
    return "\n".join(
        (
            f"ChartMogul sandbox: {sandbox.url}/v1, downloads from {sandbox.download_url}",
            f"Counters, faults and settings: {sandbox.admin_url}/",
            "Press Ctrl-C to stop it.",
            "",
            "To use it from Airflow on this machine, set an environment variable:",
            "",
            f"export AIRFLOW_CONN_CHARTMOGUL_DEFAULT={connection}",
            "",
            "or add a connection to Airflow's database, which `airflow db migrate` creates:",
            "",
            f"airflow connections add chartmogul_default --conn-json {connection}",
            "",
            "To check that it responds:",
            "",
            f"curl -u {shlex.quote(sandbox.api_key + ':')} {sandbox.url}/v1/ping",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
