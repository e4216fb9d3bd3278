"""Whoever moves a destination finds everybody told at the new place."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

from audience_sync.bootstrap import build
from audience_sync.config.load import load

CONFIG = """
[store]
url = "sqlite:///state.db"
[sources.shop]
type = "files"
root = "."
[destinations.calls]
type = "ndjson"
path = "{path}"
[[audiences]]
name = "All Users"
source = "shop"
query = "SELECT user_id FROM 'users.csv'"
destinations = ["calls"]
"""


def sync(folder: Path, path: str) -> list[str]:
    """Outcomes of one cycle with the destination at ``path``."""
    (folder / "config.toml").write_text(CONFIG.format(path=path))
    app = build(load([folder / "config.toml"], {}), writes=True)
    try:
        for configured in app.audiences.values():
            app.captures().capture(configured, datetime(2026, 10, 7, tzinfo=UTC))
        delivered = app.deliveries(lambda _span: None).deliver(threading.Event())
        return [f"{d.span.lane} {d.accepted}" for d in delivered]
    finally:
        app.close()


def test_a_moved_destination_is_told_anew(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\nu1\nu2\n")
    assert sync(tmp_path, "one.ndjson") == ["initial 2"]
    assert sync(tmp_path, "one.ndjson") == []
    assert sync(tmp_path, "two.ndjson") == ["initial 2"]
    assert len((tmp_path / "two.ndjson").read_text().splitlines()) == 2
    assert sync(tmp_path, "two.ndjson") == []
