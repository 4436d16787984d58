# SPDX-License-Identifier: Apache-2.0
"""Bring a whole ChartMogul account into object storage every day, and check that its numbers add up.

Snapshots of all resources, the activities and the metrics of the last 32 days. The last task compares four sums that
should be the same MRR, and fails, or warns, if they differ by more than a tolerance. The page "Reconciliation" of the
documentation says what may differ on a real account, and what to do then.

Create the pool first, because Airflow never starts a task whose pool does not exist. Each of its four slots is a
process with its own share of the account's limits: 10 of 40 requests a second, and 4 of 20 connections:

    airflow pools set chartmogul_requests 4 'processes that send requests to ChartMogul' --include-deferred

Set the Airflow variable ``chartmogul_destination`` as for ``example_activities_export``. Tables need
``pip install 'airflow-provider-chartmogul[parquet]'`` on the workers.
"""

from __future__ import annotations

import csv
import gzip
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Param, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator

log = logging.getLogger(__name__)

POOL = "chartmogul_requests"

# The slowest first: subscriptions need a request for each customer.
RESOURCES = [
    "subscriptions",
    "invoices",
    "customers",
    "subscription_events",
    "contacts",
    "notes",
    "opportunities",
    "tasks",
    "plan_group_plans",
    "plan_groups",
    "plans",
    "data_sources",
    "account",
]

# Activities change after the fact, so each run also reads the 31 days before its own.
LOOKBACK = timedelta(days=31)

# The time zone of the days, for the schedule and for the metrics.
TIMEZONE = "UTC"

DESTINATION = "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}/account"
OBJECT_STORAGE_CONN_ID = None  # The connection to read the objects with, such as "aws_default".

# ChartMogul does not document the layout of the activities' CSV. These are the names of its columns, and the unit of
# its amounts: 1 if they are in hundredths, as those of the other resources are, or 100 if they are not.
DATE_COLUMN = "date"
MOVEMENT_COLUMN = "activity_mrr_movement"
HUNDREDTHS = 1


def read_rows(uri: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a ``.csv.gz`` object one by one, so that its size does not matter."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    with (
        ObjectStoragePath(uri, conn_id=OBJECT_STORAGE_CONN_ID).open("rb") as file,
        gzip.open(file, "rt", encoding="utf-8-sig", newline="") as text,
    ):
        yield from csv.DictReader(text)


def read_time(text: str) -> datetime:
    """Parse a time, which is in UTC if it has no time zone."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def sum_mrr(uri: str) -> Decimal:
    """Return the MRR of all customers or subscriptions."""
    return sum((Decimal(row["mrr"] or 0) for row in read_rows(uri)), Decimal(0))


def sum_movements(uri: str, start: datetime, end: datetime) -> Decimal:
    """Return the sum of all movements in a half-open window."""
    return HUNDREDTHS * sum(
        (Decimal(row[MOVEMENT_COLUMN] or 0) for row in read_rows(uri) if start <= read_time(row[DATE_COLUMN]) < end),
        Decimal(0),
    )


with DAG(
    dag_id="example_account",
    description="Bring a whole ChartMogul account into object storage every day, and check that its numbers add up.",
    # Each run covers the days up to midnight. In Airflow 3, a plain "@daily" has an empty data interval.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone=TIMEZONE),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # A snapshot shows the present, so its task fails in a backfill. To backfill activities or metrics, put them into a
    # DAG of their own.
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    params={
        "tolerance_percent": Param(
            0.1,
            type="number",
            minimum=0,
            title="Tolerance in percent",
            description="Largest difference between the sums, in percent of the MRR.",
        ),
        "on_difference": Param(
            "fail",
            enum=["fail", "warn"],
            title="On a larger difference",
            description="'fail' fails the task, 'warn' logs a warning.",
        ),
    },
    tags=["chartmogul", "example", "activities", "resources"],
    doc_md=__doc__,
) as dag:
    snapshots: Any = ChartMogulToObjectStorageOperator.partial(
        task_id="snapshot",
        # Named after the time at which the walk started. A resource with several tables needs {table}.
        destination=f"{DESTINATION}/snapshots/{{extracted_at:%Y-%m-%d}}/{{table}}.csv.gz",
        pool=POOL,
    ).expand(resource=RESOURCES)

    activities: Any = ActivitiesToObjectStorageOperator(
        task_id="activities",
        lookback=LOOKBACK,
        destination=f"{DESTINATION}/activities/{{interval_start:%Y-%m-%d}}_{{interval_end:%Y-%m-%d}}.csv.gz",
        pool=POOL,
    )

    metrics: Any = ChartMogulToObjectStorageOperator(
        task_id="metrics",
        resource="metrics",
        lookback=LOOKBACK,
        metrics_timezone=TIMEZONE,
        destination=f"{DESTINATION}/metrics/{{interval_start:%Y-%m-%d}}_{{interval_end:%Y-%m-%d}}.csv.gz",
        pool=POOL,
    )

    # Snapshots show the present, which is later than the window's end: minutes, or days if the run is cleared. These
    # activities explain the difference. `None` ends with the creation of the export.
    later_activities: Any = ActivitiesToObjectStorageOperator(
        task_id="later_activities",
        interval_start="{{ data_interval_end }}",
        interval_end=None,
        destination=f"{DESTINATION}/later_activities/{{interval_start:%Y-%m-%d}}.csv.gz",
        pool=POOL,
    )
    snapshots >> later_activities

    @task
    def compare(
        snapshots: Sequence[dict[str, Any]],
        activities: dict[str, Any],
        later_activities: dict[str, Any],
        metrics: dict[str, Any],
        tolerance_percent: str,
        on_difference: str,
    ) -> dict[str, str]:
        """
        Compare four sums, each of which is the MRR at the end of the window, and return them.

        Fail, or warn, if one of them differs from the metric by more than the tolerance.
        """
        by_day = {date.fromisoformat(row["date"]): Decimal(row["mrr"] or 0) for row in read_rows(metrics["uri"])}
        first, last = min(by_day), max(by_day)
        before, mrr = by_day[first], by_day[last]
        start, end = (datetime.combine(day + timedelta(days=1), time(), ZoneInfo(TIMEZONE)) for day in (first, last))
        movements = sum_movements(activities["uri"], start, end)
        log.info("MRR on %s: %s; movements since then: %s; MRR on %s: %s", first, before, movements, last, mrr)
        sums = {"metric": mrr, "movements": before + movements}
        for snapshot in snapshots:
            if (name := snapshot["resource"]) in ("customers", "subscriptions"):
                total, extracted_at = sum_mrr(snapshot["uri"]), read_time(snapshot["extracted_at"])
                later = sum_movements(later_activities["uri"], end, extracted_at)
                log.info("MRR of the %s: %s at %s, of which %s since %s", name, total, extracted_at, later, end)
                sums[name] = total - later

        tolerance = abs(mrr) * Decimal(tolerance_percent) / 100
        # The numbers come first, since Airflow's UI truncates long lines.
        summary = ", ".join(f"{name} {value} ({value - mrr:+})" for name, value in sums.items())
        summary += f"; tolerance {tolerance.normalize():f} (MRR at {end.isoformat()}, in hundredths)"
        if all(abs(value - mrr) <= tolerance for value in sums.values()):
            log.info("The sums agree: %s", summary)
        elif on_difference == "warn":
            log.warning("The sums differ: %s", summary)
        else:
            # A retry would read the same objects.
            raise AirflowFailException(f"The sums differ: {summary}")
        return {name: str(value) for name, value in sums.items()}

    compare(
        snapshots.output["object"],
        activities.output["object"],
        later_activities.output["object"],
        metrics.output["object"],
        "{{ params.tolerance_percent }}",
        "{{ params.on_difference }}",
    )
