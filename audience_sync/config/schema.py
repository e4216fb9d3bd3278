"""The JSON schema of a configuration, for editors."""

from __future__ import annotations

from typing import Any

from audience_sync.config.model import Written

NULL = {"type": "null"}


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what a person writes: ``"20%"``, not 0.2."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, **_without_null(Written.model_json_schema()), "title": "audience-sync"}


def _without_null(value: Any) -> Any:
    """TOML has no null: a key that may be absent is not one that may be null."""
    if isinstance(value, list):
        return [_without_null(inner) for inner in value if inner != NULL]
    if not isinstance(value, dict):
        return value
    choices = value.get("anyOf", [])
    if NULL in choices:
        rest = {key: inner for key, inner in value.items() if key not in ("anyOf", "default")}
        return _without_null({**choices[0], **rest})
    return {key: _without_null(inner) for key, inner in value.items()}
