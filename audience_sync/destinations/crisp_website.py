"""Which website of Crisp a destination is."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from audience_sync.destinations.crisp_api import CrispApi, Outcome, encoded
from audience_sync.destinations.crisp_people import people_of
from audience_sync.errors import AudienceSyncError, ConfigError, DestinationPaused
from audience_sync.pipeline.ports.sending import Contacts, MaySend

MOST_PAGES = 50
"""Of websites; an agency may have a thousand, and they need not all be shown."""

SHOWN = 10

ASKED_FOR_WEBSITE = 2
"""Requests: a page with the only one, and one that has no other."""

SEEN_FOR = 60.0
"""Seconds for which a website that was there is taken to be there still."""


class Website:
    """Named in the configuration, or the only one of the key. Used by many threads."""

    def __init__(
        self,
        name: str,
        website_id: str | None,
        contacts: Contacts,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._id = website_id
        self._contacts = contacts
        self._elapsed = elapsed
        self._seen_at = -math.inf
        self._lock = threading.Lock()

    def path(self, api: CrispApi, may_send: MaySend, *, keep: bool = True) -> str:
        """``website/{website_id}``, encoded; Crisp is asked for it once, and it is remembered.

        So a key that is replaced by one of another website is refused, and tells nobody there.

        Args:
            keep: write it down in the store.

        Raises:
            ConfigError: the key is of several websites, or of none.
        """
        with self._lock:
            if self._id is None:
                self._id = self._contacts.website()
            if self._id is None:
                self._id = the_only_one(self._name, websites(self._name, api, may_send))
                if keep:
                    self._contacts.keep_website(self._id)
        return f"website/{encoded(self._id)}"

    def seen(self) -> None:
        """Crisp answered something of it."""
        self._seen_at = self._elapsed()

    def check(self, api: CrispApi, may_send: MaySend) -> None:
        """Return when the website is there, which 404 on one person does not say.

        Raises:
            DestinationPaused: it is not, or not ours.
        """
        if self._elapsed() - self._seen_at > SEEN_FOR:
            people_of(api, self.path(api, may_send), 1, may_send)
            self.seen()


def websites(name: str, api: CrispApi, may_send: MaySend) -> list[tuple[str, str]]:
    """Ids and names of the websites on which the key's plugin is installed."""
    found: dict[str, str] = {}
    for page in range(1, MOST_PAGES + 1):
        answered = api.ask("GET", f"plugin/connect/websites/all/{page}", may_send=may_send)
        if answered.outcome is not Outcome.DONE or not isinstance(answered.data, list):
            raise DestinationPaused(
                f"{name}: Crisp does not say which websites the key is for",
                hint="write `website_id`, which Crisp shows in the settings of the website",
            )
        new = dict(map(_website, answered.data))
        if not new.keys() - found.keys():
            break
        found |= new
    found.pop("", None)
    return sorted(found.items())


def the_only_one(name: str, found: Sequence[tuple[str, str]]) -> str:
    """Raises ConfigError unless there is exactly one."""
    if len(found) == 1:
        return found[0][0]
    raise (
        _several(name, found)
        if found
        else ConfigError(
            [
                f"destinations.{name}: the key is for no website: install the plugin on one, "
                "or check `api_key` and `tier`"
            ]
        )
    )


def _several(name: str, found: Sequence[tuple[str, str]]) -> AudienceSyncError:
    listed = ", ".join(f"{i} ({label})" if label else i for i, label in found[:SHOWN])
    more = f", and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return ConfigError(
        [
            f"destinations.{name}.website_id: the key is for {len(found):,} websites, "
            f"write one of them: {listed}{more}"
        ]
    )


def _website(listed: object) -> tuple[str, str]:
    if not isinstance(listed, Mapping):
        return "", ""
    website_id, label = listed.get("website_id"), listed.get("name") or listed.get("domain")
    return (
        website_id if isinstance(website_id, str) else "",
        label if isinstance(label, str) and label.isprintable() else "",
    )
