"""Crisp as a destination of the whole program: forecast, days, kills, mistakes, and no secrets.

(P6, P8, P16, P17, P18, P19, P21)
"""

from __future__ import annotations

import base64
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from audience_sync.destinations.crisp_website import ASKED_FOR_WEBSITE
from audience_sync.sandbox.options import failure
from tests.acceptance.program import Done, Program, wait_until
from tests.fakes.crisp import Crisp, crisp_sandbox

SECRET = "sandbox-key"
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
"""For a test whose runs must be of one day."""
DATA = "PATCH people/data/{who} 200"
CREATED = "POST people/profile 201"


@dataclass
class Shop:
    crisp: Crisp
    program: Program

    def configure(self, *audiences: str, more: str = "", ltv: str = "") -> None:
        crisp = (
            '[destinations.crisp]\ntype = "crisp"\napi_key = "${CRISP_API_KEY}"\n'
            f'endpoint = "{self.crisp.base}"\nrate = "2000/s"\n{more}\n'
        )
        guard = '[guard]\nmax_exits = "100%"\nmax_exits_24h = "100%"\n'
        places = {key: ["crisp"] for key in audiences or ("vip",)}
        self.program.configure(places, destinations=crisp, more=guard)
        if ltv:
            with (self.program.folder / "config.toml").open("a") as file:
                file.write(
                    '[[computed_traits]]\nname = "LTV"\nsource = "files"\n'
                    f'query = "{ltv}"\ndestinations = ["crisp"]\n'
                )

    def forecast(self) -> tuple[int, int]:
        """At least and at most so many requests, of one audience."""
        (audience,) = self.program.run("diff", "--json").json()["audiences"]
        (place,) = audience["destinations"]
        return place["requests_at_least"], place["requests"]

    def used(self) -> int:
        return sum(not call.startswith("GET plugin") for call in self.crisp.calls())

    def sync(self, *arguments: str, code: int = 0) -> Done:
        done = self.program.run("sync", "--all", *arguments)
        assert done.code == code, done
        return done

    def check(self, **members: Any) -> None:
        """Every profile's audiences are what the files say."""
        told = {
            person["data"]["user_id"]: person["data"] for person in self.crisp.people().values()
        }
        everybody = {f"person-{n:04}" for numbers in members.values() for n in numbers}
        assert everybody <= told.keys()
        for user, data in told.items():
            for key, numbers in members.items():
                is_member = int(user.removeprefix("person-")) in numbers
                assert data.get(key, False) is is_member, (user, key)


@pytest.fixture
def crisp() -> Iterator[Crisp]:
    with crisp_sandbox() as running:
        yield running


def shop_of(crisp: Crisp, folder: Path) -> Shop:
    variables = {"CRISP_API_KEY": f"sandbox:{SECRET}"}
    return Shop(crisp=crisp, program=Program(folder=folder, variables=variables))


@pytest.fixture
def shop(crisp: Crisp, tmp_path: Path) -> Shop:
    return shop_of(crisp, tmp_path)


def test_what_was_forecast_is_what_is_used(shop: Shop) -> None:
    shop.configure("vip")
    shop.program.members("vip", range(30))
    least, most = shop.forecast()
    shop.sync()
    pages = sum(call.startswith("GET people/profiles") for call in shop.crisp.calls())
    assert shop.used() == 60 + pages
    assert pages == 1, "Crisp had nobody"
    assert least <= 60 + pages + ASKED_FOR_WEBSITE <= most
    before = shop.used()
    shop.program.members("vip", range(10, 35))
    assert shop.forecast() == (20, 20), "the website is remembered"
    shop.sync()
    assert shop.used() - before == 10 + 5 * 2
    shop.check(vip=range(10, 35))


def test_a_member_of_three_audiences_is_asked_for_once(shop: Shop) -> None:
    shop.configure("vip", "loyal", ltv="SELECT user_id, 7 AS value FROM 'vip.csv'")
    shop.program.members("vip", range(20))
    shop.program.members("loyal", range(10, 25))
    shop.sync()
    assert shop.crisp.calls().count(CREATED) == 25
    assert shop.crisp.calls().count(DATA) == 25
    shop.check(vip=range(20), loyal=range(10, 25))
    assert shop.crisp.data("p3@private.example")["ltv"] == 7
    shop.program.members("vip", range(15, 20))
    shop.program.members("loyal", range(10, 14))
    shop.sync()
    assert shop.crisp.calls().count(DATA) == 25 + 15 + 10, "15 have left vip, 10 only loyal"
    assert shop.crisp.data("p3@private.example")["ltv"] == ""
    shop.check(vip=range(15, 20), loyal=range(10, 14))


def test_who_has_no_email_is_told_when_there_is_one(shop: Shop) -> None:
    shop.configure("vip", "loyal")
    people = shop.program.folder
    (people / "vip.csv").write_text("user_id,email\nperson-0001,\n")
    (people / "loyal.csv").write_text("user_id\nperson-0001\nperson-0002\n")
    done = shop.sync("--json").json()
    assert [(d["accepted"], d["skipped"]) for d in done["deliveries"]] == [(0, 2), (0, 1)]
    reasons = {
        row["reason"] for row in shop.program.run("rejections", "--json").json()["rejections"]
    }
    assert reasons == {"email is required to create a Crisp profile"}
    (people / "vip.csv").write_text("user_id,email\nperson-0001,p1@private.example\n")
    shop.sync()
    shop.sync()  # which tells the other audience of the profile that there is now
    assert shop.crisp.data("p1@private.example") == {
        "user_id": "person-0001",
        "vip": True,
        "loyal": True,
    }


def test_a_used_up_quota_rejects_nobody(tmp_path: Path) -> None:
    with crisp_sandbox(quota=25) as crisp:
        shop = shop_of(crisp, tmp_path)
        shop.configure("vip")
        shop.program.members("vip", range(30))
        done = shop.sync("--json").json()
        (delivery,) = done["deliveries"]
        assert delivery["outcome"] == "quota used"
        assert delivery["rejected"] == delivery["skipped"] == 0
        assert delivery["eta"][:10] == delivery["goes_on"][:10], "whoever's quota it is"
        for _ in range(3):
            crisp.post("day")
            shop.sync()
        shop.check(vip=range(30))
        assert crisp.calls().count(CREATED) == 30


def test_our_own_quota_is_kept_to_the_request(shop: Shop) -> None:
    shop.program = shop.program.by_clock(NOON)
    shop.configure("vip", more='quota = "40/day"')
    shop.program.members("vip", range(30))
    done = shop.sync("--json").json()
    assert done["deliveries"][0]["outcome"] == "quota used"
    assert len(shop.crisp.calls()) <= 32, "less the reserve"
    shop.sync()
    assert len(shop.crisp.calls()) <= 32
    created, told = (shop.crisp.calls().count(call) for call in (CREATED, DATA))
    assert created - told in (0, 1), "listing people may have cost one their second request"
    assert sum("websites" in call for call in shop.crisp.calls()) == 2, "not by every run"


def test_killed_again_and_again(tmp_path: Path) -> None:
    draw = random.Random(7)
    with crisp_sandbox() as crisp:
        for number in range(0, 120, 2):
            crisp.add(f"p{number}@private.example", "There before")
        shop = shop_of(crisp, tmp_path)
        shop.configure("vip", "loyal", more='calls = ["identify", "track"]')
        for vip, loyal in ((range(100), range(50, 120)), (range(30, 110), range(60))):
            shop.program.members("vip", vip)
            shop.program.members("loyal", loyal)
            for _ in range(4):
                enough = len(crisp.calls()) + draw.randrange(10, 80)
                process = shop.program.start("sync", "--all")
                wait_until(_has_asked(crisp, enough, process))
                process.send_signal(signal.SIGKILL)
                process.communicate()
            shop.sync()
            shop.check(vip=vip, loyal=loyal)
        people = crisp.people().values()
        assert len(people) == 120, "nobody is there twice"
        assert all(p["person"]["nickname"] != "" for p in people)


def _has_asked(crisp: Crisp, enough: int, process: Popen[str]) -> Callable[[], bool]:
    return lambda: len(crisp.calls()) >= enough or process.poll() is not None


def test_no_secret_and_nobody_in_what_is_said(tmp_path: Path) -> None:
    """Whatever fails on the way; the reasons of Crisp's answers may hold an e-mail."""
    hidden = [SECRET, base64.b64encode(f"sandbox:{SECRET}".encode()).decode(), "private.example"]
    hidden += ["person-00", "p3@", "p3%40"]
    faults = ("400", "409", "404", "html", "401")
    for fault in faults:
        folder = tmp_path / fault
        folder.mkdir()
        with crisp_sandbox(failures=(failure(f"{fault}:0.3"),)) as crisp:
            shop = shop_of(crisp, folder)
            shop.configure("vip")
            shop.program.members("vip", range(8))
            done = shop.program.run("sync", "--all")
            said = done.out + done.err
            done = shop.program.run("status")
            said += done.out + done.err
            assert "Traceback" not in said
        assert [word for word in hidden if word in said] == [], (fault, said)


def test_what_is_wrong_with_the_set_up_is_said_first(shop: Shop, tmp_path: Path) -> None:
    shop.configure("vip")
    (tmp_path / "vip.csv").write_text(
        'user_id,email,"Full Name",x y\nperson-0001,a@b.example,Ann,1\n'
    )
    done = shop.program.run("check")
    assert done.code == 65
    assert 'crisp cannot be told of it: the column "Full Name" has more in its name' in done.out
    assert 'the column "x y" has more in its name' in done.out
    assert shop.sync(code=65).out
    (tmp_path / "vip.csv").write_text("user_id\nperson-0001\n")
    done = shop.program.run("check")
    assert (done.code, "without a column email crisp makes no new" in done.out) == (0, True)
    shop.program.members("vip", range(3))
    done = shop.program.run("check")
    assert (done.code, "without a column" in done.out) == (0, False)
    shop.program.variables["CRISP_API_KEY"] = "sandbox:another-key"
    assert shop.program.run("check").code == 77
    assert shop.sync(code=77).code == 77
    assert shop.crisp.people() == {}
    ids = ("5a9d8c2e-0000-4000-8000-5a9db0c5a001", "5a9d8c2e-0000-4000-8000-5a9db0c5a002")
    shop.program.variables["CRISP_API_KEY"] = f"sandbox:{SECRET}"
    with crisp_sandbox(websites=ids) as several:
        shop.crisp = several
        shop.configure("vip")
        done = shop.program.run("check")
        assert done.code == 78
        assert all(website in done.out for website in ids)
        shop.sync(code=78)
        shop.configure("vip", more=f'website_id = "{ids[1]}"')
        shop.sync()
        assert len(Crisp(base=several.base, website=ids[1]).people()) == 3


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("401", 77, "key refused (401"),
        ("403", 77, "key refused (403"),
        ("402", 69, "Crisp's plan does not include this (402)"),
        ("404", 69, "Crisp does not list the people of the website"),
        ("423", 0, "quota used, goes on 00:00 UTC"),
    ],
)
def test_answers_have_a_text_and_an_exit_code(
    tmp_path: Path, fault: str, code: int, text: str
) -> None:
    """Nobody is rejected for any of them; a call by hand is not made tomorrow, so it has failed."""
    with crisp_sandbox(failures=(failure(f"{fault}:1"),)) as crisp:
        shop = shop_of(crisp, tmp_path)
        shop.configure("vip", more=f'website_id = "{crisp.website}"')
        shop.program.members("vip", range(3))
        done = shop.sync(code=code)
        assert text in done.out
        assert shop.program.run("rejections", "--json").json()["rejections"] == []
        shop.program.run("resume", "--destination", "crisp", "--yes")
        john = ("--user-id", "u1", "--trait", "email=john.doe@example.com", "--json")
        sent = shop.program.run("send", "identify", *john)
        assert sent.code == (code or 69)
        (call,) = sent.json()["calls"]
        assert (call["outcome"], fault in call["reason"]) == ("failed", True)
        assert "john.doe" not in sent.err + sent.out


def test_one_call_by_hand(shop: Shop) -> None:
    shop.configure("vip")
    shop.program.members("vip", [])
    john = ("--trait", "name=John Doe", "--trait", "email=john.doe@example.com")
    track = ("send", "track", "--user-id", "userId123", "--event", "Completed Purchase")
    dropped = shop.program.run(*track, "--property", "revenue=39.95")
    assert (dropped.code, "never identified" in dropped.out) == (1, True), dropped
    done = shop.program.run("send", "identify", "--user-id", "userId123", *john)
    assert done.code == 0, done
    done = shop.program.run(*track, "--property", "revenue=39.95")
    assert done.code == 0, done
    (person,) = shop.crisp.people().values()
    assert person["person"] == {"nickname": "John Doe"}
    assert person["events"][0]["data"] == {"revenue": 39.95}


def test_forgotten_here_too(shop: Shop) -> None:
    shop.configure("vip")
    shop.program.members("vip", range(3))
    shop.sync()
    assert len(shop.program.stored("SELECT * FROM contact")) == 3
    assert shop.program.run("forget", "person-0001", "--yes").code == 0
    files = b"".join(shop.program.files()[name] for name in shop.program.files() if "state" in name)
    assert b"person-0001" not in files
    assert b"p1@private" not in files
    assert len(shop.program.stored("SELECT * FROM contact")) == 2


def test_another_website_was_told_nothing(shop: Shop) -> None:
    shop.configure("vip")
    shop.program.members("vip", range(3))
    shop.sync()
    with crisp_sandbox() as other:
        shop.crisp = other
        shop.configure("vip")
        shop.sync()
        shop.check(vip=range(3))
