"""What no single value shows: names that collide, names of nothing, secrets in the open.

Every check looks at the merged draft, of which any part may be wrong, so that all problems of a
configuration are told at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from audience_sync.config.address import has_literal_password, secrets_of
from audience_sync.config.amounts import DEFAULT_RESERVE, reserve
from audience_sync.config.crisp import TIERS_OF_ONE_WEBSITE
from audience_sync.config.draft import AUDIENCES, Draft
from audience_sync.config.explain import did_you_mean
from audience_sync.config.listening import listen
from audience_sync.config.placeholder import OF_SANDBOX, is_placeholder
from audience_sync.config.places import Findings, KeyPath
from audience_sync.domain.quota import Lane, parse_quota, quota_of
from audience_sync.domain.trait_key import fold, refusal, trait_key

LONGEST_NAME = 200
SECRET_ARGUMENT = re.compile(
    r"password|passwd|passcode|pwd|secret|token(?!_)|private_key\Z|credentials_base64",
    re.IGNORECASE,
)


def check(draft: Draft, findings: Findings) -> None:
    """All checks that need every file of the configuration."""
    _check_any(draft, findings)
    _check_names(draft, findings)
    _check_keys(draft, findings)
    _check_references(draft, findings, "sources")
    _check_references(draft, findings, "destinations")
    _check_twice(draft, findings)
    _check_paths(draft, findings)
    _check_status(draft, findings)
    _check_quotas(draft, findings)
    _check_websites(draft, findings)


def check_secrets(draft: Draft, findings: Findings) -> None:
    """Secrets that stand in the file itself; the others are remembered in ``draft.secrets``."""
    for path, key, example in _secrets(draft):
        draft.secrets.update(_hidden(path, key))
        harmless = key in OF_SANDBOX or is_placeholder(key)
        if path not in draft.outside and not harmless and not draft.fails(path):
            findings.warn(
                draft.place(path),
                "the secret stands in the file itself",
                f'write "${{{example}}}" or "${{file:/path}}"',
            )
    for path, url in _addresses(draft):
        draft.secrets.update(secrets_of(url))
        if has_literal_password(draft.written.get(path, url)):
            hint = 'write "${NAME}" or "${file:/path}" in its place'
            findings.problem(draft.place(path), "a password stands in the file itself", hint)


def _hidden(path: KeyPath, key: str) -> set[str]:
    """Of ``identifier:key`` the key by itself too."""
    parts = {key.partition(":")[2]} - {""} if path[-1] == "api_key" else set()
    return {key} | parts


def _secrets(draft: Draft) -> Iterator[tuple[KeyPath, str, str]]:
    for path, key in _strings(draft, "destinations", "write_key"):
        yield path, key, "SEGMENT_WRITE_KEY"
    for path, key in _strings(draft, "destinations", "api_key"):
        yield path, key, "CRISP_API_KEY"
    for name, table in draft.tables("sources").items():
        arguments = table.get("connect_args")
        for key, value in arguments.items() if isinstance(arguments, dict) else ():
            if isinstance(value, str) and SECRET_ARGUMENT.search(key):
                yield ("sources", name, "connect_args", key), value, key.upper()

    token = draft.value(("status", "token"))
    if isinstance(token, str):
        yield ("status", "token"), token, "STATUS_TOKEN"


def _strings(draft: Draft, tables: str, key: str) -> Iterator[tuple[KeyPath, str]]:
    for name, table in draft.tables(tables).items():
        if isinstance(table.get(key), str):
            yield (tables, name, key), table[key]


def _addresses(draft: Draft) -> Iterator[tuple[KeyPath, str]]:
    url = draft.value(("store", "url"))
    if isinstance(url, str):
        yield ("store", "url"), url
    yield from _strings(draft, "sources", "url")
    yield from _strings(draft, "destinations", "endpoint")


def _check_any(draft: Draft, findings: Findings) -> None:
    if not any(draft.data[array] or draft.fails((array,)) for array in AUDIENCES):
        hint = "add [[audiences]] or [[computed_traits]]"
        findings.problem(draft.place(("audiences",)), "there are none", hint)


def _check_names(draft: Draft, findings: Findings) -> None:
    first: dict[str, tuple[KeyPath, str]] = {}
    for path, name in _named(draft):
        earlier = first.setdefault(fold(name), (path, name))
        if earlier[0] == path:
            continue
        spot = draft.place(earlier[0]).spot
        if earlier[1] == name:
            text, hint = f"the same name as the {_what(earlier[0])} at {spot}", "rename one"
        else:
            text = f"collides with {draft.shown(*earlier)} at {spot}"
            hint = "they differ only in case or in how letters are encoded; rename one"
        findings.problem(draft.place(path), text, hint)


def _named(draft: Draft) -> Iterator[tuple[KeyPath, str]]:
    for path, audience in draft.audiences():
        name = audience.get("name")
        if isinstance(name, str) and name.strip() and not draft.fails((*path, "name")):
            yield (*path, "name"), name


def _check_keys(draft: Draft, findings: Findings) -> None:
    names: set[str] = set()
    first: dict[str, KeyPath] = {}
    for path, name, key in _keyed(draft):
        explicit = path[-1] == "key"
        refused = refusal(key)
        if refused:
            what = draft.shown(path, key if explicit or key else name)
            hint = "choose another" if explicit else 'write key = "…" to choose the trait key'
            findings.problem(draft.place(path), f"{what} {refused}", hint)
            continue
        earlier = first.setdefault(key, path)
        if earlier != path and (explicit or fold(name) not in names):
            text = f"trait key {draft.shown(path, key)} is also that of the {_what(earlier)} at"
            hint = 'write key = "…" to choose another'
            findings.problem(draft.place(path), f"{text} {draft.place(earlier).spot}", hint)
        names.add(fold(name))


def _what(path: KeyPath) -> str:
    return "audience" if path[0] == "audiences" else "computed trait"


def _keyed(draft: Draft) -> Iterator[tuple[KeyPath, str, str]]:
    """Where the trait key of each audience comes from, the audience's name, and the key."""
    names = dict(_named(draft))
    for path, audience in draft.audiences():
        name, key = names.get((*path, "name"), ""), audience.get("key")
        if isinstance(key, str) and not draft.fails((*path, "key")):
            yield (*path, "key"), name, key
        elif name and key is None and len(name) <= LONGEST_NAME:
            yield (*path, "name"), name, trait_key(name)


def _check_references(draft: Draft, findings: Findings, kind: str) -> None:
    one = kind.removesuffix("s")
    defined = draft.data.get(kind, {})
    if not isinstance(defined, dict):
        return
    used: set[Any] = set()
    for path, name in _references(draft, kind):
        used.add(name)
        if name not in defined and not draft.fails(path):
            hint = did_you_mean(name, defined) or f"add [{kind}.…]"
            findings.problem(draft.place(path), f"unknown {one} {draft.shown(path, name)}", hint)
    for name in defined:
        if name not in used:
            findings.warn(
                draft.place((kind, name)), "no audience uses it", "take it out, or name it in one"
            )


def _references(draft: Draft, kind: str) -> Iterator[tuple[KeyPath, str]]:
    for path, audience in draft.audiences():
        if kind == "sources" and isinstance(audience.get("source"), str):
            yield (*path, "source"), audience["source"]
        names = audience.get("destinations")
        if kind == "destinations" and isinstance(names, list):
            for index, name in enumerate(names):
                if isinstance(name, str):
                    yield (*path, "destinations", index), name


def _check_twice(draft: Draft, findings: Findings) -> None:
    for path, audience in draft.audiences():
        for key in ("destinations", "tell"):
            values = audience.get(key)
            named = values if isinstance(values, list) else []
            for index, value in enumerate(named):
                if isinstance(value, str) and named.index(value) < index:
                    item = (*path, key, index)
                    text = f"{draft.shown(item, value)} is named twice"
                    findings.problem(draft.place(item), text, "name it once")


def _check_paths(draft: Draft, findings: Findings) -> None:
    """Each destination appends to a file of its own: a call is told apart by its file."""
    first: dict[str, KeyPath] = {}
    for path, file in _strings(draft, "destinations", "path"):
        if not file.strip() or "\0" in file or draft.fails(path):
            continue
        earlier = first.setdefault(os.path.realpath(file), path)
        if earlier != path:
            spot = draft.place(earlier).spot
            text = f"the same file as of the destination at {spot}"
            findings.problem(draft.place(path), text, "give each a file of its own")


def _check_status(draft: Draft, findings: Findings) -> None:
    """Who can reach the server from elsewhere must have a token."""
    path, table = ("status", "listen"), draft.value(("status",))
    if not isinstance(table, dict) or "token" in table or draft.fails(path):
        return
    try:
        open_to_others = not listen(draft.value(path)).is_loopback
    except (TypeError, ValueError):  # absent, or told already
        return
    if open_to_others:
        text = "other machines can reach it, and there is no token"
        hint = 'write token = "${STATUS_TOKEN}", or listen on 127.0.0.1'
        findings.problem(draft.place(path), text, hint)


def _check_quotas(draft: Draft, findings: Findings) -> None:
    """Each lane can tell somebody every day, whatever the other one does."""
    for path, text in _strings(draft, "destinations", "quota"):
        table = draft.tables("destinations")[str(path[1])]
        try:
            quota, kept = parse_quota(text), reserve(table.get("reserve", DEFAULT_RESERVE))
        except (ValueError, TypeError):
            continue  # which is told already
        member = 2 if table.get("calls") == ["identify", "track"] else 1
        member += 2 if table.get("type") == "crisp" else 0
        initial = quota_of(Lane.INITIAL, quota=quota, reserve=kept)
        if min(initial, quota - initial) < member and not draft.fails(path):
            shares = f"{initial:,} for first deliveries and {quota - initial:,} for others"
            findings.problem(
                draft.place(path),
                f"with this reserve it is {shares}, and a member needs {member}",
                "a larger quota, or another reserve",
            )


def _check_websites(draft: Draft, findings: Findings) -> None:
    """Only a plugin's key can be asked for its websites."""
    for path, tier in _strings(draft, "destinations", "tier"):
        table = draft.tables("destinations")[str(path[1])]
        named = "website_id" in table or table.get("type") != "crisp" or draft.fails(path)
        if tier in TIERS_OF_ONE_WEBSITE and not named:
            text = f"a key of the tier {tier} cannot be asked which website it is for"
            hint = 'write website_id = "…", which Crisp shows in the settings of the website'
            findings.problem(draft.place(path), text, hint)
