# SPDX-License-Identifier: Apache-2.0
"""
The ChartMogul hook: resolves the Airflow connection, and offers the API as methods.

Every DAG file that uses an operator imports this module, so it imports the API's requests inside functions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    BaseHook,
    mask_secret,
)

from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    ConnectionSettingsError,
    InvalidResourceError,
    NoResponseError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_chartmogul.get_provider_info import get_provider_info

if TYPE_CHECKING:
    import requests

    from airflow_provider_chartmogul.api.exports import ActivitiesExport
    from airflow_provider_chartmogul.api.requests import ApiRequest
    from airflow_provider_chartmogul.api.resources import Resource
    from airflow_provider_chartmogul.client.settings import ConnectionSettings
    from airflow_provider_chartmogul.client.sync_client import SyncClient

T = TypeVar("T")


def missing_connection_message(conn_id: str) -> str:
    """Return the error message for an Airflow connection that does not exist."""
    return (
        f"the Airflow connection '{conn_id}' does not exist: create one of type 'chartmogul' with the API key as its "
        f"password (Admin, Connections), or set AIRFLOW_CONN_{conn_id.upper()}. If it is set already, its value "
        "could not be parsed: check its JSON or URI"
    )


def read_settings(conn_id: str) -> ConnectionSettings:
    """
    Look up an Airflow connection.

    :raises ConnectionSettingsError: if it cannot be used
    :raises AirflowNotFoundException: if it does not exist, or its secrets backend is down
    """
    from airflow_provider_chartmogul.client.settings import ConnectionSettings

    connection = BaseHook.get_connection(conn_id)
    settings = ConnectionSettings.from_connection(connection)
    # Airflow masks the password. It is not masked once more, because dag.test() logs every masked value at DEBUG.
    if settings.api_key != connection.password:
        mask_secret(settings.api_key)
    return settings


@contextmanager
def fail_without_retry(*retryable: type[ChartMogulError]) -> Iterator[None]:
    """
    Fail the task without a retry on errors that no retry can fix.

    :param retryable: errors that a retry of this task can fix nevertheless
    :raises AirflowFailException: in place of a ``ChartMogulError`` that is ``permanent``
    """
    try:
        yield
    except ChartMogulError as error:
        if error.permanent and not isinstance(error, retryable):
            raise AirflowFailException(str(error)) from error
        raise


class ChartMogulHook(BaseHook):
    """
    Send requests to ChartMogul with the key and the limits of an Airflow connection.

    :param chartmogul_conn_id: the Airflow connection, of type ``chartmogul``
    :param retry_seconds: how long each method keeps retrying transient failures (429, 5xx, connection errors) before
        it raises, in seconds; 0 sends each request once
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

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return names, placeholders and hidden fields of the connection form, for Airflow before 3.2."""
        behaviour = cls._CONNECTION_TYPE["ui-field-behaviour"]
        return {
            # Only Airflow 3.3 needs the port; see get_provider_info.
            "hidden_fields": [*behaviour["hidden-fields"], "port"],
            "relabeling": behaviour["relabeling"],
            "placeholders": {field: text for field, text in behaviour["placeholders"].items() if field != "port"},
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form, for Airflow before 3.2."""
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
        The validated settings of the connection.

        :raises ConnectionSettingsError: if the connection does not exist or cannot be used
        """
        try:
            settings = self._read_connection()
        except ConnectionSettingsError as error:
            # Some tools show the variables of a traceback, and the key is one of them.
            raise error.with_traceback(None) from None
        if settings.sends_key_unencrypted:
            self.log.warning(
                "Connection '%s' sends the API key unencrypted (%s): use https",
                self.chartmogul_conn_id,
                settings.base_url,
            )
        return settings

    def _read_connection(self) -> ConnectionSettings:
        if not isinstance(self.chartmogul_conn_id, str) or not self.chartmogul_conn_id.strip():
            raise ConnectionSettingsError(
                f"chartmogul_conn_id cannot be {self.chartmogul_conn_id!r}: it is the name of an Airflow connection "
                "of type 'chartmogul'; check the template or XCom that it is taken from"
            )
        try:
            return read_settings(self.chartmogul_conn_id)
        except AirflowNotFoundException:
            raise ConnectionSettingsError(missing_connection_message(self.chartmogul_conn_id)) from None

    def _get_settings(self, refused: ConnectionSettings | None) -> ConnectionSettings:
        if refused is not None:
            self.__dict__.pop("settings", None)
        return self.settings

    @property
    def base_url(self) -> str:
        """The URL of the API with its version, for ``hook.get_conn().get(f"{hook.base_url}/customers")``."""
        from airflow_provider_chartmogul.api.requests import API_VERSION

        return f"{self.settings.base_url}/{API_VERSION}"

    @cached_property
    def client(self) -> SyncClient:
        """
        The client that sends this hook's requests, with the limits of the connection.

        :raises ConnectionSettingsError: if the connection does not exist or cannot be used
        """
        from airflow_provider_chartmogul.client.sync_client import SyncClient

        return SyncClient(self._get_settings, log=self.log)

    def get_conn(self) -> requests.Session:
        """
        Return the session of this hook's requests, for endpoints that the hook has no method for.

        It sends the API key to the connection's host only, refuses redirects to another host, does not read
        ``.netrc``, and sets the connection's timeout on every request. It does not retry.

        :raises ConnectionSettingsError: if the connection does not exist or cannot be used
        """
        return self.client.session

    def close(self) -> None:
        """Close open connections; the next request opens new ones."""
        if "client" in self.__dict__:
            self.client.close()

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
        Create an activities export. This is not idempotent: two calls create two exports.

        Therefore the request is retried only if ChartMogul cannot have acted on it: after 429 and after a failed
        connect.

        :param start_date: start of the window, UTC if it has no time zone; ``None`` begins with the first activity
        :param end_date: end of the window, UTC if it has no time zone; ``None`` ends now. ChartMogul does not
            document whether it is inclusive
        :param activity_type: ``new_biz``, ``reactivation``, ``expansion``, ``contraction`` or ``churn``; ``None``
            exports all types
        :raises ValueError: for an unknown activity type
        :raises ChartMogulError: if the request fails
        """
        from airflow_provider_chartmogul.api.exports import ExportRequest, create_activities_export

        return self._send(create_activities_export(ExportRequest(start_date, end_date, activity_type)))

    def get_activities_export(self, export_id: str) -> ActivitiesExport:
        """
        Return an activities export: its status and, once it has succeeded, its ``file_url``.

        :raises NotFoundError: if the export does not exist
        :raises ChartMogulError: if the request fails
        """
        from airflow_provider_chartmogul.api.exports import get_activities_export

        return self._send(get_activities_export(export_id))

    def get_account(self) -> dict[str, Any]:
        """
        Return the account: ``name``, ``currency``, ``time_zone``, ``week_start_on``.

        :raises ChartMogulError: if the request fails
        """
        from airflow_provider_chartmogul.api.account import get_account

        return self._send(get_account())

    def iter_rows(self, resource: str, *, query_params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """
        Yield all rows of a resource as ChartMogul has them, one dictionary each, for use in a ``@task``::

            @task
            def count_active_customers() -> int:
                with ChartMogulHook(retry_seconds=3600) as hook:
                    return sum(1 for _ in hook.iter_rows("customers", query_params={"status": "Active"}))

        Rows are read page by page while the iterator is used, so that a resource of any size needs little memory. Rows
        that do not say what they belong to have a key in front that does: ``customer_uuid`` for ``subscriptions``,
        ``plan_group_uuid`` for ``plan_group_plans``.

        ChartMogul sorts customers by ``customer-since``. A customer for which that changes during the walk may come
        twice, and then the last row is right, or may be missing until the next walk. So do their subscriptions.

        Each page is retried for the hook's ``retry_seconds``.

        :param resource: ``account``, ``data_sources``, ``customers``, ``contacts``, ``plans``, ``plan_groups``,
            ``plan_group_plans``, ``invoices`` (with line items and transactions), ``subscription_events``, ``notes``,
            ``opportunities``, ``tasks`` or ``subscriptions``
        :param query_params: query parameters of the API for this resource, such as ``{"status": "Active"}``. A list is
            joined by commas, and ``None`` leaves a default out. Disabled rows and invalid invoices are included by
            default
        :raises InvalidResourceError: at once, for an unknown resource or query parameter, for ``activities``, which
            come as an export, and for ``metrics``, which need a window
        :raises PaginationError: if a response is not a page of this resource, or the walk would never end
        :raises ChartMogulError: if a page cannot be read
        """
        from airflow_provider_chartmogul.api.resources import get_resource

        entry = get_resource(resource)
        if entry.has_window:
            raise InvalidResourceError(
                f"{resource} need a window, which iter_rows does not have: use ChartMogulToObjectStorageOperator"
            )
        return self._iter_rows(entry, entry.build_query(query_params))

    def _iter_rows(self, resource: Resource, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        with closing(self.client.iter_pages(resource, query, retry_seconds=self.retry_seconds)) as pages:
            for page in pages:
                yield from page.rows

    def _send(self, request: ApiRequest[T]) -> T:
        return self.client.send(request, retry_seconds=self.retry_seconds)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection works, and a message about it."""
        from airflow_provider_chartmogul.api.account import ping

        try:
            content = self.client.send(ping())
        except AuthenticationError:
            return False, (
                f"The server at {self.settings.base_url} refused the API key (401). "
                "Check the field 'API key', the connection's password; in ChartMogul: Profile, API keys."
            )
        except (UnexpectedResponseError, NotFoundError) as error:
            return False, f"This does not look like ChartMogul; check the host (Base URL). {_sentence(error)}"
        except NoResponseError as error:
            return False, f"The host cannot be reached. {_sentence(error)}"
        except ChartMogulError as error:
            return False, _sentence(error)
        finally:
            self.close()
        if content.get("data") != "pong!":
            return False, "This does not look like ChartMogul (no response to its ping); check the host (Base URL)."
        return True, f"ChartMogul at {self.settings.base_url} accepts the API key."


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")", "!")) else ".")
