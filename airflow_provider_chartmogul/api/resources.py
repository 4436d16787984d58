# SPDX-License-Identifier: Apache-2.0
"""
The catalogue: every resource of the API that comes as rows, one entry each.

An entry is all that the operator, the hook, the documentation and the tests know of a resource. Columns go by the API's
keys; ``address.city`` is ``city`` in the object ``address``. Facts are from ChartMogul's API reference
(https://dev.chartmogul.com/reference) and from recorded responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_chartmogul.api.query_params import format_query_param
from airflow_provider_chartmogul.exceptions import InvalidResourceError

TEXT = "string"
INTEGER = "int64"
NUMBER = "float64"
BOOLEAN = "bool"
DATE = "date32"
TIME = "timestamp[us, tz=UTC]"
#: A list or an object, kept as JSON text.
JSON = "json"

_TYPES = {"text": TEXT, "integer": INTEGER, "number": NUMBER, "boolean": BOOLEAN}
_TYPES |= {"date": DATE, "time": TIME, "json": JSON}


@dataclass(frozen=True)
class Table:
    """
    One table of a resource.

    :param name: the table's name
    :param columns: types by the API's keys, in the API's order. A type is the name of an Arrow type, or ``JSON``
    :param primary_key: the columns that identify a row; empty for a table of one row
    :param rows_key: where the rows are in a row of the main table, for a table of nested rows
    :param parent_key: the column that names the row of the main table, for a table of nested rows
    """

    name: str
    columns: Mapping[str, str]
    primary_key: tuple[str, ...] = ("uuid",)
    rows_key: str = ""
    parent_key: str = ""

    @property
    def column_types(self) -> dict[str, str]:
        """Types by column name."""
        return {column_name(key): column_type for key, column_type in self.columns.items()}


@dataclass(frozen=True)
class Resource:
    """
    A resource of the API.

    :param name: the name that users write
    :param path: the path below the API's version, with ``{uuid}`` for the row of the parent that it belongs to
    :param tables: its tables, the main one first
    :param rows_key: where the rows are in a response; ``None`` if the response is the row
    :param is_paged: whether it comes in pages, with a cursor
    :param query_params: the query parameters that a user may give
    :param default_params: query parameters that are sent unless the user gives them
    :param parent: name of the resource whose rows it is walked under, one walk a row
    :param parent_key: the key that names the parent's row; put in front of each row, which does not say it
    :param fallback_path: the path to use where ``path`` is a 404
    :param has_window: whether it takes a window of time; all others are complete snapshots
    """

    name: str
    path: str
    tables: tuple[Table, ...]
    rows_key: str | None = "entries"
    is_paged: bool = True
    query_params: tuple[str, ...] = ()
    default_params: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    parent_key: str | None = None
    fallback_path: str | None = None
    has_window: bool = False

    @property
    def main_table(self) -> Table:
        return self.tables[0]

    def build_query(self, query_params: Mapping[str, Any] | None) -> dict[str, str]:
        """
        Return the query of a request: the defaults, and what the user gives.

        :param query_params: a list is joined by commas, ``True`` is ``true``, and ``None`` leaves a default out
        :raises InvalidResourceError: for a parameter that this resource does not have, naming those that it has, and
            for a value that no parameter has, such as the text that an empty template leaves
        """
        if query_params is not None and not isinstance(query_params, Mapping):
            raise InvalidResourceError(f"query_params is a dictionary, not {query_params!r}")
        query: dict[str, Any] = {**self.default_params, **(query_params or {})}
        known = sorted({*self.query_params, *self.default_params})
        if unknown := sorted(str(name) for name in query if name not in known):
            raise InvalidResourceError(
                f"{self.name} has no query parameter {unknown[0]!r}; it has "
                + (", ".join(known) if known else "none that can be given")
            )
        return {name: format_query_param(name, value) for name, value in query.items() if value is not None}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _columns(text: str) -> dict[str, str]:
    """Read columns that are written as ``key:type``, with text as the default type."""
    parts = (word.partition(":") for word in text.split())
    return {key: _TYPES[column_type or "text"] for key, _, column_type in parts}


def column_name(key: str) -> str:
    """Return the column's name for a key of the API: snake_case, with nested keys joined."""
    return key.replace("-", "_").replace(".", "_")


def get_resource(name: object) -> Resource:
    """
    Look up a resource.

    :raises InvalidResourceError: for an unknown one, naming the known ones
    """
    if isinstance(name, str) and name in RESOURCES:
        return RESOURCES[name]
    if name == "activities":
        raise InvalidResourceError(
            "activities come as an export, not as a list, which loses rows at the ends of pages: use "
            "ActivitiesToObjectStorageOperator"
        )
    raise InvalidResourceError(f"there is no resource {name!r}; there are {', '.join(RESOURCES)}")


#: Columns of what can be disabled and edited in ChartMogul.
_TRACKED = "disabled:boolean disabled_at:time disabled_by edit_history_summary:json"

_PLAN = "uuid external_id name interval_count:integer interval_unit data_source_uuid"

#: The settings of an account that a response leaves out unless the request includes them.
_ACCOUNT_SETTINGS = _columns(
    "churn_recognition churn_when_zero_mrr:json auto_churn_subscription:json refund_handling "
    "proximate_movement_reclassification"
)

_METRICS = (
    "date:date mrr:integer mrr-percentage-change:number arr:integer arr-percentage-change:number "
    "customer-churn-rate:number customer-churn-rate-percentage-change:number "
    "mrr-churn-rate:number mrr-churn-rate-percentage-change:number ltv:number ltv-percentage-change:number "
    "customers:integer customers-percentage-change:number asp:integer asp-percentage-change:number "
    "arpa:integer arpa-percentage-change:number"
)

_CATALOGUE = (
    Resource(
        "account",
        "/account",
        (
            Table(
                "account",
                _columns("id name currency time_zone week_start_on") | _ACCOUNT_SETTINGS,
                primary_key=(),
            ),
        ),
        rows_key=None,
        is_paged=False,
        query_params=("include",),
        default_params={"include": ",".join(_ACCOUNT_SETTINGS)},
    ),
    Resource(
        "data_sources",
        "/data_sources",
        (
            Table(
                "data_sources",
                _columns(
                    "uuid name system created_at:time status processing_status.processed:integer "
                    "processing_status.failed:integer processing_status.pending:integer "
                    "auto_churn_subscription_setting.enabled:boolean auto_churn_subscription_setting.interval:integer "
                    "invoice_handling_setting.manual:json invoice_handling_setting.automatic:json"
                ),
            ),
        ),
        rows_key="data_sources",
        is_paged=False,
        query_params=("name", "system"),
        default_params={
            "with_processing_status": "true",
            "with_auto_churn_subscription_setting": "true",
            "with_invoice_handling_setting": "true",
        },
    ),
    Resource(
        "customers",
        "/customers",
        (
            Table(
                "customers",
                _columns(
                    "id:integer uuid external_id name email status customer-since:time attributes.custom:json "
                    "attributes.clearbit:json attributes.stripe:json attributes.tags:json data_source_uuid "
                    "data_source_uuids:json external_ids:json company country state city zip lead_created_at:time "
                    "free_trial_started_at:time address.country address.state address.city address.address_zip "
                    "mrr:integer arr:integer billing-system-url chartmogul-url billing-system-type currency "
                    "currency-sign owner"
                ),
            ),
        ),
        query_params=("data_source_uuid", "external_id", "status", "system"),
    ),
    Resource(
        "contacts",
        "/contacts",
        (
            Table(
                "contacts",
                _columns(
                    "uuid customer_uuid customer_external_id data_source_uuid external_id position:integer first_name "
                    "last_name title email phone linked_in twitter notes custom:json last_seen:time"
                ),
            ),
        ),
        query_params=("customer_uuid", "data_source_uuid", "email", "customer_external_id", "external_id"),
    ),
    Resource(
        "plans",
        "/plans",
        (Table("plans", _columns(_PLAN)),),
        rows_key="plans",
        query_params=("data_source_uuid", "external_id", "system"),
    ),
    Resource(
        "plan_groups",
        "/plan_groups",
        (Table("plan_groups", _columns("uuid name plans_count:integer")),),
        rows_key="plan_groups",
    ),
    Resource(
        "plan_group_plans",
        "/plan_groups/{uuid}/plans",
        (Table("plan_group_plans", _columns("plan_group_uuid " + _PLAN), primary_key=("plan_group_uuid", "uuid")),),
        rows_key="plans",
        parent="plan_groups",
        parent_key="plan_group_uuid",
    ),
    Resource(
        "invoices",
        "/invoices",
        (
            Table(
                "invoices",
                _columns(
                    "uuid external_id date:time due_date:time currency customer_uuid customer_external_id "
                    "data_source_uuid errors:json " + _TRACKED
                ),
            ),
            Table(
                "invoice_line_items",
                _columns(
                    "invoice_uuid uuid external_id type subscription_uuid subscription_external_id "
                    "subscription_set_external_id plan_uuid prorated:boolean proration_type service_period_start:time "
                    "service_period_end:time description amount_in_cents:integer quantity:integer discount_code "
                    "discount_amount_in_cents:integer discount_description tax_amount_in_cents:integer "
                    "transaction_fees_in_cents:integer transaction_fees_currency account_code event_order:integer "
                    "balance_transfer:boolean errors:json " + _TRACKED
                ),
                rows_key="line_items",
                parent_key="invoice_uuid",
            ),
            Table(
                "invoice_transactions",
                _columns(
                    "invoice_uuid uuid external_id type date:time result amount_in_cents:integer "
                    "transaction_fees_in_cents:integer transaction_fees_currency errors:json " + _TRACKED
                ),
                rows_key="transactions",
                parent_key="invoice_uuid",
            ),
        ),
        rows_key="invoices",
        query_params=("customer_uuid", "data_source_uuid", "external_id", "include_edit_histories"),
        default_params={"with_disabled": "true", "validation_type": "all"},
    ),
    Resource(
        "subscription_events",
        "/subscription_events",
        (
            Table(
                "subscription_events",
                _columns(
                    "id:integer data_source_uuid customer_external_id subscription_set_external_id "
                    "subscription_external_id plan_external_id event_date:time effective_date:time event_type "
                    "event_order:integer external_id errors:json created_at:time updated_at:time quantity:integer "
                    "currency amount_in_cents:integer tax_amount_in_cents:integer retracted_event_id " + _TRACKED
                ),
                primary_key=("id",),
            ),
        ),
        rows_key="subscription_events",
        query_params=_words(
            "data_source_uuid external_id customer_external_id subscription_external_id plan_external_id event_type "
            "event_date effective_date include_edit_histories"
        ),
        default_params={"with_disabled": "true"},
    ),
    Resource(
        "notes",
        "/notes",
        (
            Table(
                "notes",
                _columns(
                    "uuid customer_uuid contact_uuid associated_object associated_object_uuid type text "
                    "call_duration:integer author created_at:time updated_at:time"
                ),
            ),
        ),
        query_params=("customer_uuid", "contact_uuid", "type", "author_email"),
        fallback_path="/customer_notes",
    ),
    Resource(
        "opportunities",
        "/opportunities",
        (
            Table(
                "opportunities",
                _columns(
                    "uuid customer_uuid owner pipeline pipeline_stage estimated_close_date:date currency "
                    "amount_in_cents:integer type forecast_category win_likelihood:integer custom:json created_at:time "
                    "updated_at:time"
                ),
            ),
        ),
        query_params=_words(
            "customer_uuid owner pipeline pipeline_stage estimated_close_date_on_or_after "
            "estimated_close_date_on_or_before"
        ),
    ),
    Resource(
        "tasks",
        "/tasks",
        (
            Table(
                "tasks",
                _columns(
                    "task_uuid customer_uuid associated_object associated_object_uuid task_details assignee "
                    "due_date:time completed_at:time created_at:time updated_at:time"
                ),
                primary_key=("task_uuid",),
            ),
        ),
        query_params=("customer_uuid", "assignee", "due_date_on_or_after", "due_date_on_or_before", "completed"),
    ),
    Resource(
        "subscriptions",
        "/customers/{uuid}/subscriptions",
        (
            Table(
                "subscriptions",
                _columns(
                    "customer_uuid id:integer uuid external_id subscription_set_external_id plan quantity:integer "
                    "mrr:integer arr:integer status billing-cycle billing-cycle-count:integer start-date:time "
                    "end-date:time currency currency-sign"
                ),
            ),
        ),
        parent="customers",
        parent_key="customer_uuid",
    ),
    Resource(
        "metrics",
        "/metrics/all",
        (Table("metrics", _columns(_METRICS), primary_key=("date",)),),
        is_paged=False,
        query_params=("geo", "plans", "filters"),
        default_params={"interval": "day"},
        has_window=True,
    ),
)

#: Every resource, by name.
RESOURCES = {resource.name: resource for resource in _CATALOGUE}
