"""What every TOML table is checked by."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Table(BaseModel):
    """A TOML table. Types are strict: ``"500"`` is no integer; an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, validate_default=True, hide_input_in_errors=True
    )


def default(text: str, description: str) -> Any:
    """A default as a person would write it, parsed like any other value."""
    return Field(text, description=description)
