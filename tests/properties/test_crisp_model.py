"""Whatever happened on the way, in the end Crisp says of everybody what the sources say.

Captures, both lanes, kills at any request and before any commit, lost profiles, people who were at
Crisp before, refusals and resets: and no column ever goes back to an older state (P6, P8, P19).
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audience_sync.destinations import crisp_sharing, crisp_together
from audience_sync.destinations.crisp import CrispDestination
from audience_sync.domain.audience import AudienceKey, Columns, ColumnType, Kind, Row, Tell
from audience_sync.domain.guard import Limits
from audience_sync.domain.quota import Lane
from audience_sync.errors import LeaseLost, StoreFailed
from audience_sync.pipeline import send
from audience_sync.pipeline.allowance import Taken
from audience_sync.pipeline.deliveries import Deliveries
from audience_sync.pipeline.ports.sending import MaySend, MemberCalls, Sender, Sent, at_once
from audience_sync.pipeline.subscription import Subscription
from audience_sync.sandbox.options import failure
from audience_sync.store import schema
from audience_sync.store.contacts import Contacts
from audience_sync.store.destinations import Destinations
from audience_sync.store.engine import Database
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import Leases
from audience_sync.store.quotas import Quotas
from audience_sync.store.spans import Spans
from tests.fakes.crisp import Crisp, crisp_sandbox, destination
from tests.fakes.snapshot_log import START, Clock, Log, execute

USERS = ["a", "B", "é", "𝔸", "z"]
VIP, LOYAL, LTV = AudienceKey("vip"), AudienceKey("loyal"), AudienceKey("ltv")
COLUMNS: Mapping[AudienceKey, Columns] = {
    VIP: {"email": ColumnType.STRING, "name": ColumnType.STRING, "city": ColumnType.STRING},
    LOYAL: {"email": ColumnType.STRING, "name": ColumnType.STRING},
    LTV: {"value": ColumnType.INT64},
}
TELL = frozenset(Tell)

SOME = st.sets(st.sampled_from(USERS))
STEPS = st.one_of(
    st.tuples(
        st.just("capture"), st.sampled_from([VIP, LOYAL, LTV]), st.sets(st.sampled_from(USERS))
    ),
    st.tuples(st.just("capture"), st.sampled_from([VIP, LOYAL]), st.sets(st.sampled_from(USERS))),
    st.tuples(st.just("deliver"), st.sampled_from(Lane), st.none()),
    st.tuples(st.just("killed"), st.sampled_from(Lane), st.integers(0, 9)),
    st.tuples(st.just("uncommitted"), st.sampled_from(Lane), st.integers(0, 4)),
    st.tuples(st.just("change"), st.sampled_from(USERS), st.sampled_from(["email", "name"])),
    st.tuples(st.just("address"), st.sampled_from(USERS), st.none()),
    st.tuples(st.just("lost"), st.sampled_from(USERS), st.none()),
)
HISTORIES = st.tuples(
    st.sets(st.sampled_from(USERS)),  # at Crisp before
    st.sets(st.sampled_from(USERS)),  # without an e-mail at first
    st.lists(STEPS, min_size=4, max_size=24),
    st.booleans(),  # many in one request
)


@dataclass(kw_only=True, slots=True, eq=False)
class Killed(CrispDestination):
    """Is killed before request ``at``."""

    at: int = 0
    asked: int = 0

    def sender(self) -> Any:
        return KilledSender(self, CrispDestination.sender(self))


@dataclass
class KilledSender:
    to: Killed
    inner: Sender

    def send(self, members: list[MemberCalls], may_send: MaySend = at_once) -> Sent:
        def may(amount: int) -> None:
            may_send(amount)
            if self.to.asked >= self.to.at:
                raise LeaseLost("killed")
            self.to.asked += 1

        return self.inner.send(members, may)

    def close(self) -> None:
        self.inner.close()


class ForgetfulSpans(Spans):
    """Cannot write after so many commits."""

    commits = 10**9

    def advance(self, *arguments: Any, **other: Any) -> Any:
        if self.commits <= 0:
            raise StoreFailed("killed")
        self.commits -= 1
        return super().advance(*arguments, **other)


@dataclass
class World:
    crisp: Crisp
    database: Database
    seed: int
    bulk: bool
    versions: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    with_email: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        installation_of(self.database, START)
        self.clock = Clock()
        self.logs = {
            key: Log(
                self.database,
                key,
                clock=self.clock,
                columns=columns,
                kind=Kind.COMPUTED_TRAIT if key == LTV else Kind.AUDIENCE,
            )
            for key, columns in COLUMNS.items()
        }
        self.members: dict[AudienceKey, dict[str, Row]] = {key: {} for key in COLUMNS}

    def row(self, key: AudienceKey, user: str) -> Row:
        if key == LTV:
            return {"value": self.versions[user, "name"]}
        name = f"{USERS.index(user)} {self.versions[user, 'name']:03}"
        known = user in self.with_email
        row: dict[str, Any] = {"email": self.email(user) if known else None, "name": name}
        return row | ({"city": f"{name} city"} if key == VIP else {})

    def email(self, user: str) -> str:
        return f"u{USERS.index(user)}.{self.versions[user, 'email']:03}@example.com"

    def do(self, step: tuple[str, Any, Any]) -> None:
        what, first, second = step
        match what:
            case "capture":
                self.capture(first, {user: self.row(first, user) for user in second})
            case "deliver":
                self.deliver(first)
            case "killed":
                self.deliver(first, killed_at=second)
            case "uncommitted":
                self.deliver(first, commits=second)
            case "change" if not (second == "email" and first in self.lost):
                self.versions[first, second] += 1
            case "address":
                self.with_email.add(first)
            # Whoever is lost is found by the e-mail that Crisp has; told with others, not at once.
            case "lost" if not self.versions[first, "email"] and not self.bulk:
                self.lost.add(first)
                sql = "UPDATE contact SET people_id = 'lost' WHERE user_id = :user"
                execute(self.database, sql, user=first)

    def capture(self, key: AudienceKey, members: dict[str, Row]) -> None:
        self.members[key] = members
        log = self.logs[key]
        if log.seq == 0 or members != log.kept[log.seq]:
            log.put(members)

    def deliver(self, lane: Lane, killed_at: int = 10**9, commits: int = 10**9) -> list[str]:
        spans = ForgetfulSpans(self.database, self.clock)
        spans.commits = commits
        to = destination(
            self.crisp,
            Contacts(self.database, "crisp"),
            make=Killed,
            at=killed_at,
            bulk=self.bulk,
            clock=self.clock,
            concurrency=3,
        )
        how = Subscription(tell=TELL, limits=Limits())
        deliveries = Deliveries(
            destinations={"crisp": to},
            subscriptions=lambda: {"crisp": dict.fromkeys(COLUMNS, how)},
            spans=spans,
            book=Destinations(self.database, self.clock),
            quotas=Quotas(self.database),
            leases=Leases(self.database),
            installation="installation",
            clock=self.clock,
            elapsed=lambda: 0.0,
        )
        try:
            done = deliveries.lane(to, lane, threading.Event())
        except (StoreFailed, LeaseLost):
            return []
        return [delivered.outcome for delivered in done]

    def settle(self) -> None:
        """Capture once more as things are now, and deliver until nothing waits."""
        for key, members in self.members.items():
            self.capture(key, {user: self.row(key, user) for user in members})
        for _ in range(12):
            outcomes = [outcome for lane in Lane for outcome in self.deliver(lane)]
            if not outcomes:
                return
        raise AssertionError(f"it comes to no end: {outcomes}")

    def check(self) -> None:
        people = list(self.crisp.people().values())
        told = {person["data"]["user_id"]: person for person in people if person["data"]}
        assert len(told) == sum(bool(person["data"]) for person in people), "one profile for each"
        for user in USERS:
            self.check_user(user, told.get(user))
        if not self.lost:
            self.check_never_back()

    def check_user(self, user: str, person: Mapping[str, Any] | None) -> None:
        audiences = [key for key in (VIP, LOYAL) if user in self.members[key]]
        is_anywhere = bool(audiences)
        if person is None:
            assert not (is_anywhere and user in self.with_email), f"{user!a} has no profile"
            return
        data = person["data"]
        for key in (VIP, LOYAL):
            assert data.get(key, False) is (user in self.members[key]), (user, key, data)
        value = self.members[LTV].get(user, {}).get("value", "")
        assert data.get(LTV, "") == value, (user, data)
        if is_anywhere and user in self.with_email:
            row = self.row(audiences[0], user)
            assert person["email"] == row["email"]
            assert person["person"]["nickname"] == row["name"]
        if VIP in audiences:
            assert data["city"] == self.row(VIP, user)["city"]

    def check_never_back(self) -> None:
        """The names that Crisp was told of each user carry their version."""
        last: dict[str, str] = {}
        for call in self.crisp.get("calls.json")["calls"]:
            if call["outcome"] not in ("200", "201", "reset-after") or not call["body"]:
                continue
            body = json.loads(call["body"])
            nickname = body.get("person", {}).get("nickname", "")
            city = body.get("data", {}).get("city", "")
            for told in (nickname, city):
                if told and told[0].isdigit():
                    which = f"{told[0]}{told[5:]}"
                    assert told >= last.get(which, ""), f"{told} after {last[which]}"
                    last[which] = told


def holds(store: Callable[[], AbstractContextManager[Database]], options: settings) -> None:
    @options
    @given(HISTORIES, st.integers(0, 2**32))
    def check(history: Any, seed: int) -> None:
        before, without_email, steps, bulk = history
        faults = tuple(failure(text) for text in ("500:0.03", "429:0.03", "reset-after:0.03"))
        with crisp_sandbox(failures=faults, seed=seed) as crisp, store() as database:
            world = World(crisp, database, seed, bulk)
            world.with_email = {user for user in USERS if user not in without_email}
            for user in sorted(before):
                crisp.add(world.email(user), "There before")
            for step in steps:
                world.do(step)
            world.settle()
            world.check()

    check()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(sending: send.Sending, _seconds: float, _taken: Taken) -> None:
        if sending.stop.is_set():
            raise send.Stopped("stopping")

    monkeypatch.setattr(send.Sending, "_sleep", sleep)


@pytest.fixture(autouse=True)
def _two_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crisp_sharing, "FEWEST", 2)
    monkeypatch.setattr(crisp_together, "FEWEST", 2)


@pytest.mark.timeout(900)
def test_on_sqlite() -> None:
    @contextmanager
    def store() -> Iterator[Database]:
        with tempfile.TemporaryDirectory() as folder:
            database = Database(f"sqlite:///{Path(folder) / 'state.db'}")
            with database.write() as connection:
                schema.metadata.create_all(connection)
            yield database
            database.close()

    holds(store, settings(max_examples=25, deadline=None))


@pytest.mark.timeout(900)
def test_on_postgres(postgres_url: str) -> None:
    database = Database(postgres_url)

    @contextmanager
    def store() -> Iterator[Database]:
        with database.write() as connection:
            schema.metadata.drop_all(connection)
            schema.metadata.create_all(connection)
        yield database

    holds(store, settings(max_examples=6, deadline=None, derandomize=True, database=None))
    database.close()
