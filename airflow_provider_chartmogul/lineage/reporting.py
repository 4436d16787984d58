# SPDX-License-Identifier: Apache-2.0
"""
Report a published object, or a load, to Airflow: events of the task's outlets, and hook lineage.

A failed report is logged and does not affect the others: the work is done, so the task must not fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.delivery import TransferResult

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook


def report_transfer(
    context: Mapping[str, Any],
    outlets: Sequence[Any],
    hook: BaseHook,
    results: Sequence[TransferResult],
    log: TaskLog,
    *,
    partition_key: str | None = None,
) -> None:
    """
    Report the objects of a transfer.

    :param context: the task's context
    :param outlets: the task's outlets; events of assets carry the metadata of the main object as their ``extra``, an
        alias gets an event for that object's own URI, and outlets of other kinds are left alone
    :param hook: the hook that the lineage is attributed to
    :param results: the objects, the main one first; those that already existed have no lineage
    :param partition_key: the partition key for events of assets (Airflow 3.3 and later); ``None`` gives them none.
        Airflow does not support keys on aliases
    """
    for outlet in outlets:
        with _logged_failure(log, f"the event of outlet {outlet!r}"):
            _add_outlet_event(context["outlet_events"], outlet, results[0], partition_key)
    written = [result for result in results if not result.already_existed]
    _report_lineage(hook, [result.source_uri for result in written], [result.uri for result in written], log)


def report_load(
    context: Mapping[str, Any],
    outlets: Sequence[Any],
    operator: Any,
    sources: Sequence[str],
    tables: Mapping[str, str],
    result: Mapping[str, Any],
    log: TaskLog,
) -> None:
    """
    Report a load into a warehouse.

    :param context: the task's context
    :param outlets: the task's outlets; events of assets carry the task's result as their ``extra``, and an alias gets
        an event for each table
    :param operator: the operator that the lineage is attributed to
    :param sources: the URIs of the objects
    :param tables: the URIs of the tables, by name
    :param result: the task's result
    """
    for outlet in outlets:
        with _logged_failure(log, f"the event of outlet {outlet!r}"):
            if isinstance(outlet, AssetAlias):
                for name, uri in tables.items():
                    context["outlet_events"][outlet].add(Asset(uri), extra=dict(result[name]))
            else:
                _update_extra(context["outlet_events"], outlet, result)
    _report_lineage(operator, sources, list(tables.values()), log)


def _add_outlet_event(events: Any, outlet: Any, result: TransferResult, partition_key: str | None) -> None:
    if isinstance(outlet, AssetAlias):
        events[outlet].add(Asset(result.uri), extra=dict(result.metadata))
        return
    accessor = _update_extra(events, outlet, result.metadata)
    if accessor is not None and partition_key is not None:
        accessor.add_partitions(partition_key)


def _update_extra(events: Any, outlet: Any, extra: Mapping[str, Any]) -> Any:
    """Add to the extra of an outlet's event, and return its accessor; ``None`` for an outlet that has no events."""
    try:
        accessor = events[outlet]
    except TypeError:
        # Neither an asset nor a reference to one: an entity of Airflow's older lineage, or a dictionary.
        return None
    accessor.extra.update(extra)
    return accessor


def _report_lineage(owner: Any, inputs: Sequence[str], outputs: Sequence[str], log: TaskLog) -> None:
    """
    Report assets to the collector of hook lineage.

    :param owner: the hook or operator that the lineage is attributed to
    """
    with _logged_failure(log, "the lineage"):
        if not _is_lineage_read():
            return
        from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

        collector = get_hook_lineage_collector()
        for uri in inputs:
            collector.add_input_asset(context=owner, uri=uri)
        for uri in outputs:
            collector.add_output_asset(context=owner, uri=uri)


def _is_lineage_read() -> bool:
    """
    Return whether a plugin reads hook lineage.

    Without one, Airflow's collector ignores what it is given. Since Airflow 3.0, creating it imports the assets of all
    installed providers nevertheless, such as boto3 or Google's clients, which can take longer than the transfer.
    """
    # Neither module is part of Airflow's public interface. Where both have changed, Airflow's collector decides.
    try:
        from airflow.sdk.plugins_manager import get_hook_lineage_readers_plugins
    except ImportError:  # Airflow before 3.2
        plugins_manager: Any = import_module("airflow.plugins_manager")
        if not hasattr(plugins_manager, "initialize_hook_lineage_readers_plugins"):
            return True
        plugins_manager.initialize_hook_lineage_readers_plugins()
        return bool(plugins_manager.hook_lineage_reader_classes)
    return bool(get_hook_lineage_readers_plugins())


@contextlib.contextmanager
def _logged_failure(log: TaskLog, report: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning("Could not report %s to Airflow (%s: %s)", report, type(error).__name__, error)
