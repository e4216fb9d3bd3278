"""What tests of several threads share."""

from __future__ import annotations

import pytest

from audience_sync.pipeline import line


@pytest.fixture
def in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches begin in their order, however long a busy machine keeps one of them."""
    monkeypatch.setattr(line, "LONGEST", 60.0)
