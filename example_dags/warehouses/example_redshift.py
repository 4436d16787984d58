# SPDX-License-Identifier: Apache-2.0
"""Each day's ChartMogul activities into Redshift: to a bucket, from there by COPY to staging, into the table.

**Not run against Redshift.** Checked without it: that the operators take what they are given, that the templates
render with what the export hands on, that Redshift's grammar has the SQL (by sqlglot), and that it leaves the right
table behind in a PostgreSQL (COPY itself was not run). Try it on a schema of no importance first.

It needs ``pip install 'airflow-provider-chartmogul[amazon]' apache-airflow-providers-common-sql``; the connection
``redshift_default``, whose user may create tables in the schema (``GRANT USAGE, CREATE ON SCHEMA … TO …``); the Airflow
variable ``chartmogul_s3_destination``, such as ``s3://aws_default@my-bucket/chartmogul``; and, for COPY, a connection
``aws_redshift_copy`` of type ``aws`` with the extra ``{"role_arn": "arn:aws:iam::123456789012:role/redshift"}``: a role
that is attached to the cluster or workgroup and has ``s3:GetObject`` and ``s3:ListBucket`` on the bucket. With a
connection without a role, the operator would write keys into the statement. Schema, table and names of columns are the
DAG's params.

csv.gz, for which the worker needs no pyarrow, and which COPY reads as text whatever is in it; the staged table is
made from the object's ``columns``. Each export is staged in a table of its own, named by the export, and replaces its
window in one transaction; activities that stood under another date before go too, by their UUID. So a retry at any
point, a cleared run and a run of an overlapping window leave the same table: the transaction locks the table first,
for under snapshot isolation two loads at a time would each keep what the other has just written. A column that the
export loses stays, and is NULL from then on. For one that it gains, Redshift has no ``ADD COLUMN IF NOT EXISTS``:
``load`` fails and names it, with the table as it was; ``ALTER TABLE … ADD COLUMN "…" VARCHAR(65535)``, and clear
``load``. Every column is VARCHAR, but for the date and ``_loaded_at``, which tells when a row was loaded. An export of
one ``activity_type`` stands for that type alone: it would need the type in both WHEREs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.amazon.aws.transfers.s3_to_redshift import S3ToRedshiftOperator
from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

REDSHIFT = "redshift_default"

# What each template begins with: what the export says of its object, and names made from it and from the params.
NAMES = """
{%- set object = ti.xcom_pull(task_ids='export', key='object') -%}
{%- set target = params.schema ~ '.' ~ params.table -%}
{%- set staged = params.table ~ '_' ~ object.export_id | replace('-', '_') -%}
{%- macro name(column) -%} "{{ column | replace('"', '""') }}" {%- endmacro -%}
{%- set date, uuid = name(params.date_column), name(params.uuid_column or '') -%}
"""

# The half-open window. Whether an export holds its window's end is documented nowhere: only rows inside are taken.
INSIDE = """
{%- macro inside(moment) -%}
{{ moment }} IS NOT NULL
{%- if object.interval_start %} AND {{ moment }} >= CAST('{{ object.interval_start }}' AS TIMESTAMPTZ){% endif %}
{%- if object.interval_end %} AND {{ moment }} < CAST('{{ object.interval_end }}' AS TIMESTAMPTZ){% endif %}
{%- endmacro -%}
"""

CREATE = (
    NAMES
    + """
DROP TABLE IF EXISTS {{ params.schema }}.{{ staged }};

CREATE TABLE {{ params.schema }}.{{ staged }} (
{%- for column in object.columns %}
  {{ name(column) }} VARCHAR(65535){{ '' if loop.last else ',' }}
{%- endfor %}
);

CREATE TABLE IF NOT EXISTS {{ target }} (
  _loaded_at TIMESTAMPTZ
{%- for column in object.columns %},
  {{ name(column) }} {{ 'TIMESTAMPTZ' if name(column) == date else 'VARCHAR(65535)' }}
{%- endfor %}
);
"""
)

# Dates without a time zone are UTC.
LOAD = (
    NAMES
    + INSIDE
    + """
SET TIMEZONE TO 'UTC';

BEGIN;

LOCK TABLE {{ target }};

DELETE FROM {{ target }}
WHERE ({{ inside(date) }})
{%- if params.uuid_column %}
  OR {{ uuid }} IN (
    SELECT {{ uuid }} FROM {{ params.schema }}.{{ staged }}
    WHERE {{ inside('CAST(' ~ date ~ ' AS TIMESTAMPTZ)') }}
  )
{%- endif %};

INSERT INTO {{ target }} (_loaded_at{% for column in object.columns %}, {{ name(column) }}{% endfor %})
SELECT
  GETDATE()
{%- for column in object.columns %},
  {% if name(column) == date %}CAST({{ date }} AS TIMESTAMPTZ){% else %}{{ name(column) }}{% endif %}
{%- endfor %}
FROM {{ params.schema }}.{{ staged }}
WHERE {{ inside('CAST(' ~ date ~ ' AS TIMESTAMPTZ)') }};

COMMIT;
"""
)

with DAG(
    dag_id="example_redshift",
    description="Each day's ChartMogul activities into Redshift, by replacing the window.",
    # Each run is the day before it, also in a backfill. A plain "@daily" has no width in Airflow 3.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "schema": Param("public", type="string"),
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
            "{{ var.value.get('chartmogul_s3_destination', 's3://aws_default@my-bucket/chartmogul') }}"
            "/redshift/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
    )

    create = SQLExecuteQueryOperator(
        task_id="create", conn_id=REDSHIFT, sql=CREATE, split_statements=True, autocommit=True
    )

    # REPLACE empties the staged table first, in the same transaction: a retry copies nothing twice.
    stage = S3ToRedshiftOperator(
        task_id="stage",
        redshift_conn_id=REDSHIFT,
        aws_conn_id="aws_redshift_copy",
        s3_bucket=NAMES + "{{ object.bucket }}",
        s3_key=NAMES + "{{ object.key }}",
        schema="{{ params.schema }}",
        table=NAMES + "{{ staged }}",
        copy_options=["CSV", "GZIP", "IGNOREHEADER 1", "EMPTYASNULL"],
        method="REPLACE",
    )

    # A row without a date is in no window, and would be lost without a word.
    check = SQLCheckOperator(
        task_id="check",
        conn_id=REDSHIFT,
        sql=NAMES
        + """
SELECT
  COUNT(*) = COUNT(NULLIF({{ date }}, '')) AS each_has_a_date
{%- if params.uuid_column %},
  COUNT(*) = COUNT(DISTINCT NULLIF({{ uuid }}, '')) AS each_has_a_uuid_of_its_own
{%- endif %}
FROM {{ params.schema }}.{{ staged }}
""",
    )

    # With autocommit, as the statements say themselves where the transaction begins and ends.
    load = SQLExecuteQueryOperator(
        task_id="load",
        conn_id=REDSHIFT,
        sql=LOAD,
        split_statements=True,
        autocommit=True,
        max_active_tis_per_dag=1,
    )

    # A teardown: it runs whether or not the load went well, and clearing the load stages again.
    drop = SQLExecuteQueryOperator(
        task_id="drop",
        conn_id=REDSHIFT,
        sql=NAMES + "DROP TABLE IF EXISTS {{ params.schema }}.{{ staged }}",
        autocommit=True,
    ).as_teardown(setups=[create, stage])

    export >> create >> stage >> check >> load >> drop
