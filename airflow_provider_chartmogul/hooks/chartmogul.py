# SPDX-License-Identifier: Apache-2.0
"""
The ChartMogul hook: the Airflow connection, and what the API does as methods.

The transports are apart, since they load requests and aiohttp: ``sync_client`` for a worker, ``async_client``
for a triggerer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    BaseHook,
    mask_secret,
)

from airflow_provider_chartmogul.api.exports import ActivitiesExport
from airflow_provider_chartmogul.api.requests import (
    API_VERSION,
    ApiRequest,
    account_request,
    create_activities_export_request,
    get_activities_export_request,
    ping_request,
)
from airflow_provider_chartmogul.api.responses import parse_response
from airflow_provider_chartmogul.api.retries import may_repeat, retry_delay
from airflow_provider_chartmogul.client.rate_limit import RateLimit
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    ConnectionSettingsError,
    NoResponseError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_chartmogul.get_provider_info import get_provider_info

if TYPE_CHECKING:
    import requests


def missing_connection_text(conn_id: str) -> str:
    """What to say when there is no such connection."""
    return (
        f"there is no Airflow connection '{conn_id}': create one of type 'chartmogul' with the API key as its "
        f"password (Admin, Connections), or set AIRFLOW_CONN_{conn_id.upper()}. Where it is set already, what it holds "
        "could not be read: check its JSON or URI"
    )


@contextmanager
def fail_without_retry(*but: type[ChartMogulError]) -> Iterator[None]:
    """
    End the task without a retry where no retry can help.

    :param but: what a retry of this task can cure all the same
    :raises AirflowFailException: instead of a ChartMogulError that is permanent
    """
    try:
        yield
    except ChartMogulError as error:
        if error.permanent and not isinstance(error, but):
            raise AirflowFailException(str(error)) from error
        raise


class ChartMogulHook(BaseHook):
    """
    A connection to ChartMogul: authentication, requests, limits.

    :param chartmogul_conn_id: the Airflow connection, of type ``chartmogul``
    :param retry_seconds: how long one call bears failures that may pass by themselves (429, 5xx, a broken
        connection) before it raises; 0 sends each request once
    """

    conn_name_attr = "chartmogul_conn_id"
    default_conn_name = "chartmogul_default"
    conn_type = "chartmogul"
    hook_name = "ChartMogul"

    _CONNECTION_TYPE: ClassVar[dict[str, Any]] = get_provider_info()["connection-types"][0]

    def __init__(
        self, chartmogul_conn_id: str = default_conn_name, *, retry_seconds: float = 120.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.chartmogul_conn_id = chartmogul_conn_id
        self.retry_seconds = retry_seconds
        self._session: requests.Session | None = None

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Name and hide fields of the connection form in Airflow before 3.2, which reads it from here."""
        behaviour = cls._CONNECTION_TYPE["ui-field-behaviour"]
        return {
            # Only Airflow 3.3 needs the port, as the metadata explains.
            "hidden_fields": [*behaviour["hidden-fields"], "port"],
            "relabeling": behaviour["relabeling"],
            "placeholders": {field: text for field, text in behaviour["placeholders"].items() if field != "port"},
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Give the extra fields of the connection form in Airflow before 3.2, which reads them from here."""
        # Only Airflow 2's webserver has these packages and calls this.
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import StringField

        return {
            name: StringField(
                lazy_gettext(field["label"]),
                description=field["description"],
                widget=BS3TextFieldWidget(),
            )
            for name, field in cls._CONNECTION_TYPE["conn-fields"].items()
        }

    @cached_property
    def settings(self) -> ConnectionSettings:
        """
        The connection, read and checked.

        :raises ConnectionSettingsError: when there is none, or it cannot be used
        """
        try:
            settings = self._look_up()
        except ConnectionSettingsError as error:
            # There are tools that show variables with a traceback, and where this comes from the key is one.
            raise error.with_traceback(None) from None
        # Airflow masks the password by itself, but not a key that is held as the login.
        mask_secret(settings.api_key)
        if settings.sends_key_in_the_clear:
            self.log.warning(
                "Connection '%s' sends the API key without encryption (%s): use https",
                self.chartmogul_conn_id,
                settings.base_url,
            )
        return settings

    def _look_up(self) -> ConnectionSettings:
        if not isinstance(self.chartmogul_conn_id, str) or not self.chartmogul_conn_id.strip():
            raise ConnectionSettingsError(
                f"chartmogul_conn_id came out as {self.chartmogul_conn_id!r}: it is the name of an Airflow connection "
                "of type 'chartmogul'; look at the template or the XCom that it is taken from"
            )
        try:
            connection = self.get_connection(self.chartmogul_conn_id)
        except AirflowNotFoundException:
            raise ConnectionSettingsError(missing_connection_text(self.chartmogul_conn_id)) from None
        return ConnectionSettings.from_connection(connection, connection.extra_dejson)

    @cached_property
    def _rate_limit(self) -> RateLimit:
        return RateLimit(self.settings.requests_per_second)

    @property
    def base_url(self) -> str:
        """The API's address with its version, as in ``hook.get_conn().get(f"{hook.base_url}/customers")``."""
        return f"{self.settings.base_url}/{API_VERSION}"

    def get_conn(self) -> requests.Session:
        """
        Give the session all requests of this hook go through.

        It sends the key to the connection's host and to no other, follows no redirect to another host, reads
        no ``.netrc``, and has the connection's timeout on every request.

        :raises ConnectionSettingsError: when the connection cannot be used
        """
        if self._session is None:
            from airflow_provider_chartmogul.client.sync_client import GuardedSession

            settings = self.settings
            self._session = GuardedSession(settings.base_url, settings.api_key, settings.timeout)
        return self._session

    def close(self) -> None:
        """Close the session; the next request opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> ChartMogulHook:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def create_activities_export(
        self,
        *,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        activity_type: str | None = None,
    ) -> ActivitiesExport:
        """
        Make an activities export. Creating is not idempotent: two calls make two exports.

        So the request is sent again only where the first cannot have been acted on: after 429, and after a
        connection that could not be made.

        :param start_date: start of the window; without a time zone it is UTC; None: from the beginning
        :param end_date: end of the window; None: until now
        :param activity_type: one of ``api.ACTIVITY_TYPES``; None: all of them
        :raises ChartMogulError: see ``api``
        """
        request = create_activities_export_request(
            start_date=start_date, end_date=end_date, activity_type=activity_type
        )
        return ActivitiesExport.from_response(self._ask(request))

    def get_activities_export(self, export_id: str) -> ActivitiesExport:
        """
        Retrieve an activities export: its status and, once it is done, its ``file_url``.

        :raises ChartMogulError: see ``api``; ``NotFoundError`` when there is no such export
        """
        return ActivitiesExport.from_response(self._ask(get_activities_export_request(export_id)))

    def get_account(self) -> dict[str, Any]:
        """
        Retrieve the account: ``name``, ``currency``, ``time_zone``, ``week_start_on``.

        :raises ChartMogulError: see ``api``
        """
        return self._ask(account_request())

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the connection works and, if not, what is wrong with it."""
        try:
            answer = self._ask(ping_request(), retry_seconds=0.0)
        except AuthenticationError:
            return False, (
                f"The server at {self.settings.base_url} refused the API key (401). "
                "Check the field 'API key', the connection's password; in ChartMogul: Profile, API keys."
            )
        except UnexpectedResponseError as error:
            return False, f"This does not look like ChartMogul; check the host (Base URL). {_sentence(error)}"
        except NotFoundError as error:
            return False, f"This does not look like ChartMogul; check the host (Base URL). {_sentence(error)}"
        except NoResponseError as error:
            return False, f"The host cannot be reached. {_sentence(error)}"
        except ChartMogulError as error:
            return False, _sentence(error)
        finally:
            self.close()
        if answer.get("data") != "pong!":
            return (
                False,
                "This does not look like ChartMogul (its ping is not answered as such); check the host (Base URL).",
            )
        return True, f"ChartMogul at {self.settings.base_url} accepts the API key."

    def _ask(self, request: ApiRequest, *, retry_seconds: float | None = None) -> dict[str, Any]:
        """Send a request until it is answered, for as long as it may be repeated and time is left."""
        from airflow_provider_chartmogul.client.sync_client import send

        settings = self.settings
        give_up = time.monotonic() + (self.retry_seconds if retry_seconds is None else retry_seconds)
        failures = 0
        while True:
            try:
                with self._rate_limit.slot():
                    response = send(self.get_conn(), settings, request)
                return parse_response(
                    response.status_code,
                    response.headers,
                    response.content,
                    api_key=settings.api_key,
                    now=datetime.now(UTC),
                )
            except ChartMogulError as error:
                failures += 1
                delay = retry_delay(failures, error)
                if not may_repeat(request, error) or time.monotonic() + delay > give_up:
                    raise
                self.log.warning("Asking ChartMogul again in %.0f s: %s", delay, error)
            time.sleep(delay)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")", "!")) else ".")
