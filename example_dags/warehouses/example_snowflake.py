# SPDX-License-Identifier: Apache-2.0
"""Load ChartMogul activities into Snowflake every day: bucket, COPY into a staging table, target table.

**Not tested against Snowflake.** The tests check that the operators accept their arguments, that the templates render
with the metadata of a real export, that the SQL is valid in Snowflake's grammar (sqlglot), and that the operators
produce the right table over HTTP against a simulation of Snowflake (fakesnow). Try it on a test schema first.

Requirements:

* ``pip install 'airflow-provider-chartmogul[amazon]' apache-airflow-providers-snowflake``
* The connection ``snowflake_default`` with database, schema, warehouse and role.
* The Airflow variable ``chartmogul_s3_destination``, such as ``s3://aws_default@my-bucket/chartmogul``. ``gs://`` and
  ``abfs://`` work, too.
* A stage over the root of the bucket, because the object's ``key`` is relative to the root. Create it once:

    CREATE STORAGE INTEGRATION chartmogul TYPE = EXTERNAL_STAGE STORAGE_PROVIDER = 'S3' ENABLED = TRUE
      STORAGE_AWS_ROLE_ARN = 'arn:aws:iam::123456789012:role/snowflake'  -- s3:GetObject, s3:ListBucket
      STORAGE_ALLOWED_LOCATIONS = ('s3://my-bucket/');
    CREATE STAGE my_schema.chartmogul URL = 's3://my-bucket/' STORAGE_INTEGRATION = chartmogul;
    GRANT USAGE ON STAGE my_schema.chartmogul TO ROLE loader;
    GRANT USAGE, CREATE TABLE ON SCHEMA my_schema TO ROLE loader;

Table, stage and column names are params of the DAG. The table's column names are in upper case, so queries need no
quotes.

The object is csv.gz, which Snowflake loads as fast as Parquet and which needs no pyarrow on the worker. The columns of
the staging table come from the object's ``columns``. Each export has its own staging table, named after the export, and
replaces its window in one transaction, which also deletes rows with the export's UUIDs from the rest of the table. So a
retry at any point, a cleared run and a run of an overlapping window all give the same table. Snowflake's isolation
level is read committed: each of two concurrent loads could keep what the other should have replaced, so ``load`` runs
one at a time. A new column of the export is added to the table by the next run. A column that the export no longer has
stays and is NULL from then on. Every column is VARCHAR except the date and ``_LOADED_AT``, the time at which a row was
loaded. For an export of one ``activity_type``, add the type to both WHERE clauses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

SNOWFLAKE = "snowflake_default"

# The start of each template: the object's metadata, and names derived from it and from the params.
NAMES = """
{%- set object = ti.xcom_pull(task_ids='export', key='object') -%}
{%- set staged = params.table ~ '_' ~ object.export_id | replace('-', '_') -%}
{%- macro name(column) -%} "{{ column | upper | replace('"', '""') }}" {%- endmacro -%}
{%- set date, uuid = name(params.date_column), name(params.uuid_column or '') -%}
"""

# Matches the half-open window. ChartMogul does not document whether the end of an export's window is inclusive.
INSIDE = """
{%- macro inside(moment) -%}
{{ moment }} IS NOT NULL
{%- if object.interval_start %} AND {{ moment }} >= '{{ object.interval_start }}'::TIMESTAMP_TZ{% endif %}
{%- if object.interval_end %} AND {{ moment }} < '{{ object.interval_end }}'::TIMESTAMP_TZ{% endif %}
{%- endmacro -%}
"""

# Read the file literally: by default, Snowflake treats a backslash as an escape character and `\N` as NULL.
STAGE = (
    NAMES
    + r"""
CREATE OR REPLACE TRANSIENT TABLE {{ staged }} (
{%- for column in object.columns %}
  {{ name(column) }} VARCHAR{{ '' if loop.last else ',' }}
{%- endfor %}
);

COPY INTO {{ staged }} FROM @{{ params.stage }} FILES = ('{{ object.key | replace("'", "''") }}')
FILE_FORMAT = (
  TYPE = CSV COMPRESSION = GZIP SKIP_HEADER = 1 FIELD_OPTIONALLY_ENCLOSED_BY = '"'
  ESCAPE_UNENCLOSED_FIELD = NONE NULL_IF = () EMPTY_FIELD_AS_NULL = TRUE
)
ON_ERROR = ABORT_STATEMENT;
"""
)

# DDL commits the open transaction in Snowflake, so it comes first. It is idempotent.
LOAD = (
    NAMES
    + INSIDE
    + """
CREATE TABLE IF NOT EXISTS {{ params.table }} ({{ date }} TIMESTAMP_TZ, _LOADED_AT TIMESTAMP_TZ);
{% for column in object.columns if name(column) != date %}
ALTER TABLE {{ params.table }} ADD COLUMN IF NOT EXISTS {{ name(column) }} VARCHAR;
{%- endfor %}

BEGIN;

DELETE FROM {{ params.table }}
WHERE ({{ inside(date) }})
{%- if params.uuid_column %}
  OR {{ uuid }} IN (SELECT {{ uuid }} FROM {{ staged }} WHERE {{ inside(date ~ '::TIMESTAMP_TZ') }})
{%- endif %};

INSERT INTO {{ params.table }} (_LOADED_AT{% for column in object.columns %}, {{ name(column) }}{% endfor %})
SELECT
  CURRENT_TIMESTAMP()
{%- for column in object.columns %},
  {{ name(column) }}{{ '::TIMESTAMP_TZ' if name(column) == date }}
{%- endfor %}
FROM {{ staged }}
WHERE {{ inside(date ~ '::TIMESTAMP_TZ') }};

COMMIT;
"""
)

with DAG(
    dag_id="example_snowflake",
    description="Load ChartMogul activities into Snowflake, by replacing the window.",
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
        "table": Param("activities", type="string"),
        "stage": Param("chartmogul", type="string", description="The stage over the root of the bucket"),
        "date_column": Param("date", type="string", description="The column with an activity's date"),
        "uuid_column": Param(
            "uuid",
            type=["null", "string"],
            description="The column that identifies an activity. None replaces the window alone.",
        ),
    },
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:
    export = ActivitiesToObjectStorageOperator(
        task_id="export",
        lookback=timedelta(days=7),
        destination=(
            "{{ var.value.get('chartmogul_s3_destination', 's3://aws_default@my-bucket/chartmogul') }}"
            "/snowflake/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
    )

    # A retry recreates the staging table, and with it Snowflake's record of which files were copied.
    stage = SQLExecuteQueryOperator(task_id="stage", conn_id=SNOWFLAKE, sql=STAGE, autocommit=True)

    # A row without a date is in no window and would be lost silently.
    check = SQLCheckOperator(
        task_id="check",
        conn_id=SNOWFLAKE,
        sql=NAMES
        + """
SELECT
  COUNT(*) = COUNT(NULLIF({{ date }}, '')) AS each_has_a_date
{%- if params.uuid_column %},
  COUNT(*) = COUNT(DISTINCT NULLIF({{ uuid }}, '')) AS each_has_a_uuid_of_its_own
{%- endif %}
FROM {{ staged }}
""",
    )

    # With autocommit, because the statements contain BEGIN and COMMIT themselves.
    load = SQLExecuteQueryOperator(
        task_id="load",
        conn_id=SNOWFLAKE,
        # Interprets dates without a time zone as UTC. Snowflake's default is America/Los_Angeles.
        hook_params={"session_parameters": {"TIMEZONE": "UTC"}},
        sql=LOAD,
        autocommit=True,
        max_active_tis_per_dag=1,
    )

    # A teardown runs even if the load failed, and clearing the load then clears the staging tasks, too.
    drop = SQLExecuteQueryOperator(
        task_id="drop", conn_id=SNOWFLAKE, sql=NAMES + "DROP TABLE IF EXISTS {{ staged }}", autocommit=True
    ).as_teardown(setups=stage)

    export >> stage >> check >> load >> drop
