"""Whatever people order, and wherever a run is killed: in the end everybody is told the truth.

The real store, the real delivery and a destination in memory go through random histories of
captures, orders and interruptions. The model knows who is a member and what the destination heard.
Another process may do something at any moment at which a run has looked at the store and not yet
written to it, or while it waits for an answer.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
import sqlalchemy
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from audience_sync.domain.audience import LEAVING, Audience, AudienceKey, OnRetire, Row, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.domain.schedule import Every
from audience_sync.domain.span import Books, Span, SpanState, Tally
from audience_sync.engines.duckdb import DuckDBEngine
from audience_sync.engines.instance import open_instance
from audience_sync.errors import LeaseLost, StoreFailed
from audience_sync.pipeline.admission import Admission
from audience_sync.pipeline.captures import Configured
from audience_sync.pipeline.deliveries import Deliveries
from audience_sync.pipeline.ports.capturing import Snapshot
from audience_sync.pipeline.ports.delivering import Waiting
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.retire import retire
from audience_sync.pipeline.subscription import Subscription
from audience_sync.sources.nobody import Nobody
from audience_sync.store import migrate
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.gone import settle
from audience_sync.store.leases import Leases
from audience_sync.store.orders import Given, Orders
from audience_sync.store.pair import Pair
from audience_sync.store.quotas import Quotas
from audience_sync.store.rejections import Rejections
from audience_sync.store.retirement import Retirement
from audience_sync.store.spans import Spans
from audience_sync.store.survey import Survey
from tests.fakes.destination import FakeDestination
from tests.fakes.snapshot_log import EMAIL, HOUR, VIP, Log, Members, column, new_lease, scalar

IDS = ["a", "B", "c", "é", "f", "𝔸", "z"]
ANN = Given(actor="ann@ops", reason="seen")
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
NUMBERS = count(1)
FOREVER = 10**9
EXAMPLES = 60

Step = tuple[str, Any]

CODES = st.binary(min_size=len(IDS), max_size=len(IDS))


@st.composite
def memberships(draw: st.DrawFn) -> dict[str, Row]:
    """One byte says whether an id is there, and with which e-mail."""
    codes = zip(IDS, draw(CODES), strict=True)
    return {u: {"email": f"{byte // 3 % 2}@example.com"} for u, byte in codes if byte % 3}


ORDERS = ["retry", "resync", "pause", "resume", "stop_place", "go_on", "approve", "gone", "back"]
STEP = st.one_of(
    st.tuples(st.sampled_from(["capture", "capture", "capture", "hold"]), memberships()),
    st.tuples(st.just("deliver"), st.none()),
    st.tuples(st.sampled_from(["stop", "kill"]), st.integers(0, 3)),
    st.tuples(st.just("refuse"), st.sets(st.sampled_from(IDS), max_size=3)),
    st.tuples(st.sampled_from(ORDERS), st.none()),
    st.tuples(st.sampled_from(["prune", "pass"]), st.integers(0, 4)),
)
ELSEWHERE = st.one_of(
    st.tuples(st.sampled_from(["capture", "hold"]), memberships()),
    st.tuples(st.sampled_from([*ORDERS, "deliver"]), st.none()),
    st.tuples(st.just("retire"), st.sampled_from(OnRetire)),
    st.tuples(st.just("prune"), st.integers(0, 2)),
)
SEVERAL = st.lists(ELSEWHERE, min_size=1, max_size=3)
MEANWHILE = st.tuples(st.just("meanwhile"), st.tuples(st.integers(0, 9), SEVERAL))
"""At which of its looks at the store, or requests, a run is overtaken, and by what."""
LATE = st.tuples(st.just("late"), st.tuples(memberships(), ELSEWHERE))
"""A capture that has staged its chunks and lost its lease, and what came between."""
HISTORIES = st.tuples(
    st.lists(st.one_of(STEP, STEP, MEANWHILE, LATE), min_size=4, max_size=20),
    st.sampled_from([None, None, *OnRetire]),
    st.lists(STEP, max_size=4),
)
"""What happens, how the audience is retired in the end if it is, and what happens then."""
BOTH = frozenset({Tell.ENTERED, Tell.EXITED})
TELLS = st.sampled_from([frozenset(Tell), BOTH])


def now(*ids: str) -> Step:
    return "capture", {user_id: {"email": "0@example.com"} for user_id in ids}


def order(name: str, value: Any = None) -> Step:
    return name, value


LET_GO = [order("gone"), now("a", "B", "z"), now("a"), order("pass", 4), order("prune", 1)]
REGRESSIONS: list[tuple[list[Step], OnRetire | None, list[Step]]] = [
    # What a killed run had accepted before its first commit, and who then left.
    ([now("a", "B", "c"), order("kill", 0), order("resync"), now("a")], None, []),
    ([now("a", "B", "c"), order("kill", 0)], OnRetire.TELL_FALSE, []),
    # Gone for longer than what is kept: told of everybody, or in part.
    ([now("a", "B", "c"), order("deliver"), *LET_GO, now("a", "f"), order("prune", 1)], None, []),
    ([now("a", "B", "c"), order("stop", 0), *LET_GO, now("a", "f"), order("prune", 1)], None, []),
    # Told in part, gone for long, and retired before it comes back.
    (
        [now("a", "B", "c"), order("stop", 0), order("gone"), order("pass", 4), order("prune", 1)],
        OnRetire.TELL_FALSE,
        [],
    ),
    # Overtaken between a look at the store and the opening.
    *(
        ([now("a"), order("deliver"), now("B"), order("meanwhile", (looks, [step]))], None, [])
        for looks in (0, 1, 4, 5)
        for step in (order("pause"), order("stop_place"), order("retire", OnRetire.TELL_FALSE))
    ),
    # The other lane tells everybody anew between the look at what waits and its opening.
    *(
        (
            [
                now("a"),
                order("deliver"),
                now("B"),
                order("meanwhile", (looks, [order("resync"), now("B"), order("deliver")])),
            ],
            None,
            [],
        )
        for looks in range(6)
    ),
    # Exits that wait when nobody is to be told anything more.
    ([now("a", "B"), order("deliver"), now()], OnRetire.LEAVE, [order("deliver")]),
]


class Watched(Spans):
    """Spans of a process that is killed before a commit, so that what it sent is known to nobody,
    or is overtaken by another process between a look at the store and what it does then."""

    left = FOREVER
    look: Callable[[], None] = staticmethod(lambda: None)
    asked_in_passing = False

    def superseded(self, destination_name: str, lane: Lane) -> list[Span]:
        found = super().superseded(destination_name, lane)
        if not self.asked_in_passing:
            self.look()
        return found

    def wanted(self, walked: Span) -> bool:
        self.asked_in_passing = True
        try:
            return super().wanted(walked)
        finally:
            self.asked_in_passing = False

    def waiting(self, destination_name: str, keys: Collection[AudienceKey]) -> list[Waiting]:
        found = super().waiting(destination_name, keys)
        self.look()
        return found

    def surveyed(self, waiting: Waiting, pair: Pair, tell: Collection[Tell]) -> Survey:
        found = super().surveyed(waiting, pair, tell)
        self.look()
        return found

    def open(self, waiting: Waiting, destination_name: str, **how: Any) -> Span | None:
        opened = super().open(waiting, destination_name, **how)
        if opened is not None:
            ordered = "SELECT paused_at IS NOT NULL FROM audience UNION ALL "
            ordered += "SELECT stopped_at IS NOT NULL FROM destination"
            assert not any(column(self._database, ordered)), "opened though it is paused"
            retired = scalar(self._database, "SELECT retired_at IS NOT NULL FROM audience")
            assert not retired or opened.tell == LEAVING, "told as if it were not retired"
        return opened

    def advance(self, walked: Span, books: Books, tally: Tally, lease: Lease) -> Span:
        self.left -= 1
        if self.left < 0:
            raise StoreFailed("killed")
        return super().advance(walked, books, tally, lease)


@dataclass(eq=False)
class Heard(FakeDestination):
    """Remembers who was refused at the last attempt."""

    refused_last: set[str] = field(default_factory=set)

    def calls(self, told: Any) -> Any:
        user_id = told[0].change.user_id
        (self.refused_last.add if user_id in self.refused else self.refused_last.discard)(user_id)
        return super().calls(told)


class World:
    def __init__(
        self,
        path: Path,
        duckdb_instance: duckdb.DuckDBPyConnection,
        tell: frozenset[Tell],
        concurrency: int = 1,
    ) -> None:
        self.database = Database(f"sqlite:///{path}")
        # Nobody pulls the plug here.
        sqlalchemy.event.listen(self.database._engine, "connect", _without_waiting_for_the_disk)
        self.log = Log(self.database)
        self.clock = self.log.clock
        self.clock_moves = threading.Lock()
        """A commit moves it, and so does what others do meanwhile, in another thread."""
        self.to = Heard(concurrency=concurrency, max_calls=2)
        self.spans = Watched(self.database, self.clock)
        self.orders = Orders(self.database, self.clock)
        self.engine = DuckDBEngine(duckdb_instance.cursor)
        self.how = Subscription(tell=tell, limits=Limits(max_initial=5))
        self.stop = threading.Event()
        self.members: Members = {}
        self.together = True
        self.retired: OnRetire | None = None
        self.told_anew_since = 0
        """So many members had been accepted when the last resync could begin."""
        self.resync_asked = False
        self.held: tuple[Snapshot, dict[str, Row]] | None = None
        self.exempt: set[str] = set()
        self.attempts: list[str] = []
        self.left_at: int | None = None
        self.events: list[str] = []
        self.sent_elsewhere = 0
        """So many requests were another process's, while a run was at work."""
        self.silent_from = FOREVER
        """After so many requests nothing is to be sent: a person has ordered so during a run."""

    @property
    def configured(self) -> Configured:
        audience = Audience(
            key=VIP, name="VIP", source="s", query="q", destinations=(self.to.name,)
        )
        cadence = Every(HOUR, HOUR)
        return Configured(audience=audience, source=None, limits=Limits(), cadence=cadence)  # type: ignore[arg-type]

    def admission(self) -> Admission:
        return Admission(known=self.orders.known(), configured={VIP})

    # Steps

    def do(self, step: Step) -> None:
        name, value = step
        self._move_clock(MINUTE)
        method = getattr(self, f"_{name}")
        method() if value is None else method(value)

    def _move_clock(self, by: timedelta) -> None:
        with self.clock_moves:
            self.clock.now += by

    def _capture(self, members: dict[str, Row]) -> None:
        """A destination that is gone stops no capture: there are others."""
        if self.admission().refusal(self.configured):
            return
        if self.resync_asked:
            self.resync_asked, self.told_anew_since = False, len(self.to.accepted)
        if self.log.seq and not self.log.changes(members):
            capture = self.log.capture(members)
            self.log.snapshots.unchanged(capture, self.log.lease, started_at=self.clock.now)
        else:
            with self.clock_moves:  # by an hour
                self.log.put(members, base=self.log.seq % 2 == 1)
            self.members = members

    def _hold(self, members: dict[str, Row]) -> None:
        if self.log.seq and not self.admission().refusal(self.configured):
            with self.clock_moves:  # by an hour
                self.held = self.log.hold(members), members

    def _approve(self) -> None:
        """What is held: a capture, and first deliveries."""
        if self.held and self.held[0] in self.log.snapshots.held():
            self.log.approve(*self.held)
            self.members, self.resync_asked = self.held[1], False
        for span in self.spans.held():
            self.spans.approve(span, reason=None, actor="ann@ops")

    def _deliver(self) -> None:
        """One run. Nothing may be sent that somebody has ordered not to send."""
        silent = not self.together or self._is_silent()
        before, elsewhere = len(self.to.requests), self.sent_elsewhere
        destinations = {} if self.orders.stopped() else {self.to.name: self.to}
        subscriptions = {self.to.name: {VIP: self.how} if self.together else {}}
        deliveries = Deliveries(
            destinations=destinations,
            subscriptions=lambda: self.admission().subscriptions(
                subscriptions, {VIP: self.configured}
            ),
            spans=self.spans,
            book=Destinations(self.database, self.clock),
            quotas=Quotas(self.database),
            leases=Leases(self.database),
            installation="i",
            clock=self.clock,
            elapsed=time.monotonic,
            progress=self._committed,
        )
        self.spans.look()
        delivered = list(deliveries.deliver(self.stop))
        self.delivered = delivered
        if silent and self.retired is not OnRetire.TELL_FALSE:
            assert len(self.to.requests) - before == self.sent_elsewhere - elsewhere
        if self.left_at is not None:
            assert len(self.to.requests) <= self.left_at, "told after it was left"

    def _committed(self, span: Span) -> None:
        """The books say exactly what is left of the walk."""
        assert span.books.remaining == len(list(self.spans.changes(span)))
        self._move_clock(SECOND)

    def _stop(self, requests: int) -> None:
        seen = count()

        def answer(_user_ids: Sequence[str]) -> None:
            if next(seen) >= requests:
                self.stop.set()

        self.to.answer = answer
        self._deliver()
        self.stop.clear()
        self.to.answer = lambda _: None

    def _kill(self, commits: int) -> None:
        self.spans.left = commits
        self._deliver()
        self.spans.left = FOREVER

    def _meanwhile(self, what: tuple[int, list[Step]]) -> None:
        """A run, and what other processes do at one of its moments."""
        looks, steps = what
        seen = count()

        def overtake(in_flight: int = 0) -> None:
            if next(seen) != looks:
                return
            was_silent, before = self._is_silent(), len(self.to.requests)
            for step in steps:
                self.do(step)
                self.events.append(f"meanwhile: {step[0]}")
            self.sent_elsewhere += len(self.to.requests) - before
            if not was_silent and self._is_silent():
                self.silent_from = len(self.to.requests) + in_flight
            if self.left_at is not None:
                self.left_at += in_flight

        lock = threading.Lock()

        def answer(_user_ids: Sequence[str]) -> None:
            with lock:
                overtake(self.to.concurrency - 1)

        self.spans.look, self.to.answer = overtake, answer
        self._deliver()
        self.spans.look, self.to.answer = Watched.look, lambda _: None
        assert len(self.to.requests) <= self.silent_from, "sent though a person said not to"
        self.silent_from = FOREVER
        if self.left_at is not None:
            self.left_at = len(self.to.requests)

    def _is_silent(self) -> bool:
        known = self.orders.known().get(VIP)
        return bool(self.orders.stopped() or (known and known.paused_at))

    def _late(self, what: tuple[dict[str, Row], Step]) -> None:
        """A capture that was decided and staged, and whose process slept through what came."""
        members, step = what
        if self.admission().refusal(self.configured):
            return
        staged, stale = self.log.stage(members), self.log.lease
        self.log.lease = new_lease(self.database, stale.name)
        self.do(step)
        with pytest.raises(LeaseLost):
            self.log.snapshots.commit(staged, stale, started_at=self.clock.now)
        self.log.snapshots.sweep(VIP, self.log.lease)

    def _refuse(self, user_ids: set[str]) -> None:
        self.to.refused = frozenset(user_ids)

    def _pass(self, hours: int) -> None:
        self._move_clock(hours * HOUR)

    def _retry(self) -> None:
        self.orders.retry([VIP], [self.to.name], ANN)

    def _resync(self) -> None:
        known = self.orders.known().get(VIP)
        if known and known.seq and not known.retired_at and known.told_to:
            self.orders.resync(VIP, [self.to.name], ANN)
            self.resync_asked = True

    def _pause(self) -> None:
        if self.retired is None:
            self.orders.pause(VIP, "VIP", self.configured.audience.kind, ANN)

    def _resume(self) -> None:
        if VIP in self.orders.known() and self.retired is None:
            self.orders.resume(VIP, ANN)

    def _stop_place(self) -> None:
        self.orders.stop(self.to.name, ANN)

    def _go_on(self) -> None:
        self.orders.go_on(self.to.name, ANN)

    def _prune(self, hours: int) -> None:
        self.log.snapshots._keep = hours * HOUR
        self.log.snapshots.prune(VIP, self.clock.now, self.log.lease)

    def _gone(self) -> None:
        self.together = False
        self._settle()

    def _back(self) -> None:
        self._except_who_is_not_known()
        self.together = True
        self._settle()

    def _except_who_is_not_known(self) -> None:
        """Who left before all that is kept, of a pair that was let go."""
        if not self.together and self._is_released():
            known_since = scalar(self.database, "SELECT told_seq FROM told")
            seen = [self.log.kept[s].keys() for s in self.log.kept if s >= (known_since or 0)]
            self.exempt |= set(IDS).difference(*seen) if known_since else set()
            self.events.append("told after keep")

    def _is_released(self) -> bool:
        return bool(scalar(self.database, "SELECT count(*) FROM gone WHERE released_at > 0"))

    def _settle(self) -> None:
        together = {(VIP, self.to.name)} if self.together else set()
        settle(self.database, together, self.clock.now)

    def _retire(self, on_retire: OnRetire) -> None:
        known = self.orders.known().get(VIP)
        if known is None or not known.seq or known.retired_at:
            return
        self._except_who_is_not_known()
        retire(
            self.configured.audience,
            on_retire=on_retire,
            nobody=Nobody(EMAIL),
            engine=self.engine,
            snapshots=self.log.snapshots,
            book=Retirement(database=self.database, clock=self.clock, given=ANN),
            lease=self.log.lease,
            now=self.clock.now,
        )
        current = self.log.snapshots.current(VIP)
        assert current is not None
        self.retired = on_retire
        if on_retire is OnRetire.LEAVE:
            self.left_at = len(self.to.requests)
        else:
            self.members = {}
            self.log.kept[current.seq] = {}
        self.events.append(f"retired: {on_retire}")

    # The end

    def settle_down(self) -> None:
        """All that was left is done: nobody is paused, everything is captured and told.

        Who is told that they left is told so wherever they were told, configured or not.
        """
        together = [] if self.retired is OnRetire.TELL_FALSE else ["back"]
        for name in (*together, "resume", "go_on"):
            self.do((name, None))
        self.do(("capture", dict(self.members)))
        self.tell_all()
        self.check_rejections()
        self._refuse(set())
        self._retry()
        self.tell_all()
        assert self.unresolved() == []

    def tell_all(self) -> None:
        for _ in range(5):
            self.do(("approve", None))
            self.do(("deliver", None))
            if not self.delivered:
                return
        raise AssertionError("it does not come to an end")

    def check_rejections(self) -> None:
        if self.left_at is None:
            assert set(self.unresolved()) == self.to.refused_last
        assert len(self.unresolved()) == len(set(self.unresolved())), "listed twice"

    def unresolved(self) -> list[str]:
        if self.left_at is not None:
            return []
        return [r.user_id for r in Rejections(self.database).unresolved([VIP], [self.to.name])]

    def check_told(self) -> None:
        if self.left_at is not None:
            return
        last = self.last_bodies()
        for user_id in IDS:
            told = last.get(user_id, {}).get("vip", False)
            if user_id in self.members:
                assert told is True, f"{user_id} is a member and was not told so"
                if Tell.UPDATED in self.how.tell:
                    assert last[user_id]["email"] == self.members[user_id]["email"]
            elif user_id not in self.exempt:
                assert told is False, f"{user_id} left and is still told a member"

    def check_told_anew(self) -> None:
        anew = {call.user_id for call in self.to.accepted[self.told_anew_since :]}
        if self.told_anew_since and self.left_at is None:
            assert anew >= set(self.members), "a resync left somebody out"

    def check_order(self) -> None:
        times: dict[str, str] = {}
        for call in self.to.accepted:
            time_of_call = orjson.loads(call.bodies[0])["timestamp"]
            assert time_of_call >= times.get(call.user_id, ""), "an older state after a newer one"
            times[call.user_id] = time_of_call
        assert all(len(bodies) == 1 for bodies in self.to.bodies().values())

    def check_store(self) -> None:
        states = set(column(self.database, "SELECT state FROM span"))
        assert states <= {SpanState.COMPLETED, SpanState.ABANDONED}
        if self.left_at is None:
            assert scalar(self.database, "SELECT count(*) FROM resync") == 0

    def last_bodies(self) -> Mapping[str, Mapping[str, Any]]:
        return {c.user_id: orjson.loads(c.bodies[0])["traits"] for c in self.to.accepted}


def _without_waiting_for_the_disk(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    spill = tmp_path_factory.mktemp("spill")
    opened = open_instance(memory_limit=256 * 2**20, threads=1, spill=spill)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "state.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    return path


def with_regressions(check: Any) -> Any:
    for history in REGRESSIONS:
        check = example(history, BOTH, 1)(check)
    return check


@pytest.mark.timeout(900)
def test_in_the_end_everybody_is_told_the_truth(
    instance: duckdb.DuckDBPyConnection, template: Path
) -> None:
    @settings(max_examples=EXAMPLES)
    @with_regressions
    @given(HISTORIES, TELLS, st.sampled_from([1, 1, 2]))
    def check(
        history: tuple[list[Step], OnRetire | None, list[Step]],
        tell: frozenset[Tell],
        concurrency: int,
    ) -> None:
        path = template.with_name(f"{next(NUMBERS)}.db")
        shutil.copy(template, path)
        world = World(path, instance, tell, concurrency)
        try:
            before, on_retire, after = history
            retired = [("retire", on_retire)] if on_retire else []
            for step in (*before, *retired, *after):
                world.do(step)
            world.settle_down()
            for text in world.events:
                event(text)
            world.check_told()
            world.check_told_anew()
            world.check_order()
            world.check_store()
        finally:
            world.database.close()
            path.unlink()

    check()
