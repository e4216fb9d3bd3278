"""Capture: read a source, compare with the last snapshot, judge, and store what changed.

``examine`` is all of it but the writing: what ``audience-sync diff`` shows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from audience_sync.domain.audience import Audience, Seq
from audience_sync.domain.guard import Limits, Verdict, judge, percent
from audience_sync.domain.schedule import is_cycle_time
from audience_sync.errors import Held, SourceRefused, SourceReplaced, UsageError
from audience_sync.pipeline.ports.capturing import Capture, Snapshot, Snapshots
from audience_sync.pipeline.ports.leases import Lease
from audience_sync.pipeline.ports.reading import Comparison, Engine, Membership, Refused, Source

DIGEST = re.compile(r"[0-9a-f]+\Z")
"""Of a plan id, or its beginning."""

BASE_AFTER = 0.25
"""Changes above this part of the newest base make the next base."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """What a capture would store. The comparison can be read while ``examine`` is open."""

    audience: Audience
    cycle_time: datetime
    current: Snapshot | None
    comparison: Comparison
    verdict: Verdict
    plan_id: str

    @property
    def from_seq(self) -> Seq:
        return self.current.seq if self.current else Seq(0)

    @property
    def query_hash(self) -> str:
        return query_hash(self.audience.query)

    @property
    def changes_something(self) -> bool:
        """A first snapshot is made even of nobody: it says that the audience was captured."""
        return (
            self.current is None
            or self.comparison.counts.changed
            or self.comparison.columns != self.current.columns
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """Outcome of one capture: ``committed``, ``unchanged`` or ``held``."""

    outcome: str
    examined: Examined
    snapshot: Snapshot | None


@contextmanager
def examine(
    audience: Audience,
    *,
    source: Source,
    engine: Engine,
    snapshots: Snapshots,
    limits: Limits,
    cycle_time: datetime,
) -> Iterator[Examined]:
    """Read and compare; nothing is written. What was replaced meanwhile is read once more.

    Raises:
        SourceFailed, SourceRefused: the snapshot stays as it is.
    """
    current = snapshots.current(audience.key)
    previous = snapshots.membership(audience.key, current.seq) if current else None
    once = partial(_compared, audience, previous, source, engine, snapshots, cycle_time)
    with ExitStack() as opened:
        try:
            comparison = opened.enter_context(once())
        except SourceReplaced:
            comparison = opened.enter_context(once())
        check_refused(comparison.refused, limits)
        window = snapshots.window(audience.key, cycle_time)
        from_seq = current.seq if current else Seq(0)
        yield Examined(
            audience=audience,
            cycle_time=cycle_time,
            current=current,
            comparison=comparison,
            verdict=judge(comparison.counts, window, limits, first=current is None),
            plan_id=plan_id(audience.key, from_seq, cycle_time, comparison.digest),
        )


@contextmanager
def _compared(
    audience: Audience,
    previous: Membership | None,
    source: Source,
    engine: Engine,
    snapshots: Snapshots,
    cycle_time: datetime,
) -> Iterator[Comparison]:
    with (
        source.read(audience.query, cycle_time) as rows,
        engine.compare(
            previous,
            rows,
            reserved=audience.key,
            kind=audience.kind,
            forgotten=snapshots.forgotten(),
        ) as comparison,
    ):
        yield comparison


def commit(
    examined: Examined,
    *,
    snapshots: Snapshots,
    lease: Lease,
    next_due: datetime,
    started_at: datetime,
) -> Captured:
    """Store what was examined: a snapshot, a held one, or a run that found nothing new."""
    capture = capture_of(examined, next_due)
    if not examined.changes_something:
        snapshots.unchanged(capture, lease, started_at=started_at)
        return Captured(outcome="unchanged", examined=examined, snapshot=None)
    comparison = examined.comparison
    staged = snapshots.stage(
        capture,
        changes=comparison.changes() if examined.current else None,
        base=comparison.members() if _needs_base(examined, snapshots) else None,
        lease=lease,
    )
    snapshot = snapshots.commit(staged, lease, started_at=started_at)
    outcome = "held" if examined.verdict.held else "committed"
    return Captured(outcome=outcome, examined=examined, snapshot=snapshot)


def check_planned(examined: Examined, plans: Collection[str]) -> None:
    """Raises Held when this capture is not exactly one of the plans that were asked for."""
    if plans and examined.plan_id not in plans:
        raise Held(
            f"the source gives another plan now ({examined.plan_id}); nothing was stored",
            hint=f"read the new plan: audience-sync diff {examined.audience.key}",
        )


def check_refused(refused: Refused, limits: Limits) -> None:
    """Raises SourceRefused when too large a share of rows cannot be used."""
    if not refused.rows or refused.total <= limits.max_refused_rows * refused.rows:
        return
    found = ", ".join(f"{reason} ({count:,})" for reason, count in refused.faults.items())
    raise SourceRefused(
        f"{percent(refused.total / refused.rows)} of {refused.rows:,} rows cannot be used "
        f"(limit {percent(limits.max_refused_rows)}): {found}",
        hint="mend the query, or raise [guard] max_refused_rows",
    )


def check_not_backwards(cycle_time: datetime, last: datetime | None) -> None:
    """Raises UsageError for an explicit ``--now`` before the last capture."""
    if last is not None and cycle_time < last:
        raise UsageError(
            f"--now {iso_minutes(cycle_time)} is before the last capture ({iso_minutes(last)})",
            hint="order is by snapshot: an older one cannot follow",
        )


def query_hash(query: str) -> str:
    return hashlib.blake2b(query.strip().encode(), digest_size=8).hexdigest()


def plan_id(key: str, from_seq: Seq, cycle_time: datetime, digest: str) -> str:
    """``20261007T0600Z-7f3c…``: the cycle time, and a hash of what would be stored."""
    text = f"{key}|{from_seq}|{digest}"
    short = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return f"{iso_minutes(cycle_time)}-{short}"


def iso_minutes(time: datetime) -> str:
    time = time.astimezone(UTC)
    return time.strftime("%Y%m%dT%H%M%SZ" if time.second else "%Y%m%dT%H%MZ")


def plan_time(plan: str) -> datetime:
    """The cycle time in front of a plan id.

    Raises:
        UsageError: not a plan id.
    """
    stamp, _, digest = plan.partition("-")
    for form in ("%Y%m%dT%H%MZ", "%Y%m%dT%H%M%SZ"):
        try:
            time = datetime.strptime(stamp, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        if DIGEST.match(digest) and is_cycle_time(time):
            return time
    raise UsageError(f"{plan} is not a plan id", hint="audience-sync diff shows them")


def capture_of(examined: Examined, next_due: datetime) -> Capture:
    """What was examined, ready to be recorded."""
    comparison = examined.comparison
    return Capture(
        audience=examined.audience.key,
        name=examined.audience.name,
        kind=examined.audience.kind,
        cycle_time=examined.cycle_time,
        next_due=next_due,
        from_seq=examined.from_seq,
        columns=comparison.columns,
        counts=comparison.counts,
        refused=comparison.refused,
        plan_id=examined.plan_id,
        query_hash=examined.query_hash,
        held_for=examined.verdict.reasons,
    )


def _needs_base(examined: Examined, snapshots: Snapshots) -> bool:
    """The first snapshot, new columns, or changes that have grown large against the base."""
    if examined.current is None or examined.comparison.columns != examined.current.columns:
        return True
    rows, members = snapshots.changed_since_base(examined.audience.key)
    counts = examined.comparison.counts
    return rows + counts.entered + counts.exited + counts.updated > BASE_AFTER * members
