# SPDX-License-Identifier: Apache-2.0
"""The sandbox's company: a window always has the same rows, windows partition the history, and MRR adds up."""

from __future__ import annotations

import csv
import io
import random
import subprocess
import sys
import uuid
import zipfile
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES, COLUMNS, Activity, to_csv, to_zip
from airflow_provider_chartmogul.sandbox.company.clock import FOUNDED, HORIZON
from airflow_provider_chartmogul.sandbox.company.company import Company

JUNE = datetime(2024, 6, 1, tzinfo=UTC)
JULY = datetime(2024, 7, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def company() -> Company:
    return Company(seed=1, customers=500)


@pytest.fixture(scope="module")
def histories() -> dict[str, list[Activity]]:
    """All activities of a smaller company, by customer."""
    by_customer: dict[str, list[Activity]] = defaultdict(list)
    for row in Company(seed=3, customers=60).activities(None, HORIZON):
        by_customer[row.customer_external_id].append(row)
    return by_customer


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_window_has_same_bytes_in_another_process(company: Company) -> None:
    program = (
        "import sys, datetime as d\n"
        "from airflow_provider_chartmogul.sandbox.company.activities import to_zip\n"
        "from airflow_provider_chartmogul.sandbox.company.company import Company\n"
        "rows = Company(1, 500).activities(d.datetime(2024, 6, 1), d.datetime(2024, 7, 1))\n"
        "sys.stdout.buffer.write(to_zip(rows))\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert other == to_zip(company.activities(JUNE, JULY))


def test_other_windows_do_not_change_rows() -> None:
    fresh = Company(seed=11, customers=20)
    list(fresh.activities(None, HORIZON, "churn"))
    first = list(fresh.activities(JUNE, JULY))
    assert first
    assert first == list(Company(seed=11, customers=20).activities(JUNE, JULY))


def test_seed_and_size_select_company() -> None:
    windows = [
        to_csv(Company(seed, customers).activities(JUNE, JULY)) for seed, customers in ((1, 40), (2, 40), (1, 41))
    ]
    assert len(set(windows)) == 3


@pytest.mark.parametrize("seed", range(8))
def test_adjacent_windows_partition_rows(company: Company, seed: int) -> None:
    rng = random.Random(seed)
    zones = [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-8)), None]
    whole = list(company.activities(JUNE, JULY))
    # Boundaries at an activity's exact second would lose or duplicate a row.
    exact = [datetime.fromisoformat(row.date) for row in rng.sample(whole, 10)]
    arbitrary = [JUNE + timedelta(microseconds=rng.randrange(30 * 86_400 * 1_000_000)) for _ in range(20)]
    boundaries = [JUNE, *sorted(exact + arbitrary), JULY]
    parts: list[Activity] = []
    for start, end in pairwise(boundaries):
        zone = rng.choice(zones)
        if zone is None:  # a datetime without a zone is UTC
            window = (start.replace(tzinfo=None), end.replace(tzinfo=None))
        else:
            window = (start.astimezone(zone), end.astimezone(zone))
        part = list(company.activities(*window))
        assert all(start <= datetime.fromisoformat(row.date) < end for row in part)
        parts += part
    assert parts == whole


def test_days_partition_month(company: Company) -> None:
    days = [
        row
        for day in range(30)
        for row in company.activities(JUNE + timedelta(days=day), JUNE + timedelta(days=day + 1))
    ]
    assert days == list(company.activities(JUNE, JULY))


def test_types_partition_window(company: Company) -> None:
    start, end = datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
    whole = list(company.activities(start, end))
    by_type = {kind: list(company.activities(start, end, kind)) for kind in ACTIVITY_TYPES}
    assert all(rows for rows in by_type.values())
    assert all(row.type == kind for kind, rows in by_type.items() for row in rows)
    assert sorted(row for rows in by_type.values() for row in rows) == sorted(whole)


def test_unknown_type_raises_at_call(company: Company) -> None:
    with pytest.raises(ValueError, match="unknown activity type: 'refund'"):
        company.activities(JUNE, JULY, "refund")


def test_window_without_start_begins_at_founding(company: Company) -> None:
    end = FOUNDED + timedelta(days=40)
    rows = list(company.activities(None, end))
    assert rows == list(company.activities(FOUNDED, end))
    assert rows == list(company.activities(datetime(1, 1, 1, tzinfo=UTC), end))
    assert rows[0].type == "new_biz"


def test_empty_reversed_and_outlying_windows_have_no_rows(company: Company) -> None:
    assert list(company.activities(JUNE, JUNE)) == []
    assert list(company.activities(JULY, JUNE)) == []
    assert list(company.activities(None, FOUNDED)) == []
    assert list(company.activities(HORIZON, datetime(9999, 1, 1, tzinfo=UTC))) == []
    assert list(Company(customers=0).activities(None, HORIZON)) == []


def test_negative_number_of_customers_raises() -> None:
    with pytest.raises(ValueError, match="customers must be 0 or more, not -1"):
        Company(customers=-1)


def test_typical_day_has_rows(company: Company) -> None:
    for year in (2019, 2026, 2039):
        rows = list(company.activities(datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, tzinfo=UTC)))
        days = Counter(row.date[:10] for row in rows)
        assert len(days) == 364 + (year % 4 == 0)
        typical = [count for count in days.values() if 20 <= count <= 60]
        assert len(typical) > 0.95 * len(days)
        assert len({row.date[11:13] for row in rows}) == 24


def test_each_customer_subscribes_first_once(histories: dict[str, list[Activity]]) -> None:
    assert sorted(histories) == [f"{number:04d}" for number in range(1, 61)]
    assert all([row.type for row in rows].count("new_biz") == 1 for rows in histories.values())
    years = {rows[0].date[:4] for rows in histories.values()}
    assert len(years) > 10


def test_mrr_movements_add_up_for_each_customer(histories: dict[str, list[Activity]]) -> None:
    for rows in histories.values():
        mrr = 0
        before = None
        for row in rows:
            assert type(row.activity_mrr) is int
            assert row.activity_mrr == mrr + row.activity_mrr_movement
            assert row.activity_arr == 12 * row.activity_mrr
            if before is None:
                assert row.type == "new_biz"
            else:
                assert row.date > before.date
                assert (row.type == "reactivation") == (before.type == "churn")
            if row.type in ("new_biz", "reactivation"):
                assert mrr == 0
                assert row.activity_mrr_movement > 0
            elif row.type == "expansion":
                assert row.activity_mrr_movement > 0
            elif row.type == "contraction":
                assert row.activity_mrr_movement < 0 < row.activity_mrr
            else:
                assert row.activity_mrr == 0
                assert row.activity_mrr_movement == -mrr < 0
            mrr, before = row.activity_mrr, row


def test_subscription_keeps_plan_and_customer(histories: dict[str, list[Activity]]) -> None:
    plans: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for rows in histories.values():
        assert len({(row.customer_uuid, row.customer_name) for row in rows}) == 1
        for row in rows:
            plans[row.subscription_external_id].add((row.plan_external_id, row.customer_external_id))
    assert all(len(pairs) == 1 for pairs in plans.values())


def test_uuids_are_valid_and_unique(histories: dict[str, list[Activity]]) -> None:
    rows = [row for history in histories.values() for row in history]
    assert len({row.uuid for row in rows}) == len(rows)
    assert all(str(uuid.UUID(row.uuid)) == row.uuid for row in rows[:1000])
    assert len({history[0].customer_uuid for history in histories.values()}) == len(histories)


def test_csv_round_trip(company: Company) -> None:
    rows = list(company.activities(JUNE, JULY))
    content = to_csv(rows)
    assert content.splitlines()[0].decode() == ",".join(COLUMNS)
    assert read_csv(content) == [row.as_text() for row in rows]
    # The rows contain what a CSV reader can get wrong.
    assert any("\n" in row.description and '"' in row.description for row in rows)
    assert any("," in row.customer_name for row in rows)
    assert any('"' in row.customer_name for row in rows)
    assert any(not row.customer_name.isascii() for row in rows)
    assert any(row.customer_external_id.startswith("0") for row in rows)
    assert all(datetime.fromisoformat(row.date).utcoffset() == timedelta(0) for row in rows)


def test_csv_without_rows_is_header() -> None:
    assert to_csv([]).decode() == ",".join(COLUMNS) + "\n"
    assert list(Activity._fields) == list(COLUMNS)


def test_zip_contains_one_deflated_csv_without_clock(company: Company) -> None:
    content = to_zip(company.activities(JUNE, JULY))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        [member] = archive.infolist()
        assert member.filename.endswith(".csv")
        assert member.compress_type == zipfile.ZIP_DEFLATED
        assert member.date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.read(member) == to_csv(company.activities(JUNE, JULY))
    assert content == to_zip(company.activities(JUNE, JULY))
