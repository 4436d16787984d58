# SPDX-License-Identifier: Apache-2.0
"""Made-up people and places of the company's customers."""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.identity import choose

_FIRST_NAMES = ("Ada", "Björn", "Chloé", "Dmitri", "Élodie", "Fatima", "Grzegorz", "Hiroshi", "Ines", "Jo")
_LAST_NAMES = ("Abel", "Brontë", "Castillo", "Dąbrowski", "Evans", "Fischer", "García", "Høgh", "Ito", "O'Neill")

OWNERS = ("anna@example.com", "ben@example.com", "cleo@example.com")
"""The e-mail addresses of the company's own people."""

AUTHORS = ("Anna Arnold (anna@example.com)", "Ben Becker (ben@example.com)")
"""The authors of notes."""


class Person(NamedTuple):
    """A person at a customer."""

    first_name: str
    last_name: str

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}"


class Place(NamedTuple):
    """A customer's place, `country` as the address has it."""

    country: str | None
    state: str | None
    state_code: str | None
    city: str | None
    zip: str | None


_PLACES = {
    "DE": Place("Germany", None, None, "Köln", "50667"),
    "US": Place("United States", "California", "CA", "Mountain View", "94043"),
    "FR": Place("France", None, None, "Besançon", "25000"),
    "PL": Place("Poland", None, None, "Łódź", "90-001"),
    "JP": Place("Japan", None, None, "札幌市", "060-0001"),
    "GB": Place("United Kingdom", None, None, "", None),
    None: Place(None, None, None, "", None),
}


def person(*names: object) -> Person:
    """Return the person with these names of an entity."""
    return Person(choose(_FIRST_NAMES, *names, "first name"), choose(_LAST_NAMES, *names, "last name"))


def place_in(country: str | None) -> Place:
    """Return the place in a country; one with empty values for an unknown country."""
    return _PLACES[country]
