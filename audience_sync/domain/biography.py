"""What is kept of one user in one audience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audience_sync.domain.audience import Row, Seq, Tell
from audience_sync.domain.change import Change


@dataclass(frozen=True, kw_only=True, slots=True)
class Biography:
    """``kept``: snapshots, oldest first. ``oldest``: the user's row at the first of them.
    ``changes``: newest first, after ``oldest``; with the first snapshot of all, who is in it
    entered.
    """

    user_id: str
    kept: Sequence[Seq]
    oldest: Row | None
    changes: Sequence[tuple[Seq, Change]]

    def knows(self, seq: Seq) -> bool:
        return not seq or (bool(self.kept) and seq >= self.kept[0])

    def at(self, seq: Seq) -> Row | None:
        """The user's row at a snapshot that it ``knows``; ``None``: not a member."""
        if not seq:
            return None
        return next((change.after for made, change in self.changes if made <= seq), self.oldest)

    @property
    def now(self) -> Row | None:
        return self.at(self.kept[-1]) if self.kept else None

    @property
    def last_known(self) -> Row | None:
        """The row of today, or that with which the user left."""
        if self.changes and self.changes[0][1].after is None:
            return self.changes[0][1].before
        return self.now

    @property
    def turned(self) -> Seq | None:
        """The snapshot since which the user is in, or out; ``None``: longer than is kept."""
        wanted = Tell.EXITED if self.now is None else Tell.ENTERED
        return next((made for made, change in self.changes if change.kind is wanted), None)

    def change(self, from_seq: Seq, to_seq: Seq) -> Change | None:
        before, after = self.at(from_seq), self.at(to_seq)
        if before == after:
            return None
        return Change(user_id=self.user_id, before=before, after=after)
