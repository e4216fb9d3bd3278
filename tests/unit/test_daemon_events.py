"""docs/daemon.md names every line that the daemon logs, and no other."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
SAID = re.compile(
    r"(?:log|get_logger\(\"audience_sync\"\))\.(?:info|warning|error)\(\s*\"([^\"]+)\""
)
NAMED = re.compile(r"`([^`]+)`")


def test_every_event_is_documented() -> None:
    said = {
        event.partition(":")[0]
        for module in (TOP / "audience_sync").rglob("*.py")
        if "sandbox" not in module.parts
        for event in SAID.findall(module.read_text())
    }
    table = (TOP / "docs" / "daemon.md").read_text().partition("| `event` |")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    named = {event for row in rows for event in NAMED.findall(row.split("|")[1])}
    assert said == named
