"""``init --example`` and two days of the shop: the calls are what its files say."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.acceptance.program import TOP, Program

SHOP = TOP / "examples" / "shop"
DAY_1, DAY_2 = (datetime.fromisoformat(f"{day}T00:00:00Z") for day in ("2026-01-31", "2026-02-01"))
ORDERED, VIPS, VALUE = "order_completed_last_30days", "vips_2026", "lifetime_value"


def rows(name: str) -> list[dict[str, str]]:
    with (SHOP / name).open(newline="") as file:
        return list(csv.DictReader(file))


CUSTOMERS = {row["user_id"]: row for row in rows("customers.csv")}
ORDERS = [
    (row["user_id"], datetime.fromisoformat(row["completed_at"]), float(row["amount"]))
    for row in rows("orders.csv")
    if row["user_id"] in CUSTOMERS
]


def ordered(now: datetime) -> set[str]:
    return {user for user, at, _ in ORDERS if now - timedelta(days=30) < at <= now}


def vips(now: datetime) -> set[str]:
    spent: dict[str, float] = defaultdict(float)
    for user, at, amount in ORDERS:
        if datetime.fromisoformat("2026-01-01T00:00:00Z") <= at <= now:
            spent[user] += amount
    return {user for user, amount in spent.items() if amount >= 200}


def lifetime_values(now: datetime) -> dict[str, float]:
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows("orders.csv"):
        if row["user_id"] in CUSTOMERS and datetime.fromisoformat(row["completed_at"]) <= now:
            spent[row["user_id"]] += Decimal(row["amount"])
    return {user: float(amount) for user, amount in spent.items()}


def expected_values(before: dict[str, float], after: dict[str, float]) -> Any:
    """Nobody loses a value in the shop."""
    return {
        (user, VALUE): {n: CUSTOMERS[user][n] for n in ["email"] if CUSTOMERS[user][n]}
        | {VALUE: value}
        for user, value in after.items()
        if before.get(user) != value
    }


def expected(key: str, before: set[str], after: set[str], carried: list[str]) -> Any:
    """The traits that change, by user: true for who has entered, false for who has left."""
    return {
        (user, key): {name: CUSTOMERS[user][name] for name in carried if CUSTOMERS[user][name]}
        | {key: user in after}
        for user in before ^ after
    }


def test_two_days_of_the_shop(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    assert program.run("init", "--example").code == 0
    assert (tmp_path / "examples/shop/orders.csv").read_bytes() == (
        SHOP / "orders.csv"
    ).read_bytes()
    nobody: set[str] = set()
    days = [
        (DAY_1, nobody, nobody, {}),
        (DAY_2, ordered(DAY_1), vips(DAY_1), lifetime_values(DAY_1)),
    ]
    for day, had_ordered, were_vips, had_spent in days:
        before = len(program.calls())
        done = program.run("sync", "--now", day.isoformat())
        assert done.code == 0, done
        calls = program.calls()[before:]
        told = {
            (call["userId"], call["context"]["personas"]["computation_key"]): call["traits"]
            for call in calls
        }
        assert len(told) == len(calls)
        assert told == {
            **expected(ORDERED, had_ordered, ordered(day), ["email"]),
            **expected(VIPS, were_vips, vips(day), ["email", "plan"]),
            **expected_values(had_spent, lifetime_values(day)),
        }
        stamp = day.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        assert {call["timestamp"] for call in calls} == {stamp}
    members = {t[k] for (_, k), t in told.items() if k != VALUE}
    assert members == {False, True}, "some came, some went"
