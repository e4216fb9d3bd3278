"""A few users looked up in the log, on both databases: right, and without reading all of it.

`tests/properties/test_snapshot_log.py` compares the answers with a plain model.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from audience_sync.domain.audience import AudienceKey, Row, Seq
from audience_sync.domain.change import Change
from audience_sync.errors import StoreFailed, UsageError
from audience_sync.store import chunks
from audience_sync.store.engine import Database
from audience_sync.store.lookups import Lookups
from tests.fakes.snapshot_log import Log, execute, people

LETTERS = "abcdefghij"


@pytest.fixture
def log(database: Database) -> Log:
    """Chunks of two rows: #1 a…j, #2 without c, #3 with c under another e-mail, #4 without b, c."""
    log = Log(database)
    everyone = people(*LETTERS)
    log.put(everyone)
    log.put({u: row for u, row in everyone.items() if u != "c"})
    log.put(everyone | {"c": {"email": "new@example.com"}})
    log.put({u: row for u, row in everyone.items() if u not in "bc"})
    return log


@pytest.fixture
def lookups(log: Log) -> Lookups:
    return Lookups(log.database)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each chunk that was read."""
    counted: list[int] = []
    decode = chunks.decode

    def counting(payload: bytes) -> object:
        counted.append(1)
        return decode(payload)

    monkeypatch.setattr(chunks, "decode", counting)
    return counted


def email(text: str) -> Row:
    return {"email": text}


@pytest.mark.parametrize("seq", [0, 1, 2, 3, 4])
def test_the_state_of_some_users_at_each_snapshot(log: Log, lookups: Lookups, seq: int) -> None:
    users = ["c", "b", "a", "nobody", "j"]
    found = lookups.state_at(log.key, Seq(seq), users)
    assert found == {user_id: log.kept[seq].get(user_id) for user_id in users}
    assert list(found) == users


def test_backwards_from_a_later_base(log: Log, lookups: Lookups) -> None:
    log.put(log.kept[4], base=True)
    log.snapshots._keep = timedelta(days=1)
    log.snapshots.prune(log.key, log.clock.now, log.lease)
    assert lookups.kept(log.key) == [1, 2, 3, 4, 5]
    for seq in (1, 2, 3, 4):
        expected = {u: log.kept[seq].get(u) for u in LETTERS}
        assert lookups.state_at(log.key, Seq(seq), LETTERS) == expected


def test_only_chunks_that_can_hold_a_user_are_read(
    log: Log, lookups: Lookups, decoded: list[int]
) -> None:
    assert lookups.state_at(log.key, Seq(1), ["e", "f"]) == people("e", "f")
    assert len(decoded) == 1, "two neighbours in one chunk of five"
    lookups.state_at(log.key, Seq(4), ["a"])
    assert len(decoded) == 2, "no change set holds an a"
    lookups.state_at(log.key, Seq(4), ["b"])
    assert len(decoded) == 4, "the base, and the one change set that goes from b to c"
    lookups.state_at(log.key, Seq(4), ["zz"])
    assert len(decoded) == 4


def test_the_history_of_one_user_newest_first(log: Log, lookups: Lookups) -> None:
    old, new = email("c@example.com"), email("new@example.com")
    assert lookups.history_of(log.key, "c") == [
        (4, Change(user_id="c", before=new, after=None)),
        (3, Change(user_id="c", before=None, after=new)),
        (2, Change(user_id="c", before=old, after=None)),
        (1, Change(user_id="c", before=None, after=old)),
    ]
    assert [seq for seq, _ in lookups.history_of(log.key, "a")] == [1]
    assert lookups.history_of(log.key, "nobody") == []
    assert lookups.history_of(AudienceKey("other"), "a") == []


def test_what_is_no_longer_kept_is_said_and_not_made_up(log: Log, lookups: Lookups) -> None:
    log.put(people("a", "c"), base=True)
    log.put(people("a", "b", "c"))
    log.snapshots._keep = timedelta(hours=2)
    log.snapshots.prune(log.key, log.clock.now, log.lease)
    assert lookups.kept(log.key) == [5, 6]
    assert lookups.history_of(log.key, "a") == []
    assert [seq for seq, _ in lookups.history_of(log.key, "b")] == [6]
    with pytest.raises(StoreFailed, match="no longer kept"):
        lookups.state_at(log.key, Seq(3), ["a"])
    with pytest.raises(UsageError, match="no snapshot 7 of vip is kept"):
        lookups.state_at(log.key, Seq(7), ["a"])
    with pytest.raises(UsageError, match="no snapshot 1 of other is kept"):
        lookups.state_at(AudienceKey("other"), Seq(1), ["a"])


def test_a_missing_chunk_is_never_taken_for_nobody(log: Log, lookups: Lookups) -> None:
    execute(log.database, "DELETE FROM chunk WHERE part = 'base' AND ordinal = 1")
    with pytest.raises(StoreFailed, match="no longer kept"):
        lookups.state_at(log.key, Seq(4), ["a"])


def test_many_users_of_many_chunks(
    log: Log, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "FETCHED_TOGETHER", 2)
    assert lookups.state_at(log.key, Seq(3), LETTERS) == log.kept[3]
