"""Spans walked together: what is merged and split again is what each span has by itself."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from audience_sync.domain.audience import AudienceKey, Kind
from audience_sync.domain.change import Change
from audience_sync.domain.span import Refusal, Tally
from audience_sync.pipeline.bundle import merged, split
from audience_sync.pipeline.ports.sending import SpanContext

USERS = st.text(alphabet="abé漢😀", min_size=1, max_size=3)
SPANS = st.lists(st.sets(USERS, max_size=8), min_size=1, max_size=4)


def context(number: int) -> SpanContext:
    return SpanContext(
        audience=AudienceKey(f"a{number}"),
        kind=Kind.AUDIENCE,
        span_number=1,
        timestamp=datetime(2026, 1, 31, tzinfo=UTC),
        installation="installation",
    )


def changes(users: set[str]) -> list[Change]:
    """In the order in which the store gives them: that of the bytes of UTF-8."""
    ordered = sorted(users, key=lambda user: user.encode())
    return [Change(user_id=user, before=None, after={}) for user in ordered]


@given(SPANS)
def test_every_member_comes_once_with_all_that_is_told(spans: list[set[str]]) -> None:
    contexts = [context(number) for number in range(len(spans))]
    members = list(merged([changes(users) for users in spans], contexts))
    ids = [member.user_id for member in members]
    assert ids == sorted(set().union(*spans), key=lambda user: user.encode())
    for member in members:
        holding = [number for number, users in enumerate(spans) if member.user_id in users]
        assert list(member.spans) == holding
        assert [told.context for told in member.told] == [contexts[n] for n in holding]
        assert {told.change.user_id for told in member.told} == {member.user_id}


@given(SPANS, st.data())
def test_each_span_gets_its_part_of_what_became_of_a_batch(
    spans: list[set[str]], data: st.DataObject
) -> None:
    contexts = [context(number) for number in range(len(spans))]
    members = list(merged([changes(users) for users in spans], contexts))
    if not members:
        return
    upto = data.draw(st.integers(1, len(members)))
    handled = [member.user_id for member in members[:upto]]
    words = {
        user: data.draw(st.sampled_from(["accepted", "rejected", "skipped"])) for user in handled
    }
    tally = Tally(last_user_id=handled[-1], accepted=list(words.values()).count("accepted"))
    tally.refuse(
        Refusal(user_id=user, reason=word, skipped=word == "skipped")
        for user, word in words.items()
        if word != "accepted"
    )
    shares = split(tally, {member.user_id: member.spans for member in members})
    for number, users in enumerate(spans):
        mine = [user for user in handled if user in users]
        assert (number in shares) == bool(mine)
        if not mine:
            continue
        share = shares[number]
        assert share.last_user_id == mine[-1]
        assert share.accepted == sum(words[user] == "accepted" for user in mine)
        firsts = [member for member in members if member.spans[0] == number]
        spared = set(mine) - {member.user_id for member in firsts}
        assert share.saved == sum(words[user] == "accepted" for user in spared)
        assert [r.user_id for r in share.rejected] == [u for u in mine if words[u] == "rejected"]
        assert [r.user_id for r in share.skipped] == [u for u in mine if words[u] == "skipped"]
