# SPDX-License-Identifier: Apache-2.0
"""The command ``check``: reads the settings, runs the check, prints the report, and returns the exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.api.account import ping
from airflow_provider_chartmogul.api.requests import DEFAULT_BASE_URL
from airflow_provider_chartmogul.check.account_check import check_account
from airflow_provider_chartmogul.check.report import format_report, remove_identities
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.client.sync_client import SyncClient
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    ConnectionSettingsError,
    NoResponseError,
    NotFoundError,
    PermissionDeniedError,
    UnexpectedResponseError,
)

PROGRAM = "python -m airflow_provider_chartmogul"

API_KEY_VARIABLE = "CHARTMOGUL_API_KEY"

COMPLETE, INCOMPLETE, NO_SETTINGS, KEY_REFUSED, NO_CHARTMOGUL = range(5)

_DESCRIPTION = f"""\
Check whether an API key works and which resources it may read. Show the account's time zone, currency and churn
settings, and how many requests a walk of each resource needs.

The API key comes from the environment variable {API_KEY_VARIABLE}, which needs no Airflow configuration or database,
or from an Airflow connection:

  {API_KEY_VARIABLE}=... {PROGRAM} check
  {PROGRAM} check --conn-id chartmogul_default
"""

_EPILOG = """\
The check sends fewer than 40 requests, at most 10 a second, or as many as the connection allows. It only reads, and
creates no export. The report contains no API key, host name, name, e-mail address or UUID, so you can paste it into an
issue.

exit codes:
  0    the key works, and no resource refuses it
  1    the key works, but some resource could not be read; the report says which
  2    there is no API key, or an option or the connection is invalid
  3    the server refuses the key
  4    no response at the base URL, a response with an error, or one that is not ChartMogul's
"""


class _ErrorLog:
    """
    Prints log lines to stderr, independently of Airflow's logging configuration.

    :param is_enabled: whether it prints anything
    """

    def __init__(self, is_enabled: bool) -> None:
        self._is_enabled = is_enabled

    def info(self, message: str, /, *args: Any) -> None:
        if self._is_enabled:
            print(message % args, file=sys.stderr)

    warning = info


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Commands of the ChartMogul provider for Airflow.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="check an API key and what it may read",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.set_defaults(report_usage_error=check.error)
    check.add_argument("--conn-id", metavar="ID", help="take the key, host and limits from this Airflow connection")
    check.add_argument(
        "--base-url", metavar="URL", help=f"URL of the API, with {API_KEY_VARIABLE} only (default: {DEFAULT_BASE_URL})"
    )
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument(
        "--verbose",
        action="store_true",
        help="also print errors and retries to stderr, in the server's own words, which may contain names",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    :param argv: the arguments; ``None`` takes those of the process
    :return: the exit code, as ``--help`` explains it
    """
    options = _parser().parse_args(argv)
    if options.conn_id is not None and options.base_url is not None:
        options.report_usage_error("--base-url cannot be combined with --conn-id, since the connection sets the host")
    if options.base_url is not None and not options.base_url.strip():
        options.report_usage_error("--base-url is empty: is a variable not set?")
    log = _ErrorLog(options.verbose)
    try:
        settings = _read_settings(options.conn_id, options.base_url)
        if settings.sends_key_unencrypted:
            print(f"Warning: the API key is sent to {settings.base_url} unencrypted; use https.", file=sys.stderr)
        client = SyncClient(lambda refused: settings, log=log)
    except ConnectionSettingsError as error:
        return _fail(NO_SETTINGS, str(error))
    try:
        return _check(client, settings, log, as_json=options.json)
    except KeyboardInterrupt:
        return _fail(130, "Interrupted.")
    finally:
        client.close()


def _check(client: SyncClient, settings: ConnectionSettings, log: _ErrorLog, *, as_json: bool) -> int:
    host = settings.base_url
    try:
        content = client.send(ping())
    except AuthenticationError:
        return _fail(KEY_REFUSED, f"{host} refuses the API key (401). Copy it again in ChartMogul: Profile, API keys.")
    except PermissionDeniedError:
        return _fail(
            KEY_REFUSED, f"{host} denies the API key all access (403). Has the account's trial or plan expired?"
        )
    except (NotFoundError, UnexpectedResponseError):
        return _fail(NO_CHARTMOGUL, f"{host} responds, but is not ChartMogul. Check the base URL.")
    except NoResponseError as error:
        message = str(error).removesuffix(".")
        # An error that ends with a question already says what to check.
        advice = "" if message.endswith("?") else ". Check the base URL, and whether a proxy or firewall blocks it."
        return _fail(NO_CHARTMOGUL, message[:1].upper() + message[1:] + advice)
    except ConnectionSettingsError as error:
        return _fail(NO_SETTINGS, str(error))
    except ChartMogulError as error:
        log.info("%s", error)
        status = getattr(error, "status", None)
        advice = "Try again later" if error.transient else "Use --verbose to see its message"
        return _fail(NO_CHARTMOGUL, f"{host} responds with an error ({status}). {advice}.")
    if content.get("data") != "pong!":
        return _fail(NO_CHARTMOGUL, f"{host} responds, but is not ChartMogul. Check the base URL.")
    report, identities = check_account(
        client, requests_per_second=settings.requests_per_second, now=datetime.now(UTC), log=log
    )
    report["official_host"] = settings.base_url == DEFAULT_BASE_URL
    report = remove_identities(report, [*identities, settings.api_key, settings.base_url])
    _print(json.dumps(report, indent=2) if as_json else format_report(report))
    is_complete = all(entry["readable"] is not False for entry in report["resources"].values())
    return COMPLETE if is_complete else INCOMPLETE


def _read_settings(conn_id: str | None, base_url: str | None) -> ConnectionSettings:
    """
    Return the settings of an Airflow connection or, without one, of the environment's API key.

    :raises ConnectionSettingsError: if there is no key, or the settings are invalid
    """
    if conn_id is not None:
        return _read_connection(conn_id)
    if not (api_key := os.environ.get(API_KEY_VARIABLE, "").strip()):
        raise ConnectionSettingsError(
            f"There is no API key: set {API_KEY_VARIABLE}, or name an Airflow connection, as in "
            "--conn-id chartmogul_default."
        )
    try:
        return ConnectionSettings.from_parts(
            "--base-url", host=base_url, schema=None, port=None, login=None, password=api_key, extra={}
        )
    except ConnectionSettingsError as error:
        problem = str(error).partition(": ")[2].partition(";")[0]
        raise ConnectionSettingsError(f"--base-url: {problem}. The default is {DEFAULT_BASE_URL}.") from None


def _read_connection(conn_id: str) -> ConnectionSettings:
    # Airflow logs to stdout, where only the report belongs.
    with contextlib.redirect_stdout(sys.stderr):
        # Imported here, because importing Airflow reads its configuration and opens its database.
        from airflow.models.connection import Connection
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        try:
            # Airflow's own commands do the same. Outside a task, a hook does not find the connections in the database.
            connection = Connection.get_connection_from_secrets(conn_id)
            return ConnectionSettings.from_connection(connection)
        except AirflowNotFoundException:
            raise ConnectionSettingsError(
                f"Airflow finds no connection '{conn_id}' where this command runs, or cannot read it. "
                "`airflow connections list` shows those in Airflow's database; a variable AIRFLOW_CONN_… must be a URI "
                f"or a JSON object. Or set {API_KEY_VARIABLE} instead."
            ) from None


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Python would fail again when it flushes stdout on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code
