"""What a destination was told, worked out afterwards, equals what it was told.

The model captures, opens spans, walks them member by member, is refused, completes and abandons,
and writes down what was accepted of each user; the function sees only what the store keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.audience import Kind, Row, Seq, Tell
from audience_sync.domain.biography import Biography
from audience_sync.domain.change import Change, is_told
from audience_sync.domain.quota import Lane
from audience_sync.domain.span import Books, SpanKind, SpanState
from audience_sync.domain.told import Delivery, Refused, Telling, what_was_told

USERS = "abcd"
START = datetime(2026, 10, 7, 6, 0, tzinfo=UTC)
TELLS = [
    frozenset({Tell.ENTERED, Tell.EXITED}),
    frozenset(Tell),
    frozenset({Tell.EXITED}),
]

Members = dict[str, Row]


@dataclass
class World:
    """``accepted``: by user, whether it was told true or false last."""

    tell: frozenset[Tell]
    memberships: list[Members] = field(default_factory=lambda: [{}])
    deliveries: list[Delivery] = field(default_factory=list)
    """Oldest first, the last perhaps open."""
    walks: list[list[str]] = field(default_factory=list)
    refused: dict[str, list[Refused]] = field(default_factory=lambda: {u: [] for u in USERS})
    accepted: dict[str, bool] = field(default_factory=dict)
    told_seqs: list[int] = field(default_factory=list)
    """The last told whole, and those told in parts since."""
    anew: bool = False
    minutes: int = 0

    def do(self, step: tuple[str, int]) -> None:
        what, number = step
        self.minutes += 1
        match what:
            case "capture":
                members = {u: email(number >> 2 * i) for i, u in enumerate(USERS)}
                self.memberships.append({u: row for u, row in members.items() if row is not None})
            case "open":
                self.open(resync=number % 4 == 0)
            case "walk" if self.is_open:
                self.walk(number)
            case "complete" if self.is_open:
                while self.walks[-1]:
                    self.walk(number)
                self.end(SpanState.COMPLETED)
                self.told_seqs = [self.deliveries[-1].to_seq]
            case "abandon" if self.is_open:
                self.end(SpanState.ABANDONED)
                self.anew = True
                if self.deliveries[-1].position is not None:
                    self.told_seqs.append(self.deliveries[-1].to_seq)

    @property
    def is_open(self) -> bool:
        return bool(self.deliveries) and self.deliveries[-1].state is SpanState.OPEN

    def open(self, *, resync: bool) -> None:
        whole = [d for d in self.deliveries if d.state is SpanState.COMPLETED]
        if self.is_open or len(self.memberships) == 1:
            return
        kind = SpanKind.INCREMENTAL if whole else SpanKind.INITIAL
        if self.anew or (resync and self.deliveries):
            kind = SpanKind.RESYNC
        self.anew = False
        incremental = kind is SpanKind.INCREMENTAL
        delivery = Delivery(
            id=len(self.deliveries) + 10,
            destination="calls",
            number=len(self.deliveries) + 1,
            lane=Lane.INCREMENTAL if incremental else Lane.INITIAL,
            kind=kind,
            state=SpanState.OPEN,
            held_for=None,
            tell=self.tell,
            from_seq=whole[-1].to_seq if incremental else Seq(0),
            to_seq=Seq(len(self.memberships) - 1),
            position=None,
            books=Books(total=0),
            opened_at=START + timedelta(minutes=self.minutes),
            ended_at=None,
        )
        self.deliveries.append(delivery)
        self.walks.append([u for u in USERS if self.is_walked(delivery, u)])

    def is_walked(self, delivery: Delivery, user: str) -> bool:
        froms = [int(delivery.from_seq)]
        if delivery.kind is SpanKind.RESYNC:
            froms = [0, *self.told_seqs]
        after = self.memberships[delivery.to_seq].get(user)
        for seq in froms:
            before = self.memberships[seq].get(user)
            if delivery.kind is SpanKind.RESYNC and seq and after is not None:
                continue
            change = Change(user_id=user, before=before, after=after)
            if before != after and is_told(change, delivery.tell, Kind.AUDIENCE):
                return True
        return False

    def walk(self, number: int) -> None:
        """One member: accepted, or now and then refused."""
        delivery = self.deliveries[-1]
        if not self.walks[-1]:
            return
        user = self.walks[-1].pop(0)
        if number % 5 == 0:
            at, nobody = START + timedelta(minutes=self.minutes), frozenset[int]()
            refusal = Refused(
                span_id=delivery.id, outcome="rejected", reason="no", at=at, again_in=nobody
            )
            self.refused[user].insert(0, refusal)
        else:
            self.accepted[user] = user in self.memberships[delivery.to_seq]
        self.deliveries[-1] = replace(delivery, position=user)

    def end(self, state: SpanState) -> None:
        ended = START + timedelta(minutes=self.minutes)
        self.deliveries[-1] = replace(self.deliveries[-1], state=state, ended_at=ended)

    def telling(self, user: str, kept_since: int) -> Telling:
        return what_was_told(
            self.biography(user, kept_since),
            Kind.AUDIENCE,
            self.deliveries[::-1],
            self.refused[user],
            tell=self.tell,
            anew=self.anew,
        )

    def biography(self, user: str, kept_since: int) -> Biography:
        kept = [Seq(seq) for seq in range(kept_since, len(self.memberships))]
        states = [members.get(user) for members in self.memberships]
        steps = kept if kept_since == 1 else kept[1:]
        changes = [
            (seq, Change(user_id=user, before=states[seq - 1], after=states[seq]))
            for seq in reversed(steps)
            if states[seq - 1] != states[seq]
        ]
        oldest = states[kept_since] if 1 < kept_since < len(states) else None
        return Biography(user_id=user, kept=kept, oldest=oldest, changes=changes)


def email(code: int) -> Row | None:
    return {"email": f"{code & 3}@example.com"} if code & 3 else None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["capture", "open", "walk", "complete", "abandon"]), st.integers(0, 255)
    ),
    max_size=24,
)


@given(STEPS, st.sampled_from(TELLS))
def test_what_was_accepted_is_what_is_said(
    steps: list[tuple[str, int]], tell: frozenset[Tell]
) -> None:
    world = World(tell)
    for step in steps:
        world.do(step)
        for user in USERS:
            said = world.telling(user, 1).said
            assert (said.value if said else None) == world.accepted.get(user)


@given(STEPS, st.sampled_from(TELLS))
def test_who_knows_something_else_or_nothing_is_not_forgotten(
    steps: list[tuple[str, int]], tell: frozenset[Tell]
) -> None:
    """Whatever happened, a difference that is told has a reason to be there yet."""
    world = World(tell)
    for step in steps:
        world.do(step)
        for user in USERS:
            is_in = user in world.memberships[-1]
            was_told = world.accepted.get(user, False)
            if was_told != is_in and (Tell.ENTERED in tell or was_told):
                assert world.telling(user, 1).unsaid


@given(STEPS, st.sampled_from(TELLS), st.integers(2, 6))
def test_what_is_no_longer_kept_is_not_made_up(
    steps: list[tuple[str, int]], tell: frozenset[Tell], kept_since: int
) -> None:
    world = World(tell)
    for step in steps:
        world.do(step)
    for user in USERS:
        said = world.telling(user, min(kept_since, max(len(world.memberships) - 1, 1))).said
        assert said is None or said.value == world.accepted.get(user)
