# SPDX-License-Identifier: Apache-2.0
"""Keeps Hypothesis from failing tests that are slow on a busy machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
