"""Text that comes from elsewhere stays text in a comment."""

from __future__ import annotations

import pytest

from audience_sync.cli.markdown import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ok (exits 0 %, limit 20 %)", "ok (exits 0 %, limit 20 %)"),
        ("a|b", r"a\|b"),
        ("<img src=x>", r"\<img src=x\>"),
        ("[here](http://x)", r"\[here\](http://x)"),
        ("`a` *b* _c_ ~~d~~ # e", r"\`a\` \*b\* \_c\_ \~\~d\~\~ \# e"),
        ("back\\slash", r"back\\slash"),
        ("one\ntwo\r\nthree", "one two three"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown
