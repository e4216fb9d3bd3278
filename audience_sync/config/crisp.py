"""``[destinations.NAME]`` of type ``crisp``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from audience_sync.config.amounts import DEFAULT_RESERVE
from audience_sync.config.placeholder import is_placeholder
from audience_sync.config.table import Table, default
from audience_sync.config.values import (
    Calls,
    Deadline,
    Endpoint,
    Quota,
    Rate,
    Reserve,
    from_text,
    secret,
)

WEBSITE = re.compile(r"[A-Za-z0-9-]{1,64}\Z")

TIERS_OF_ONE_WEBSITE = frozenset({"website", "user"})
"""Their keys cannot be asked which website they are for."""

QUOTAS = {"plugin": 5_000, "website": 10_000}
"""Requests a day by tier (docs.crisp.chat, rate limits); none is documented for ``user``."""


def api_key(text: str) -> str:
    """``identifier:key``, as Crisp gives them.

    Raises:
        ValueError: not of this form, or a placeholder.
    """
    identifier, colon, key = text.partition(":")
    if not colon or not identifier or not key:
        raise ValueError("must be the identifier and the key, with a colon between them")
    return f"{secret(identifier)}:{secret(key)}"


def website_id(text: str) -> str:
    if is_placeholder(text):
        raise ValueError("is a placeholder; leave it out, or write the id of the website")
    if not WEBSITE.match(text):
        raise ValueError("is no id of a website: Crisp shows it in the settings of the website")
    return text


ApiKey = Annotated[
    str,
    from_text(api_key),
    WithJsonSchema(
        {
            "type": "string",
            "description": "identifier:key, best from outside the file.",
            "examples": ["${CRISP_API_KEY}", "${file:/run/secrets/crisp}"],
        }
    ),
]
WebsiteId = Annotated[
    str,
    from_text(website_id),
    WithJsonSchema({"type": "string", "examples": ["5a9d8c2e-0000-4000-8000-5a9db0c5a001"]}),
]


class CrispDestination(Table):
    type: Literal["crisp"]
    api_key: ApiKey = Field(repr=False)
    website_id: WebsiteId | None = Field(
        default=None, description="Without it the only website that the key is for."
    )
    tier: Literal["plugin", "website", "user"] = Field(
        default="plugin", description="What kind of key it is."
    )
    endpoint: Endpoint = Field(default="https://api.crisp.chat/v1")
    calls: Calls = Field(default=["identify"], description="Made of every change.")
    rate: Rate = default("10/s", "Requests.")
    quota: Quota | None = Field(
        default=None, description="Requests a day (UTC); without it that of the tier."
    )
    reserve: Reserve = default(DEFAULT_RESERVE, "Of rate and quota, kept for incremental runs.")
    concurrency: int = Field(default=4, ge=1, le=64, description="Requests in flight.")
    deadline: Deadline = default("10s", "Of one request, all in all.")
    bulk: bool = Field(default=False, description="Tell many members in one request.")

    @field_validator("bulk")
    @classmethod
    def _of_no_events(cls, bulk: bool, info: ValidationInfo) -> bool:
        if bulk and "track" in info.data.get("calls", ()):
            raise ValueError('is of no use beside "track": an event is a request for each member')
        return bulk

    @property
    def requests_a_day(self) -> int | None:
        return QUOTAS.get(self.tier) if self.quota is None else self.quota
