"""On which line each key is written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from audience_sync.config.locate import lines

CASES = [
    ("a = 1", {("a",): 1}),
    ("\n# x = 1\n  a\t=\t1 # y\r\nb = 2", {("a",): 3, ("b",): 4}),
    ("a.b = 1\na . 'c' = 2", {("a",): 1, ("a", "b"): 1, ("a", "c"): 2}),
    ("[a]\nb = 1\n\n[ c . d ] # x\ne = 2", {("a",): 1, ("a", "b"): 2, ("c", "d", "e"): 5}),
    ("[a.b]\nx = 1\n[a]\ny = 2", {("a",): 3, ("a", "b"): 1, ("a", "b", "x"): 2}),
    ("[[a]]\nb = 1\n[[a]]\nb = 2", {("a",): 1, ("a", 0, "b"): 2, ("a", 1): 3, ("a", 1, "b"): 4}),
    ("[[a]]\n[a.b]\nc = 1\n[[a]]\n[a.b]\nc = 1", {("a", 0, "b", "c"): 3, ("a", 1, "b", "c"): 6}),
    ("[[a]]\n[[a.b]]\n[[a.b]]\nc = 1", {("a", 0, "b", 0): 2, ("a", 0, "b", 1, "c"): 4}),
    ("a = [\n 1, # ],\n '2]',\n [3,\n 4],\n]\nb = 1", {("a", 1): 3, ("a", 2, 1): 5, ("b",): 7}),
    ("a = {b = 1, c = {d = [\n1,\n{e = 2}]}}\nf = 1", {("a", "c", "d", 1, "e"): 3, ("f",): 4}),
    ('a = """\nb = 1\n\\""" ""\n"""\nc = 1', {("a",): 1, ("c",): 5}),
    ('a = """x"""""\nb = """"y"""\nc = 1', {("b",): 2, ("c",): 3}),
    ("a = '''\n[b]\n\\'''\nc = 1", {("a",): 1, ("c",): 4}),
    ('a = "\\"\\\\"\nb = "#"\nc = \'\\\'\nd = 1', {("b",): 2, ("c",): 3, ("d",): 4}),
    ('"a b"."\\u00e9".\'c.d\' = 1', {("a b", "é", "c.d"): 1}),
    ('["a]".b]\nc = 1', {("a]", "b", "c"): 2}),
    ("a = 1979-05-27 07:32:00\nb = 1e5\nc = inf", {("b",): 2, ("c",): 3}),
    ("a = [ 1979-05-27 07:32:00, 2 ]\nb = true", {("a", 1): 1, ("b",): 2}),
    ("a = []\nb = {}\nc = 1", {("c",): 3}),
    ("", {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_lines(text: str, expected: dict[tuple[str | int, ...], int]) -> None:
    found = lines(text)
    assert {path: found.get(path) for path in expected} == expected
    assert set(found) == set(paths(tomllib.loads(text)))


def paths(value: Any, around: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every key path in what TOML gave."""
    inner = value.items() if isinstance(value, dict) else []
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path for key, one in inner for path in [(*around, key), *paths(one, (*around, key))]]


@pytest.mark.parametrize("text", ["a", "a = ", "[a", "a = [", '"', "a = {b", "= 1", "a = 1 = 2"])
def test_what_is_not_toml_raises_nothing(text: str) -> None:
    lines(text)
