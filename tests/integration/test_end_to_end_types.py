"""The value of every type is the same in the source and in a PostgreSQL target, by the first copy and by the stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.end_to_end import Replicated
from tests.integration.type_matrix import Matrix
from tests.servers.database import Database


@pytest.fixture
def matrix(source_database: Database, postgres_major: int, request: pytest.FixtureRequest) -> Matrix:
    target = getattr(request, "param", postgres_major)
    return Matrix(source_database, min(postgres_major, target))


@pytest.fixture
def replicated(source_database: Database, target_database: Database, tmp_path: Path) -> Replicated:
    return Replicated(source_database, tmp_path, target_database, ("public.*",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("postgres_major", "target_major", "matrix"), [(14, 18, 18), (18, 14, 14), (18, 18, 18)], indirect=True
)
def test_every_value_of_every_type_is_byte_equal_in_postgresql(matrix: Matrix, replicated: Replicated) -> None:
    matrix.create()
    matrix.insert(1000)
    matrix.prepare_updates()
    replicated.catch_up()
    replicated.assert_equal()

    matrix.insert(5000)
    matrix.change()
    replicated.catch_up()

    replicated.assert_equal()
