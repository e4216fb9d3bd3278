"""Shell completion: what a shell offers while a person types, quickly and without a word more."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.acceptance.program import CALLS, Done, Program, command
from tests.acceptance.test_cli_shapes import HEAVY

OTHER = '[destinations.other]\ntype = "ndjson"\npath = "other.ndjson"\n'


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(folder=tmp_path)
    program.configure({"vip": ["calls"], "VIPs 2026": ["calls"], "winback": ["calls"]})
    return program


def offered(program: Program, *words: str, shell: str = "bash") -> Done:
    """What the program answers for the last of ``words``."""
    asked = {
        "_AUDIENCE_SYNC_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(["audience-sync", *words]),
        "COMP_CWORD": str(len(words)) if shell != "fish" else words[-1],
    }
    done = subprocess.run(
        command(),
        cwd=program.folder,
        env=program.environment() | asked,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def names(program: Program, *words: str) -> list[str]:
    done = offered(program, *words)
    assert (done.code, done.err) == (0, "")
    return [line.partition(",")[2] for line in done.lines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell(program: Program, shell: str) -> None:
    asked = {"_AUDIENCE_SYNC_COMPLETE": f"{shell}_source"}
    made = Program(folder=program.folder, variables=asked).run()
    assert (made.code, made.err) == (0, "")
    assert f"_AUDIENCE_SYNC_COMPLETE={shell}_complete" in made.out
    assert "audience-sync" in made.out


@pytest.mark.parametrize("of", ["diff", "sync", "history", "export", "pause", "resync", "retire"])
def test_audiences_by_key(program: Program, of: str) -> None:
    assert names(program, of, "v") == ["vip", "vips_2026"]
    assert names(program, of, "") == ["vip", "vips_2026", "winback"]


def test_commands_options_and_destinations(program: Program) -> None:
    assert names(program, "st") == ["status"]
    assert "--format" in names(program, "diff", "--f")
    assert names(program, "pause", "--destination", "") == ["calls"]
    assert names(program, "diff", "vip", "v") == ["vips_2026"], "not twice"


def test_every_shell_is_told_names_too(program: Program) -> None:
    assert "VIPs 2026" in offered(program, "diff", "v", shell="zsh").out
    assert "VIPs 2026" in offered(program, "diff", "v", shell="fish").out


def test_files_that_are_named_or_included(program: Program) -> None:
    (program.folder / "more").mkdir()
    (program.folder / "more" / "b.toml").write_text(
        '[[computed_traits]]\nname = "Lifetime Value"\n'
    )
    (program.folder / "a.toml").write_text('include = ["more/*.toml"]\n' + OTHER)
    assert names(program, "--config", "a.toml", "diff", "") == ["lifetime_value"]
    assert names(program, "--config", "a.toml", "pause", "--destination", "o") == ["other"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not TOML at all [",
        "audiences = 3",
        "[[audiences]]\n[[audiences]]\nname = 7\n",
        'include = ["gone.toml", 3]',
        'destinations = "calls"',
    ],
)
def test_a_broken_configuration_offers_nothing_and_says_nothing(
    program: Program, text: str
) -> None:
    (program.folder / "config.toml").write_text(text)
    assert names(program, "diff", "v") == []
    assert names(program, "pause", "--destination", "") == []


def test_what_can_be_read_is_offered_beside_what_cannot(program: Program) -> None:
    half = CALLS + '[[audiences]]\nname = "Vip"\n[[audiences]]\nkey = "half"\n'
    (program.folder / "config.toml").write_text(half)
    assert names(program, "diff", "") == ["vip"]
    (program.folder / "config.toml").unlink()
    assert names(program, "diff", "") == []


def test_nothing_heavy_is_imported(program: Program) -> None:
    script = (
        "import sys\nfrom audience_sync.cli.main import main\n"
        "try:\n    main([])\n"
        f"finally:\n    print(*sorted(set({HEAVY!r}) & sys.modules.keys()), file=sys.stderr)\n"
    )
    asked = {
        "_AUDIENCE_SYNC_COMPLETE": "bash_complete",
        "COMP_WORDS": "audience-sync diff v",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=program.folder,
        env=program.environment() | asked,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("plain,vip\nplain,vips_2026\n", "\n")


def test_in_a_real_bash(program: Program) -> None:
    """As in the documents: the script is loaded, then bash asks it for what was typed."""
    script = """
eval "$(_AUDIENCE_SYNC_COMPLETE=bash_source audience-sync)"
complete -p audience-sync
COMP_WORDS=(audience-sync diff v) COMP_CWORD=2
_audience_sync_completion audience-sync
printf '%s\\n' "${COMPREPLY[@]}"
"""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=program.folder,
        env=program.environment() | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    registered, *offered_words = done.stdout.splitlines()
    assert registered.endswith("-F _audience_sync_completion audience-sync")
    assert (offered_words, done.stderr) == (["vip", "vips_2026"], "")
