# SPDX-License-Identifier: Apache-2.0
"""Each day's ChartMogul activities into BigQuery, by Google's own operators: to a bucket, to staging, into the table.

**Not run against BigQuery.** Checked without it: that the operators take what they are given, that the templates
render with what the export hands on, that BigQuery's grammar has the SQL (by sqlglot), and, translated for DuckDB,
that it leaves the right table behind. Try it on a dataset of no importance first.

It needs ``pip install 'airflow-provider-chartmogul[google,parquet]'``; the connection ``google_cloud_default``, whose
account may write objects in the bucket, run jobs in the project (``roles/bigquery.jobUser``) and make, change and
delete tables in the dataset (``roles/bigquery.dataEditor``); the dataset; and the Airflow variable
``chartmogul_gcs_destination``, such as ``gs://google_cloud_default@my-bucket/chartmogul``. Dataset, table and names of
columns are the DAG's params; ``LOCATION`` below is the dataset's.

Parquet, since it says itself that each column is text: of a CSV, BigQuery would guess types, and ``0042`` would be 42.
Each export is staged in a table of its own, named by the export, and replaces its window in one transaction; activities
that stood under another date before go too, by their UUID. So a retry at any point, a cleared run and a run of an
overlapping window leave the same table. Of two transactions that change one table BigQuery aborts one, for which
``load`` runs alone and is retried. A column that the export gains is added to the table by the next run; one that it
loses stays, and is NULL from then on. Every column is STRING, but for the date and ``_loaded_at``, which tells when
a row was loaded. An export of one ``activity_type`` stands for that type alone: it would need the type in both WHEREs.
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

# Where the dataset is. The operators' `location` is not a template.
LOCATION = "US"

# What each template begins with: what the export says of its object, and names made from it and from the params.
NAMES = """
{%- set object = ti.xcom_pull(task_ids='export', key='object') -%}
{%- set target = params.dataset ~ '.' ~ params.table -%}
{%- set staged = target ~ '_' ~ object.export_id | replace('-', '_') -%}
{%- set date, uuid = params.date_column, params.uuid_column -%}
"""

# The half-open window. Whether an export holds its window's end is documented nowhere: only rows inside are taken.
INSIDE = """
{%- macro inside(moment) -%}
{{ moment }} IS NOT NULL
{%- if object.interval_start %} AND {{ moment }} >= TIMESTAMP '{{ object.interval_start }}'{% endif %}
{%- if object.interval_end %} AND {{ moment }} < TIMESTAMP '{{ object.interval_end }}'{% endif %}
{%- endmacro -%}
"""

# BigQuery has no ALTER TABLE within a transaction. Before it, it changes nothing that a retry would not find.
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
    description="Each day's ChartMogul activities into BigQuery, by replacing the window.",
    # Each run is the day before it, also in a backfill. A plain "@daily" has no width in Airflow 3.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "dataset": Param("chartmogul", type="string"),
        "table": Param("activities", type="string"),
        "date_column": Param("date", type="string", description="The column with an activity's date"),
        "uuid_column": Param(
            "uuid", type=["null", "string"], description="The column that identifies an activity; none: by window alone"
        ),
    },
    tags=["chartmogul", "example"],
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

    # WRITE_TRUNCATE: a retry writes the staged table anew, columns and all.
    stage = GCSToBigQueryOperator(
        task_id="stage",
        bucket=NAMES + "{{ object.bucket }}",
        source_objects=[NAMES + "{{ object.key }}"],
        source_format="PARQUET",
        destination_project_dataset_table=NAMES + "{{ staged }}",
        write_disposition="WRITE_TRUNCATE",
        location=LOCATION,
    )

    # A row without a date is in no window, and would be lost without a word.
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

    # A teardown: it runs whether or not the load went well, and clearing the load stages again.
    drop = BigQueryDeleteTableOperator(
        task_id="drop", deletion_dataset_table=NAMES + "{{ staged }}", ignore_if_missing=True, location=LOCATION
    ).as_teardown(setups=stage)

    export >> stage >> check >> load >> drop
