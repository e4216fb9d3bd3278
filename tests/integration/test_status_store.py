"""What the status server says of the store: of one that hangs, is gone, or is another version's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client import parser
from sqlalchemy import create_engine, text

from audience_sync.app import App
from audience_sync.domain.audience import AudienceKey, OnRetire
from audience_sync.domain.quota import Lane
from audience_sync.store.migrate import HEAD
from audience_sync.store.retirement import Retirement
from audience_sync.web import metrics, routes
from audience_sync.web.server import StatusServer
from tests.acceptance.program import wait_until
from tests.fakes.facts import Told, started
from tests.fakes.snapshot_log import HOUR, START, Log, execute, new_lease, people
from tests.fakes.teller import ANN, Teller
from tests.fakes.wired import wired

AUDIENCES = {"vip": ["calls", "crm"], "winback": ["calls"], "old": ["calls"], "off": ["calls"]}
READERS = ["metrics", "readiness"]
"""Names of the threads that ask the store."""

Hung = tuple[StatusServer, threading.Event]
"""A server whose store does not answer, and what ends that."""

WITHIN = 10.0
"""Seconds in which a busy machine manages what is promised in two."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def app(url: str, tmp_path: Path) -> Iterator[App]:
    made = wired(tmp_path, url, AUDIENCES, {"crm": "1000/day"})
    yield made
    made.close()


@pytest.fixture
def facts(app: App) -> Told:
    return Told(app)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a store that can be read answers in time."""
    for module in (metrics, routes):
        monkeypatch.setattr(module, "PATIENCE", 30.0)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape asks the store."""
    monkeypatch.setattr(metrics, "FRESH", 0.0)


@pytest.fixture
def server(facts: Told, patient: None, forgetful: None) -> Iterator[StatusServer]:
    made = started(facts)
    yield made
    made.stop()


def ask(server: StatusServer, path: str, **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{server.port}{path}"
    return httpx.get(url, headers=headers, timeout=30)


def samples(text: str) -> dict[str, float]:
    """``name{a="x",b="y"}`` without our prefix, and the value."""
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sample.labels.items())
            name = sample.name.removeprefix("audience_sync_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def scraped(server: StatusServer) -> dict[str, float]:
    answer = ask(server, "/metrics")
    assert answer.status_code == 200
    return samples(answer.text)


class TestReadiness:
    def test_ready(self, server: StatusServer) -> None:
        answer = ask(server, "/readyz")
        assert (answer.status_code, answer.text) == (200, "ready\n")

    def test_before_the_store_was_opened(self, facts: Told, server: StatusServer) -> None:
        facts.wired = None
        answer = ask(server, "/readyz")
        assert (answer.status_code, answer.text) == (503, "starting\n")
        assert ask(server, "/healthz").status_code == 200
        found = scraped(server)
        assert found["store_reachable"] == 0
        assert not any(name.startswith("audience_members") for name in found)

    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            ("9999", f"the store has schema 9999, this version knows {HEAD}"),
            ("0000", f"the store has schema 0000, this version needs {HEAD}"),
        ],
    )
    def test_of_another_version(
        self, app: App, server: StatusServer, found: str, expected: str
    ) -> None:
        execute(app.database, "UPDATE alembic_version SET version_num = :v", v=found)
        answer = ask(server, "/readyz")
        assert (answer.status_code, answer.text) == (503, f"{expected}\n")

    def test_ready_again(self, app: App, server: StatusServer) -> None:
        execute(app.database, "UPDATE alembic_version SET version_num = '9999'")
        assert ask(server, "/readyz").status_code == 503
        execute(app.database, "UPDATE alembic_version SET version_num = :v", v=HEAD)
        wait_until(lambda: ask(server, "/readyz").status_code == 200)

    def test_without_tables(self, app: App, server: StatusServer) -> None:
        execute(app.database, "DROP TABLE alembic_version")
        answer = ask(server, "/readyz")
        assert (answer.status_code, answer.text) == (503, "the store is gone\n")


@pytest.mark.usefixtures("patient")
def test_a_store_whose_file_is_gone(tmp_path: Path) -> None:
    app = wired(tmp_path, f"sqlite:///{tmp_path}/state.db")
    server = started(Told(app))
    assert ask(server, "/readyz").status_code == 200
    for file in tmp_path.glob("state.db*"):
        file.unlink()
    wait_until(lambda: ask(server, "/readyz").status_code == 503)
    assert ask(server, "/readyz").text == "the store is gone\n"
    server.stop()
    app.close()


@pytest.mark.usefixtures("patient")
def test_a_store_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the database says of it is not for everybody; the log has it, once."""
    app = wired(tmp_path, f"sqlite:///{tmp_path}/state.db")
    app.database.close()
    for file in tmp_path.glob("state.db*"):
        file.unlink()
    (tmp_path / "state.db").write_text("not a database, but as long as a header would be" * 100)
    server = started(Told(app))
    answer = ask(server, "/readyz")
    assert (answer.status_code, answer.text) == (503, "the store cannot be read\n")
    assert ask(server, "/metrics").status_code == 200
    time.sleep(1.1)  # so that the store is asked again
    assert ask(server, "/readyz").status_code == 503
    server.stop()
    app.close()
    assert "".join(capsys.readouterr()).count("file is not a database") == 1


@pytest.mark.usefixtures("patient")
def test_a_server_that_refuses_us_is_not_told_about(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = wired(tmp_path, postgres_url)
    name = str(app.database.url.database)
    app.database.close()
    admin = create_engine(app.database.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} RENAME TO {name}_away"))
    try:
        server = started(Told(app))
        answers = [ask(server, path).text for path in ("/readyz", "/metrics")]
        server.stop()
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name}_away RENAME TO {name}"))
        admin.dispose()
        app.close()
    assert answers[0] == "the store cannot be read\n"
    assert "audience_sync_store_reachable 0.0" in answers[1]
    assert not any(word in answer for answer in answers for word in (name, "postgres", "socket"))
    assert name in "".join(capsys.readouterr())


class TestHanging:
    """Another transaction holds the tables locked, so that no query is answered."""

    @pytest.fixture
    def hung(self, postgres_url: str, tmp_path: Path) -> Iterator[Hung]:
        app = wired(tmp_path, postgres_url, AUDIENCES)
        server = started(Told(app))
        other = create_engine(postgres_url)
        over = threading.Event()
        with other.connect() as connection:
            assert ask(server, "/readyz").status_code == 200
            connection.execute(
                text("LOCK TABLE alembic_version, audience IN ACCESS EXCLUSIVE MODE")
            )
            released = threading.Thread(target=lambda: (over.wait(60), connection.rollback()))
            released.start()
            yield server, over
            over.set()
            released.join()
        other.dispose()
        server.stop()
        for thread in threading.enumerate():
            if thread.name in READERS:
                thread.join()
        app.close()

    def test_probes_are_answered_in_time_and_gather_no_threads(self, hung: Hung) -> None:
        server, over = hung
        wait_until(lambda: ask(server, "/readyz").status_code == 503)
        begun = time.monotonic()
        with ThreadPoolExecutor(30) as many:
            answers = list(many.map(lambda _: ask(server, "/readyz"), range(60)))
            scrapes = list(many.map(lambda _: ask(server, "/metrics"), range(30)))
        assert time.monotonic() - begun < 3 * WITHIN
        assert {a.text for a in answers} == {"the store does not answer\n"}
        assert {a.status_code for a in answers} == {503}
        assert {samples(s.text)["store_reachable"] for s in scrapes} == {0}
        assert ask(server, "/healthz").status_code == 200
        assert sorted(t.name for t in threading.enumerate() if t.name in READERS) == READERS
        over.set()
        wait_until(lambda: ask(server, "/readyz").status_code == 200)

    def test_a_stop_does_not_wait(self, hung: Hung) -> None:
        server, _ = hung
        wait_until(lambda: ask(server, "/readyz").status_code == 503)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < WITHIN


class TestMetrics:
    def test_where_everything_stands(self, app: App, server: StatusServer) -> None:
        vip = Log(app.database)
        vip.put(people(*"abcdef"))
        Teller(vip, to="calls").run(refuse="bd")
        vip.put(people(*"abcdefg"))
        captured, due = vip.clock.now - HOUR, vip.clock.now + 2 * HOUR
        crm = Teller(vip, to="crm").open()
        assert crm is not None
        Teller(vip, to="crm").walk(crm, members=2)
        winback = Log(app.database, key=AudienceKey("winback"))
        winback.hold(people("a"))
        found = scraped(server)
        expected = {
            'audience_members{audience="vip"}': 7,
            'audience_last_capture_timestamp_seconds{audience="vip"}': captured.timestamp(),
            'audience_next_due_timestamp_seconds{audience="vip"}': due.timestamp(),
            'audience_held{audience="vip"}': 0,
            'audience_held{audience="winback"}': 1,
            'audience_failing{audience="vip"}': 0,
            'audience_paused{audience="vip"}': 0,
            'delivery_pending_members{audience="vip",destination="calls"}': 1,
            'delivery_pending_members{audience="vip",destination="crm"}': 5,
            'delivery_pending_members{audience="winback",destination="calls"}': 0,
            'delivery_rejected_members{audience="vip",destination="calls"}': 2,
            'delivery_rejected_members{audience="vip",destination="crm"}': 0,
            'delivery_held{audience="vip",destination="crm"}': 0,
            'destination_paused{destination="calls"}': 0,
            'destination_rate_limit{destination="calls"}': 50,
            "store_reachable": 1,
            "audiences_gone": 0,
            'build_info{version="0.1.0"}': 1,
        }
        assert {name: found.get(name) for name in expected} == expected
        success = "delivery_last_success_timestamp_seconds"
        assert f'{success}{{audience="vip",destination="calls"}}' in found
        assert f'{success}{{audience="vip",destination="crm"}}' not in found
        eta = found['delivery_eta_timestamp_seconds{audience="vip",destination="crm"}']
        assert eta - found["standing_read_timestamp_seconds"] == pytest.approx(5 / (50 * 0.8))
        assert 'delivery_eta_timestamp_seconds{audience="vip",destination="calls"}' not in found
        assert abs(found["standing_read_timestamp_seconds"] - time.time()) < 60
        assert found["process_open_fds"] > 0

    def test_orders_and_failures(self, app: App, server: StatusServer) -> None:
        vip, off = Log(app.database), Log(app.database, key=AudienceKey("off"))
        old = Log(app.database, key=AudienceKey("old"))
        for log in (vip, off, old):
            log.put(people("a"))
            Teller(log, to="calls").run()
        orders = Teller(vip).orders
        orders.pause(off.key, "off", off.kind, ANN)
        orders.stop("crm", ANN)
        audience, now = app.audiences[vip.key].audience, vip.clock.now
        app.snapshots.failed(audience, now, "person@private.example", vip.lease, started_at=now)
        book = Retirement(database=app.database, clock=old.clock, given=ANN)
        book.retire(old.key, old.stage({}), OnRetire.TELL_FALSE, old.lease)
        gone = Log(app.database, key=AudienceKey("gone"))
        gone.put(people("a"))
        found = scraped(server)
        assert found['audience_failing{audience="vip"}'] == 1
        assert found['audience_paused{audience="off"}'] == 1
        assert found['destination_paused{destination="crm"}'] == 1
        assert found["audiences_gone"] == 1
        # What is paused is not due, and nobody waits for what is closed, but it is still told.
        assert 'audience_next_due_timestamp_seconds{audience="off"}' not in found
        assert 'audience_last_capture_timestamp_seconds{audience="off"}' in found
        assert 'audience_last_capture_timestamp_seconds{audience="old"}' not in found
        of_old = '{audience="old",destination="calls"}'
        assert f"delivery_last_success_timestamp_seconds{of_old}" not in found
        assert found[f"delivery_pending_members{of_old}"] == 1

    @pytest.mark.usefixtures("patient", "forgetful")
    def test_quotas(self, app: App, facts: Told) -> None:
        server = started(facts, clock=lambda: START)  # a day that does not end meanwhile
        found = scraped(server)
        limit, used = (f"destination_quota_{what}_calls" for what in ("limit", "used"))
        assert found[f'{limit}{{destination="crm"}}'] == 1000
        assert found[f'{used}{{destination="crm"}}'] == 0
        assert f'{limit}{{destination="calls"}}' not in found
        how = {"quota": 1000, "reserve": 0.2}
        for lane, calls in ((Lane.INITIAL, 20), (Lane.INCREMENTAL, 3)):
            lease = new_lease(app.database, f"deliver:crm:{lane}")
            app.quotas.reserve("crm", lane, START.date(), calls, **how, lease=lease)
        assert scraped(server)[f'{used}{{destination="crm"}}'] == 23
        server.stop()

    def test_counters(self, facts: Told, server: StatusServer) -> None:
        counters = facts.counters
        assert scraped(server)['reloads_total{outcome="refused"}'] == 0
        counters.loop_began("cycles")
        assert scraped(server)['loop_errors_total{loop="cycles"}'] == 0
        counters.captured(AudienceKey("vip"), "committed")
        counters.captured(AudienceKey("vip"), "committed")
        counters.delivered("calls", Lane.INITIAL, "accepted", 20)
        counters.delivered("calls", Lane.INITIAL, "accepted", 5)
        counters.reloaded("done")
        counters.loop_failed("cycles")
        found = scraped(server)
        assert found['captures_total{audience="vip",outcome="committed"}'] == 2
        accepted = 'destination="calls",lane="initial",result="accepted"'
        assert found[f"delivered_members_total{{{accepted}}}"] == 25
        assert found['reloads_total{outcome="done"}'] == 1
        assert found['loop_errors_total{loop="cycles"}'] == 1

    def test_what_was_last_known_stays_while_the_store_is_gone(
        self, app: App, server: StatusServer
    ) -> None:
        vip = Log(app.database)
        vip.put(people("a"))
        Teller(vip, to="calls").run()
        before = scraped(server)
        execute(app.database, "ALTER TABLE rejection RENAME TO away")
        found = scraped(server)
        assert (before["store_reachable"], found["store_reachable"]) == (1, 0)
        success = 'delivery_last_success_timestamp_seconds{audience="vip",destination="calls"}'
        assert found[success] == before[success]
        read = "standing_read_timestamp_seconds"
        assert found[read] == before[read]
        execute(app.database, "ALTER TABLE away RENAME TO rejection")
        assert scraped(server)["store_reachable"] == 1

    def test_nobody_is_named(self, app: App, server: StatusServer) -> None:
        vip = Log(app.database)
        vip.put(people("person-0007", "person-0008"))
        Teller(vip, to="calls").run(refuse=["person-0007"])
        now = vip.clock.now
        audience = app.audiences[vip.key].audience
        app.snapshots.failed(audience, now, "person-0008 is bad", vip.lease, started_at=now)
        text = ask(server, "/metrics").text
        assert "person" not in text
        assert "example.com" not in text


def test_scrapes_do_not_load_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = wired(tmp_path, f"sqlite:///{tmp_path}/state.db")
    reads: list[str] = []

    def measure(*given: object) -> object:
        reads.append(threading.current_thread().name)
        return real(*given)  # type: ignore[arg-type]

    real = metrics.measure
    monkeypatch.setattr(metrics, "measure", measure)
    server = started(Told(app))
    with ThreadPoolExecutor(20) as many:
        answers = list(many.map(lambda _: ask(server, "/metrics").status_code, range(60)))
    server.stop()
    app.close()
    assert answers == [200] * 60
    assert reads == ["metrics"] * len(reads)
    assert 1 <= len(reads) <= 3  # on a machine so slow that it is not the same ten seconds
