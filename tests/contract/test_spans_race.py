"""What happens in another process between the look at what waits and the opening of its span.

(P6, P7, P13)
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from audience_sync.domain.audience import LEAVING, OnRetire, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Span, SpanKind
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.store.engine import Database
from audience_sync.store.retirement import Retirement
from tests.fakes.snapshot_log import HOUR, Log, people, scalar
from tests.fakes.teller import ANN, BOTH, Teller

EVERYBODY = people(*"abcd")


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
def crisp(log: Log) -> Teller:
    """Told of everybody; then ``a`` left and ``e`` came."""
    log.put(EVERYBODY)
    teller = Teller(log)
    teller.run()
    log.put(people(*"bcde"))
    return teller


def look(crisp: Teller) -> Waiting:
    (found,) = crisp.log.spans.waiting(crisp.to, [crisp.log.key])
    return found


def opened(crisp: Teller, found: Waiting, tell: frozenset[Tell] = BOTH) -> Span | None:
    how = {"tell": tell, "limits": Limits(), "lease": crisp.lease(found.lane)}
    return crisp.log.spans.open(found, crisp.to, **how)  # type: ignore[arg-type]


def retire(log: Log, how: OnRetire) -> None:
    staged = log.stage({}) if how is OnRetire.TELL_FALSE and log.kept[log.seq] else None
    book = Retirement(database=log.database, clock=log.clock, given=ANN)
    book.retire(log.key, staged, how, log.lease)


def pause(crisp: Teller) -> None:
    crisp.orders.pause(crisp.log.key, "VIP", crisp.log.kind, ANN)


def stop(crisp: Teller) -> None:
    crisp.orders.stop(crisp.to, ANN)


def leave(crisp: Teller) -> None:
    retire(crisp.log, OnRetire.LEAVE)


def tell_false(crisp: Teller) -> None:
    retire(crisp.log, OnRetire.TELL_FALSE)


@pytest.mark.parametrize("order", [pause, stop, leave, tell_false])
def test_what_a_person_has_just_ordered_otherwise_is_not_opened(
    crisp: Teller, order: Callable[[Teller], None]
) -> None:
    found = look(crisp)
    order(crisp)
    assert opened(crisp, found) is None
    assert crisp.log.spans.unfinished(crisp.to) == []


@pytest.mark.parametrize("order", [pause, stop])
def test_it_is_opened_when_that_ends(crisp: Teller, order: Callable[[Teller], None]) -> None:
    found = look(crisp)
    order(crisp)
    crisp.orders.resume(crisp.log.key, ANN)
    crisp.orders.go_on(crisp.to, ANN)
    assert opened(crisp, found) is not None


def test_who_looks_after_a_retirement_must_know_of_it(log: Log, crisp: Teller) -> None:
    """A process that decided before what is told: the exits only, as ``tell`` never said so."""
    log.put({})
    tell_false(crisp)
    entries = frozenset({Tell.ENTERED, Tell.UPDATED})
    assert opened(crisp, look(crisp), entries) is None
    assert opened(crisp, look(crisp), BOTH) is None
    span = opened(crisp, look(crisp), LEAVING)
    assert span is not None
    crisp.finish(span)
    assert crisp.told == set()


def test_what_the_other_lane_tells_meanwhile_is_not_opened(log: Log, crisp: Teller) -> None:
    """A resync is ordered, begins and is completed; it has told all that was waiting."""
    found = look(crisp)
    crisp.resync()
    same = log.capture(people(*"bcde"))
    log.snapshots.unchanged(same, log.lease, started_at=log.clock.now)
    anew = opened(crisp, look(crisp))
    assert anew is not None
    assert (found.lane, anew.kind) == (Lane.INCREMENTAL, SpanKind.RESYNC)
    assert opened(crisp, found) is None
    crisp.finish(anew)
    assert opened(crisp, found) is None
    assert crisp.told == {*"bcde"}


def test_what_is_given_up_ends_only_itself(log: Log, crisp: Teller) -> None:
    """Both lanes look, one gives up its own, the other opens; then the first comes late."""
    begun = opened(crisp, look(crisp))
    assert begun is not None
    crisp.resync()
    log.put(people(*"bcdef"))
    (superseded,) = log.spans.superseded(crisp.to, Lane.INCREMENTAL)
    log.spans.abandon(superseded, crisp.lease(Lane.INCREMENTAL))
    anew = opened(crisp, look(crisp))
    assert anew is not None
    log.spans.abandon(superseded, crisp.lease(Lane.INCREMENTAL))
    assert [span.id for span in log.spans.unfinished(crisp.to)] == [anew.id]
    crisp.finish(anew)
    assert scalar(log.database, "SELECT count(*) FROM resync") == 0
    log.clock.now += HOUR
    assert crisp.run() == []
