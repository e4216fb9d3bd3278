"""What there is to measure, as families of metrics: names, help, labels. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from audience_sync.domain.quota import Lane
from audience_sync.standing.counters import LABELS, Count, Counted
from audience_sync.standing.measures import Measures
from audience_sync.standing.values import Place, Standing

PREFIX = "audience_sync_"
DELIVERY = ("audience", "destination")
COUNTED = {
    Counted.CAPTURES: "Captures that ended, since the daemon started.",
    Counted.DELIVERED_MEMBERS: "Members that were handled, since the daemon started.",
    Counted.RELOADS: "Times the configuration was read anew, since the daemon started.",
    Counted.LOOP_ERRORS: "Errors that a loop of the daemon did not expect; it goes on.",
    Counted.STORE_ERRORS: "Turns of a loop that the store ended; each is tried again.",
}

Sample = tuple[tuple[str, ...], datetime | float | None]
"""Values of the labels, and the value; ``None``: there is nothing to tell."""


def itself(version: str, *, reachable: bool) -> Iterator[Metric]:
    """What can be told without the store."""
    yield _gauge("build_info", "Which version this is.", ("version",), [((version,), 1)])
    what = "1 if the store was read for this scrape, or seconds ago."
    yield _gauge("store_reachable", what, (), [((), reachable)])


def measured(measures: Measures) -> Iterator[Metric]:
    read = [((), measures.read_at)]
    yield _gauge("standing_read_timestamp_seconds", "When the store was read.", (), read)
    audiences = measures.overview.audiences
    yield from _of_audiences(audiences)
    pairs = [(s, place) for s in audiences for place in s.destinations]
    yield from _of_deliveries(pairs, measures)
    yield from _of_destinations(measures)
    gone = [((), len(measures.overview.gone))]
    what = "Audiences that are no longer configured and not retired."
    yield _gauge("audiences_gone", what, (), gone)


def counted(counts: Iterable[Count]) -> Iterator[Metric]:
    """One family for each of ``Counted``, also for what has never happened yet."""
    made = {
        what: CounterMetricFamily(PREFIX + what, COUNTED[what], labels=LABELS[what])
        for what in Counted
    }
    for count in counts:
        made[count.what].add_metric(count.labels, count.value)
    yield from made.values()


def _of_audiences(audiences: Iterable[Standing]) -> Iterator[Metric]:
    def gauge(name: str, what: str, samples: Iterable[Sample]) -> Metric:
        return _gauge(f"audience_{name}", what, ("audience",), samples)

    known = [((standing.key,), standing) for standing in audiences]
    # What is closed is neither captured nor due, and no alert should wait for it.
    active = [(key, standing) for key, standing in known if standing.state != "retired"]
    due = [(key, standing) for key, standing in active if standing.state != "paused"]
    yield gauge("members", "Members of the newest snapshot.", [(k, s.members) for k, s in known])
    yield gauge(
        "last_capture_timestamp_seconds",
        "Cycle time of the last capture.",
        [(k, s.captured_at) for k, s in active],
    )
    yield gauge(
        "next_due_timestamp_seconds",
        "When the next capture is due.",
        [(k, s.next_due) for k, s in due],
    )
    yield gauge("held", "1 if a capture waits for approval.", [(k, bool(s.held)) for k, s in known])
    yield gauge("failing", "1 if the last capture failed.", [(k, bool(s.error)) for k, s in known])
    paused = [(k, s.state == "paused") for k, s in known]
    yield gauge("paused", "1 if it is neither captured nor told.", paused)


def _of_deliveries(pairs: Iterable[tuple[Standing, Place]], measures: Measures) -> Iterator[Metric]:
    def gauge(name: str, what: str, samples: Iterable[Sample]) -> Metric:
        return _gauge(f"delivery_{name}", what, DELIVERY, samples)

    known = [((standing.key, place.name), standing, place) for standing, place in pairs]
    active = [(labels, place) for labels, standing, place in known if standing.state != "retired"]
    yield gauge(
        "last_success_timestamp_seconds",
        "When the destination was last known to be up to date.",
        [(labels, place.up_to_date_at) for labels, place in active],
    )
    pending = [(labels, _pending(place)) for labels, _, place in known]
    yield gauge("pending_members", "Members that are yet to be told.", pending)
    rejected = [(labels, place.stand_rejected) for labels, _, place in known]
    yield gauge("rejected_members", "Members that the destination refused.", rejected)
    held = [(labels, bool(place.held)) for labels, _, place in known]
    yield gauge("held", "1 if a first delivery waits for approval.", held)
    etas = [(labels, place.eta) for labels, _, place in known if place.lane is Lane.INITIAL]
    yield gauge("eta_timestamp_seconds", "When the first delivery will have ended.", etas)


def _pending(place: Place) -> int:
    return 0 if place.state in ("ok", "abandoned") else place.remaining


def _of_destinations(measures: Measures) -> Iterator[Metric]:
    def gauge(name: str, what: str, samples: Iterable[Sample]) -> Metric:
        return _gauge(f"destination_{name}", what, ("destination",), samples)

    paused = {place.name for place in measures.overview.paused}
    yield gauge(
        "paused",
        "1 if nothing is sent there for now.",
        [((name,), name in paused) for name in measures.rates],
    )
    yield gauge(
        "rate_limit",
        "Calls per second that it may be sent.",
        [((name,), rate) for name, rate in measures.rates.items()],
    )
    quotas = [((d.name,), d.quota) for d in measures.overview.destinations if d.quota]
    yield gauge(
        "quota_limit_calls",
        "Calls that it may be sent within a day of UTC.",
        [(name, quota.limit) for name, quota in quotas],
    )
    yield gauge(
        "quota_used_calls",
        "Calls of today that were sent, or are reserved.",
        [(name, quota.used) for name, quota in quotas],
    )


def _gauge(name: str, what: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    made = GaugeMetricFamily(PREFIX + name, what, labels=labels)
    for values, value in samples:
        if value is not None:
            number = value.timestamp() if isinstance(value, datetime) else float(value)
            made.add_metric(values, number)
    return made
