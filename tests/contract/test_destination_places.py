"""A destination is its name and its place: another place was told nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from audience_sync.store import migrate
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database

NOW = datetime(2026, 10, 7, 6, 0, tzinfo=UTC)


@pytest.fixture
def books(tmp_path: Path) -> Destinations:
    database = Database(f"sqlite:///{tmp_path}/state.db")
    migrate.upgrade(database)
    return Destinations(database, lambda: NOW)


def test_the_same_place_is_no_move(books: Destinations) -> None:
    assert not books.settle("segment", "https://one.example/v1")
    assert not books.settle("segment", "https://one.example/v1")


def test_another_place_is_a_move(books: Destinations) -> None:
    books.settle("segment", "https://one.example/v1")
    assert books.settle("segment", "https://two.example/v1")
    assert not books.settle("segment", "https://two.example/v1")
