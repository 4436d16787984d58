# SPDX-License-Identifier: Apache-2.0
"""Load ChartMogul activities into Redshift every day: bucket, COPY into a staging table, target table.

**Not tested against Redshift.** The tests check that the operators accept their arguments, that the templates render
with the metadata of a real export, that the SQL is valid in Redshift's grammar (sqlglot), and that it produces the
right table in PostgreSQL (without COPY). Try it on a test schema first.

Requirements:

* ``pip install 'airflow-provider-chartmogul[amazon]' apache-airflow-providers-common-sql``
* The connection ``redshift_default``. Its user needs to create tables in the schema
  (``GRANT USAGE, CREATE ON SCHEMA … TO …``).
* The Airflow variable ``chartmogul_s3_destination``, such as ``s3://aws_default@my-bucket/chartmogul``.
* For COPY, the connection ``aws_redshift_copy`` of type ``aws`` with the extra
  ``{"role_arn": "arn:aws:iam::123456789012:role/redshift"}``. The role must be attached to the cluster or workgroup and
  have ``s3:GetObject`` and ``s3:ListBucket`` on the bucket. Without a role, the operator would write the connection's
  keys into the statement.

Schema, table and column names are params of the DAG.

The object is csv.gz, which needs no pyarrow on the worker and which COPY reads as text. The columns of the staging
table come from the object's ``columns``. Each export has its own staging table, named after the export, and replaces
its window in one transaction, which also deletes rows with the export's UUIDs from the rest of the table. So a retry at
any point, a cleared run and a run of an overlapping window all give the same table. The transaction locks the table
first: under snapshot isolation, each of two concurrent loads would keep what the other has just written. A column that
the export no longer has stays and is NULL from then on. Redshift has no ``ADD COLUMN IF NOT EXISTS``: if the export has
a new column, ``load`` fails, names it, and leaves the table unchanged. Run ``ALTER TABLE … ADD COLUMN "…"
VARCHAR(65535)`` and clear ``load``. Every column is VARCHAR except the date and ``_loaded_at``, the time at which a row
was loaded. For an export of one ``activity_type``, add the type to both WHERE clauses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.amazon.aws.transfers.s3_to_redshift import S3ToRedshiftOperator
from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

REDSHIFT = "redshift_default"

# The start of each template: the object's metadata, and names derived from it and from the params.
NAMES = """
{%- set object = ti.xcom_pull(task_ids='export', key='object') -%}
{%- set target = params.schema ~ '.' ~ params.table -%}
{%- set staged = params.table ~ '_' ~ object.export_id | replace('-', '_') -%}
{%- macro name(column) -%} "{{ column | replace('"', '""') }}" {%- endmacro -%}
{%- set date, uuid = name(params.date_column), name(params.uuid_column or '') -%}
"""

# Matches the half-open window. ChartMogul does not document whether the end of an export's window is inclusive.
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

# Interprets dates without a time zone as UTC.
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
    description="Load ChartMogul activities into Redshift, by replacing the window.",
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
        "schema": Param("public", type="string"),
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
            "{{ var.value.get('chartmogul_s3_destination', 's3://aws_default@my-bucket/chartmogul') }}"
            "/redshift/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
    )

    create = SQLExecuteQueryOperator(
        task_id="create", conn_id=REDSHIFT, sql=CREATE, split_statements=True, autocommit=True
    )

    # REPLACE empties the staging table in the same transaction, so a retry copies nothing twice.
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

    # A row without a date is in no window and would be lost silently.
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

    # With autocommit, because the statements contain BEGIN and COMMIT themselves.
    load = SQLExecuteQueryOperator(
        task_id="load",
        conn_id=REDSHIFT,
        sql=LOAD,
        split_statements=True,
        autocommit=True,
        max_active_tis_per_dag=1,
    )

    # A teardown runs even if the load failed, and clearing the load then clears the staging tasks, too.
    drop = SQLExecuteQueryOperator(
        task_id="drop",
        conn_id=REDSHIFT,
        sql=NAMES + "DROP TABLE IF EXISTS {{ params.schema }}.{{ staged }}",
        autocommit=True,
    ).as_teardown(setups=[create, stage])

    export >> create >> stage >> check >> load >> drop
