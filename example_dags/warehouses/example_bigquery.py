# SPDX-License-Identifier: Apache-2.0
"""Load ChartMogul activities into BigQuery every day with Google's operators: bucket, staging table, target table.

**Not tested against BigQuery.** The tests check that the operators accept their arguments, that the templates render
with the metadata of a real export, that the SQL is valid in BigQuery's grammar (sqlglot), and that it produces the
right table when translated for DuckDB. Try it on a test dataset first.

Requirements:

* ``pip install 'airflow-provider-chartmogul[google,parquet]'``
* The connection ``google_cloud_default``. Its account needs to write objects in the bucket, to run jobs in the project
  (``roles/bigquery.jobUser``), and to create, change and delete tables in the dataset (``roles/bigquery.dataEditor``).
* The dataset. Set ``LOCATION`` below to its location.
* The Airflow variable ``chartmogul_gcs_destination``, such as ``gs://google_cloud_default@my-bucket/chartmogul``.

Dataset, table and column names are params of the DAG.

The object is Parquet because its schema says that every column is text; in a CSV, BigQuery would infer types and turn
``0042`` into 42. Each export has its own staging table, named after the export, and replaces its window in one
transaction, which also deletes rows with the export's UUIDs from the rest of the table. So a retry at any point, a
cleared run and a run of an overlapping window all give the same table. BigQuery aborts one of two concurrent
transactions on a table, so ``load`` runs one at a time and is retried. A new column of the export is added to the table
by the next run. A column that the export no longer has stays and is NULL from then on. Every column is STRING except
the date and ``_loaded_at``, the time at which a row was loaded. For an export of one ``activity_type``, add the type to
both WHERE clauses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.google.cloud.operators.bigquery import (
    BigQueryCheckOperator,
    BigQueryDeleteTableOperator,
    BigQueryInsertJobOperator,
)
from airflow.providers.google.cloud.transfers.gcs_to_bigquery import GCSToBigQueryOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

# The dataset's location. The operators' `location` is not templated.
LOCATION = "US"

# The start of each template: the object's metadata, and names derived from it and from the params.
NAMES = """
{%- set object = ti.xcom_pull(task_ids='export', key='object') -%}
{%- set target = params.dataset ~ '.' ~ params.table -%}
{%- set staged = target ~ '_' ~ object.export_id | replace('-', '_') -%}
{%- set date, uuid = params.date_column, params.uuid_column -%}
"""

# Matches the half-open window. ChartMogul does not document whether the end of an export's window is inclusive.
INSIDE = """
{%- macro inside(moment) -%}
{{ moment }} IS NOT NULL
{%- if object.interval_start %} AND {{ moment }} >= TIMESTAMP '{{ object.interval_start }}'{% endif %}
{%- if object.interval_end %} AND {{ moment }} < TIMESTAMP '{{ object.interval_end }}'{% endif %}
{%- endmacro -%}
"""

# BigQuery has no ALTER TABLE within a transaction. Before the transaction it is idempotent.
LOAD = (
    NAMES
    + INSIDE
    + """
CREATE TABLE IF NOT EXISTS `{{ target }}` (`{{ date }}` TIMESTAMP, `_loaded_at` TIMESTAMP)
PARTITION BY TIMESTAMP_TRUNC(`{{ date }}`, MONTH);

ALTER TABLE `{{ target }}`
{%- for column in object.columns if column != date %}
  ADD COLUMN IF NOT EXISTS `{{ column }}` STRING{{ ';' if loop.last else ',' }}
{%- endfor %}

BEGIN TRANSACTION;

DELETE FROM `{{ target }}`
WHERE ({{ inside('`' ~ date ~ '`') }})
{%- if uuid %}
  OR `{{ uuid }}` IN (
    SELECT `{{ uuid }}` FROM `{{ staged }}` WHERE {{ inside('CAST(`' ~ date ~ '` AS TIMESTAMP)') }}
  )
{%- endif %};

INSERT INTO `{{ target }}` (`_loaded_at`{% for column in object.columns %}, `{{ column }}`{% endfor %})
SELECT
  CURRENT_TIMESTAMP()
{%- for column in object.columns %},
  {% if column == date %}CAST(`{{ column }}` AS TIMESTAMP){% else %}`{{ column }}`{% endif %}
{%- endfor %}
FROM `{{ staged }}`
WHERE {{ inside('CAST(`' ~ date ~ '` AS TIMESTAMP)') }};

COMMIT TRANSACTION;
"""
)

with DAG(
    dag_id="example_bigquery",
    description="Load ChartMogul activities into BigQuery, by replacing the window.",
    # Each run covers the day before it, also in a backfill. In Airflow 3, a plain "@daily" has an empty data interval.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    params={
        "dataset": Param("chartmogul", type="string"),
        "table": Param("activities", type="string"),
        "date_column": Param("date", type="string", description="The column with an activity's date"),
        "uuid_column": Param(
            "uuid",
            type=["null", "string"],
            description="The column that identifies an activity. None replaces the window alone.",
        ),
    },
    tags=["chartmogul", "example", "activities", "load"],
    doc_md=__doc__,
) as dag:
    export = ActivitiesToObjectStorageOperator(
        task_id="export",
        lookback=timedelta(days=7),
        destination=(
            "{{ var.value.get('chartmogul_gcs_destination', 'gs://google_cloud_default@my-bucket/chartmogul') }}"
            "/bigquery/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.parquet"
        ),
    )

    # With WRITE_TRUNCATE, a retry replaces the staging table and its columns.
    stage = GCSToBigQueryOperator(
        task_id="stage",
        bucket=NAMES + "{{ object.bucket }}",
        source_objects=[NAMES + "{{ object.key }}"],
        source_format="PARQUET",
        destination_project_dataset_table=NAMES + "{{ staged }}",
        write_disposition="WRITE_TRUNCATE",
        location=LOCATION,
    )

    # A row without a date is in no window and would be lost silently.
    check = BigQueryCheckOperator(
        task_id="check",
        sql=NAMES
        + """
SELECT
  COUNT(*) = COUNT(NULLIF(`{{ date }}`, '')) AS each_has_a_date
{%- if uuid %},
  COUNT(*) = COUNT(DISTINCT NULLIF(`{{ uuid }}`, '')) AS each_has_a_uuid_of_its_own
{%- endif %}
FROM `{{ staged }}`
""",
        use_legacy_sql=False,
        location=LOCATION,
    )

    load = BigQueryInsertJobOperator(
        task_id="load",
        configuration={"query": {"query": LOAD, "useLegacySql": False}},
        location=LOCATION,
        max_active_tis_per_dag=1,
    )

    # A teardown runs even if the load failed, and clearing the load then clears the staging tasks, too.
    drop = BigQueryDeleteTableOperator(
        task_id="drop", deletion_dataset_table=NAMES + "{{ staged }}", ignore_if_missing=True, location=LOCATION
    ).as_teardown(setups=stage)

    export >> stage >> check >> load >> drop
