# SPDX-License-Identifier: Apache-2.0
"""With a folder and S3: the cases of ``tests/storage_cases.py``."""

from tests.storage_cases import TestNothingIsPublished, TestObjectStores, TestPublishing

__all__ = ["TestNothingIsPublished", "TestObjectStores", "TestPublishing"]
