# SPDX-License-Identifier: Apache-2.0
"""
Tests that the benchmarks measure what they report: equal output of the variants, correct counts, tables in the docs.

No measurement is judged here. The script's Parquet needs pandas, and ``curl`` needs curl; ``make bench ARGS=--quick``
runs both.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from pyarrow import parquet

from bench import docs, loads, small, subscriptions, tasks, transfer, walk
from bench.archives import archive_of
from bench.docs import BenchError
from bench.list_server import serving_list
from bench.pages import pages_of
from bench.server import serving
from bench.transfer import Case, Measurement
from bench.waiting_sandbox import busiest_second


def test_archive_is_reproducible_and_has_the_requested_size(tmp_path: Path) -> None:
    first, second = (archive_of(300_000, tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    assert 300_000 <= first.stat().st_size <= 400_000
    assert archive_of(300_000, tmp_path / "one") == first
    assert 10_000 <= archive_of(10_000, tmp_path).stat().st_size <= 15_000
    with zipfile.ZipFile(first) as archive:
        (info,) = archive.infolist()
        assert 2 < info.file_size / info.compress_size < 3.5, "real text compresses about 2.5:1"


@pytest.mark.parametrize("output_format", ["zip", "csv", "csv.gz"])
def test_variants_write_the_same_content(output_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    digests = set()
    with serving(archive_of(300_000, tmp_path)) as api:
        for variant in ("script", "isal", "zlib"):
            target = transfer.empty_folder() / f"object.{output_format}"
            measurement = transfer.run_variant(variant, output_format, api, target)
            assert measurement.wall > 0
            assert measurement.cpu > 0
            assert measurement.memory is not None
            digests.add(transfer._digest(target, output_format))
    assert len(digests) == 1


def test_failing_variant_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    damaged = tmp_path / "damaged.zip"
    content = bytearray(archive_of(300_000, tmp_path).read_bytes())
    content[150_000] ^= 0xFF
    damaged.write_bytes(content)
    with serving(damaged) as api:
        for variant in ("script", "isal"):
            with pytest.raises(BenchError, match=f"{variant}, zip failed"):
                transfer.run_variant(variant, "zip", api, transfer.empty_folder() / "object.zip")


def test_table_has_measurements_and_ratios() -> None:
    slow, fast = Measurement(4.0, 3.0, 2e9), Measurement(1.0, 0.5, 3e6)
    table = transfer.table(
        [Case("zip", 50, {"script": slow, "isal": fast, "zlib": slow, "curl": Measurement(0.1, 0.1, None)})]
    )
    assert "| 4.00 s, 3.00 s, 2000 MB | 1.00 s, 0.50 s, 3 MB |" in table
    assert "**0.25**, 1.00" in table


def test_exceeded_limits_of_transfers_are_reported() -> None:
    script, slow = Measurement(10.0, 3.0, 2e9), Measurement(4.1, 0.5, 3e6)
    case = Case("zip", 500, {"script": script, "isal": Measurement(4.0, 0.5, 3e6)})
    assert transfer.missed_limits([case, Case("csv", 500, {"script": script, "isal": script})]) == []
    assert transfer.missed_limits([replace(case, by_variant={"script": script, "isal": slow})]) == [
        "the transfer of 500 MB as zip took 0.41 times the script's time; the limit is 0.4"
    ]


def test_small_transfers_run_with_and_without_a_lineage_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (small, transfer):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    case = small.run_case("zip", 10, 1)
    assert case.by_variant.keys() == set(small.VARIANTS)
    assert all(one.startup > 0 and one.cpu > 0 for one in case.by_variant.values())
    report = small.report([case], 1)
    assert "| zip    | 10 kB   |" in report


@pytest.mark.parametrize("resource", ["customers", "invoices"])
def test_pages_are_reproducible_and_have_all_rows(resource: str, tmp_path: Path) -> None:
    first, second = (pages_of(resource, 450, tmp_path / name) for name in ("one", "two"))
    contents = [path.read_bytes() for path in sorted(first.iterdir())]
    assert contents == [path.read_bytes() for path in sorted(second.iterdir())]
    pages = [json.loads(content) for content in contents]
    rows = [row for page in pages for row in page["entries" if resource == "customers" else "invoices"]]
    assert len({row["uuid"] for row in rows}) == 450
    assert [page["has_more"] for page in pages] == [True, True, False]


@pytest.mark.parametrize("resource", ["customers", "invoices"])
def test_walks_read_the_same_rows(resource: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "FOLDER", tmp_path)
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    contents = []
    for variant in ("package", "script"):
        measurement = walk.run_variant(variant, resource, "jsonl.gz", 450)
        assert measurement.cpu > 0
        with gzip.open(tmp_path / "work" / f"{resource}.jsonl.gz") as lines:
            contents.append([json.loads(line) for line in lines])
    assert contents[0] == contents[1]
    assert walk.run_variant("read", resource, "jsonl.gz", 450, latency=0.01).wall > 0.03


def test_lost_row_or_request_ends_the_walk_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "FOLDER", tmp_path)
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    pages = pages_of("customers", 450, tmp_path / "pages")
    pages.rename(pages.with_name(pages.name.replace("450", "600")))
    with pytest.raises(BenchError, match="package wrote 450 of 600 rows"):
        walk.run_variant("package", "customers", "jsonl.gz", 600)
    pages.with_name(pages.name.replace("450", "600")).rename(pages.with_name(pages.name.replace("450", "900")))
    with pytest.raises(BenchError, match="read sent 3 requests for 5 pages"):
        walk.run_variant("read", "customers", "jsonl.gz", 900)


def test_exceeded_limits_of_walks_are_reported() -> None:
    bare, good = Measurement(10.0, 1.0, 0.0), Measurement(11.0, 2.0, 25e6)
    case = walk.Case("customers", "jsonl.gz", 100, 0.0, {"read": bare, "package": good, "script": good, "dlt": good})
    slow = replace(case, latency=0.05, by_variant={"read": bare, "package": good})
    growth = {("customers", "jsonl.gz"): (1e6, 42e6)}
    assert walk.missed_limits([case, slow], growth, (40_000, 200_000)) == []
    bad = {"read": bare, "package": Measurement(11.1, 2.1, 26e6)}
    messages = walk.missed_limits(
        [replace(case, by_variant=bad), replace(slow, by_variant=bad)],
        {("customers", "jsonl.gz"): (1e6, 43e6)},
        (40_000, 200_000),
    )
    assert messages == [
        "customers to jsonl.gz took 2.10 times the bare loop's processor time",
        "customers to jsonl.gz took 26 MB of memory",
        "customers to jsonl.gz at 50 ms took 1.11 times the bare loop's time",
        "customers to jsonl.gz took 42 MB more for more rows",
    ]
    report = walk.table([case])
    assert "| 100 customers | jsonl.gz | 10.00 s, 1.00 s, 0 MB | 11.00 s, 2.00 s, 25 MB |" in report
    assert "**2.0**, 2.0, 2.0" in report


def test_server_counts_refused_requests_too(tmp_path: Path) -> None:
    pages = pages_of("customers", 10, tmp_path)
    with serving_list("customers", pages, 0.0, rate=5, connections=2) as server, requests.Session() as session:
        statuses = [session.get(f"{server.url}/v1/customers", timeout=30).status_code for _ in range(8)]
    assert statuses == [200] * 5 + [429] * 3
    assert (server.statuses, server.refused, server.connections) == ({200: 5, 429: 3}, 3, 1)

    with serving_list("customers", pages, 0.5, connections=2) as server, ThreadPoolExecutor(4) as threads:
        url = f"{server.url}/v1/customers"
        statuses = list(threads.map(lambda _: requests.get(url, timeout=30).status_code, range(4)))
    assert sorted(statuses) == [200, 200, 503, 503]
    assert server.connections == 4


def test_subscriptions_are_read_within_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "FOLDER", tmp_path)
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    measurement = subscriptions.run_variant("package", 60, 0.05)
    assert measurement.refused == 0
    assert measurement.connections <= 20
    slow, refused = replace(measurement, rate=35.9), replace(measurement, rate=36.0, refused=1)
    assert subscriptions.missed_limits({("package", 0.05): slow, ("package", 0.3): refused, ("script", 0.3): slow}) == [
        "35.9 requests/s at 50 ms",
        "1 requests were refused at 300 ms",
    ]
    assert "| 50 ms   | this package |" in subscriptions.report({("package", 0.05): measurement}, 60)


def load_case(warehouse: str, file_format: str, bare: Measurement, package: Measurement) -> loads.Case:
    return loads.Case(warehouse, file_format, 100, {"bare": bare, "package": package})


def test_objects_of_loads_have_the_same_rows(tmp_path: Path) -> None:
    paths = loads.objects_of(1_000, tmp_path)
    text = paths["csv"].read_bytes()
    rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    assert len({row["uuid"] for row in rows}) == 1_000
    assert gzip.decompress(paths["csv.gz"].read_bytes()) == text
    assert parquet.read_table(paths["parquet"]).to_pylist() == rows
    assert loads.objects_of(1_000, tmp_path) == paths


@pytest.mark.parametrize("warehouse", loads.WAREHOUSES)
def test_loads_give_the_same_rows(warehouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "FOLDER", tmp_path)
    monkeypatch.setattr(transfer, "FOLDER", tmp_path)
    paths = loads.objects_of(1_000, tmp_path / "objects")
    with loads.open_database(warehouse, paths["csv"]) as database:
        for file_format in ("csv.gz", "parquet"):
            case = loads.run_case(database, warehouse, file_format, 1_000, 1)
            assert all(measurement.wall > 0 for measurement in case.by_variant.values())
            assert database.summary()[0] == 1_000
        # A variant that loses a row is found out.
        monkeypatch.setattr(database, "summary", iter([(1_000,), (999,)]).__next__)
        with pytest.raises(BenchError, match="the variants loaded different rows"):
            loads.run_case(database, warehouse, "csv", 1_000, 1)


def test_exceeded_limits_of_loads_are_reported() -> None:
    bare = Measurement(10.0, 1.0, 100e6)
    good = load_case("duckdb", "csv", bare, Measurement(15.0, 2.0, 132e6))
    slow = load_case("postgres", "csv.gz", bare, Measurement(15.1, 2.0, 64e6))
    large = load_case("postgres", "parquet", bare, Measurement(25.0, 2.0, 65e6))
    larger = load_case("duckdb", "parquet", bare, Measurement(25.0, 2.0, 133e6))
    assert loads.missed_limits([good, slow, large, larger]) == [
        "csv.gz into PostgreSQL took 1.51 times the bare import's time",
        "parquet into PostgreSQL took 65 MB of memory",
        "parquet into DuckDB took 33 MB of memory beyond the bare import's",
    ]
    report = loads.report([good], 3)
    assert "| 100  | csv    | DuckDB    | 10.00 s, 1.00 s, 100 MB | 15.00 s, 2.00 s, 132 MB | **1.50**" in report


def test_table_replaces_the_text_between_its_markers() -> None:
    begin, end = "<!-- bench:tasks -->", "<!-- /bench:tasks -->"
    page = docs.replace_table(f"a\n{begin}\nold\n{end}\nb", "tasks", "new\ntable")
    assert page == f"a\n{begin}\nnew\ntable\n{end}\nb"
    for text in ("", begin, f"{end}{begin}", f"{begin}{end}{begin}"):
        with pytest.raises(BenchError, match="each once and in this order"):
            docs.replace_table(text, "tasks", "new")


@pytest.mark.parametrize("name", ["transfer", "small", "walk", "subscriptions", "loads", "tasks", "waiting"])
def test_page_has_the_markers_of_every_benchmark(name: str) -> None:
    assert "new table" in docs.replace_table(docs.COSTS.read_text(), name, "new table")


def test_median_is_taken_of_each_figure() -> None:
    runs = [Measurement(wall, wall / 2, wall * 10) for wall in (3.0, 1.0, 100.0)]
    assert Measurement.median_of(runs) == Measurement(3.0, 1.5, 30.0)


def test_busiest_second_may_start_at_any_time() -> None:
    assert busiest_second([0.0, 0.9, 1.0, 1.5, 1.85, 3.0]) == 4
    assert busiest_second([]) == 0


def test_each_process_is_counted_once_for_its_dag() -> None:
    """The system may reuse a process ID."""
    records = [
        record
        for created, dag_id, task_id in (
            (1.0, "one_task", "activities"),
            (2.0, "one_task", "activities"),
            (3.0, "x", "y"),
        )
        for record in (
            {"pid": 7, "event": "start", "created": created},
            {"pid": 7, "event": "task", "dag_id": dag_id, "task_id": task_id},
            {"pid": 7, "event": "end", "seconds": created, "cpu": created / 2},
        )
    ]
    lines = [json.dumps(record) for record in records]
    measurement = tasks.count_processes(lines, "one_task")
    assert measurement == tasks.Measurement({"activities": 2}, 3.0, 1.5)
    assert (measurement.total, tasks.count_processes(lines, "x").total) == (2, 1)
    with pytest.raises(BenchError, match="only 1 of 2 processes of one_task have recorded their end"):
        tasks.count_processes(lines[:5], "one_task")


def test_more_than_half_of_the_processes_exceeds_the_limit() -> None:
    half, more = (
        {
            variant: tasks.Measurement({variant: count}, 8.0, 4.0)
            for variant, count in zip(tasks.VARIANTS, counts, strict=True)
        }
        for counts in ((20, 40), (21, 40))
    )
    assert ["worker processes", "20", "40", "**0.50**"] in [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in tasks.report(half, 10).splitlines()
    ]
    assert tasks.missed_limits(half) == []
    assert tasks.missed_limits(more) == ["one_task started 21 processes, three_tasks 40"]
