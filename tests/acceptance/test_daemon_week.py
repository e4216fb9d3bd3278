"""A compressed week of daemons that are killed, told by an independent account of what was true.

Two daemons share a store in PostgreSQL, one works on SQLite. What is checked, and the figures of
the large size: 168 hours of five seconds each, 20 audiences, about 17 minutes:

    WEEK=large nice python -m pytest -s tests/acceptance/test_daemon_week.py

``SEED=n`` draws other members, changes and times of kills.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.acceptance.week import configuration, figures, order, punctuality, truth
from tests.acceptance.week.evidence import Chunks, read_calls, read_store
from tests.acceptance.week.run import Evidence, run

LARGE = os.environ.get("WEEK") == "large"
SEED = int(os.environ.get("SEED", "20261126"))
SHOWN = 40

pytestmark = pytest.mark.timeout(3600 if LARGE else 240)


@pytest.fixture
def warehouse_url(postgres_admin: Engine) -> Iterator[str]:
    """Another database than the store's, on the same server."""
    with postgres_admin.connect() as connection:
        connection.execute(text("CREATE DATABASE warehouse"))
    yield postgres_admin.url.set(database="warehouse").render_as_string(hide_password=False)
    with postgres_admin.connect() as connection:
        connection.execute(text("DROP DATABASE warehouse WITH (FORCE)"))


def size() -> configuration.Size:
    return configuration.large() if LARGE else configuration.small()


def test_two_daemons_on_postgresql(tmp_path: Path, postgres_url: str, warehouse_url: str) -> None:
    week = run(
        size(), tmp_path, store=postgres_url, warehouse=warehouse_url, daemons="ab", seed=SEED
    )
    judge(week)


@pytest.mark.skipif(LARGE, reason="the large size is for two daemons")
def test_one_daemon_on_sqlite(tmp_path: Path, warehouse_url: str) -> None:
    store = f"sqlite:///{tmp_path / 'state.db'}"
    week = run(size(), tmp_path, store=store, warehouse=warehouse_url, daemons="a", seed=SEED)
    judge(week)


def judge(week: Evidence) -> None:
    engine = week.watcher.engine
    stored, calls = read_store(engine), read_calls(week.folder)
    found = order.repeats(week, stored, calls)
    delivered = punctuality.deliveries(week, stored, calls)
    print("\n".join(["", *figures.figures(week, stored, calls, found, delivered)]))
    problems = list(
        chain(
            figures.processes_ended_well(week),
            figures.logs_are_clean(week),
            truth.snapshots_are_true(week, stored, Chunks(engine)),
            truth.every_change_was_told(week, stored, calls),
            truth.the_last_word_is_true(week, stored, calls),
            truth.one_body_for_one_id(calls),
            truth.books_are_closed(week, stored),
            truth.lines_are_whole(calls),
            order.repeats_have_a_cause(found),
            order.one_process_at_a_time(week, stored, calls),
            punctuality.nobody_is_late(week, stored),
            punctuality.nobody_is_early(week, stored),
            punctuality.both_lanes_were_at_work(week, stored, calls),
            punctuality.captures_never_overlap(stored),
            punctuality.deliveries_begin_on_time(delivered),
        )
    )
    engine.dispose()
    assert not problems, "\n".join([f"{len(problems)} problems", *problems[:SHOWN]])
    assert any(fault.held for fault in week.faults), "nobody was killed at work"
