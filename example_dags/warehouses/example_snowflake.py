# SPDX-License-Identifier: Apache-2.0
"""Each day's ChartMogul activities into Snowflake: to a bucket, from there by COPY to staging, into the table.

**Not run against Snowflake.** Checked without it: that the operators take what they are given, that the templates
render with what the export hands on, that Snowflake's grammar has the SQL (by sqlglot), and that the operators, over
HTTP against a stand-in for Snowflake (fakesnow), leave the right table behind. Try it on a schema of no importance
first.

It needs ``pip install 'airflow-provider-chartmogul[amazon]' apache-airflow-providers-snowflake``; the connection
``snowflake_default`` with database, schema, warehouse and role; the Airflow variable ``chartmogul_s3_destination``,
such as ``s3://aws_default@my-bucket/chartmogul`` (``gs://`` and ``abfs://`` do as well); and, made once, a stage over
the root of the bucket, where the object's ``key`` counts from::

    CREATE STORAGE INTEGRATION chartmogul TYPE = EXTERNAL_STAGE STORAGE_PROVIDER = 'S3' ENABLED = TRUE
      STORAGE_AWS_ROLE_ARN = 'arn:aws:iam::123456789012:role/snowflake'  -- s3:GetObject, s3:ListBucket
      STORAGE_ALLOWED_LOCATIONS = ('s3://my-bucket/');
    CREATE STAGE my_schema.chartmogul URL = 's3://my-bucket/' STORAGE_INTEGRATION = chartmogul;
    GRANT USAGE ON STAGE my_schema.chartmogul TO ROLE loader;
    GRANT USAGE, CREATE TABLE ON SCHEMA my_schema TO ROLE loader;

Table, stage and names of columns are the DAG's params. In the table, columns have their names in capitals, so that
queries need no quotes.

csv.gz, which Snowflake loads no slower than Parquet, and for which the worker needs no pyarrow; the staged table is
made from the object's ``columns``. Each export is staged in a table of its own, named by the export, and replaces its
window in one transaction; activities that stood under another date before go too, by their UUID. So a retry at any
point, a cleared run and a run of an overlapping window leave the same table. Snowflake reads what is committed
statement by statement, so that two loads at a time could each keep what the other should have replaced: ``load`` runs
alone. A column that the export gains is added to the table by the next run; one that it loses stays, and is NULL from
then on. Every column is VARCHAR, but for the date and ``_LOADED_AT``, which tells when a row was loaded. An export of
one ``activity_type`` stands for that type alone: it would need the type in both WHEREs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

SNOWFLAKE = "snowflake_default"

# What each template begins with: what the export says of its object, and names made from it and from the params.
NAMES = """
{%- set object = ti.xcom_pull(task_ids='export', key='object') -%}
{%- set staged = params.table ~ '_' ~ object.export_id | replace('-', '_') -%}
{%- macro name(column) -%} "{{ column | upper | replace('"', '""') }}" {%- endmacro -%}
{%- set date, uuid = name(params.date_column), name(params.uuid_column or '') -%}
"""

# The half-open window. Whether an export holds its window's end is documented nowhere: only rows inside are taken.
INSIDE = """
{%- macro inside(moment) -%}
{{ moment }} IS NOT NULL
{%- if object.interval_start %} AND {{ moment }} >= '{{ object.interval_start }}'::TIMESTAMP_TZ{% endif %}
{%- if object.interval_end %} AND {{ moment }} < '{{ object.interval_end }}'::TIMESTAMP_TZ{% endif %}
{%- endmacro -%}
"""

# The file as it is: by default, Snowflake would take a backslash for an escape and `\N` for NULL.
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

# A change of a table commits what is open: it comes before the transaction, and changes nothing that a retry would not
# find.
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
    description="Each day's ChartMogul activities into Snowflake, by replacing the window.",
    # Each run is the day before it, also in a backfill. A plain "@daily" has no width in Airflow 3.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "table": Param("activities", type="string"),
        "stage": Param("chartmogul", type="string", description="The stage over the root of the bucket"),
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
            "{{ var.value.get('chartmogul_s3_destination', 's3://aws_default@my-bucket/chartmogul') }}"
            "/snowflake/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
    )

    # A retry makes the staged table anew, and with it Snowflake's memory of what was copied there.
    stage = SQLExecuteQueryOperator(task_id="stage", conn_id=SNOWFLAKE, sql=STAGE, autocommit=True)

    # A row without a date is in no window, and would be lost without a word.
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

    # With autocommit, as the statements say themselves where the transaction begins and ends.
    load = SQLExecuteQueryOperator(
        task_id="load",
        conn_id=SNOWFLAKE,
        # Dates without a time zone are UTC; Snowflake's own default is America/Los_Angeles.
        hook_params={"session_parameters": {"TIMEZONE": "UTC"}},
        sql=LOAD,
        autocommit=True,
        max_active_tis_per_dag=1,
    )

    # A teardown: it runs whether or not the load went well, and clearing the load stages again.
    drop = SQLExecuteQueryOperator(
        task_id="drop", conn_id=SNOWFLAKE, sql=NAMES + "DROP TABLE IF EXISTS {{ staged }}", autocommit=True
    ).as_teardown(setups=stage)

    export >> stage >> check >> load >> drop
