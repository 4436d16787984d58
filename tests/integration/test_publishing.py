# SPDX-License-Identifier: Apache-2.0
"""The test cases of ``tests/storage_cases.py``, with a folder and S3."""

from tests.storage_cases import TestMetadata, TestNothingIsPublished, TestObjectStores, TestPublishing

__all__ = ["TestMetadata", "TestNothingIsPublished", "TestObjectStores", "TestPublishing"]
