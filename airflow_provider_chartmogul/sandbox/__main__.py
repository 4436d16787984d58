# SPDX-License-Identifier: Apache-2.0
"""The sandbox from a shell: `python -m airflow_provider_chartmogul.sandbox`, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
import threading
from collections.abc import Sequence

from airflow_provider_chartmogul.sandbox import Fault, Sandbox
from airflow_provider_chartmogul.sandbox.faults import HELP, parse_faults


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


# argparse says "invalid limit value" by these names.
_limit.__name__ = "limit"
_port.__name__ = "port"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults are shown, and the lines of the epilog stay as they are."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_chartmogul.sandbox",
        description="A ChartMogul on this machine: the activities export API and its download host.",
        formatter_class=_Help,
        epilog=HELP,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
    add("--port", type=_port, default=8765, help="the API's port; 0 takes a free one")
    add("--download-port", type=_port, default=0, help="the download host's port; 0 takes a free one")
    add("--admin-port", type=_port, default=0, help="the port of the counters and faults; 0 takes a free one")
    add("--api-key", default="sandbox-api-key", help="the one key that is let in")
    add("--export-seconds", type=float, default=3.0, help="seconds until an export is ready")
    add("--customers", type=int, default=500, help="customers of the company, from 2018 to 2040")
    add("--seed", type=int, default=1, help="which company")
    add(
        "--outcome",
        default="succeeded",
        help="how exports end: succeeded, successful, failed, never, or any other word as the status",
    )
    add("--url-seconds", type=int, default=604_800, help="seconds until a download URL expires")
    add("--stale-urls", action="store_true", help="give no fresh URL once an export's has expired")
    add("--requests-per-second", type=_limit, default=40, help="then 429; 'none' for no limit")
    add("--max-connections", type=_limit, default=20, help="then 503; 'none' for no limit")
    add(
        "--faults",
        metavar="FAULT",
        type=_faults,
        action="extend",
        default=[],
        help="what is to go wrong, as PLACE:KIND;OPTION=VALUE;..., such as 'retrieve:429;retry_after=2;times=5'; "
        "see below; can be given several times",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sandbox until a signal.

    :param argv: the arguments; None takes the process's.
    :return: the exit status: 0 after SIGINT or SIGTERM, 1 when it cannot listen.
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
            faults=options.faults,
        )
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    # Before start(), so that a signal ends it cleanly from the first moment on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        sandbox.start()
    except OSError as error:
        print(error.strerror or error, file=sys.stderr, flush=True)
        return 1
    try:
        print(f"ChartMogul sandbox: {sandbox.url}/v1, downloads from {sandbox.download_url}")
        print(f"Counters, faults and settings: {sandbox.admin_url}/")
        print("Ctrl-C ends it. To use it from this machine:")
        print()
        print(f"export AIRFLOW_CONN_CHARTMOGUL_DEFAULT={shlex.quote(sandbox.connection_json)}")
        print(f"curl -u {shlex.quote(sandbox.api_key + ':')} {sandbox.url}/v1/ping", flush=True)
        stop.wait()
    finally:
        sandbox.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
