"""Contacts on both databases: who is who, what was told of them, and nothing of the forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from audience_sync.domain.audience import AudienceKey, Tell
from audience_sync.domain.contact import Contact, Listing, Person, ToldColumn, read, written
from audience_sync.domain.guard import Limits
from audience_sync.domain.span import Tally
from audience_sync.errors import LeaseLost
from audience_sync.store import contacts, schema
from audience_sync.store.contacts import Contacts
from audience_sync.store.engine import Database
from audience_sync.store.forget import Forgetting, Order
from audience_sync.store.ids import destination_id
from audience_sync.store.installation import installation_of
from audience_sync.store.leases import HeldLease, Leases
from audience_sync.store.orders import Given
from tests.fakes.snapshot_log import HOUR, START, Clock, Log, execute, new_lease, people, scalar
from tests.fakes.teller import Teller

NAME = ToldColumn("aaaa", START)
EMAIL = ToldColumn("bbbb", START)


@pytest.fixture
def crisp(database: Database) -> Contacts:
    installation_of(database, START)
    return Contacts(database, "crisp")


@pytest.fixture
def lease(database: Database) -> HeldLease:
    return Leases(database).acquire("deliver:crisp:initial")


def ann(**other: Any) -> Contact:
    values: dict[str, Any] = {
        "user_id": "u-ann",
        "people_id": "p-ann",
        "email": "ann@example.com",
        "as_of": START,
        "profile": written({"email": EMAIL, "name": NAME}),
    }
    return Contact(**(values | other))


def put(database: Database, lease: HeldLease, *known: Contact, to: str = "crisp") -> None:
    with database.write(lease) as connection:
        contacts.put(connection, destination_id(connection, to), known)


class TestFound:
    def test_nobody_is_known_at_first(self, crisp: Contacts) -> None:
        assert crisp.find(["u-ann"]) == {}
        assert crisp.by_email(["ann@example.com"]) == {}
        assert crisp.listing() is None
        assert crisp.known() == 0

    def test_nobody_is_found_by_reading_all(self, sqlite_url: str) -> None:
        """One look-up for each member of a first delivery: each must take an index."""
        database = Database(sqlite_url)
        asked: list[tuple[str, Any]] = []

        def note(*what: Any) -> None:
            asked.append((what[2], what[3]))

        event.listen(Engine, "before_cursor_execute", note)
        try:
            Contacts(database, "crisp").by_email(["ann@example.com"])
            Contacts(database, "crisp").find(["u-ann"])
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        steps = []
        with database.read() as connection:
            for statement, parameters in asked:
                plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
                steps += [row.detail for row in plan]
        database.close()
        of_people = [step for step in steps if " contact " in step or " person " in step]
        assert len(of_people) == 3
        assert all("destination_id=? AND" in step for step in of_people), of_people

    def test_by_user_and_by_email_in_any_case(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        put(database, lease, ann())
        assert crisp.find(["u-ann", "u-bob"]) == {"u-ann": ann()}
        (person,) = crisp.by_email([" Ann@Example.com", "bob@example.com"]).values()
        assert (person.email, person.people_id) == ("ann@example.com", "p-ann")
        assert person.profile == ann().profile
        assert crisp.known() == 1

    def test_ids_are_told_apart_by_their_bytes(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        users = ["a", "A", "á", "\u0061\u0301", "ａ", "𝔸", "a "]
        put(database, lease, *(ann(user_id=u, people_id=f"p{n}") for n, u in enumerate(users)))
        found = crisp.find(users)
        assert {u: found[u].people_id for u in users} == {u: f"p{n}" for n, u in enumerate(users)}

    def test_more_than_one_statement_can_ask_for(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        many = [ann(user_id=f"u{n}", email=f"u{n}@example.com") for n in range(1_300)]
        put(database, lease, *many)
        assert crisp.find([one.user_id for one in many]) == {one.user_id: one for one in many}
        assert len(crisp.by_email([f"u{n}@example.com" for n in range(1_300)])) == 1_300

    def test_each_destination_has_its_own(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        put(database, lease, ann(people_id="p-other"), to="other")
        assert crisp.find(["u-ann"]) == {}
        assert crisp.by_email(["ann@example.com"]) == {}
        assert Contacts(database, "other").find(["u-ann"])["u-ann"].people_id == "p-other"


class TestPut:
    def test_only_under_the_lease(self, crisp: Contacts, database: Database) -> None:
        lost = new_lease(database)
        new_lease(database)
        with pytest.raises(LeaseLost):
            put(database, lost, ann())
        assert crisp.find(["u-ann"]) == {}

    def test_of_each_column_the_newest_stays(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        """The other lane may have told something newer since this one looked."""
        new = {"email": EMAIL, "name": ToldColumn("cccc", START + 2 * HOUR)}
        put(database, lease, ann(as_of=START + 2 * HOUR, profile=written(new)))
        old = {"name": ToldColumn("dddd", START + HOUR), "phone": ToldColumn("eeee", START + HOUR)}
        put(database, lease, ann(as_of=START + HOUR, profile=written(old)))
        (found,) = crisp.find(["u-ann"]).values()
        assert read(found.profile) == new | {"phone": old["phone"]}
        assert found.as_of == START + 2 * HOUR

    def test_an_older_email_does_not_take_the_place_of_a_newer(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        new = {"email": ToldColumn("cccc", START + HOUR)}
        put(database, lease, ann(email="new@example.com", profile=written(new)))
        put(database, lease, ann())
        (found,) = crisp.find(["u-ann"]).values()
        assert found.email == "new@example.com"
        put(database, lease, ann(email=None, profile=""))
        assert crisp.find(["u-ann"])["u-ann"].email == "new@example.com"

    def test_another_person_was_told_nothing(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        put(database, lease, ann())
        name = written({"name": NAME})
        put(database, lease, ann(people_id="p-anew", profile=name))
        (found,) = crisp.find(["u-ann"]).values()
        assert (found.people_id, found.profile, found.email) == ("p-anew", name, "ann@example.com")

    def test_twice_in_one_go(self, crisp: Contacts, database: Database, lease: HeldLease) -> None:
        later = {"name": ToldColumn("cccc", START + HOUR)}
        put(database, lease, ann(), ann(profile=written(later)), ann(profile=""))
        (found,) = crisp.find(["u-ann"]).values()
        assert read(found.profile) == {"email": EMAIL} | later


class TestListed:
    def test_pages_add_up_and_are_remembered(self, crisp: Contacts) -> None:
        began = START + timedelta(seconds=1)
        name = written({"name": ToldColumn("aaaa", None)})
        crisp.keep_page(
            [Person(email="Ann@example.com", people_id="p-ann", profile=name)],
            Listing(page=1, is_complete=False, began_at=began),
        )
        last = Listing(page=2, is_complete=True, began_at=began)
        crisp.keep_page([Person(email="bob@example.com", people_id="p-bob")], last)
        assert crisp.listing() == last
        found = crisp.by_email(["ann@example.com", "BOB@example.com", "eve@example.com"])
        assert {email: person.people_id for email, person in found.items()} == {
            "ann@example.com": "p-ann",
            "bob@example.com": "p-bob",
        }
        assert found["ann@example.com"].profile == name

    def test_a_page_that_comes_again_is_newer(self, crisp: Contacts) -> None:
        page = Listing(page=1, is_complete=False, began_at=START)
        for people_id in ("p-1", "p-2"):
            crisp.keep_page([Person(email="ann@example.com", people_id=people_id)] * 2, page)
        assert crisp.by_email(["ann@example.com"])["ann@example.com"].people_id == "p-2"

    def test_no_email_of_a_listed_person_is_stored(
        self, crisp: Contacts, database: Database
    ) -> None:
        page = Listing(page=1, is_complete=False, began_at=START)
        crisp.keep_page([Person(email="stranger@example.com", people_id="p-1")], page)
        with database.read() as connection:
            (row,) = connection.execute(select(schema.person)).all()
        assert "stranger" not in str(row)

    def test_whom_we_met_ourselves_counts(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        put(database, lease, ann())
        page = Listing(page=1, is_complete=False, began_at=START)
        crisp.keep_page([Person(email="ann@example.com", people_id="p-old")], page)
        assert crisp.by_email(["ann@example.com"])["ann@example.com"].people_id == "p-ann"


def test_the_website_that_was_found(crisp: Contacts, database: Database) -> None:
    assert crisp.website() is None
    crisp.keep_website("w-1")
    assert crisp.website() == "w-1"
    assert Contacts(database, "other").website() is None


class TestForgotten:
    def forget(self, database: Database, *user_ids: str, typed: tuple[str, ...] = ()) -> None:
        execute(database, "UPDATE lease SET expires_at = 0")
        order = Order(user_ids=user_ids, typed=typed, given=Given(actor="ann@ops"))
        Forgetting(database, Leases(database), Clock()).forget(order)

    def test_the_contact_and_what_was_listed_go(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        put(database, lease, ann(), ann(user_id="u-bob", people_id="p-bob", email="bob@b.example"))
        put(database, lease, ann(people_id="p-there"), to="other")
        page = Listing(page=1, is_complete=False, began_at=START)
        for email, people_id in (("ann@example.com", "p-ann"), ("eve@e.example", "p-eve")):
            crisp.keep_page([Person(email=email, people_id=people_id)], page)
        # By another address of hers, which we would not know otherwise.
        crisp.keep_page([Person(email="ann@home.example", people_id="p-ann")], page)
        self.forget(database, "u-ann")
        assert [*crisp.find(["u-ann", "u-bob"])] == ["u-bob"]
        assert Contacts(database, "other").find(["u-ann"]) == {}
        assert scalar(database, "SELECT count(*) FROM person") == 1
        assert [*crisp.by_email(["ann@example.com", "eve@e.example"])] == ["eve@e.example"]
        if database.path is not None:
            files = b"".join(p.read_bytes() for p in database.path.parent.glob("*.db*"))
            assert b"u-ann" not in files
            assert b"ann@example.com" not in files

    def test_nobody_comes_back_by_what_was_on_its_way(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        """A process that was frozen since before the order stores what it was answered then."""
        crisp.keep([ann()])
        crisp.keep([ann(people_id="p-new")])
        assert crisp.find(["u-ann"])["u-ann"].people_id == "p-new"
        self.forget(database, "u-ann")
        crisp.keep([ann()])
        assert crisp.find(["u-ann"]) == {}

    def test_an_email_that_only_the_contact_has(
        self, crisp: Contacts, database: Database, lease: HeldLease
    ) -> None:
        put(database, lease, ann())
        self.forget(database, "Ann@Example.com", typed=("Ann@Example.com",))
        assert crisp.find(["u-ann"]) == {}


def test_contacts_come_with_the_position(
    crisp: Contacts, database: Database, lease: HeldLease
) -> None:
    log = Log(database)
    log.put(people("a", "b"))
    (waiting,) = log.spans.waiting("crisp", [log.key])
    span = log.spans.open(waiting, "crisp", tell=frozenset(Tell), limits=Limits(), lease=lease)
    assert span is not None
    tally = Tally(last_user_id="a", accepted=1, contacts=[ann(user_id="a")])
    log.spans.advance(span, span.books.add(tally), tally, lease)
    assert [*crisp.find(["a", "b"])] == ["a"]
    new_lease(database)
    late = Tally(last_user_id="b", accepted=1, contacts=[ann(user_id="b")])
    with pytest.raises(LeaseLost):
        log.spans.advance(span, span.books.add(late), late, lease)
    assert [*crisp.find(["a", "b"])] == ["a"]


class TestSkipped:
    """Skipped for want of a profile, and taken up when another audience has made one."""

    @pytest.fixture
    def log(self, database: Database) -> Log:
        installation_of(database, START)
        return Log(database)

    def test_taken_up_when_somebody_has_made_it(self, log: Log, lease: HeldLease) -> None:
        other = Teller(Log(log.database, key=AudienceKey("other"), clock=log.clock))
        log.put(people("a", "b", "c"))
        other.log.put(people("a"))
        teller = Teller(log)
        assert teller.run(refuse=["a", "b"], outcome="skipped") == ["+c"]
        assert teller.run() == []
        span = other.open()
        assert span is not None
        tally = Tally(last_user_id="a", accepted=1, contacts=[ann(user_id="a"), ann(user_id="c")])
        log.spans.advance(span, span.books.add(tally), tally, other.lease())
        assert teller.run() == ["+a"], "b has no profile yet"
        assert teller.stand() == ["b"]
        assert teller.run() == []

    def test_taken_up_when_it_was_made_at_the_same_moment(self, log: Log, lease: HeldLease) -> None:
        log.put(people("a", "b"))
        put(log.database, lease, ann(user_id="a"))
        teller = Teller(log)
        teller.run(refuse=["a", "b"], outcome="skipped")
        assert teller.run() == ["+a"]
        assert teller.run() == []

    def test_who_is_known_to_be_gone_is_not(self, log: Log, lease: HeldLease) -> None:
        log.put(people("a"))
        put(log.database, lease, ann(user_id="a", people_id=None))
        teller = Teller(log)
        teller.run(refuse=["a"], outcome="skipped")
        assert teller.run() == []

    def test_nor_who_was_rejected(self, log: Log, lease: HeldLease) -> None:
        log.put(people("a"))
        put(log.database, lease, ann(user_id="a"))
        teller = Teller(log)
        teller.run(refuse=["a"], outcome="rejected")
        assert teller.run() == []
