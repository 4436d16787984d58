# SPDX-License-Identifier: Apache-2.0
"""
Remove rows that came twice from a local file.

A row that changes during a walk may move to a later page and come again. The row that came last is the newest. The file
is read twice, in constant memory: to find the rows of the keys in question, and to copy all others.

In a table, an identifier that does not fit the type of its column is in the column ``_extra``, and is read from there.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from airflow_provider_chartmogul.formats.column_selection import EXTRA
from airflow_provider_chartmogul.formats.gzip_files import open_to_read, open_to_write

#: A field of a CSV record with what ends it.
_CSV_FIELD = re.compile(rb'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(?:,|\r?\n|$)')


def keep_last_rows(path: Path, output_format: str, key: Sequence[str], counts: Mapping[tuple[Any, ...], int]) -> int:
    """
    Remove all but the last rows of some keys from a file, and leave all other rows as they are.

    The file is replaced once the new one is complete.

    :param path: a file that ``JsonLinesWriter`` or ``TableWriter`` has written
    :param output_format: ``jsonl``, ``jsonl.gz``, ``parquet``, ``csv`` or ``csv.gz``
    :param key: what identifies rows. For identifiers, the API's keys and the columns' names are the same
    :param counts: how many rows to keep, by their values for ``key``. A value and its text are the same, since an
        identifier may come as either
    :return: the number of rows that are left
    """
    text_counts = {tuple(map(_to_text, values)): count for values, count in counts.items()}
    is_parquet = output_format == "parquet"
    keys = _read_parquet_keys(path, key) if is_parquet else _read_text_keys(path, output_format, key)
    repeated, rows = _find_repeated(keys, text_counts)
    if repeated:
        new_path = path.with_name(f"{path.name}.new")
        if is_parquet:
            _copy_parquet(path, new_path, repeated)
        else:
            _copy_text(path, new_path, output_format, repeated)
        os.replace(new_path, path)
    return rows - len(repeated)


def _to_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _fill_from_extra(values: tuple[str, ...], key: Sequence[str], extra: str | None) -> tuple[str, ...]:
    """Return a row's values for the key, with those that are not in their columns taken from its ``_extra``."""
    if all(values) or not extra:
        return values
    misfits = json.loads(extra)
    return tuple(value or _to_text(misfits.get(name)) for name, value in zip(key, values, strict=True))


def _find_repeated(keys: Iterator[tuple[str, ...]], counts: Mapping[tuple[str, ...], int]) -> tuple[set[int], int]:
    """Return the positions of the rows to remove, and the number of all rows."""
    positions: dict[tuple[str, ...], list[int]] = defaultdict(list)
    rows = 0
    for values in keys:
        if values in counts:
            positions[values].append(rows)
        rows += 1
    repeated: set[int] = set()
    for values, found in positions.items():
        repeated.update(found[: max(0, len(found) - counts[values])])
    return repeated, rows


# JSON Lines and CSV


def _read_text_keys(path: Path, output_format: str, key: Sequence[str]) -> Iterator[tuple[str, ...]]:
    with _open_records(path, output_format) as (header, records):
        if header is None:
            for record in records:
                row = json.loads(record)
                yield tuple(_to_text(row.get(name)) for name in key)
            return
        names = _read_fields(header, header.count(b",") + 1)
        indexes = [names.index(name) for name in key]
        for record in records:
            fields = _read_fields(record, max(indexes) + 1)
            values = tuple(fields[index] for index in indexes)
            if EXTRA in names and not all(values):
                values = _fill_from_extra(values, key, _read_fields(record, len(names))[names.index(EXTRA)])
            yield values


def _copy_text(path: Path, new_path: Path, output_format: str, repeated: Set[int]) -> None:
    with ExitStack() as stack:
        header, records = stack.enter_context(_open_records(path, output_format))
        new_file = open_to_write(new_path, compressed=output_format.endswith(".gz"), stack=stack)
        new_file.write(header or b"")
        for position, record in enumerate(records):
            if position not in repeated:
                new_file.write(record)


@contextmanager
def _open_records(path: Path, output_format: str) -> Iterator[tuple[bytes | None, Iterator[bytes]]]:
    """Open a file of text; return its header, which JSON Lines do not have, and its records."""
    with open_to_read(path, compressed=output_format.endswith(".gz")) as file:
        if output_format.startswith("jsonl"):
            yield None, iter(file)
        else:
            records = _split_csv(file)
            yield next(records), records


def _split_csv(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Iterate over the records of a CSV, in which quoted fields may hold line ends."""
    record: list[bytes] = []
    quotes = 0
    for line in lines:
        record.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield b"".join(record)
            record.clear()


def _read_fields(record: bytes, count: int) -> list[str]:
    """Return the first fields of a CSV record; those after them, which may be long, are not read."""
    fields: list[str] = []
    position = 0
    while len(fields) < count and (match := _CSV_FIELD.match(record, position)):
        quoted, plain = match.groups()
        fields.append((plain if quoted is None else quoted.replace(b'""', b'"')).decode())
        position = match.end()
    return fields


# Parquet, for which pyarrow is imported only when it is needed


def _read_parquet_keys(path: Path, key: Sequence[str]) -> Iterator[tuple[str, ...]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [*key, *({EXTRA} & set(file.schema_arrow.names))]
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, names)
            columns = [map(_to_text, rows[name].to_pylist()) for name in key]
            extras = rows[EXTRA].to_pylist() if EXTRA in names else [None] * len(rows)
            for values, extra in zip(zip(*columns, strict=True), extras, strict=True):
                yield _fill_from_extra(values, key, extra)


def _copy_parquet(path: Path, new_path: Path, repeated: Set[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    position = 0
    with pq.ParquetFile(path) as file, pq.ParquetWriter(new_path, file.schema_arrow, compression="zstd") as writer:
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, use_threads=False)
            is_kept = [index not in repeated for index in range(position, position + len(rows))]
            position += len(rows)
            if kept_rows := rows.filter(pa.array(is_kept, pa.bool_())):
                writer.write_table(kept_rows)
