"""The table ``[status]``: the daemon's own server."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from audience_sync.config import listening
from audience_sync.config.table import Table
from audience_sync.config.values import from_text


def _text(description: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, "examples": [*examples]})


Listen = Annotated[
    listening.Listen,
    from_text(listening.listen),
    _text("An IP address and a port.", "127.0.0.1:8340", "[::1]:8340"),
]
Token = Annotated[
    str,
    from_text(listening.token),
    _text("Best from outside the file.", "${STATUS_TOKEN}", "${file:/run/secrets/token}"),
]
HostName = Annotated[str, AfterValidator(listening.host_name)]
LISTEN: Any = Field("127.0.0.1:8340", description="Address and port.")


class StatusTable(Table):
    """Metrics and health over HTTP. Without this table nothing listens."""

    listen: Listen = LISTEN
    token: Token | None = Field(
        default=None, repr=False, description="Who asks must have it; needed off this machine."
    )
    hosts: list[HostName] = Field(default=[], description="Other names of this machine.")
