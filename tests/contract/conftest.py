"""Lets failing assertions of the shipped contract suites show their values."""

import pytest

pytest.register_assert_rewrite(
    "cdcrep.testing.sink_contract", "cdcrep.testing.sink_copy_contract", "cdcrep.testing.source_contract"
)
