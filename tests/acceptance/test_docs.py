"""What the documents say is what the program does: commands, output, keys, links, tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audience_sync.config.load import load
from audience_sync.config.schema import schema
from audience_sync.destinations import calls, segment
from audience_sync.engines import columns, refusals
from audience_sync.errors import PRECEDENCE
from tests.acceptance.program import free_port

TOP = Path(__file__).parents[2]
README = TOP / "README.md"
CONFIGURATION = TOP / "docs" / "configuration.md"
PROMISES = TOP / "docs" / "delivery-promise.md"
DOCUMENTS = sorted(
    [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("examples/**/*.md")],
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOTED_EXIT = re.compile(r"# exit (\d+)$")
MAKE = re.compile(r"(?:^\$ |`|^)make (\w+)", re.MULTILINE)
PLAN = re.compile(r"\b\d{8}T\d{4,6}Z-[0-9a-f]{12}\b")
MOVING = (
    (PLAN, "PLAN"),
    (re.compile(r"\b(\d{1,2} [A-Z][a-z]{2} (\d{4} )?)?\d\d:\d\d UTC"), "TIME"),
    (re.compile(r"\(now\)"), "(DURATION ago)"),
    (re.compile(r"under 1 s|\b[\d,]+ (s|min|h|days)\b"), "DURATION"),
    (re.compile(r"[ \t]+"), " "),
)
"""What differs from one run to the next."""

TABLES = {
    "top": "",
    "Top level": "",
    "[store]": "Store",
    "[schedule]": "ScheduleTable",
    "[guard]": "GuardTable",
    "[engine]": "Engine",
    "[status]": "StatusTable",
    "files": "FilesSource",
    "sql": "SqlSource",
    "segment": "SegmentDestination",
    "crisp": "CrispDestination",
    "ndjson": "NdjsonDestination",
    "[[audiences]]": "AudienceTable",
}
"""From the documents' words for a table to the name of its schema."""

OUTSIDE = {
    "SEGMENT_WRITE_KEY": "rT9wQ3",
    "CRISP_API_KEY": "1b2c:rT9wQ3",
    "WAREHOUSE_URL": "postgresql://reader:rT9wQ3@db.example.com/shop",
}
"""What pieces of configuration in documents take from the environment."""

SANDBOX = "127.0.0.1:8345"
"""Where documents have a sandbox listen; it is another port here, as that one may be taken."""

Keys = dict[tuple[str, str], str]
"""Table and key, and the default as TOML; ``…``: needed, ``–``: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A command as a document shows it, with what it prints there."""

    command: str
    output: str

    @property
    def exit_code(self) -> int:
        noted = NOTED_EXIT.search(self.command)
        return int(noted[1]) if noted else 0


def blocks(document: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(document.read_text()) if kind == language]


def shown(document: Path) -> Iterator[Shown]:
    for block in blocks(document, "console"):
        first, *commands = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not first, f"{document.name}: output without a command: {first}"
        for text in commands:
            command, _, output = text.partition("\n")
            yield Shown(command=command, output=output)


def is_run(command: str) -> bool:
    """Setting up is not run here: see ``test_commands_that_set_up``."""
    return not command.startswith(("make", "python3 -m venv", ".venv/bin/pip"))


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Both streams in one, as a terminal shows them."""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    terminal = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        # The checkout that is tested, whichever one is installed.
        env={"PATH": path, "PYTHONPATH": str(TOP), "HOME": str(folder), "TMPDIR": str(folder)}
        | terminal,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=30,
    )


def lasting(output: str) -> list[str]:
    """Its lines without what differs from one run to the next."""
    for pattern, word in MOVING:
        output = pattern.sub(word, output)
    return [line.strip() for line in output.splitlines() if line.strip()]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_command_does_what_the_document_shows(document: Path, tmp_path: Path) -> None:
    """In order, in one folder, which has the example shop unless the document makes it."""
    steps = [step for step in shown(document) if is_run(step.command)]
    if steps and not any(" init" in step.command for step in steps):
        run("audience-sync init --example", tmp_path)
    try:
        check_steps(steps, tmp_path)
    finally:
        for started in tmp_path.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(started.read_text()), signal.SIGKILL)


def check_steps(steps: Sequence[Shown], tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    plans: dict[str, str] = {}
    for step in steps:
        command = step.command.replace(SANDBOX, address)
        for plan in PLAN.findall(command):
            command = command.replace(plan, plans.get(plan, plan))
        done = run(command, tmp_path)
        assert done.returncode == step.exit_code, f"$ {step.command}\n{done.stdout}"
        printed = done.stdout.replace(address, SANDBOX)
        assert lasting(printed) == lasting(step.output), f"$ {step.command}"
        plans |= zip(PLAN.findall(step.output), PLAN.findall(done.stdout), strict=True)


def test_the_help_is_shown_whole() -> None:
    (documented,) = (s.output for s in shown(README) if s.command == "audience-sync --help")
    printed = run("audience-sync --help", TOP).stdout
    lines = [line.rstrip() for line in printed.splitlines()]
    assert [line.rstrip() for line in documented.splitlines() if line] == [x for x in lines if x]


def test_every_command_is_in_the_table() -> None:
    printed = run("audience-sync --help", TOP).stdout.partition("─ Commands ─")[2]
    commands = re.findall(r"^│ (\w+) ", printed, re.MULTILINE)
    table = section(README, "## Commands").partition("```console")[0]
    named = " ".join(command for command, _ in rows(table))
    assert set(commands) == set(re.findall(r"`(\w+)\b[^`]*`", named))


def test_commands_that_set_up() -> None:
    """Targets of the Makefile, and pip without any address."""
    (targets,) = re.findall(r"^\.PHONY: (.+)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    wanted = {target for d in DOCUMENTS for target in MAKE.findall(d.read_text())}
    assert {"demo", "test"} <= wanted <= set(targets.split())
    pip = [s.command for s in shown(README) if ".venv/bin/pip" in s.command]
    assert pip
    assert all(re.match(r"\.venv/bin/pip install ('?\.(\[\w+\])?'?)( +#.*)?$", c) for c in pip)
    assert not [d.name for d in DOCUMENTS if re.search("index-url|/simple", d.read_text())]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    text = BLOCK.sub("", document.read_text())
    links = re.findall(r"\]\(([^)\s#]+)", text)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = {README}, [README]
    while waiting:
        document = waiting.pop()
        for link in re.findall(r"\]\(([^)\s#]+\.md)", document.read_text()):
            target = (document.parent / link).resolve()
            if target not in reached and target.exists():
                reached.add(target)
                waiting.append(target)
    assert [str(d.relative_to(TOP)) for d in DOCUMENTS if d not in reached] == []


def test_every_test_named_in_a_document_exists() -> None:
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"\btests/[\w/]+\.py\b", document.read_text())
    }
    assert len(named) > 15
    assert sorted(name for name in named if not (TOP / name).is_file()) == []


def test_every_promise_names_a_test() -> None:
    promises = re.split(r"^## ", PROMISES.read_text(), flags=re.MULTILINE)
    stated = [text for text in promises if re.match(r"P\d+ ", text)]
    assert len(stated) >= 19
    assert [text.splitlines()[0] for text in stated if "tests/" not in text] == []


def test_every_module_named_in_a_document_exists() -> None:
    """``pipeline/send.py`` in a document is ``audience_sync/pipeline/send.py``."""
    folders = "cli|config|destinations|domain|engines|pipeline"
    folders += "|scheduler|serving|sources|standing|store|web"
    pattern = re.compile(rf"`((?:{folders})/\w+\.py)`")
    names = {n for document in DOCUMENTS for n in pattern.findall(document.read_text())}
    assert len(names) > 10
    assert sorted(n for n in names if not (TOP / "audience_sync" / n).is_file()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_piece_of_configuration_can_be_used(document: Path, tmp_path: Path) -> None:
    """On top of the example, as ``--config config.toml --config piece.toml``."""
    for number, block in enumerate(blocks(document, "toml")):
        piece = tmp_path / f"{number}.toml"
        piece.write_text(block)
        load([TOP / "config.toml", piece], OUTSIDE)


def test_the_table_of_keys_is_the_schema() -> None:
    documented: Keys = {}
    for text in re.split(r"^## ", CONFIGURATION.read_text(), flags=re.MULTILINE)[1:]:
        for key, default in re.findall(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE):
            documented[table_of(text.splitlines()[0]), key] = default.strip("`")
    assert documented == keys_of_the_schema()


def test_the_readme_names_every_key_with_its_default() -> None:
    documented: Keys = {}
    for table, keys in rows(section(README, "## Configuration")):
        for key, default in re.findall(r"`(\w+)(?: = ([^`]+))?`", keys):
            documented[table_of(table), key] = default or "–"
    expected = keys_of_the_schema()
    # The type is in the row's name, or given where there is one only.
    for name in ("SegmentDestination", "CrispDestination", "NdjsonDestination"):
        documented[name, "type"] = "…"
    documented["FilesSource", "type"] = documented["SqlSource", "type"] = "…"
    assert documented == expected


def table_of(heading: str) -> str:
    words = heading.replace("`", "")
    kind = re.search(r"\b(segment|crisp|ndjson|files|sql)\b", words)
    return TABLES[kind[1] if kind else words.partition(",")[0].strip()]


def keys_of_the_schema() -> Keys:
    made = schema()
    tables: dict[str, Any] = {"": made, **made["$defs"]}
    return {
        (name, key): default_of(key, field, tables[name])
        for name in TABLES.values()
        for key, field in tables[name]["properties"].items()
        if name or key == "include"
    }


def default_of(key: str, field: dict[str, Any], table: dict[str, Any]) -> str:
    if key in table.get("required", ()):
        return "…"
    return json.dumps(field["default"]) if "default" in field else "–"


def section(document: Path, heading: str) -> str:
    return document.read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[tuple[str, str]]:
    """The first two cells of every row of a table, but for its head."""
    cells = re.findall(r"^\| (.+?) \| (.+?) \|", text.replace("\\|", "/"), re.MULTILINE)
    return [row for row in cells if row[0] not in ("table", "command", "code")]


def test_the_exit_codes_are_those_of_the_program() -> None:
    table = section(README, "## Commands").partition("### Exit codes")[2]
    assert {int(code) for code, _ in rows(table)} == {0, 2, 4, *PRECEDENCE}
    assert ", ".join(map(str, PRECEDENCE)) in README.read_text()


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("32 KB", calls.MAX_CALL_BYTES // 1024),
        ("fewer than 300 traits", calls.MAX_TRAITS + 1),
        ("at most 298 columns", columns.MAX_COLUMNS),
        ("500 KB", segment.MAX_BATCH_BYTES // 1000),
        ("at most 2,500", segment.MAX_CALLS),
        ("255 characters", refusals.MAX_ID_LENGTH),
    ],
)
def test_the_limits_are_those_of_the_program(words: str, value: int) -> None:
    assert f"{value:,}" in words
    assert words in section(README, "## Limits")
