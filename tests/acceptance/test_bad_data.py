"""The promises' list of bad data, item by item: refused with the place and what to do, nobody told.

Every item is an audience of its own. All are captured, then each one's file or query goes bad, and
one ``sync`` meets all of them. Forms of each in depth: ``tests/contract/test_files_source.py`` and
``test_engine.py``.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.program import SNAPSHOTS, Done, Program

DAY_1, DAY_2 = "2026-03-01T06:00Z", "2026-03-01T09:00Z"

SOMEBODY = "person-7"
"""In every row that is bad: may be in no output."""

GOOD = f"user_id,email,n\n{SOMEBODY},p7@private.example,1\nperson-8,p8@private.example,2\n"
LONG = "".join(f"person-{number},p@private.example,1\n" for number in range(100_000))
SELECT_ONE = "must be one SELECT that only reads"
TOO_MANY = r"cannot be used \(limit 1 %\): "
MEND = "mend the query, or raise [guard] max_refused_rows"
NUMBER = "is not a number that can travel (NaN, Inf, too large)"


@dataclass(frozen=True, kw_only=True)
class Bad:
    """``place`` (a pattern, at the start) and ``fault`` are what the error says, ``todo`` its hint.

    ``file``: what the audience's file holds then; ``query``: what it asks for then.
    """

    place: str
    fault: str = ""
    todo: str
    file: str | bytes = GOOD
    query: str = "FROM '{name}'"
    ending: str = "csv"


def ids(user_id: str, why: str) -> Bad:
    """A good row and one with this ``user_id``."""
    return Bad(
        file=f"user_id,email\nperson-8,p8@private.example\n{user_id},p7@private.example\n",
        place=r"50 % of 2 rows " + TOO_MANY + "user_id ",
        fault=why,
        todo=MEND,
    )


def numbers(value: str) -> Bad:
    return Bad(
        file=f"user_id,n\nperson-8,1.5\n{SOMEBODY},{value}\n",
        place=r"50 % of 2 rows " + TOO_MANY + "n ",
        fault=NUMBER.removeprefix("is"),
        todo=MEND,
    )


def writes(query: str) -> Bad:
    return Bad(query=query, place="query: ", fault=SELECT_ONE, todo="are never run")


ROWS: dict[str, Bad] = {
    "no user_id": Bad(
        file="uid,email\nx,p7@private.example\n",
        place="the query gives no column user_id, ",
        fault="only uid, email",
        todo="name the id column: SELECT … AS user_id",
    ),
    "no user_id in the query": Bad(
        query="SELECT email, n FROM '{name}'",
        place="the query gives no column user_id, ",
        fault="only email, n",
        todo="name the id column: SELECT … AS user_id",
    ),
    "duplicate columns": Bad(
        file=f"user_id,email,email\n{SOMEBODY},a,b\n",
        place="{name}: ",
        fault="two columns are named email",
        todo="rename one",
    ),
    "duplicate columns of the query": Bad(
        query="SELECT *, n FROM '{name}'",
        place="the query gives the column n ",
        fault="more than once",
        todo="name each column once, with AS",
    ),
    "id NULL": ids("", "is missing"),
    "id empty": ids('""', "is missing"),
    "id white space": ids('"  "', "is empty or white space"),
    "id white space of Unicode": ids("\u00a0\u3000", "is empty or white space"),
    "id the word null": ids("null", "is a word for nothing"),
    "id NaN": ids("NaN", "is a word for nothing"),
    "id None": ids("None", "is a word for nothing"),
    "id undefined": ids("undefined", "is a word for nothing"),
    "id float": ids("1.0", "looks like a float"),
    "id of a spreadsheet": ids("1.23E+15", "looks like a float"),
    "id float of another column": Bad(
        file="customer\n1.23E+15\n",
        query="SELECT customer AS user_id FROM '{name}'",
        place="user_id ",
        fault="is a double, and a float does not hold an id exactly",
        todo="CAST(user_id AS BIGINT), or read it as text",
    ),
    "id control character": ids(f"{SOMEBODY}\x1b", "holds control characters"),
    "id NUL": ids(f"{SOMEBODY}\0", "holds control characters"),
    "id NUL in JSON": Bad(
        file=f'[{{"user_id":"{SOMEBODY}\\u0000"}}]\n',
        ending="json",
        place=r"100 % of 1 rows " + TOO_MANY + "user_id ",
        fault="holds control characters",
        todo=MEND,
    ),
    "id lone surrogate": Bad(
        file=f"user_id\n{SOMEBODY}\n".encode() + b"\xed\xb3\xbf\n",
        place="{name}: line 3 ",
        fault="is not UTF-8 text",
        todo="state its encoding: ",
    ),
    "id lone surrogate in JSON": Bad(
        file=f'{{"user_id":"x"}}\n{{"user_id":"{SOMEBODY}\\udcff"}}\n',
        ending="ndjson",
        place="{name}: line 2 ",
        fault="is not JSON",
        todo="repair it, or write the file again",
    ),
    "id over 255 characters": ids(SOMEBODY * 40, "is over 255 characters"),
    "cut in the last line": Bad(
        file=GOOD[:-3],
        place="{name}: the last line ",
        fault="is cut or still being written",
        todo="end the file with a line end; write a new file and rename it into place",
    ),
    "cut, JSON": Bad(
        file=f'[{{"user_id":"{SOMEBODY}"}},\n',
        ending="json",
        place="{name}: ",
        fault="the array is cut or still being written",
        todo="end the file with ]; write a new file and rename it into place",
    ),
    "cut, Parquet": Bad(
        file=b"PAR1" + b"x" * 100,
        ending="parquet",
        place="{name}: ",
        fault="not a whole Parquet file",
        todo="write it again",
    ),
    "open quote at the end": Bad(
        file=f'{GOOD}"{SOMEBODY},p@private.example,1\n',
        place="{name}: line 4 ",
        fault="opens a quote that is not closed",
        todo="close it, or write the file again",
    ),
    "ragged row": Bad(
        file=f"{GOOD}{SOMEBODY},p@private.example,1,2\n",
        place="{name}: line 4 ",
        fault="has 4 columns, expected 3",
        todo="repair the line, or write the file again",
    ),
    "ragged row, far down": Bad(
        file=f"{GOOD}{LONG}{SOMEBODY}\n",
        place="{name}: line 100004 ",
        fault="has 1 column, expected 3",
        todo="repair the line, or write the file again",
    ),
    "wrong delimiter": Bad(
        file=GOOD.replace(",", "#"),
        place="the query gives no column user_id, ",
        fault="only user_id#email#n",
        todo="state what separates the columns: read_csv('…', delim = '#')",
    ),
    "wrong delimiter, stated": Bad(
        file=GOOD.replace(",", ";"),
        query="FROM read_csv('{name}', delim = ',')",
        place="the query gives no column user_id, ",
        fault="only user_id;email;n",
        todo="state what separates the columns: read_csv('…', delim = ';')",
    ),
    "wrong encoding": Bad(
        file=f"user_id,name\n{SOMEBODY},Zoë\n".encode("latin-1"),
        place="{name}: line 2 ",
        fault="is not UTF-8 text",
        todo="state its encoding: read_csv('{name}', encoding = 'latin-1')",
    ),
    "wrong encoding, UTF-16": Bad(
        file=GOOD.encode("utf-16"),
        place="{name}: line 1 ",
        fault="is not UTF-8 text",
        todo="state its encoding: read_csv('{name}', encoding = 'utf-16')",
    ),
    "truncated gzip": Bad(
        file=gzip.compress((GOOD + LONG).encode())[:-20],
        ending="csv.gz",
        place="{name}: ",
        fault="the packed file is damaged or cut",
        todo="write it again",
    ),
    "query that inserts": writes("INSERT INTO x VALUES (1)"),
    "query that copies": writes("COPY (SELECT 1) TO 'stolen.csv'"),
    "query of two statements": writes("FROM '{name}'; DROP TABLE x"),
    "query that deletes in a WITH": writes("WITH d AS (DELETE FROM x RETURNING *) FROM d"),
    "query that attaches": writes("ATTACH 'other.db'"),
    "300 traits": Bad(
        query=f"SELECT user_id, {', '.join(f'{n} AS c{n}' for n in range(299))} FROM '{{name}}'",
        place="the query gives 299 columns beside user_id ",
        fault="(limit 298)",
        todo="select only what the destinations need",
    ),
    "NaN": numbers("NaN"),
    "infinity": numbers("-inf"),
    "e-mail that is a number": Bad(
        file=f"user_id,email\n{SOMEBODY},7\n",
        place="the column email ",
        fault="is a int64, not text",
        todo="select an e-mail address, or rename the column with AS",
    ),
    "e-mail that is a time": Bad(
        query="SELECT user_id, :now AS email FROM '{name}'",
        place="the column email ",
        fault="not text",
        todo="select an e-mail address, or rename the column with AS",
    ),
    "missing file": Bad(
        query="FROM 'nowhere.csv'",
        place="nowhere.csv: ",
        fault="no such file under ",
        todo="names in a query are relative to the source's root",
    ),
    "empty file": Bad(
        file="",
        place="{name}: ",
        fault="the file is empty, without even a header line",
        todo="an audience without members is a header line with nothing below it",
    ),
    "value that does not fit": Bad(
        file=f"user_id,n\n{SOMEBODY},7\nperson-8,seven\n",
        query="FROM read_csv('{name}', types = {{'n': 'BIGINT'}})",
        place="{name}: line 3, column n: ",
        fault="not a valid BIGINT",
        todo="repair it, or read the column as text: types = {{'n': 'VARCHAR'}}",
    ),
    "time that is none": Bad(
        file=f"user_id,seen_at\n{SOMEBODY},31/01/2026\n",
        query="SELECT user_id FROM '{name}' WHERE seen_at <= :now",
        place="query: ",
        fault="Cannot compare values of type VARCHAR and type TIMESTAMP WITH TIME ZONE",
        todo="dateformat = '%d/%m/%Y'",
    ),
}
TRAITS: dict[str, Bad] = {
    "two values for one id": Bad(
        file=f"user_id,value\n{SOMEBODY},1\n{SOMEBODY},2\n",
        place="the query gives different values for the same user_id ",
        fault="(users: 1)",
        todo="give one row for each user: … GROUP BY user_id",
    ),
    "no value": Bad(
        query="SELECT user_id, email FROM '{name}'",
        place="the query gives no column value, ",
        fault="only user_id, email",
        todo="AS value",
    ),
}
ALL = {**ROWS, **TRAITS}
GOOD_TRAIT = f"user_id,value,email\n{SOMEBODY},1,p7@private.example\n"
FINE = "user_id\nperson-1\nperson-2\n"


def key(item: str) -> str:
    return "a_" + "_".join(re.findall(r"[a-z0-9]+", item.lower()))


def table(array: str, item: str, query: str) -> str:
    return (
        f"[[{array}]]\nname = {json.dumps(item)}\nkey = {json.dumps(key(item))}\n"
        f'source = "files"\nquery = {json.dumps(query)}\ndestinations = ["calls"]\n'
    )


def configure(program: Program, *, bad: bool) -> None:
    tables = [table("audiences", "fine", "FROM 'fine.csv'")]
    for array, items in (("audiences", ROWS), ("computed_traits", TRAITS)):
        for item, row in items.items():
            good = f"FROM '{key(item)}.good.csv'"
            query = row.query.format(name=f"{key(item)}.{row.ending}") if bad else good
            tables.append(table(array, item, query))
    program.configure(more="\n".join(tables))


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run that met every row."""

    done: Done
    captures: dict[str, dict[str, Any]]
    before: list[tuple[Any, ...]]
    after: list[tuple[Any, ...]]
    told: list[dict[str, Any]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    program = Program(folder=tmp_path_factory.mktemp("data"))
    program.members("vip", [1])
    write(program.folder / "fine.csv", FINE.replace("person-2\n", ""))
    for item, row in ALL.items():
        good = GOOD_TRAIT if item in TRAITS else GOOD
        write(program.folder / f"{key(item)}.good.csv", good)
        write(program.folder / f"{key(item)}.{row.ending}", row.file)
    configure(program, bad=False)
    assert program.run("sync", "--now", DAY_1).code == 0
    before, calls = program.stored(SNAPSHOTS), len(program.calls())
    configure(program, bad=True)
    write(program.folder / "fine.csv", FINE)
    done = program.run("sync", "--all", "--json", "--now", DAY_2)
    return Ran(
        done=done,
        captures={capture["audience"]: capture for capture in done.json()["captures"]},
        before=before,
        after=program.stored(SNAPSHOTS),
        told=program.calls()[calls:],
    )


@pytest.mark.parametrize("item", ALL)
def test_bad_data(ran: Ran, item: str) -> None:
    row, name = ALL[item], f"{key(item)}.{ALL[item].ending}"
    capture = ran.captures[key(item)]
    assert capture["outcome"] == "refused", capture
    place = row.place.replace("{name}", re.escape(name))
    assert re.match(place, capture["error"]), capture
    assert row.fault in re.sub(place, "", capture["error"], count=1), capture
    assert row.todo.format(name=name) in (capture["hint"] or ""), capture


def test_the_whole_run_is_65_and_tells_nobody_of_a_bad_audience(ran: Ran) -> None:
    """No row was a bug, or a failure that the next run tries again."""
    assert ran.done.code == 65
    assert len(ran.captures) == len(ALL) + 2
    others = {(key("fine"), 2, "current"), (key("fine"), 1, "current")}
    assert set(ran.after) - others == set(ran.before) - others
    told = [(call["userId"], call["traits"]) for call in ran.told]
    assert told == [("person-2", {key("fine"): True})]


def test_the_run_names_nobody(ran: Ran) -> None:
    shown = ran.done.out + ran.done.err
    assert "Traceback" not in shown
    assert "person-" not in shown
    assert "private.example" not in shown


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(folder=tmp_path)
    made.configure()
    made.members("vip", range(200))
    assert made.run("sync", "--now", DAY_1).code == 0
    return made


def test_one_in_a_hundred_rows_is_tolerated_and_counted(program: Program) -> None:
    text = (program.folder / "vip.csv").read_text()
    write(program.folder / "vip.csv", text + "1.23E+15,p@private.example\n,p@private.example\n")
    shown = program.run("diff", "--now", DAY_2)
    assert shown.code == 0
    assert "1 refused: user_id is missing" in shown.out
    assert "1 refused: user_id looks like a float" in shown.out
    done = program.run("sync", "--now", DAY_2)
    assert done.code == 0
    assert "2 rows could not be used" in done.out
    write(program.folder / "vip.csv", text + "null,p@private.example\n" * 3)
    assert program.run("sync", "--all").code == 65
    assert len(program.calls()) == 200


def test_of_duplicate_ids_one_is_kept_and_the_others_are_counted(program: Program) -> None:
    text = (program.folder / "vip.csv").read_text()
    write(program.folder / "vip.csv", text + "person-0199,a@private.example\n" * 50)
    shown = program.run("diff", "--json", "--now", DAY_2)
    (outlook,) = shown.json()["audiences"]
    assert (outlook["duplicates"], outlook["members"], outlook["exited"]) == (50, 200, 0)
    done = program.run("sync", "--now", DAY_2)
    assert done.code == 0
    assert len(program.calls()) == 200, "an e-mail is no change that is told"


def test_a_call_over_32_kb_is_rejected_alone(program: Program) -> None:
    """It is one member's fault, so the others are told."""
    rows = f"big-1,{'x' * 40_000}\nbig-2,p@private.example\n"
    text = (program.folder / "vip.csv").read_text()
    write(program.folder / "vip.csv", text + rows)
    done = program.run("sync", "--now", DAY_2)
    assert done.code == 0
    assert "1 accepted, 1 rejected" in done.out
    assert [call["userId"] for call in program.calls()[200:]] == ["big-2"]
    ((reason,),) = program.stored("SELECT reason FROM rejection")
    assert re.fullmatch(r"an Identify call of 40,\d{3} bytes \(limit 32,768\)", reason)


WRITTEN_MEANWHILE = """
import os, sys
from audience_sync.cli.main import main
from audience_sync.sources.file_names import Selection

looked = Selection.change

def change(selection):
    os.utime("vip.csv")
    return looked(selection)

Selection.change = change
main(sys.argv[1:])
"""


def test_a_file_that_changes_while_it_is_read_is_tried_again_later(program: Program) -> None:
    """Not 65: the next run finds a whole file, and nobody need look."""
    before = program.stored(SNAPSHOTS)
    done = program.run("sync", "--now", DAY_2, script=WRITTEN_MEANWHILE)
    assert done.code == 1
    assert "vip          FAILED        vip.csv changed while it was read\n" in done.out
    assert "write a new file and rename it into place" in done.out
    assert program.stored(SNAPSHOTS) == before
    assert len(program.calls()) == 200
    assert program.run("sync", "--all").code == 0


def test_a_source_that_is_a_column_of_numbers_too_large(program: Program) -> None:
    pq.write_table(
        pa.table({"user_id": ["a"], "n": pa.array([2**63], pa.uint64())}),
        program.folder / "n.parquet",
    )
    config = program.folder / "config.toml"
    config.write_text(config.read_text().replace("vip.csv", "n.parquet"))
    done = program.run("sync", "--now", DAY_2)
    assert done.code == 65
    assert f"n {NUMBER} (1)" in done.out
