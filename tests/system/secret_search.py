# SPDX-License-Identifier: Apache-2.0
"""Search everything that an Airflow has written: its logs, and its whole database in PostgreSQL."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql


def find_secrets(home: Path, database: str, api_key: str) -> dict[str, bytes]:
    """
    Return the API key, in any form, and parts of signed URLs, by the file or table in which they are.

    :param home: AIRFLOW_HOME, with the logs
    :param database: URI of the database, which has XComs, rendered fields, triggers and events
    """
    secrets = [
        api_key.encode(),
        base64.b64encode(f"{api_key}:".encode()).rstrip(b"="),
        b"X-Amz-Signature",
        b"X-Amz-Credential",
        b"X-Amz-Date",
    ]
    pattern = re.compile(b"|".join(map(re.escape, secrets)))
    places = [(str(path.relative_to(home)), path.read_bytes()) for path in home.rglob("*") if path.is_file()]
    return {name: match[0] for name, value in [*places, *all_values(database)] if (match := pattern.search(value))}


def all_values(database: str) -> Iterator[tuple[str, bytes]]:
    """Yield every value in the database with the name of its table."""
    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))):
                yield from ((name, value if isinstance(value, bytes) else str(value).encode()) for value in row)


def table_content(database: str, table: str) -> bytes:
    """Return all values of a table of the database, joined."""
    return b"".join(value for name, value in all_values(database) if name == table)
