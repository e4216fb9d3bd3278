from __future__ import annotations

import pytest

from audience_sync.domain.trait_key import MAX_LENGTH, RESERVED, fold, refusal, trait_key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Order Completed Last 30days", "order_completed_last_30days"),
        ("OrderCompletedLast30days", "order_completed_last30days"),
        ("VIPs 2026", "vips_2026"),
        ("iOS users", "ios_users"),
        ("order_completed_last_30days", "order_completed_last_30days"),
        ("Win-back: VIPs", "win_back_vips"),
        ("a - b", "a_b"),
        ("  Café Kunden ", "cafe_kunden"),
        ("Cafe\N{COMBINING ACUTE ACCENT} Kunden", "cafe_kunden"),
        ("CaféKundenNeu", "cafekunden_neu"),
        ("Cafe\N{COMBINING ACUTE ACCENT}KundenNeu", "cafekunden_neu"),
        ("日本", ""),
        ("--", ""),
        ("", ""),
    ],
)
def test_trait_key_of_a_name(name: str, key: str) -> None:
    assert trait_key(name) == key


@pytest.mark.parametrize("key", ["vip", "order_completed_last_30days", "a", "a" * MAX_LENGTH])
def test_a_usable_key_is_not_refused(key: str) -> None:
    assert refusal(key) is None


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "yields no trait key"),
        ("30_days", "must start with a letter"),
        ("_vip", "must start with a letter"),
        ("win-back", "hold only a-z, 0-9 and _"),
        ("VIP", "hold only a-z, 0-9 and _"),
        ("vip\n", "hold only a-z, 0-9 and _"),
        ("a" * (MAX_LENGTH + 1), f"has {MAX_LENGTH + 1} characters"),
        *((key, "is reserved") for key in sorted(RESERVED)),
    ],
)
def test_an_unusable_key_is_refused_with_the_reason(key: str, reason: str) -> None:
    assert reason in (refusal(key) or "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("VIP", "vip"),
        ("vip ", "vip"),
        ("Café", "Cafe\N{COMBINING ACUTE ACCENT}"),
        ("\N{FULLWIDTH LATIN SMALL LETTER V}ip", "vip"),
    ],
)
def test_names_taken_for_the_same_fold_alike(one: str, other: str) -> None:
    assert fold(one) == fold(other)
