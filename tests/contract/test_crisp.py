"""What Crisp is told, and in how many requests, over real sockets against the sandbox."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any, ClassVar, get_args

import pytest

from audience_sync.destinations.crisp_api import Method
from audience_sync.destinations.crisp_member import EMAIL_TAKEN, NO_EMAIL, NOBODY_LEFT
from audience_sync.domain.audience import Kind
from audience_sync.domain.by_hand import ByHand, CallKind
from audience_sync.domain.contact import Contact
from audience_sync.domain.span import Refusal
from audience_sync.errors import (
    ConfigError,
    CredentialsRefused,
    DestinationPaused,
    QuotaUsed,
    RetryLater,
)
from audience_sync.pipeline.ports.sending import MemberCalls
from audience_sync.sandbox.options import failure
from tests.fakes.crisp import (
    NOW,
    Crisp,
    KnownInMemory,
    Teller,
    crisp_sandbox,
    destination,
    row,
    teller,
    told,
)

HOUR = timedelta(hours=1)
CREATED = "POST people/profile 201"
DATA = "PATCH people/data/{who} 200"
PROFILE = "PATCH people/profile/{who} 200"
READ = "GET people/profile/{who} 200"
EVENT = "POST people/events/{who} 201"


@pytest.fixture
def crisp() -> Iterator[Crisp]:
    with crisp_sandbox() as running:
        yield running


@pytest.fixture
def tells(crisp: Crisp) -> Teller:
    return teller(crisp)


def only(crisp: Crisp) -> dict[str, Any]:
    (person,) = crisp.people().values()
    return person


class TestCreate:
    def test_a_new_member_takes_two_requests(self, crisp: Crisp, tells: Teller) -> None:
        columns = {
            "name": "John Doe",
            "phone": 15551234,
            "avatar": "https://example.com/john.png",
            "city": "Nantes",
            "visits": 3,
            "score": 0.5,
            "is_new": True,
            "nothing": None,
        }
        sent = tells.tell(told("u1", row("John.Doe", **columns)))
        assert crisp.calls() == [CREATED, DATA]
        person = only(crisp)
        assert person["email"] == "John.Doe@example.com"
        assert person["person"] == {
            "nickname": "John Doe",
            "phone": "15551234",
            "avatar": "https://example.com/john.png",
        }
        assert person["data"] == {
            "user_id": "u1",
            "vip": True,
            "city": "Nantes",
            "visits": 3,
            "score": 0.5,
            "is_new": True,
        }
        (contact,) = sent.contacts
        assert (contact.user_id, contact.email) == ("u1", "john.doe@example.com")
        assert contact.people_id == person["people_id"]
        assert (contact.as_of, sent.refusals) == (NOW, [])

    def test_without_a_name_it_is_the_beginning_of_the_email(
        self, crisp: Crisp, tells: Teller
    ) -> None:
        tells.tell(told("u1", row("john.doe", name="  ")))
        assert only(crisp)["person"] == {"nickname": "john.doe"}

    def test_without_an_email_nobody_is_created(self, crisp: Crisp, tells: Teller) -> None:
        skipped = Refusal(user_id="u1", reason=NO_EMAIL, skipped=True)
        for email in (None, "", "no address", "a@b", f"{'x' * 250}@example.com"):
            assert tells.tell(told("u1", {"email": email, "city": "Nantes"})).refusals == [skipped]
        assert tells.tell(told("u1", None, {"city": "Nantes"})).refusals == [skipped]
        assert crisp.calls() == []
        tells.tell(told("u1", row("u1")))
        assert only(crisp)["data"] == {"user_id": "u1", "vip": True}

    def test_who_is_there_already_is_found(self, crisp: Crisp, tells: Teller) -> None:
        people_id = crisp.add("U1@Example.com", "Their own name")
        tells.tell(told("u1", row("u1")))
        assert crisp.calls()[1:] == ["POST people/profile 409", READ, DATA]
        assert only(crisp)["person"] == {"nickname": "Their own name"}
        assert tells.known.contacts["u1"].people_id == people_id

    def test_what_they_have_already_is_not_told_again(self, crisp: Crisp, tells: Teller) -> None:
        crisp.add("u1@example.com", "John Doe", phone="1")
        tells.tell(told("u1", row("u1", name="John Doe", phone="1")))
        assert crisp.calls()[1:] == ["POST people/profile 409", READ, DATA]
        crisp.add("u2@example.com", "John Doe", phone="1")
        tells.tell(told("u2", row("u2", name="John Doe", phone="2")))
        assert crisp.calls()[-1] == PROFILE
        assert crisp.people()["u2@example.com"]["person"] == {"nickname": "John Doe", "phone": "2"}

    def test_two_users_with_one_email_are_one_profile(self, crisp: Crisp, tells: Teller) -> None:
        tells.tell(told("u1", row("u")))
        tells.tell(told("u2", row("u"), key="loyal"))
        assert crisp.calls() == [CREATED, DATA, DATA]
        assert only(crisp)["data"] == {"user_id": "u2", "vip": True, "loyal": True}

    @pytest.mark.parametrize(
        "email", ["a+b/c?d%23e&f=ü@example.com", "%2e%2e@example.com", "a;b:c#d@example.com"]
    )
    def test_ids_and_emails_are_encoded(self, crisp: Crisp, tells: Teller, email: str) -> None:
        crisp.add(email)
        assert tells.tell(told("u/1 ü", {"email": email})).refusals == []
        assert only(crisp)["data"] == {"user_id": "u/1 ü", "vip": True}
        paths = [call["path"] for call in crisp.get("calls.json")["calls"]]
        assert not any(email in path for path in paths)


class TestKnown:
    @pytest.fixture
    def tells(self, crisp: Crisp) -> Teller:
        tells = teller(crisp)
        tells.tell(told("u1", row("u1", name="John")))
        assert crisp.calls() == [CREATED, DATA]
        return tells

    def test_one_request_for_a_change(self, crisp: Crisp, tells: Teller) -> None:
        tells.tell(told("u1", None, row("u1", name="John"), at=NOW + HOUR))
        assert crisp.calls()[2:] == [DATA]
        assert only(crisp)["data"] == {"user_id": "u1", "vip": False}

    def test_an_exit_needs_no_email(self, crisp: Crisp, tells: Teller) -> None:
        tells.tell(told("u1", None, {}, at=NOW + HOUR))
        tells.tell(told("u1", {}, key="other", at=NOW + HOUR))
        assert crisp.calls()[2:] == [DATA, DATA]
        assert only(crisp)["data"] == {"user_id": "u1", "vip": False, "other": True}

    def test_two_when_a_column_of_the_profile_changed(self, crisp: Crisp, tells: Teller) -> None:
        changed = told("u1", row("new", name="Jon", phone="1"), row("u1"), at=NOW + HOUR)
        tells.tell(changed)
        tells.tell(changed)
        assert crisp.calls()[2:] == [DATA, PROFILE, DATA]
        person = only(crisp)
        assert person["email"] == "new@example.com"
        assert person["person"] == {"nickname": "Jon", "phone": "1"}
        assert tells.known.contacts["u1"].email == "new@example.com"

    def test_five_audiences_are_one_request(self, crisp: Crisp, tells: Teller) -> None:
        changes = [told("u1", row("u1"), key=f"aud_{n}", at=NOW + HOUR) for n in range(4)]
        tells.tell(*changes, told("u1", None, row("u1"), at=NOW + HOUR))
        assert crisp.calls()[2:] == [DATA]
        traits = {f"aud_{n}": True for n in range(4)} | {"vip": False}
        assert only(crisp)["data"] == {"user_id": "u1", **traits}

    def test_a_computed_trait_and_its_end(self, crisp: Crisp, tells: Teller) -> None:
        """Crisp has no null, and takes no key away: an empty string is nothing."""
        for value in (12.5, 0, "gold", True):
            tells.tell(told("u1", {"value": value}, key="ltv", kind=Kind.COMPUTED_TRAIT))
            data = only(crisp)["data"]
            assert (data["ltv"], type(data["ltv"])) == (value, type(value))
        tells.tell(told("u1", None, {"value": 1}, key="ltv", kind=Kind.COMPUTED_TRAIT))
        assert only(crisp)["data"] == {"user_id": "u1", "vip": True, "ltv": ""}

    def test_numbers_are_the_same_when_they_are_read_back(
        self, crisp: Crisp, tells: Teller
    ) -> None:
        """In JSON, as JavaScript reads it, a whole number beyond 2^53 would be another one."""
        largest, float_ = 2**53 - 1, 0.1 + 0.2
        values = {"most": largest, "more": largest + 2, "least": -largest - 2, "part": float_}
        tells.tell(told("u1", row("u1", **values, flag=False, large=1e300)))
        tells.tell(told("u1", {"value": 2**63 - 1}, key="ltv", kind=Kind.COMPUTED_TRAIT))
        data = only(crisp)["data"]
        assert data == {
            **{"user_id": "u1", "vip": True, "most": largest, "part": float_, "flag": False},
            **{"more": "9007199254740993", "least": "-9007199254740993", "large": 1e300},
            "ltv": "9223372036854775807",
        }
        assert all(
            value == json.loads(json.dumps(value), parse_int=float) for value in data.values()
        )

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "half \ud83d"])
    def test_what_json_cannot_hold(self, crisp: Crisp, tells: Teller, value: Any) -> None:
        for changed in (
            told("u1", row("u1", city=value)),
            told("u1", {"value": value}, key="ltv", kind=Kind.COMPUTED_TRAIT),
        ):
            (refusal,) = tells.tell(changed).refusals
            assert "JSON cannot hold" in refusal.reason
            assert not refusal.skipped
        assert len(crisp.calls()) == 2

    def test_a_key_that_crisp_refuses(self, tells: Teller) -> None:
        (refusal,) = tells.tell(told("u1", row("u1", **{"Full Name": "x"}))).refusals
        assert refusal.reason == (
            'the column "Full Name" has more in its name than a-z, 0-9, _ and -'
        )
        assert tells.to.refuses(["a-b_1", "email", "Ä"]) == [
            'the column "Ä" has more in its name than a-z, 0-9, _ and -'
        ]


class TestOlder:
    """P6: what is older never takes the place of what is newer."""

    def test_a_column_of_an_older_snapshot_stays_away(self, crisp: Crisp, tells: Teller) -> None:
        new, old = row("new", name="New", city="new"), row("old", name="Old", city="old")
        tells.tell(told("u1", new, at=NOW + HOUR))
        tells.tell(told("u1", old | {"phone": "1"}, key="slow", at=NOW))
        person = only(crisp)
        assert (person["email"], person["person"]["nickname"]) == ("new@example.com", "New")
        assert person["data"] == {"user_id": "u1", "vip": True, "slow": True, "city": "new"}
        assert person["person"]["phone"] == "1", "nobody has told anything newer of it"
        tells.tell(told("u1", old, key="slow", at=NOW + 2 * HOUR))
        assert only(crisp)["email"] == "old@example.com"

    def test_seen_again_is_as_good_as_told_again(self, crisp: Crisp, tells: Teller) -> None:
        """What was so at 1 and at 3 is newer than what was so at 2."""
        for hour, name in ((1, "A"), (3, "A"), (2, "B")):
            tells.tell(told("u1", row("u1", name=name), key=f"at_{hour}", at=NOW + hour * HOUR))
        assert only(crisp)["person"]["nickname"] == "A"
        assert crisp.calls() == [CREATED, DATA, DATA, DATA]

    def test_of_two_at_once_the_newer(self, crisp: Crisp, tells: Teller) -> None:
        new = told("u1", row("new", city="new"), at=NOW + HOUR)
        old = told("u1", row("old", city="old", name="Only here"), key="slow")
        tells.tell(new, old)
        person = only(crisp)
        assert (person["email"], person["data"]["city"]) == ("new@example.com", "new")
        assert person["person"]["nickname"] == "Only here"

    def test_who_exits_carries_what_is_older_than_all(self, crisp: Crisp, tells: Teller) -> None:
        tells.tell(told("u1", row("new", name="New")))
        tells.tell(told("u1", None, row("old", name="Old"), key="slow", at=NOW + HOUR))
        assert only(crisp)["email"] == "new@example.com"
        assert only(crisp)["person"]["nickname"] == "New"

    def test_the_other_lane_told_it_a_moment_ago(self, crisp: Crisp, tells: Teller) -> None:
        """Before the store has heard of it."""
        tells.tell(told("u1", row("u1", name="First")))
        newer, older = (
            tells.to.calls([told("u1", row("u1", name=name), at=NOW + hours * HOUR)])
            for name, hours in (("Newer", 2), ("Older", 1))
        )
        one, other = tells.to.sender(), tells.to.sender()
        one.send([newer])  # type: ignore[list-item]
        other.send([older])  # type: ignore[list-item]
        one.close()
        other.close()
        assert only(crisp)["person"]["nickname"] == "Newer"


class TestEvents:
    @pytest.fixture
    def tells(self, crisp: Crisp) -> Teller:
        return teller(crisp, with_track=True)

    def events(self, crisp: Crisp) -> list[tuple[str, Any]]:
        return [(event["text"], event["data"]) for event in only(crisp)["events"]]

    def test_after_the_data(self, crisp: Crisp, tells: Teller) -> None:
        tells.tell(told("u1", row("u1")))
        assert crisp.calls() == [CREATED, DATA, EVENT]
        tells.tell(told("u1", None, row("u1")))
        assert crisp.calls()[3:] == [DATA, EVENT]
        assert self.events(crisp) == [
            ("Audience Entered", {"audience_key": "vip", "vip": True}),
            ("Audience Exited", {"audience_key": "vip", "vip": False}),
        ]

    def test_of_each_audience_one(self, crisp: Crisp, tells: Teller) -> None:
        ltv = {"key": "ltv", "kind": Kind.COMPUTED_TRAIT}
        tells.tell(
            told("u1", row("u1")),
            told("u1", None, {"value": 3}, **ltv),
            told("u1", row("u1"), row("u1"), key="no_change"),
        )
        assert crisp.calls() == [CREATED, DATA, EVENT, EVENT]
        assert self.events(crisp) == [
            ("Trait Computed", {"trait_key": "ltv", "ltv": ""}),
            ("Audience Entered", {"audience_key": "vip", "vip": True}),
        ]

    def test_nothing_is_posted_for_whom_nobody_identified(
        self, crisp: Crisp, tells: Teller
    ) -> None:
        assert tells.tell(told("u1", {})).refusals[0].reason == NO_EMAIL
        assert crisp.calls() == []

    def test_a_repeated_try_posts_no_event_twice(self, crisp: Crisp, tells: Teller) -> None:
        changes = [told("u1", row("u1"), key=key) for key in ("a", "b", "c")]
        made = tells.to.calls(changes)
        assert isinstance(made, MemberCalls)
        sender = tells.to.sender()
        may = iter([None, None, None, RetryLater("no"), None, QuotaUsed("no", until=NOW)])

        def may_send(_amount: int) -> None:
            if (refused := next(may, None)) is not None:
                raise refused

        with pytest.raises(RetryLater):
            sender.send([made], may_send)
        with pytest.raises(QuotaUsed):
            sender.send([made], may_send)
        sender.send([made], may_send)
        sender.close()
        assert crisp.calls() == [CREATED, DATA, EVENT, EVENT, EVENT]


class TestByHand:
    JOHN: ClassVar[dict[str, Any]] = {
        "name": "John Doe",
        "email": "john.doe@example.com",
        "phone": "555-555-5555",
        "avatar": "https://example.com/john.png",
        "plan": "pro",
        "left": None,
    }

    def identify(self, tells: Teller, **traits: Any) -> Refusal | None:
        call = ByHand(kind=CallKind.IDENTIFY, user_id="userId123", content=traits, at=NOW)
        return self.sent(tells, call)

    def track(self, tells: Teller) -> Refusal | None:
        content = {"revenue": 39.95, "shippingMethod": "2-day", "coupon": None}
        call = ByHand(
            kind=CallKind.TRACK,
            user_id="userId123",
            content=content,
            event="Completed Purchase",
            at=NOW,
        )
        return self.sent(tells, call)

    def sent(self, tells: Teller, call: ByHand) -> Refusal | None:
        made = tells.to.by_hand(call, "installation-1")
        if isinstance(made, Refusal):
            return made
        return next(iter(tells.send(made).refusals), None)

    def test_the_examples_of_the_segment_page(self, crisp: Crisp, tells: Teller) -> None:
        dropped = self.track(tells)
        assert dropped is not None
        assert dropped.skipped
        assert "never identified" in dropped.reason
        assert crisp.calls() == []
        assert self.identify(tells, **self.JOHN) is None
        assert self.track(tells) is None
        person = only(crisp)
        assert person["email"] == "john.doe@example.com"
        assert person["person"] == {
            "nickname": "John Doe",
            "phone": "555-555-5555",
            "avatar": "https://example.com/john.png",
        }
        assert person["data"] == {"user_id": "userId123", "plan": "pro", "left": ""}
        (event,) = person["events"]
        assert event["text"] == "Completed Purchase"
        assert event["data"] == {"revenue": 39.95, "shippingMethod": "2-day", "coupon": ""}

    def test_any_number_can_be_typed(self, crisp: Crisp, tells: Teller) -> None:
        traits = {"email": "a@example.com", "digits": 10**30, "order": 2**53 + 1}
        assert self.identify(tells, **traits) is None
        assert only(crisp)["data"] == {
            "user_id": "userId123",
            "digits": "1" + 30 * "0",
            "order": "9007199254740993",
        }

    @pytest.mark.parametrize(
        ("traits", "reason"),
        [
            ({"plan": "pro"}, NO_EMAIL),
            ({"email": "no address"}, "the e-mail is none"),
            ({"email": "a@example.com", "firstName": "x"}, '"firstName" has more'),
            ({"email": "a@example.com", "x": float("nan")}, "JSON cannot hold"),
        ],
    )
    def test_what_cannot_be(
        self, crisp: Crisp, tells: Teller, traits: dict[str, Any], reason: str
    ) -> None:
        refused = self.identify(tells, **traits)
        assert refused is not None
        assert reason in refused.reason
        assert crisp.calls() == []


def lost(crisp: Crisp, tells: Teller, *, email: str | None = "u1@example.com") -> Teller:
    """Who knows u1 as somebody whom Crisp has no more."""
    known = KnownInMemory()
    known.put([Contact(user_id="u1", people_id="gone", email=email, as_of=NOW)])
    return Teller(to=destination(crisp, known, with_track=tells.to.with_track), known=known)


MISSED = "PATCH people/data/{who} 404"


class TestLost:
    @pytest.fixture
    def tells(self, crisp: Crisp) -> Teller:
        return lost(crisp, teller(crisp))

    def test_looked_up_again_once(self, crisp: Crisp, tells: Teller) -> None:
        crisp.add("u1@example.com")
        assert tells.tell(told("u1", {}, key="loyal")).refusals == []
        assert crisp.calls()[1:] == [MISSED, "POST people/profile 409", READ, DATA]
        assert only(crisp)["data"] == {"user_id": "u1", "loyal": True}
        tells.tell(told("u1", None, {}, key="loyal"))
        assert crisp.calls()[5:] == [DATA]

    def test_made_anew_where_it_was_deleted(self, crisp: Crisp, tells: Teller) -> None:
        assert tells.tell(told("u1", row("new"))).refusals == []
        assert crisp.calls() == [MISSED, CREATED, DATA]
        assert only(crisp)["email"] == "new@example.com"

    def test_nobody_is_made_anew_to_be_told_that_they_left(
        self, crisp: Crisp, tells: Teller
    ) -> None:
        left = told("u1", None, row("u1"))
        assert tells.tell(left).refusals == [
            Refusal(user_id="u1", reason=NOBODY_LEFT, skipped=True)
        ]
        listed = "GET people/profiles/{page} 200"
        assert crisp.calls() == [MISSED, "GET people/profile/{who} 404", listed]
        tells.tell(left)
        assert crisp.calls()[3:] == ["GET people/profile/{who} 404"], "it is known to be gone"
        crisp.add("u1@example.com")
        assert tells.tell(left).refusals == []
        assert only(crisp)["data"] == {"user_id": "u1", "vip": False}

    def test_without_an_email_it_cannot_be_looked_up(self, crisp: Crisp, tells: Teller) -> None:
        tells = lost(crisp, tells, email=None)
        for _ in range(2):
            skipped = tells.tell(told("u1", {})).refusals
            assert skipped == [Refusal(user_id="u1", reason=NO_EMAIL, skipped=True)]
        assert crisp.calls() == [MISSED]

    def test_a_website_that_is_gone_is_no_missing_person(self, crisp: Crisp, tells: Teller) -> None:
        for change in (told("u1", row("u1")), told("u1", None, row("u1"))):
            gone = lost(crisp, tells)
            gone.to = destination(crisp, gone.known, website_id="no-such-website")
            with pytest.raises(DestinationPaused):
                gone.tell(change)
            assert gone.known.contacts["u1"].people_id == "gone"

    def test_a_try_that_is_repeated_goes_on_where_it_was(self, crisp: Crisp, tells: Teller) -> None:
        crisp.add("u1@example.com")
        made = tells.to.calls([told("u1", row("u1", name="N"), key="loyal")])
        assert isinstance(made, MemberCalls)
        sender = tells.to.sender()
        for stop_before in (1, 3, 4, 99):
            asked = 0

            def may_send(_amount: int, stop: int = stop_before) -> None:
                nonlocal asked
                asked += 1
                if asked == stop:
                    raise RetryLater("broken")

            if stop_before == 99:
                assert sender.send([made], may_send).refusals == []
            else:
                with contextlib.suppress(RetryLater):
                    sender.send([made], may_send)
        sender.close()
        assert crisp.calls().count(MISSED) == 1
        assert crisp.calls().count(DATA) == 1
        assert only(crisp)["data"] == {"user_id": "u1", "loyal": True}
        assert only(crisp)["person"]["nickname"] == "N"


class TestTaken:
    def test_an_email_of_somebody_else(self, crisp: Crisp, tells: Teller) -> None:
        """All else is told, and it is said; another try tells it when it can be."""
        other = crisp.add("new@example.com", "Other")
        tells.tell(told("u1", row("u1")))
        changed = told("u1", row("new", name="Name"), row("u1"), at=NOW + HOUR)
        (refusal,) = tells.tell(changed).refusals
        assert (refusal.reason, refusal.skipped) == (EMAIL_TAKEN, False)
        people = crisp.people()
        assert people["u1@example.com"]["person"]["nickname"] == "Name"
        assert people["u1@example.com"]["data"] == {"user_id": "u1", "vip": True}
        assert people["new@example.com"]["data"] == {}
        assert tells.known.contacts["u1"].email == "u1@example.com"
        crisp.ask("PATCH", f"people/profile/{other}", {"email": "elsewhere@example.com"})
        assert tells.tell(changed).refusals == []
        assert "u1@example.com" not in crisp.people()


class TestListing:
    def known_to_crisp(self, crisp: Crisp, count: int) -> None:
        for number in range(count):
            crisp.add(f"u{number}@example.com")

    def tell_all(self, tells: Teller, count: int, left: int | None = None) -> None:
        for number in range(count):
            tells.tell(told(f"u{number}", row(f"u{number}"), members_left=left or count))

    def pages(self, crisp: Crisp) -> int:
        return crisp.calls().count("GET people/profiles/{page} 200")

    def test_a_first_delivery_lists_whom_crisp_has(self, crisp: Crisp, tells: Teller) -> None:
        self.known_to_crisp(crisp, 120)
        self.tell_all(tells, 120)
        after = crisp.calls()[120:]
        assert self.pages(crisp) == 4, "three, and one with nobody"
        assert after[4:] == [DATA] * 120
        assert {person["data"]["vip"] for person in crisp.people().values()} == {True}

    def test_no_more_pages_than_members_who_may_be_asked_for(
        self, crisp: Crisp, tells: Teller
    ) -> None:
        self.known_to_crisp(crisp, 120)
        tells.tell(told("u5", row("u5"), members_left=2))
        assert self.pages(crisp) == 2
        tells.tell(told("u200", row("u200"), members_left=2))
        assert self.pages(crisp) == 2, "and none twice"
        assert tells.known.listing() is not None
        tells.tell(told("u201", row("u201"), members_left=100))
        assert self.pages(crisp) == 4

    def test_nobody_who_is_known_is_listed_for(self, crisp: Crisp, tells: Teller) -> None:
        self.known_to_crisp(crisp, 120)
        for number in range(100):
            self.known_contact(tells, number)
        tells.tell(told("new", row("new"), members_left=100))
        assert self.pages(crisp) == 1

    def known_contact(self, tells: Teller, number: int) -> None:
        known = Contact(user_id=f"k{number}", people_id=f"p{number}", email=None, as_of=NOW)
        tells.known.put([known])

    def test_an_incremental_delivery_lists_nobody(self, crisp: Crisp, tells: Teller) -> None:
        self.known_to_crisp(crisp, 3)
        for number in range(3):
            tells.tell(told(f"u{number}", row(f"u{number}")))
        assert self.pages(crisp) == 0

    def test_a_kill_repeats_no_page(self, crisp: Crisp, tells: Teller) -> None:
        self.known_to_crisp(crisp, 110)
        for killed_at in range(1, 5):
            asked = 0

            def may_send(_amount: int, last: int = killed_at) -> None:
                nonlocal asked
                asked += 1
                if asked > 1 or last == 4:
                    raise RetryLater("killed")

            anew = Teller(to=destination(crisp, tells.known), known=tells.known)
            made = anew.to.calls([told("u200", row("u200"), members_left=500)])
            assert isinstance(made, MemberCalls)
            with closing(anew.to.sender()) as sender, pytest.raises(RetryLater):
                sender.send([made], may_send)
        calls = crisp.get("calls.json")["calls"]
        listed = [call["path"].partition("profiles/")[2] for call in calls]
        assert [page[0] for page in listed if page] == ["1", "2", "3"]

    def test_what_was_listed_is_not_told_again(self, crisp: Crisp, tells: Teller) -> None:
        crisp.add("u0@example.com", "Same", phone="1")
        tells.tell(told("u0", row("u0", name="Same", phone="1"), members_left=9))
        assert crisp.calls()[3:] == [DATA]

    def test_after_a_month_it_is_begun_anew(self, crisp: Crisp, tells: Teller) -> None:
        crisp.add("u0@example.com")
        self.tell_all(tells, 3, left=50)
        assert self.pages(crisp) == 2
        later = NOW + timedelta(days=31)
        tells.to = destination(crisp, tells.known, clock=lambda: later)
        tells.tell(told("u9", row("u9"), members_left=50))
        assert self.pages(crisp) == 4


class TestAnswers:
    """What an answer means; nothing of a body goes anywhere."""

    @pytest.mark.parametrize(
        ("status", "expected", "text"),
        [
            ("401", CredentialsRefused, r"key refused \(401\b"),
            ("403", CredentialsRefused, r"key refused \(403\b"),
            ("402", DestinationPaused, r"plan does not include this \(402\)"),
            ("420", RetryLater, r"too many requests \(420\)"),
            ("429", RetryLater, r"too many requests \(429\)"),
            ("423", QuotaUsed, r"quota is used \(423\)"),
            ("500", RetryLater, r"unavailable \(500\)"),
            ("503", RetryLater, r"unavailable \(503\)"),
            ("405", DestinationPaused, "unexpected answer 405"),
            ("404", DestinationPaused, r"website is not there, or not ours \(404\)"),
            ("html", RetryLater, "not as Crisp does"),
            ("truncated", RetryLater, "broke before a complete answer"),
            ("reset", RetryLater, "broke before a complete answer"),
        ],
    )
    def test_a_new_member(self, status: str, expected: type[Exception], text: str) -> None:
        with crisp_sandbox(failures=(failure(f"{status}:1"),)) as crisp:
            tells = teller(crisp)
            with pytest.raises(expected, match=text) as raised:
                tells.tell(told("u1", row("u1")))
        error = raised.value
        assert isinstance(error, RetryLater) is (expected is RetryLater)
        assert getattr(error, "slow_down", False) is (status in ("420", "429"))
        if isinstance(error, QuotaUsed):
            assert error.until == NOW.replace(hour=0, minute=0) + timedelta(days=1)
        assert tells.known.contacts == {}

    def test_what_is_refused_for_its_content_is_one_member(self) -> None:
        with crisp_sandbox(failures=(failure("400:1"),)) as crisp:
            (refusal,) = teller(crisp).tell(told("u1", row("u1"))).refusals
        assert not refusal.skipped
        assert re.search(r"request refused \(400", refusal.reason)

    def test_a_value_that_crisp_refuses(self, crisp: Crisp, tells: Teller) -> None:
        """The profile was made; the member is known from then on."""
        sent = tells.tell(told("u1", row("u1", essay="x" * 20_000)))
        assert [refusal.reason for refusal in sent.refusals] == [
            "crisp: request refused (400, invalid_data)"
        ]
        tells.tell(told("u1", row("u1")))
        assert crisp.calls() == [CREATED, "PATCH people/data/{who} 400", DATA]

    def test_a_key_that_was_replaced_is_read_again(self, crisp: Crisp) -> None:
        tells = teller(crisp, api_key="sandbox:old", reread=lambda: "sandbox:sandbox-key")
        with pytest.raises(RetryLater, match="there is a new one"):
            tells.tell(told("u1", row("u1")))
        assert tells.tell(told("u1", row("u1"))).refusals == []

    def test_the_tier_is_said(self) -> None:
        with crisp_sandbox(tiers=("website",)) as crisp:
            with pytest.raises(CredentialsRefused):
                teller(crisp).tell(told("u1", row("u1")))
            assert teller(crisp, tier="website").tell(told("u1", row("u1"))).refusals == []

    def test_every_request_is_asked_for_first(self, crisp: Crisp, tells: Teller) -> None:
        crisp.add("u1@example.com")
        made = tells.to.calls(
            [told("u1", row("u1", name="N"), members_left=2)],
        )
        assert isinstance(made, MemberCalls)
        asked: list[int] = []
        sender = tells.to.sender()
        sender.send([made], asked.append)
        sender.close()
        assert asked == [1] * (len(crisp.calls()) - 1)


def test_nothing_is_ever_replaced_or_removed() -> None:
    """PUT would replace a whole profile, or all custom data, also what others have written."""
    assert {*get_args(Method)} == {"GET", "HEAD", "POST", "PATCH"}


class TestReach:
    def test_nothing_is_written(self, crisp: Crisp, tells: Teller) -> None:
        tells.to.reach()
        assert crisp.calls() == ["GET people/profiles/{page} 200"]

    def test_the_website_is_found(self, crisp: Crisp) -> None:
        tells = teller(crisp, website_id=None)
        tells.to.reach()
        tells.tell(told("u1", row("u1")))
        asked = [call for call in crisp.calls() if "websites" in call]
        assert len(asked) == 2, "once, until a page has no other"
        assert only(crisp)["data"]["vip"] is True

    def test_and_remembered(self, crisp: Crisp) -> None:
        tells = teller(crisp, website_id=None)
        tells.tell(told("u1", row("u1")))
        tells.to = destination(crisp, tells.known, website_id=None)
        tells.tell(told("u2", row("u2")))
        assert sum("websites" in call for call in crisp.calls()) == 2
        with crisp_sandbox(websites=("elsewhere",)) as other:
            tells.to = destination(other, tells.known, website_id=None)
            with pytest.raises(DestinationPaused, match="not there, or not ours"):
                tells.tell(told("u3", row("u3")))

    @pytest.mark.parametrize("count", [2, 45])
    def test_several_websites_are_an_error_that_lists_them(self, count: int) -> None:
        ids = tuple(f"5a9d8c2e-0000-4000-8000-5a9db0c5a{n:03}" for n in range(count))
        with (
            crisp_sandbox(websites=ids) as crisp,
            pytest.raises(ConfigError, match=f"for {count} websites, write one of them") as raised,
        ):
            teller(crisp, website_id=None).to.reach()
        assert ids[0] in str(raised.value)
        assert ("and 35 more" in str(raised.value)) is (count == 45)

    @pytest.mark.parametrize(
        ("wrong", "expected"),
        [
            ({"website_id": "elsewhere"}, DestinationPaused),
            ({"api_key": "sandbox:wrong"}, CredentialsRefused),
            ({"tier": "gold"}, CredentialsRefused),
            ({"website_id": None, "tier": "website"}, CredentialsRefused),
            ({"endpoint": "http://127.0.0.1:9/v1"}, RetryLater),
        ],
    )
    def test_what_is_wrong_is_said(
        self, crisp: Crisp, wrong: dict[str, Any], expected: type[Exception]
    ) -> None:
        with pytest.raises(expected) as raised:
            teller(crisp, **wrong).to.reach()
        assert "wrong" not in str(raised.value)
