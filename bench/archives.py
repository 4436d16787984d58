# SPDX-License-Identifier: Apache-2.0
"""
Archives for benchmarks: zipped activities of any size, as ChartMogul exports them, with the same bytes every time.

The columns are the sandbox's. The values are as varied as real ones: IDs like a billing system's, names with commas,
quotes and letters outside ASCII, amounts that are not round. Such text compresses about 2.5:1. The sandbox's own
company has sequential IDs and would compress better than real exports. Archives are kept for the next benchmark.
"""

from __future__ import annotations

import csv
import io
import random
import zipfile
from base64 import b32encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES, COLUMNS, CSV_NAME

#: Part of the archives' names. Changing it causes them to be created again.
VERSION = 2

ROWS_PER_CHUNK = 20

#: Limit for the text, as a multiple of the archive's size. It ends small archives, which the compressor still buffers.
_MAX_RATIO = 3
_CUSTOMERS = 20_000
_START = datetime(2018, 1, 1, tzinfo=UTC)
WORDS = (
    *("Acorn", "Beacon", "Copper", "Dovetail", "Ember", "Fjord"),
    *("Granite", "Harbour", "Indigo", "Juniper", "Keystone", "Lantern"),
)
NAMES = ("{0} {1} Ltd", "{0}, {1} & Partners", 'The "{0}" {1} Company', "Société {0} {1}", "{0} {1} 株式会社")
_PLANS = ("Starter", "Growth", "Growth, yearly", "Scale, yearly")
CURRENCIES = (("EUR", "€"), ("USD", "$"), ("GBP", "£"))


def archive_of(size: int, folder: Path) -> Path:
    """
    Return a zip archive, which is created if the folder does not have it yet.

    :param size: bytes of the archive, which has up to 0.1 MB more
    :param folder: folder for the archives, created if it is missing
    """
    path = folder / f"activities-{VERSION}-{size}.zip"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    member = zipfile.ZipInfo(CSV_NAME, date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    with (
        unfinished.open("wb") as file,
        zipfile.ZipFile(file, "w") as archive,
        archive.open(member, "w", force_zip64=True) as text,
    ):
        written = 0
        for chunk in csv_chunks():
            written += text.write(chunk)
            if file.tell() >= size or written >= _MAX_RATIO * size:
                break
    return unfinished.rename(path)


def csv_chunks() -> Iterator[bytes]:
    """Yield an endless CSV, some rows at a time."""
    rng = random.Random(1)
    customers = [_customer(rng) for _ in range(_CUSTOMERS)]
    connector = f"ds_{random_uuid(rng)}"
    moment = _START
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    while True:
        for _ in range(ROWS_PER_CHUNK):
            moment += timedelta(seconds=int(rng.random() * 60))
            customer_uuid, external_id, name, (currency, sign) = customers[int(rng.random() * _CUSTOMERS)]
            seats, movement = int(1 + rng.random() * 500), int(rng.random() * 9_999)
            plan = int(rng.random() * len(_PLANS))
            mrr = seats * 1_999 + movement
            description = f"{_PLANS[plan]}: from {seats} to {int(rng.random() * 500)} seats"
            if rng.random() < 0.1:
                description += '\nNote: agreed by phone, "as discussed"'
            writer.writerow(
                (
                    random_uuid(rng),
                    moment.isoformat(),
                    ACTIVITY_TYPES[int(rng.random() * len(ACTIVITY_TYPES))],
                    customer_uuid,
                    external_id,
                    name,
                    description,
                    mrr,
                    movement,
                    12 * mrr,
                    currency,
                    sign,
                    f"sub_{billing_id(rng, 15)}",
                    f"plan-{plan}-monthly",
                    connector,
                )
            )
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()


def _customer(rng: random.Random) -> tuple[str, str, str, tuple[str, str]]:
    template = NAMES[int(rng.random() * len(NAMES))]
    name = template.format(WORDS[int(rng.random() * len(WORDS))], WORDS[int(rng.random() * len(WORDS))])
    currency = CURRENCIES[int(rng.random() * len(CURRENCIES))]
    return f"cus_{random_uuid(rng)}", f"cus_{billing_id(rng, 10)}", name, currency


def random_uuid(rng: random.Random) -> str:
    digits = rng.randbytes(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def billing_id(rng: random.Random, size: int) -> str:
    """Return letters and digits that encode ``size`` random bytes, a multiple of five."""
    return b32encode(rng.randbytes(size)).decode()
