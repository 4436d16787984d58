# SPDX-License-Identifier: Apache-2.0
"""The operator that loads what this provider's transfers wrote into a warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_chartmogul.hooks.chartmogul import fail_without_retry
from airflow_provider_chartmogul.intervals.durations import parse_seconds
from airflow_provider_chartmogul.operators.base import ParsedOperator
from airflow_provider_chartmogul.operators.literals import is_literal
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.transfers.base import open_temporary_folder

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_chartmogul.warehouse.session import WarehouseSession
    from airflow_provider_chartmogul.warehouse.settings import LoadSettings
    from airflow_provider_chartmogul.warehouse.source_objects import SourceBatch
    from airflow_provider_chartmogul.warehouse.target import TableResult


class ObjectStorageToWarehouseOperator(ParsedOperator):
    """
    Load objects that this provider's transfers wrote into tables of a warehouse, so that each load can be repeated.

    The objects of one export, or of one snapshot, are loaded in one transaction, the oldest first. Loading an object
    again gives the same table, and an older object never overwrites a newer one, in whatever order loads run: the table
    ``_chartmogul_loads``, in the target's schema, records the loads.

    * **Activities and metrics** replace their window, which is half-open: the load deletes the table's rows
      inside it and inserts the object's rows inside it. An activity that the table has at another date under the same
      UUID moves. An export of one type only changes activities of that type.
    * **Snapshots** (all other resources) replace all rows of their table.

    Tables and columns are created when they are missing. Column names are compared without case, and a column's type is
    never changed; a value that does not fit is an error. Every table has a column ``_loaded_at``. Empty text is NULL,
    and times without a time zone are in UTC.

    The task returns a dictionary by table: ``inserted``, ``deleted`` (including rows that were inserted again),
    ``outside`` (rows outside the object's window, not loaded), ``superseded`` (rows that newer loads made obsolete, not
    loaded), ``skipped`` (older snapshots, not loaded) and ``columns_added``.

    :param source: the objects: XCom ``object`` or ``objects`` of a transfer, a sequence of either (the outputs of
        mapped tasks), JSON text of these, or the URI of an object or of a prefix (with ``/`` at its end) whose objects
        carry their metadata (templated)
    :param warehouse_conn_id: the Airflow connection of the warehouse, of type ``postgres`` or ``snowflake``
        (templated)
    :param duckdb_path: the file of a DuckDB database, instead of ``warehouse_conn_id``; created if it does not exist
        (templated)
    :param schema: the schema of the tables, which is created if it does not exist; ``None`` for that of the connection
        (templated)
    :param table: the table, ``name`` or ``schema.name``. ``{table}`` becomes the name of the object's table, such as
        ``activities`` or ``invoice_line_items`` (templated)
    :param object_storage_conn_id: the Airflow connection of the object storage; ``None`` uses the credentials of the
        environment (templated)
    :param download_dir: a local folder with room for the objects of one export or snapshot; ``None`` is the system's
        folder for temporary files (templated)
    :param date_column: the column with an activity's date (templated)
    :param uuid_column: the column that identifies an activity. ``None`` only replaces windows: an activity whose date
        has changed may then be in the table twice (templated)
    :param type_column: the column with an activity's type (templated)
    :param account_column: a column that the load fills with ``chartmogul_conn_id``, for several accounts in one table;
        a load then only changes the rows of its account. With ``None``, an object of another account is an error
        (templated)
    :param column_types: Arrow types by column, such as ``{"activity_mrr_movement": "decimal128(18, 2)"}``, for columns
        that the load creates; columns of activities are text otherwise (templated)
    :param deletes: what happens to rows that a snapshot lacks (templated):

        * ``hard`` (default) deletes them
        * ``soft`` keeps them, with the time of the snapshot in ``_deleted_at``, which is cleared if they return
    :param allow_empty: load a snapshot without rows into a table with rows
    :param lock_timeout: how long to wait for another load of the same table, in seconds
    :param load_options: options of a warehouse's bulk load; no warehouse of this version has any (templated)
    :raises AirflowFailException: if no retry can help
    :raises AirflowSkipException: if there is nothing in ``source``
    :raises ChartMogulError: for any other failure. The rows are then as they were before the failed export or snapshot;
        those before it in ``source`` stay loaded. Errors of the warehouse's driver are raised as they are
    """

    template_fields: Sequence[str] = (
        "source",
        "warehouse_conn_id",
        "duckdb_path",
        "schema",
        "table",
        "object_storage_conn_id",
        "download_dir",
        "date_column",
        "uuid_column",
        "type_column",
        "account_column",
        "column_types",
        "deletes",
        "load_options",
    )
    template_fields_renderers = {  # noqa: RUF012
        "source": "json",
        "column_types": "json",
        "load_options": "json",
    }
    ui_color = "#e8f0fb"

    def __init__(
        self,
        *,
        source: Mapping[str, Any] | Sequence[Any] | str | XComArg | None,
        warehouse_conn_id: str | None = None,
        duckdb_path: str | None = None,
        schema: str | None = None,
        table: str = "chartmogul_{table}",
        object_storage_conn_id: str | None = None,
        download_dir: str | None = None,
        date_column: str = "date",
        uuid_column: str | None = "uuid",
        type_column: str = "type",
        account_column: str | None = None,
        column_types: dict[str, str] | None = None,
        deletes: str = "hard",
        allow_empty: bool = False,
        lock_timeout: float = 600,
        load_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source: Any = source
        self.warehouse_conn_id = warehouse_conn_id
        self.duckdb_path = duckdb_path
        self.schema = schema
        self.table = table
        self.object_storage_conn_id = object_storage_conn_id
        self.download_dir = download_dir
        self.date_column = date_column
        self.uuid_column = uuid_column
        self.type_column = type_column
        self.account_column = account_column
        self.column_types = column_types
        self.deletes = deletes
        self.allow_empty = allow_empty
        self.lock_timeout = parse_seconds(lock_timeout, "lock_timeout")
        self.load_options = load_options
        self._cancellation = Cancellation()
        self._check_at_parse()

    @classmethod
    def _check_literals(cls, given: Mapping[str, Any]) -> None:
        # Imported here, so that importing this module loads nothing that only a load needs.
        from airflow_provider_chartmogul.warehouse.connect import check_destination
        from airflow_provider_chartmogul.warehouse.settings import check_deletes, check_load_options, check_names

        super()._check_literals(given)
        if {"warehouse_conn_id", "duckdb_path"} <= given.keys():
            check_destination(given["warehouse_conn_id"], given["duckdb_path"])
        check_names({name: value for name, value in given.items() if is_literal(value)})
        if is_literal(given.get("deletes")):
            check_deletes(given["deletes"])
        load_options = given.get("load_options")
        if is_literal(given.get("duckdb_path")) and (isinstance(load_options, Mapping) or is_literal(load_options)):
            check_load_options(load_options)

    def execute(self, context: Context) -> dict[str, dict[str, Any]]:
        from airflow_provider_chartmogul.warehouse.load import load_batch
        from airflow_provider_chartmogul.warehouse.source_objects import parse_source
        from airflow_provider_chartmogul.warehouse.target import TableResult

        results: dict[str, TableResult] = {}
        with fail_without_retry():
            settings = self._load_settings()
            batches = parse_source(self.source, object_storage_conn_id=self.object_storage_conn_id, log=self.log)
            if not batches:
                raise AirflowSkipException("source has no objects, so there is nothing to load")
            number = sum(len(batch.objects) for batch in batches)
            self.log.info("Loading %d objects into %s", number, self.duckdb_path or self.warehouse_conn_id)
            for batch in batches:
                with open_temporary_folder(self.download_dir) as folder:
                    loaded = load_batch(
                        self._new_session,
                        batch,
                        settings,
                        folder,
                        task_name=_task_name(context),
                        cancellation=self._cancellation,
                        log=self.log,
                    )
                for table, result in loaded.items():
                    results.setdefault(table, TableResult()).add(result)
        return self._finish(context, batches, results)

    def _finish(
        self, context: Context, batches: Sequence[SourceBatch], results: Mapping[str, TableResult]
    ) -> dict[str, dict[str, Any]]:
        """Report the load to Airflow, and return the results by table."""
        from airflow_provider_chartmogul.lineage.reporting import report_load

        value = {table: result.as_dict() for table, result in results.items()}
        sources = [source.uri for batch in batches for source in batch.objects]
        tables = {table: result.uri for table, result in results.items()}
        report_load(context, self.outlets, self, sources, tables, value, self.log)
        return value

    def _load_settings(self) -> LoadSettings:
        """
        Return the parameters that do not depend on the warehouse, checked before anything is read.

        :raises TransferSettingsError: for an invalid one
        """
        from airflow_provider_chartmogul.warehouse.connect import check_destination
        from airflow_provider_chartmogul.warehouse.settings import LoadSettings, check_load_options, check_names

        check_destination(self.warehouse_conn_id, self.duckdb_path)
        check_names({"schema": self.schema})
        check_load_options(self.load_options)
        return LoadSettings(
            table=self.table,
            date_column=self.date_column,
            uuid_column=self.uuid_column,
            type_column=self.type_column,
            account_column=self.account_column,
            column_types=self.column_types,
            deletes=self.deletes,
            allow_empty=self.allow_empty,
        )

    def _new_session(self) -> WarehouseSession:
        from airflow_provider_chartmogul.warehouse.connect import new_session

        return new_session(
            self.warehouse_conn_id,
            self.duckdb_path,
            self.schema,
            lock_timeout=self.lock_timeout,
            cancellation=self._cancellation,
            log=self.log,
        )

    def on_kill(self) -> None:
        """Stop the load at its next step; uncommitted changes are rolled back."""
        self._cancellation.cancel()


def _task_name(context: Context) -> str:
    """Return what identifies a task in all of its tries."""
    ti = context["ti"]
    return "/".join(str(getattr(ti, name, "")) for name in ("dag_id", "task_id", "run_id", "map_index"))
