"""Contacts: who a user is among a destination's own people.

Contacts are written with the position that was moved over them, under the lane's lease. What the
destination lists of its people is no one's state, so it is written under no lease: whoever lists
them finds the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from audience_sync.domain.contact import Contact, Listing, Person, folded, learned
from audience_sync.domain.forgotten import reference
from audience_sync.store.engine import Database
from audience_sync.store.ids import destination_id
from audience_sync.store.schema import (
    contact,
    destination,
    forgotten,
    installation,
    listing,
    person,
    rejection,
)

SOME = 500
"""Parameters of one statement."""


class Contacts:
    """What is known at one destination. Empty until something is learned."""

    def __init__(self, database: Database, destination_name: str) -> None:
        self._database = database
        self._name = destination_name

    def find(self, user_ids: Collection[str]) -> dict[str, Contact]:
        """Those who are known; users by their ids."""
        found: dict[str, Contact] = {}
        with self._database.read() as connection:
            for some in _parts(user_ids):
                query = self._of(contact).where(contact.c.user_id.in_(some))
                found |= {row.user_id: contact_of(row) for row in connection.execute(query)}
        return found

    def by_email(self, emails: Collection[str]) -> dict[str, Person]:
        """People with one of ``emails``: other contacts, or as they were listed.

        Keys are ``folded``. Of several, what we have met ourselves.
        """
        wanted = {folded(email) for email in emails}
        found: dict[str, Person] = {}
        with self._database.read() as connection:
            salt = connection.scalar(select(installation.c.secret)) or ""
            references = {reference(salt, email): email for email in wanted}
            for some in _parts(references):
                query = self._of(person).where(person.c.reference.in_(some))
                for row in connection.execute(query):
                    email = references[row.reference]
                    found[email] = Person(email=email, people_id=row.people_id, profile=row.profile)
            for some in _parts(wanted):
                query = self._of(contact).where(contact.c.email.in_(some))
                met = connection.execute(query.where(contact.c.people_id.is_not(None)))
                # Sorted here: for an ORDER BY, SQLite would read all contacts by another index.
                for row in sorted(met, key=attrgetter("user_id")):
                    found[row.email] = Person(
                        email=row.email, people_id=row.people_id, profile=row.profile
                    )
        return found

    def known(self) -> int:
        """How many contacts there are."""
        query = select(func.count()).select_from(contact).where(self._here(contact))
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()

    def listing(self) -> Listing | None:
        with self._database.read() as connection:
            row = connection.execute(self._of(listing)).one_or_none()
        if row is None:
            return None
        return Listing(page=row.page, is_complete=row.is_complete, began_at=row.began_at)

    def keep_page(self, people: Sequence[Person], now_at: Listing) -> None:
        """Store a page of people, and that it is stored."""
        with self._database.write() as connection:
            owner = destination_id(connection, self._name)
            _put_people(connection, owner, people)
            row: dict[str, Any] = {
                "destination_id": owner,
                "began_at": now_at.began_at,
                "page": now_at.page,
                "is_complete": now_at.is_complete,
            }
            _upsert(connection, listing, [row], ("destination_id",))

    def keep(self, some: Collection[Contact]) -> None:
        """Store contacts before a position moves over them, so that who is told again after a kill
        is known. Under no lease: it says what the destination was told, by whomever. Who was
        forgotten stays so."""
        with self._database.write() as connection:
            salt = connection.scalar(select(installation.c.secret)) or ""
            references = {reference(salt, one.user_id): one.user_id for one in some}
            gone: set[str] = set()
            for part in _parts(references):
                query = select(forgotten.c.reference).where(forgotten.c.reference.in_(part))
                gone |= {references[found] for found in connection.scalars(query)}
            left = [one for one in some if one.user_id not in gone]
            put(connection, destination_id(connection, self._name), left)

    def website(self) -> str | None:
        query = select(destination.c.website_id).where(destination.c.name == self._name)
        with self._database.read() as connection:
            found: str | None = connection.scalar(query)
        return found

    def keep_website(self, website_id: str) -> None:
        with self._database.write() as connection:
            owner = destination_id(connection, self._name)
            here = update(destination).where(destination.c.id == owner)
            connection.execute(here.values(website_id=website_id))

    def _of(self, table: Table) -> Select[Any]:
        return select(table).where(self._here(table))

    def _here(self, table: Table) -> ColumnElement[bool]:
        owner = select(destination.c.id).where(destination.c.name == self._name)
        return table.c.destination_id == owner.scalar_subquery()


def lock(connection: Connection, owner: int) -> None:
    """Both lanes may have met the same user: on PostgreSQL they wait for each other here."""
    row = select(destination.c.id).where(destination.c.id == owner)
    connection.execute(row.with_for_update(key_share=True))


def put(connection: Connection, owner: int, contacts: Collection[Contact]) -> None:
    """Store contacts of the destination ``owner``; see ``domain.contact.learned``."""
    if not contacts:
        return
    lock(connection, owner)
    stored: dict[str, Contact] = {}
    for some in _parts([one.user_id for one in contacts]):
        query = select(contact).where(
            contact.c.destination_id == owner, contact.c.user_id.in_(some)
        )
        stored |= {found.user_id: contact_of(found) for found in connection.execute(query)}
    for one in contacts:
        stored[one.user_id] = learned(stored.get(one.user_id), one)
    rows = [_row(owner, stored[user_id]) for user_id in {one.user_id for one in contacts}]
    _upsert(connection, contact, rows, ("destination_id", "user_id"))


def take_up_skipped(
    connection: Connection, owner: int, user_ids: Collection[str], now: datetime
) -> None:
    """Have those of ``user_ids`` told again who stand skipped and have a profile by now.

    They were skipped for want of one; another audience, which knows their e-mail, may have made it
    since, or at the same moment. Whoever has a profile is not skipped again, so this comes to an
    end.
    """
    for some in _parts(user_ids):
        met = select(contact.c.user_id).where(
            contact.c.destination_id == owner,
            contact.c.user_id.in_(some),
            contact.c.people_id.is_not(None),
        )
        skipped = update(rejection).where(
            rejection.c.destination_id == owner,
            rejection.c.user_id.in_(met),
            rejection.c.outcome == "skipped",
            rejection.c.retry_at.is_(None),
            rejection.c.retried_in.is_(None),
            rejection.c.resolved_in.is_(None),
        )
        connection.execute(skipped.values(retry_at=now))


def forget(connection: Connection, user_ids: Collection[str], typed: Collection[str]) -> int:
    """Remove the contacts of users and e-mails, and what was listed of them; how many contacts."""
    emails = {folded(one) for one in typed if "@" in one}
    whose = or_(contact.c.user_id.in_(user_ids), contact.c.email.in_(emails))
    known = connection.execute(select(contact.c.email, contact.c.people_id).where(whose)).all()
    emails |= {row.email for row in known if row.email}
    salt = connection.scalar(select(installation.c.secret)) or ""
    references = [reference(salt, email) for email in emails]
    people = [row.people_id for row in known if row.people_id]
    listed = or_(person.c.reference.in_(references), person.c.people_id.in_(people))
    connection.execute(delete(person).where(listed))
    connection.execute(delete(contact).where(whose))
    return len(known)


def contact_of(row: Row[Any]) -> Contact:
    return Contact(
        user_id=row.user_id,
        people_id=row.people_id,
        email=row.email,
        as_of=row.as_of,
        profile=row.profile,
    )


def _row(owner: int, one: Contact) -> dict[str, Any]:
    return {
        "destination_id": owner,
        "user_id": one.user_id,
        "people_id": one.people_id,
        "email": one.email,
        "as_of": one.as_of,
        "profile": one.profile,
    }


def _put_people(connection: Connection, owner: int, people: Sequence[Person]) -> None:
    salt = connection.scalar(select(installation.c.secret)) or ""
    rows = {
        reference(salt, folded(one.email)): {"people_id": one.people_id, "profile": one.profile}
        for one in people
    }
    listed = [{"destination_id": owner, "reference": key, **row} for key, row in rows.items()]
    _upsert(connection, person, listed, ("destination_id", "reference"))


def _upsert(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str]
) -> None:
    if not rows:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed), rows)


def _parts(values: Collection[str]) -> list[list[str]]:
    listed = list(values)
    return [listed[start : start + SOME] for start in range(0, len(listed), SOME)]
