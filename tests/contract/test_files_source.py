"""FilesSource: a read gives every row, or it is refused with the place; nothing in between."""

from __future__ import annotations

import codecs
import gzip
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audience_sync.errors import SourceFailed, SourceRefused, SourceReplaced
from audience_sync.pipeline.ports.reading import Source
from audience_sync.sources.files import FilesSource
from audience_sync.sources.freshness import Freshness
from tests.fakes.nobody import as_nobody, open_folder

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SECRET = "jane.doe"
"""Stands in every row that is broken: it may be in no message."""

GOOD = "".join(f"u{number},{number}\n" for number in range(30_000))
"""More than DuckDB looks at before it settles how a file is written."""


@pytest.fixture(scope="module")
def instance() -> Iterator[duckdb.DuckDBPyConnection]:
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 2,
        "memory_limit": "300MB",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=config) as con:
        yield con


@pytest.fixture
def source(tmp_path: Path, instance: duckdb.DuckDBPyConnection) -> FilesSource:
    return FilesSource(root=tmp_path, connect=instance.cursor)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


Write = Callable[[str, str | bytes], Path]


def rows(source: Source, query: str) -> list[tuple[object, ...]]:
    with source.read(query, NOW) as reader:
        return [tuple(row.values()) for batch in reader for row in batch.to_pylist()]


def refusal(source: Source, query: str) -> SourceFailed:
    """What a read raises, after looking that it shows nobody's data."""
    with pytest.raises(SourceFailed) as caught:
        rows(source, query)
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert SECRET not in shown
    assert "Possible" not in shown
    assert "\n" not in str(caught.value)
    return caught.value


# --- what can be read ---------------------------------------------------------------------------

READABLE = {
    "plain": "user_id,n\na,1\nb,2\n",
    "CR LF": "user_id,n\r\na,1\r\nb,2\r\n",
    "byte order mark": "\ufeffuser_id,n\na,1\nb,2\n",
    "semicolons": "user_id;n\na;1\nb;2\n",
    "tabs": "user_id\tn\na\t1\nb\t2\n",
    "bars": "user_id|n\na|1\nb|2\n",
    "quotes": '"user_id","n"\n"a","1"\n"b",2\n',
    "commas in the header's quotes": '"user_id";"n, or, so"\n"a";1\nb;2\n',
    "blank lines": "user_id,n\na,1\n\nb,2\n\n",
}


@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE)
def test_csv_is_read_as_it_is_written(source: FilesSource, write: Write, content: str) -> None:
    write("x.csv", content)
    assert rows(source, "SELECT * FROM 'x.csv' ORDER BY user_id") == [("a", 1), ("b", 2)]


def test_quoted_fields_hold_line_ends_quotes_and_delimiters(
    source: FilesSource, write: Write
) -> None:
    write("x.csv", 'user_id,n\n"a\nb",1\n"c,d",2\n"e""f",3\n')
    assert rows(source, "SELECT user_id FROM 'x.csv'") == [("a\nb",), ("c,d",), ('e"f',)]


def test_types_come_from_every_row(source: FilesSource, write: Write) -> None:
    """From a sample, DuckDB takes n for whole numbers, and 1.5 silently becomes 2."""
    write("x.csv", "user_id,n\n" + GOOD + "v,1.5\n")
    write("x.ndjson", '{"n":1}\n' * 30_000 + '{"n":1.5}\n')
    assert rows(source, "SELECT n FROM 'x.csv' WHERE user_id = 'v'") == [(1.5,)]
    assert rows(source, "SELECT n FROM 'x.ndjson' WHERE n <> 1") == [(1.5,)]


def test_types_come_from_every_file(source: FilesSource, write: Write) -> None:
    """By itself DuckDB looks at 32 JSON files, and needs 32 MB for each."""
    for number in range(100, 140):
        write(f"{number}.json", '{"n":1}\n{"n":2,"it\'s":"x"}\n')
    write("140.json", '[{"user_id":"u","n":1.5}]')
    assert len(rows(source, "SELECT n FROM '*.json'")) == 81
    last = "SELECT user_id, n, \"it's\" FROM read_json('1?0.json', sample_size = -1) WHERE n = 1.5"
    assert rows(source, last) == [("u", 1.5, None)]


def test_ids_keep_their_leading_zeros(source: FilesSource, write: Write) -> None:
    write("x.csv", "user_id\n" + "".join(f"{n}\n" for n in range(25_000)) + "007\n")
    assert rows(source, "SELECT user_id FROM 'x.csv' WHERE user_id LIKE '00%'") == [("007",)]


def test_now_is_bound_as_utc(source: FilesSource, write: Write) -> None:
    write("x.csv", "user_id,t\na,2026-01-31T23:59:59Z\nb,2026-02-01T00:00:00.000001Z\n")
    assert rows(source, "SELECT user_id FROM 'x.csv' WHERE t <= :now") == [("a",)]
    naive = "SELECT user_id FROM (SELECT user_id, t::TIMESTAMP AS t FROM 'x.csv') WHERE t <= :now"
    assert rows(source, naive) == [("a",)]
    assert rows(source, "SELECT :now::date || ' :now' AS d") == [("2026-02-01 :now",)]


@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_packed_files_are_read_whole(source: FilesSource, write: Write, packed: str) -> None:
    """Also when they were packed in several runs."""
    parts = [b"user_id,n\na,1\n", b"b,2\n"]
    write(f"x.csv.{packed}", b"".join(map(PACK[packed], parts)))
    assert rows(source, f"SELECT x.user_id FROM 'x.csv.{packed}'") == [("a",), ("b",)]


def _zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": _zstd}

SHOP = {
    "bare": "SELECT user_id, email FROM 'orders.csv' JOIN 'c/customers.csv' USING (user_id)",
    "named after the file": "SELECT orders.user_id, customers.email FROM 'orders.csv', "
    "'c/customers.csv' WHERE orders.user_id = customers.user_id",
    "unquoted": "SELECT user_id, email FROM orders.csv JOIN 'c/customers.csv' USING (user_id)",
    "aliases": "SELECT o.user_id, k.email FROM 'orders.csv' o JOIN \"c/customers.csv\" AS k "
    "ON o.user_id = k.user_id",
    "alias in front": "SELECT user_id, e.email FROM 'orders.csv' JOIN e: 'c/customers.csv' "
    "USING (user_id)",
    "WITH": "WITH é AS (FROM 'orders.csv'), e AS (SELECT * FROM 'c/customers.csv') "
    "SELECT user_id, email FROM é JOIN e USING (user_id)",
    "subquery": "SELECT user_id, (SELECT any_value(email) FROM 'c/customers.csv' c "
    "WHERE c.user_id = o.user_id) FROM 'orders.csv' o",
    "IN and EXISTS": "SELECT user_id, email FROM 'c/customers.csv' WHERE user_id IN "
    "(SELECT user_id FROM 'orders.csv') AND EXISTS (FROM 'orders.csv')",
    "functions": "SELECT user_id, email FROM read_csv('orders.csv', delim = ',') JOIN "
    "read_csv_auto(['c/customers.csv']) USING (user_id)",
    "functions with aliases": "SELECT o.a, k.email FROM READ_CSV('orders.csv') AS o(a, n) JOIN "
    "k: read_csv('c/customers.csv', header := true) ON o.a = k.user_id",
    "text that names files": "SELECT user_id, email -- FROM 'nope.csv'\nFROM /* 'no.csv' */ "
    "'orders.csv' JOIN 'c/customers.csv' USING (user_id) WHERE 'orders.csv' <> 'no.csv';",
}


@pytest.mark.parametrize("query", SHOP.values(), ids=SHOP)
def test_files_stand_wherever_a_table_does(source: FilesSource, write: Write, query: str) -> None:
    write("orders.csv", "user_id,n\na,1\nb,2\n")
    write("c/customers.csv", "user_id,email\na,a@x\nb,b@x\n")
    assert sorted(rows(source, query)) == [("a", "a@x"), ("b", "b@x")]


def test_unions_and_samples(source: FilesSource, write: Write) -> None:
    write("x.csv", "user_id\na\n")
    write("y.csv", "user_id\nb\n")
    query = "SELECT * FROM 'x.csv' TABLESAMPLE 100% UNION ALL BY NAME FROM 'y.csv'"
    assert sorted(rows(source, query)) == [("a",), ("b",)]


def test_a_glob_reads_every_file_with_one_type_for_all(source: FilesSource, write: Write) -> None:
    write("d/1.csv", "user_id,n\na,1\n")
    write("d/2.csv", "n,user_id\n1.5,b\n")
    write("d/3.csv", "user_id,n\n")
    write("d/.4.csv", "user_id,n\nunfinished,4\n")
    write("e/f/4.csv", "user_id,n\nc,3\n")
    assert rows(source, "SELECT user_id, n FROM 'd/*.csv'") == [("a", 1.0), ("b", 1.5)]
    assert len(rows(source, "FROM '**/*.csv'")) == 3
    assert len(rows(source, "FROM read_csv(['d/[12].csv', 'e/?/4.csv'])")) == 3


@pytest.mark.parametrize("empty", ["0.csv", "2.csv"])
def test_an_empty_file_among_others_changes_no_type(
    source: FilesSource, write: Write, empty: str
) -> None:
    write(empty, "n,t\n")
    write("1.csv", "n,t\n7,2026-01-01T00:00:00Z\n")
    query = "SELECT typeof(n), n FROM '*.csv' WHERE t <= :now"
    assert rows(source, query) == [("BIGINT", 7)]


@pytest.mark.parametrize("name", ["it's.csv", "a[1].csv", "a*.csv", 'q".csv', "ü b.csv"])
def test_names_are_taken_literally_when_they_exist(
    source: FilesSource, write: Write, name: str
) -> None:
    write(name, "user_id\na\n")
    write("a1.csv", "user_id\nb\n")
    quoted = name.replace("'", "''")
    assert rows(source, f"SELECT user_id FROM '{quoted}'") == [("a",)]
    assert rows(source, f"SELECT user_id FROM read_csv('{quoted}')") == [("a",)]


def test_folders_become_columns_only_inside_the_root(
    tmp_path: Path, instance: duckdb.DuckDBPyConnection
) -> None:
    root = tmp_path / "day=1"
    (root / "k=v").mkdir(parents=True)
    (root / "x.csv").write_text("user_id\na\n")
    (root / "k=v" / "x.csv").write_text("user_id\nb\n")
    source = FilesSource(root=root, connect=instance.cursor)
    assert rows(source, "FROM 'x.csv'") == [("a",)]
    assert rows(source, "SELECT user_id, k FROM 'k=*/x.csv'") == [("b", "v")]


def test_json_and_parquet(source: FilesSource, write: Write, tmp_path: Path) -> None:
    write("x.ndjson", '{"user_id":"a","n":1}\n{"user_id":"b","n":2}\n')
    write("x.json", '[{"user_id":"a","n":1},\n {"user_id":"b","n":2}]')
    pq.write_table(pa.table({"user_id": ["a"], "n": [1]}), tmp_path / "x1.parquet")
    pq.write_table(pa.table({"n": [2.5], "user_id": ["b"]}), tmp_path / "x2.parquet")
    assert rows(source, "FROM 'x.ndjson'") == [("a", 1), ("b", 2)]
    assert rows(source, "SELECT x.user_id FROM 'x.json'") == [("a",), ("b",)]
    assert rows(source, "FROM 'x*.parquet'") == [("a", 1.0), ("b", 2.5)]
    assert rows(source, "SELECT user_id FROM parquet_scan('x1.parquet') p") == [("a",)]


def test_what_the_query_states_is_kept(source: FilesSource, write: Write) -> None:
    write("x.dat", "a report\n'ä;1';2\n'b';3\n".encode("latin-1"))
    query = (
        "FROM read_csv('x.dat', skip = 1, header = false, names = ['user_id', 'n'], sep = ';', "
        "quote = '''', encoding = 'latin-1', types = {'n': 'DOUBLE'})"
    )
    assert rows(source, query) == [("ä;1", 2.0), ("b", 3.0)]


def test_a_table_is_never_a_variable_of_this_program(source: FilesSource, write: Write) -> None:
    """A name that WITH gives elsewhere in the query is a table here only for our own check."""
    write("x.csv", "user_id\na\n")
    query = "SELECT * FROM (WITH self AS (FROM 'x.csv') FROM self) JOIN self USING (user_id)"
    assert "Table with name self does not exist" in str(refusal(source, query))


def test_a_header_of_text_above_rows_of_text_is_a_header(source: FilesSource, write: Write) -> None:
    write("x.csv", "2024-01-01,2024-01-02\n2024-01-03,2024-01-04\n")
    assert rows(source, "SELECT \"2024-01-01\"::VARCHAR FROM 'x.csv'") == [("2024-01-03",)]


def test_a_hash_begins_an_id_and_no_comment(source: FilesSource, write: Write) -> None:
    write("x.csv", "user_id\n#a\nb\n#c\n")
    assert rows(source, "FROM 'x.csv'") == [("#a",), ("b",), ("#c",)]


# --- types that lose something ------------------------------------------------------------------

UUID = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
TWENTY_DIGITS = "12345678901234567890"
KEPT_AS_TEXT = [
    *("007", "0x10", "-0", "+4912345", "1_000", TWENTY_DIGITS, TWENTY_DIGITS * 3),
    *("t", "F", "yes", "No"),
    *("01/02/2026", "13/02/2026", "01-02-2026", "1-2-2026", "12-2-26", "02/01/2026 10:00:00"),
]
SIX = datetime(2026, 1, 31, 6, tzinfo=UTC)
TYPED: list[tuple[str, str, object]] = [
    ("7", "BIGINT", 7),
    (" 7 ", "BIGINT", 7),
    (str(-(2**63)), "BIGINT", -(2**63)),
    (str(2**63 - 1), "BIGINT", 2**63 - 1),
    ("true", "BOOLEAN", True),
    ("FALSE", "BOOLEAN", False),
    ("1.50", "DOUBLE", 1.5),
    ("1.23E+15", "DOUBLE", 1.23e15),
    ("2026-01-31", "DATE", date(2026, 1, 31)),
    ("2026-01-31T06:00:00", "TIMESTAMP", SIX.replace(tzinfo=None)),
    ("2026-01-31 06:00:00Z", "TIMESTAMP WITH TIME ZONE", SIX),
]


@pytest.mark.parametrize("text", KEPT_AS_TEXT)
def test_a_value_that_its_type_would_change_is_text(
    source: FilesSource, write: Write, text: str
) -> None:
    """An id that is 16 where 0x10 stands is another person, whatever the column is called."""
    write("x.csv", f"customer,n\n{text},1\n")
    query = "SELECT typeof(customer), customer AS user_id, n FROM 'x.csv'"
    assert rows(source, query) == [("VARCHAR", text, 1)]
    write("x.csv", "customer,n\n" + "".join(f"{n},1\n" for n in range(30_000)) + f"{text},1\n")
    assert rows(source, f"SELECT customer FROM 'x.csv' WHERE customer = '{text}'") == [(text,)]


@pytest.mark.parametrize(("text", "type_", "value"), TYPED, ids=[text for text, _, _ in TYPED])
def test_a_value_that_its_type_keeps_has_the_type(
    source: FilesSource, write: Write, text: str, type_: str, value: object
) -> None:
    write("x.csv", f"user_id,n\na,{text}\nb,\n")
    query = "SELECT typeof(n), n FROM 'x.csv' WHERE user_id = 'a'"
    assert rows(source, query) == [(type_, value)]


def test_a_whole_number_among_floats_loses_no_digit(source: FilesSource, write: Write) -> None:
    write("x.csv", "user_id,n\na,9007199254740993\nb,2.5\n")
    assert rows(source, "SELECT n FROM 'x.csv'") == [("9007199254740993",), ("2.5",)]


def test_what_is_not_written_in_all_files_alike_is_text(source: FilesSource, write: Write) -> None:
    write("1.csv", "user_id,n\na,7\n")
    write("2.csv", "user_id,n\na,+7\n")
    assert rows(source, "SELECT n FROM '*.csv' ORDER BY n") == [("+7",), ("7",)]


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("dateformat = '%m/%d/%Y'", "01/02/2026", date(2026, 1, 2)),
        ("dateformat = '%d/%m/%Y'", "01/02/2026", date(2026, 2, 1)),
        ("timestampformat = '%d.%m.%Y %H:%M'", "31.01.2026 06:00", SIX.replace(tzinfo=None)),
        ("types = {'n': 'BIGINT'}", "+7", 7),
        ("types = {'N': 'BIGINT'}", "0x10", 16),
        ("types = ['VARCHAR', 'BIGINT']", "0x10", 16),
        ("all_varchar = true", "7", "7"),
        ("header = true, columns = {'user_id': 'VARCHAR', 'n': 'HUGEINT'}", "7", 7),
    ],
)
def test_what_is_said_of_a_column_is_no_guess(
    source: FilesSource, write: Write, option: str, text: str, value: object
) -> None:
    write("x.csv", f"user_id,n\na,{text}\n")
    assert rows(source, f"SELECT n FROM read_csv('x.csv', {option})") == [(value,)]


def test_beside_stated_types_a_column_that_would_change_is_refused(
    source: FilesSource, write: Write
) -> None:
    write("x.csv", "user_id,customer,n\n0x10,7,1\n0x11,8,2\n")
    error = refusal(source, "FROM read_csv('x.csv', types = {'n': 'BIGINT'})")
    assert str(error) == "x.csv: column user_id: taken for BIGINT, some values would change"
    assert error.hint == "state its type too: types = {…, 'user_id': 'VARCHAR'}"
    stated = "types = {'n': 'BIGINT', user_id: 'VARCHAR'}"
    assert len(rows(source, f"FROM read_csv('x.csv', {stated})")) == 2


@pytest.mark.parametrize("call", ["read_csv_auto('x.csv')", "read_csv('x.csv', auto_detect=TRUE)"])
def test_to_ask_for_guesses_is_to_say_nothing(source: FilesSource, write: Write, call: str) -> None:
    write("x.csv", "user_id,n\n0x10,0x10\n")
    assert rows(source, f"FROM {call}") == [("0x10", "0x10")]


def test_ids_without_a_header_are_text_too(source: FilesSource, write: Write) -> None:
    write("x.csv", "0x10,0x10\n")
    query = "FROM read_csv('x.csv', header = false, names = ['user_id', 'n'])"
    assert rows(source, query) == [("0x10", "0x10")]


def test_columns_that_duckdb_adds_keep_their_types(source: FilesSource, write: Write) -> None:
    write("day=7/x.csv", "user_id,n\n0x10,0x10\n")
    added = "hive_partitioning = true, filename = true"
    query = f"SELECT user_id, n, day FROM read_csv('day=*/x.csv', {added})"
    assert rows(source, query) == [("0x10", "0x10", 7)]


JSON_TEXTS = {
    "a UUID in capitals": (f'"{UUID}"', [UUID]),
    "texts and numbers": ('"a"}\n{"x":12', ["a", "12"]),
    "texts and truth": ('"yes"}\n{"x":true', ["yes", "true"]),
    "a day that may be a month": ('"01-02-2026"', ["01-02-2026"]),
    "more digits than a number has": (TWENTY_DIGITS * 2, [TWENTY_DIGITS * 2]),
    "more digits, and a fraction": (f'{TWENTY_DIGITS}}}\n{{"x":2.5', [TWENTY_DIGITS, "2.5"]),
}


@pytest.mark.parametrize(("content", "values"), JSON_TEXTS.values(), ids=JSON_TEXTS)
def test_a_text_in_json_stays_what_it_is(
    source: FilesSource, write: Write, content: str, values: list[str]
) -> None:
    write("x.ndjson", f'{{"x":{content}}}\n')
    assert rows(source, "SELECT x FROM 'x.ndjson'") == [(value,) for value in values]
    write("y.ndjson", '{"x":null}\n')
    assert rows(source, "SELECT x FROM '*.ndjson' WHERE x IS NOT NULL") == [(v,) for v in values]


def test_a_text_inside_an_object_stays_what_it_is(source: FilesSource, write: Write) -> None:
    one = f'{{"o":{{"id":"{UUID}","of a":[{{"b":"{UUID}"}}],"m":1}}}}\n'
    write("x.ndjson", one + '{"o":{"id":null,"of a":[],"m":"text"}}\n')
    query = "SELECT o.id, o.\"of a\"[1].b, o.m FROM 'x.ndjson'"
    assert rows(source, query) == [(UUID, UUID, "1"), (None, None, "text")]


def test_ids_in_json_are_text_even_where_they_look_like_times(
    source: FilesSource, write: Write
) -> None:
    write("x.json", '[{"user_id":"2026-01-31","t":"2026-01-31"}]')
    assert rows(source, "FROM 'x.json'") == [("2026-01-31", date(2026, 1, 31))]


def test_json_that_needs_no_other_types_is_left_to_duckdb(
    source: FilesSource, write: Write
) -> None:
    write("x.json", "[1, 2]")
    assert rows(source, "SELECT json AS user_id FROM 'x.json'") == [(1,), (2,)]


# --- an empty audience is a header and nothing else -----------------------------------------------

EMPTY_READS = {
    "compared": "SELECT user_id FROM 'x.csv' WHERE t <= :now AND t > :now - INTERVAL 30 DAY",
    "named after the file": "SELECT x.user_id, x.t FROM 'x.csv' WHERE x.t < :now",
    "computed": "SELECT user_id, sum(t) AS value FROM 'x.csv' GROUP BY user_id",
    "joined": "SELECT a.user_id FROM 'x.csv' a JOIN 'y.csv' b ON a.user_id = b.n WHERE a.t < :now",
    "called": "SELECT c.user_id FROM read_csv('x.csv', delim = ',') AS c WHERE t <= :now",
    "called without alias": "SELECT read_csv.user_id FROM read_csv('x.csv') WHERE t <= :now",
    "alias in front": "SELECT c.user_id FROM c: 'x.csv' WHERE c.t <= :now",
}


@pytest.mark.parametrize("query", EMPTY_READS.values(), ids=EMPTY_READS)
@pytest.mark.parametrize("header", ["user_id,t\n", "\ufeffuser_id,t\r\n", '"user_id",t\n\n\n'])
def test_a_header_alone_is_an_empty_read(
    source: FilesSource, write: Write, query: str, header: str
) -> None:
    write("x.csv", header)
    write("y.csv", "user_id,n\na,1\n")
    assert rows(source, query) == []


def test_headers_alone_have_the_columns_of_all(source: FilesSource, write: Write) -> None:
    write("1.csv", "user_id\n")
    write("2.csv", "user_id,t\n")
    query = "SELECT user_id FROM read_csv('*.csv', union_by_name = true) WHERE t <= :now"
    assert rows(source, query) == []


@pytest.mark.parametrize("content", ["", "\ufeff"])
def test_an_empty_file_without_a_header_is_refused(
    source: FilesSource, write: Write, content: str
) -> None:
    write("x.csv", content)
    error = refusal(source, "FROM 'x.csv'")
    assert isinstance(error, SourceRefused)
    assert str(error) == "x.csv: the file is empty, without even a header line"
    assert "header line with nothing below" in str(error.hint)


@pytest.mark.parametrize("content", ["", "[]", " [ ]\n", "\n"])
def test_empty_json_needs_its_columns_stated(
    source: FilesSource, write: Write, content: str
) -> None:
    write("x.json", content)
    error = refusal(source, "SELECT user_id FROM 'x.json'")
    assert "columns are not known" in str(error)
    stated = "FROM read_json('x.json', columns = {'user_id': 'VARCHAR'})"
    assert str(error.hint).endswith(stated.removeprefix("FROM "))
    assert rows(source, stated) == []


# --- files that are not whole or not what they seem ---------------------------------------------

REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "cut in the last line": (
        f"user_id,n\na,1\n{SECRET},2",
        "x.csv: the last line is cut or still being written",
        "end the file with a line end",
    ),
    "cut between CR and LF": (
        f"user_id,n\r\n{SECRET},1\r",
        "x.csv: the last line is cut or still being written",
        "line end",
    ),
    "cut in the header": ("user_id,ema", "x.csv: the last line is cut", "line end"),
    "cut, then ended": (
        f"user_id,n\na,1\nb,2\n{SECRET}\n",
        "x.csv: line 4 has 1 column, expected 2",
        "repair the line",
    ),
    "cut in the middle, far down": (
        f"user_id,n\n{GOOD}{SECRET}\n{GOOD}",
        "x.csv: line 30002 has 1 column, expected 2",
        "repair the line",
    ),
    "ragged at the top": (
        f"user_id,n\n{SECRET},1,2\na,1\n",
        "x.csv: line 2 has 3 columns, expected 2",
        "repair the line",
    ),
    "ragged in the middle": (
        f"user_id,n\na,1\n{SECRET}\nc,3\n",
        "x.csv: line 3 has 1 column, expected 2",
        "repair the line",
    ),
    "ragged after quoted line ends": (
        f'user_id,n\n"a\nb\nc",1\n{SECRET}\n',
        "x.csv: line 5 has 1 column, expected 2",
        "repair the line",
    ),
    "many columns, last row cut": (
        f"user_id,a,b,c\nu,1,2,3\n{SECRET},1,2\n",
        "x.csv: line 3 has 3 columns, expected 4",
        "repair the line",
    ),
    "open quote at the end": (
        f'user_id,n\na,1\n"{SECRET},2\n',
        "x.csv: line 3 opens a quote that is not closed",
        "close it",
    ),
    "open quote at the end, far down": (
        f'user_id,n\n{GOOD}"{SECRET},2\n',
        "x.csv: line 30002 opens a quote that is not closed",
        "close it",
    ),
    "open quote in the middle": (
        f'user_id,n\na,1\n"{SECRET},2\n{GOOD}',
        "x.csv: line 3 opens a quote that is not closed",
        "close it",
    ),
    "text after a quote": (
        f'user_id,n\na,1\n"b"{SECRET},2\n',
        "x.csv: line 3 goes on after a closing quote",
        "written twice",
    ),
    "a title above the header": (
        "Orders of January\nuser_id,n\na,1\n",
        "x.csv: line 2 has 2 columns, expected 1",
        "how many lines to skip",
    ),
    "a comment above the header": (
        "# Orders of January\nuser_id,n\na,1\n",
        "x.csv: line 2 has 2 columns, expected 1",
        "how many lines to skip",
    ),
    "a row that looks like a comment": (
        f"user_id,n\na,1\n# {SECRET}\nb,2\n",
        "x.csv: line 3 has 1 column, expected 2",
        "repair the line",
    ),
    "a title and a blank line above": (
        "Orders of January\n\nuser_id,n\na,1\n",
        "x.csv: line 3 has 2 columns, expected 1",
        "how many lines to skip",
    ),
    "a blank first line": ("\nuser_id,n\na,1\n", "x.csv: the first line does not name", "header"),
    "no header, e-mails": (
        f"{SECRET}@example.com,x\nb@example.com,y\n",
        "x.csv: the first line does not name columns",
        "header = false, names",
    ),
    "no header, numbers": ("42,x\n43,y\n", "x.csv: the first line does not name columns", "header"),
    "two columns of one name": (
        f"user_id,email,Email\na,{SECRET},2\n",
        "x.csv: two columns are named Email",
        "rename",
    ),
    "latin-1": (
        f"user_id,n\na,1\nä{SECRET},2\n".encode("latin-1"),
        "x.csv: line 3 is not UTF-8 text",
        "encoding = 'latin-1'",
    ),
    "open quote in the header": (
        f'user_id,"n\n{SECRET},1\n{GOOD[:100]}\n',
        "x.csv: line 1 opens a quote that is not closed",
        "close it",
    ),
    "open quote in the header, closed far below": (
        f'user_id,"n\n{SECRET},1\nb,"\nc,2\n',
        "x.csv: the header line goes on in the next one, inside quotes",
        "close the quote",
    ),
    "UTF-16": (
        f"user_id,n\n{SECRET},1\n".encode("utf-16"),
        "x.csv: line 1 is not UTF-8 text",
        "encoding = 'utf-16'",
    ),
    "UTF-16 without a mark": (
        "user_id,n\na,1\n".encode("utf-16-le"),
        "x.csv: line 1 is not UTF-8 text",
        "encoding = 'utf-16'",
    ),
    "packed without saying so": (
        gzip.compress(b"user_id,n\na,1\n"),
        "x.csv: line 1 is not UTF-8 text",
        "it is packed: read_csv('x.csv', compression = 'gzip')",
    ),
    "a spreadsheet": (
        b"PK\x03\x04\x14\0",
        "x.csv: line 1 is not UTF-8 text",
        "write it as CSV",
    ),
    "JSON": (
        f'{{"user_id":"{SECRET}"}}\n',
        "x.csv: the first line does not name columns",
        "add a header line",
    ),
    "a web page": (
        "<!doctype html>\n<p>Please log in\n",
        "x.csv: the first line does not name columns",
        "add a header line",
    ),
    "latin-1, far down": (
        f"user_id,n\n{GOOD}ä{SECRET},2\n".encode("latin-1"),
        "x.csv: line 30002 is not UTF-8 text",
        "encoding",
    ),
    "mixed line ends": (
        f"user_id,n\na,1\n{SECRET},2\r\nc,3\n",
        "x.csv: line 3 ends in CR LF, unlike the lines above it",
        "one kind of line end",
    ),
    "a line without end": (
        f"user_id,n\n{SECRET * 300_000},1\n",
        "x.csv: a line is longer than 2,000,000 bytes",
        "quote",
    ),
}


@pytest.mark.parametrize(("content", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_csv_file_that_is_not_whole_is_refused_with_its_line(
    source: FilesSource, write: Write, content: str | bytes, message: str, hint: str
) -> None:
    write("x.csv", content)
    error = refusal(source, "SELECT * FROM 'x.csv'")
    assert isinstance(error, SourceRefused)
    assert message in str(error)
    assert hint in str(error.hint)


@pytest.mark.parametrize("call", ["read_csv('x.csv')", "read_csv(['x.csv'], delim = ',')"])
@pytest.mark.parametrize("case", ["cut in the last line", "open quote at the end", "latin-1"])
def test_a_call_is_no_way_around(source: FilesSource, write: Write, case: str, call: str) -> None:
    content, message, _ = REFUSED[case]
    write("x.csv", content)
    assert message in str(refusal(source, f"SELECT * FROM {call}"))


def test_a_stated_type_is_refused_with_line_and_column(source: FilesSource, write: Write) -> None:
    write("x.csv", f"user_id,n\n{GOOD}a,{SECRET}\n")
    error = refusal(source, "FROM read_csv('x.csv', types = {'n': 'BIGINT'})")
    assert str(error) == "x.csv: line 30002, column n: not a valid BIGINT"
    assert error.hint == "repair it, or read the column as text: types = {'n': 'VARCHAR'}"


def test_a_column_that_is_not_all_times_says_how_to_find_the_line(
    source: FilesSource, write: Write
) -> None:
    write("x.csv", f"user_id,t\na,2026-01-01\n{SECRET},{SECRET}\n")
    error = refusal(source, "SELECT user_id FROM 'x.csv' WHERE t <= :now")
    assert "Cannot compare values of type VARCHAR" in str(error)
    assert "state its type to be told the line" in str(error.hint)


CUT_PACKAGES = {
    "cut in the trailer": lambda packed: packed[:-1],
    "cut before the trailer": lambda packed: packed[:-9],
    "cut in half": lambda packed: packed[: len(packed) // 2],
    "not packed": lambda packed: b"user_id,n\na,1\n",
}


@pytest.mark.parametrize("cut", CUT_PACKAGES.values(), ids=CUT_PACKAGES)
@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_a_packed_file_that_is_cut_is_refused(
    source: FilesSource, write: Write, packed: str, cut: Callable[[bytes], bytes]
) -> None:
    """DuckDB reads a cut zstd file up to the cut, as if nothing were missing."""
    write(f"x.csv.{packed}", cut(PACK[packed](f"user_id,n\n{GOOD}".encode())))
    error = refusal(source, f"FROM 'x.csv.{packed}'")
    assert isinstance(error, SourceRefused)
    assert str(error) == f"x.csv.{packed}: the packed file is damaged or cut"


def test_a_gzip_file_that_is_damaged_is_refused(source: FilesSource, write: Write) -> None:
    packed = gzip.compress(f"user_id,n\n{GOOD}".encode())
    write("x.csv.gz", packed[:-3000] + bytes(10) + packed[-2990:])
    error = refusal(source, "FROM 'x.csv.gz'")
    assert str(error) == "x.csv.gz: the packed file is damaged or cut"


def test_a_packed_file_whose_last_line_is_cut_is_refused(source: FilesSource, write: Write) -> None:
    write("x.csv.gz", gzip.compress(f"user_id,n\n{GOOD}{SECRET},1".encode()))
    assert "x.csv.gz: the last line is cut" in str(refusal(source, "FROM 'x.csv.gz'"))


LINE = '{"user_id":"a"}\n'
BAD_JSON = {
    "byte order mark": ('\ufeff[{"user_id":"a"}]', "begins with a byte order mark"),
    "no line end": (f'{LINE}{{"user_id":"{SECRET}"}}', "the last line is cut"),
    "cut, then ended": (f'{LINE}{{"user_id":"{SECRET}"\n', "line 2 is not JSON"),
    "cut, then more": (f'{LINE}{{"user_id":"{SECRET}"\n{LINE}', "line 2 is not JSON"),
    "cut far down": (f'{LINE * 50_000}{{"user_id":"{SECRET}\n{LINE}', "line 50001 is not JSON"),
    "text": (f"{LINE}{SECRET}\n{LINE}", "line 2 is not JSON"),
    "cut array with a byte order mark": (f'\ufeff[{{"user_id":"{SECRET}"}},', "the array is cut"),
    "array cut after a comma": (f'[{{"user_id":"{SECRET}"}},', "the array is cut"),
    "array not closed": (f'[{{"user_id":"{SECRET}"}}\n', "the array is cut"),
    "array cut at an inner one": ('[{"user_id":["a"]},{"user_id":["b"]', "value 2 is not JSON"),
}


@pytest.mark.parametrize(("content", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_not_whole_is_refused(
    source: FilesSource, write: Write, content: str, message: str
) -> None:
    write("x.json", content)
    error = refusal(source, "SELECT user_id FROM 'x.json'")
    assert isinstance(error, SourceRefused)
    assert str(error).startswith(f"x.json: {message}")


def test_json_that_does_not_fit_its_columns_is_refused(source: FilesSource, write: Write) -> None:
    write("x.json", LINE * 3 + f'{{"user_id":"{SECRET}"}}\n')
    query = "FROM read_json('x.json', columns = {'user_id': 'INTEGER'})"
    assert "x.json: line 1 has a value or key" in str(refusal(source, query))


@pytest.mark.parametrize("cut", [slice(0, 0), slice(0, 7), slice(0, -3), slice(20, None)])
def test_parquet_that_is_not_whole_is_refused(
    source: FilesSource, write: Write, tmp_path: Path, cut: slice
) -> None:
    pq.write_table(pa.table({"user_id": [SECRET, "b"]}), tmp_path / "x.parquet")
    write("x.parquet", (tmp_path / "x.parquet").read_bytes()[cut])
    error = refusal(source, "FROM 'x.parquet'")
    assert isinstance(error, SourceRefused)
    assert str(error) == "x.parquet: not a whole Parquet file"


def test_the_bad_file_of_many_is_named(source: FilesSource, write: Write) -> None:
    write("1.csv", f"user_id,n\n{GOOD}")
    write("11.csv", f"user_id,n\n{GOOD}{SECRET}\n")
    assert "11.csv: line 30002 has 1 column" in str(refusal(source, "FROM '*.csv'"))
    joined = "FROM '1.csv' a JOIN '11.csv' b USING (user_id)"
    assert "11.csv: line 30002 has 1 column" in str(refusal(source, joined))


@pytest.mark.parametrize("files", ["'*.csv'", "read_csv(['1.csv', '2.csv'])"])
def test_files_of_one_table_have_the_same_columns(
    source: FilesSource, write: Write, files: str
) -> None:
    """DuckDB would leave out what the first file lacks."""
    write("1.csv", "user_id\na\n")
    write("2.csv", "user_id,email\nb,b@x\n")
    error = refusal(source, f"SELECT user_id FROM {files}")
    assert str(error) == "2.csv: does not have the columns of 1.csv (email)"
    assert "union_by_name = true" in str(error.hint)
    stated = "SELECT user_id, email FROM read_csv('*.csv', union_by_name = true)"
    assert rows(source, stated) == [("a", None), ("b", "b@x")]


def test_parquet_files_of_one_table_have_the_same_columns(
    source: FilesSource, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"user_id": ["a"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"user_id": ["b"], "n": [1]}), tmp_path / "2.parquet")
    assert "2.parquet: does not have the columns" in str(refusal(source, "FROM '*.parquet'"))


def test_files_of_one_table_have_the_same_delimiter(source: FilesSource, write: Write) -> None:
    write("1.csv", "user_id,n\na,1\n")
    write("2.csv", "n;user_id\n1;b\n")
    error = refusal(source, "FROM read_csv('*.csv', union_by_name = true)")
    assert str(error) == "2.csv: is not separated like 1.csv"


# --- what a query may do --------------------------------------------------------------------------

NOT_ONE_SELECT = [
    "",
    ";",
    "SELECT 1; SELECT 2",
    "COPY (SELECT 1) TO 'out.csv'",
    "WITH x AS (COPY (SELECT 1) TO 'out.csv') SELECT * FROM 'x.csv'",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x",
    "CREATE TABLE t AS FROM 'x.csv'",
    "INSERT INTO t FROM 'x.csv'",
    "DROP TABLE t",
    "ATTACH 'x.db' AS x",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '1GB'",
    "PRAGMA version",
    "CALL pragma_version()",
    "EXPORT DATABASE 'x'",
    "DESCRIBE 'x.csv'",
    "SUMMARIZE 'x.csv'",
    "SHOW TABLES",
    "EXPLAIN SELECT 1",
]


@pytest.mark.parametrize("query", NOT_ONE_SELECT)
def test_a_query_is_one_select_that_only_reads(
    source: FilesSource, write: Write, tmp_path: Path, query: str
) -> None:
    write("x.csv", "user_id\na\n")
    error = refusal(source, query)
    assert isinstance(error, SourceRefused)
    assert str(error) == "query: must be one SELECT that only reads"
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


REFUSED_QUERIES = {
    "SELECT * FROM 'nope.csv'": "nope.csv: no such file under ",
    "SELECT * FROM 'no*.csv'": "no*.csv: no such file under ",
    "SELECT * FROM 'x.csv' JOIN 'nope.csv' USING (user_id)": "nope.csv: no such file under ",
    "SELECT * FROM read_csv(['x.csv', 'nope.csv'])": "nope.csv: no such file under ",
    "SELECT * FROM '../x.csv'": "../x.csv: leads out of the source's root",
    "SELECT * FROM 'd/../../*.csv'": "leads out of the source's root",
    "SELECT * FROM '/etc/hosts.csv'": "/etc/hosts.csv: leads out of the source's root",
    "SELECT * FROM read_csv('/etc/passwd')": "/etc/passwd: leads out of the source's root",
    "SELECT * FROM 's3://bucket/x.csv'": "s3:// cannot be read",
    "SELECT * FROM read_parquet('https://x/y?key=1')": "https:// cannot be read",
    "SELECT * FROM 'folder.csv'": "folder.csv: is not a file",
    "SELECT * FROM orders": "query: there is no table orders",
    "SELECT * FROM 'x.xlsx'": "query: there is no table x.xlsx",
    "SELECT * FROM information_schema.tables": "there is no table information_schema.tables",
    "TABLE 'x.csv'": "named where it cannot be checked",
    "WITH \"x.csv\" AS (SELECT 1) FROM 'x.csv'": 'WITH "x.csv" has the name of a file',
    "SELECT * FROM read_csv('x' || '.csv')": "read_csv() must name its files as literals",
    "SELECT * FROM read_csv(['x.csv', user_id])": "read_csv() must name its files as literals",
    "SELECT * FROM read_csv(delim = ',')": "read_csv() must name its files",
    "SELECT * FROM read_csv()": "read_csv() must name its files first",
    "SELECT * FROM read_text('x.csv')": "read_text() cannot be used",
    "SELECT * FROM read_blob('x.csv')": "read_blob() cannot be used",
    "SELECT * FROM glob('*')": "glob() cannot be used",
    "SELECT * FROM sniff_csv('x.csv')": "sniff_csv() cannot be used",
    "SELECT * FROM query('SELECT 1')": "query() cannot be used",
    "SELECT * FROM query_table('x.csv')": "query_table() cannot be used",
    "SELECT * FROM duckdb_secrets()": "duckdb_secrets() cannot be used",
    "SELECT * FROM 'x.csv' WHERE n = $limit": "only :now is filled in (found limit)",
    "SELECT * FROM 'x.csv' WHERE n = ?": "only :now is filled in",
    "SELECT user_id,\nFROM WHERE": 'query, line 2: syntax error at or near "WHERE"',
    "SELECT user FROM 'x.csv' WHERE nope = 1": 'Referenced column "nope" not found',
    "SELECT upperr(user_id) FROM 'x.csv'": "upperr does not exist! Did you mean",
    "SELECT n FROM 'x.csv' GROUP BY user_id": "must appear in the GROUP BY clause",
    "SELECT (SELECT user_id FROM 'x.csv')": "query: a value does not fit",
    "SELECT error(user_id) FROM 'x.csv'": "query: a value does not fit",
    "SELECT (user_id || 'x')::INTEGER FROM 'x.csv'": "query: a value is not a valid INT32",
    "SELECT n * 9223372036854775807 FROM 'x.csv'": "query: a value is not a valid INT64",
    "SELECT * FROM read_csv('x.csv', nope = 1)": 'Invalid named parameter "nope"',
    "SELECT * FROM read_csv('x.csv', delim = user_id)": "delim must be a literal",
    "SELECT * FROM read_csv('x.csv', encoding = 'klingon')": "'klingon' cannot be read",
    "SELECT * FROM read_csv('x.csv', encoding = 'cp1252')": "'cp1252' cannot be read",
    "SELECT * FROM read_csv('x.csv', encoding = 'base64')": "'base64' cannot be read",
    "SELECT * FROM read_csv('x.csv', quote = 'ab')": "quote must be one character, or none",
    "SELECT * FROM read_csv('x.csv', escape = '\n')": "escape must be one character, or none",
    "SELECT * FROM read_csv('x.csv', skip = 99999999999999999999)": "the file is empty",
    "SELECT * FROM read_csv('x.csv', compression = 'bz2')": "'bz2' is not known",
    "SELECT * FROM read_csv('x.csv', skip = 'two')": "skip must be a number of lines",
    "SELECT * FROM read_csv('x.csv', names = ['user_id', 'n'])": "whether the file has a header",
}


@pytest.mark.parametrize(("query", "message"), REFUSED_QUERIES.items())
def test_a_query_that_cannot_be_used_is_refused(
    source: FilesSource, write: Write, tmp_path: Path, query: str, message: str
) -> None:
    write("x.csv", f"user_id,n\n{SECRET},1\nb,2\n")
    (tmp_path / "folder.csv").mkdir()
    error = refusal(source, query)
    assert isinstance(error, SourceRefused)
    assert message in str(error)


def test_utf_16_with_the_high_bytes_first_is_refused(source: FilesSource, write: Write) -> None:
    """DuckDB reads it as if the low bytes came first: other letters, and no error."""
    write("x.csv", codecs.BOM_UTF16_BE + "user_id\na\n".encode("utf-16-be"))
    for call in ("'x.csv'", "read_csv('x.csv', encoding = 'utf-16')"):
        error = refusal(source, f"FROM {call}")
        assert str(error).startswith("x.csv: line 1 is not UTF-")
        assert error.hint == "it is UTF-16 with the high bytes first: write it as UTF-8"


def test_a_missing_file_is_named_with_the_root(source: FilesSource, tmp_path: Path) -> None:
    error = refusal(source, "FROM 'orders.csv'")
    assert str(error) == f"orders.csv: no such file under {tmp_path}"
    assert "relative to the source's root" in str(error.hint)


def test_the_candidates_for_a_missing_column_are_shown(source: FilesSource, write: Write) -> None:
    write("x.csv", "user_id,completed_at\na,1\n")
    error = refusal(source, "SELECT userid FROM 'x.csv'")
    assert 'Candidate bindings: "user_id"' in str(error)


LOSING = [
    "ignore_errors = true",
    "ignore_errors := 1",
    "null_padding = true",
    "store_rejects = true",
    "strict_mode = false",
    "rejects_table = 'r'",
    "ignore_errors = n",
]


@pytest.mark.parametrize("option", LOSING)
def test_options_that_lose_rows_are_refused(source: FilesSource, write: Write, option: str) -> None:
    write("x.csv", "user_id,n\na,1\n")
    error = refusal(source, f"FROM read_csv('x.csv', {option})")
    assert str(error).endswith("cannot be used, as it loses rows without an error")
    assert "repair the file" in str(error.hint)
    write("x.json", LINE)
    assert "cannot be used" in str(refusal(source, "FROM read_json('x.json', ignore_errors=true)"))


def test_the_same_options_at_their_harmless_value_are_kept(
    source: FilesSource, write: Write
) -> None:
    write("x.csv", "user_id,n\na,1\n")
    options = "ignore_errors = false, null_padding = FALSE, strict_mode = true, comment = '#'"
    assert rows(source, f"FROM read_csv('x.csv', {options})") == [("a", 1)]


# --- the system and the machine -------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as found:
        yield found


def test_a_file_that_may_not_be_read_is_refused(
    folder: Path, instance: duckdb.DuckDBPyConnection
) -> None:
    (folder / "x.csv").write_text("user_id\na\n")
    (folder / "x.csv").chmod(0)
    with as_nobody():
        error = refusal(FilesSource(root=folder, connect=instance.cursor), "FROM 'x.csv'")
    assert isinstance(error, SourceRefused)
    assert str(error) == "x.csv: may not be read (permission denied)"


@pytest.mark.parametrize("pattern", ["*/x.csv", "**/x.csv", "*/*.csv"])
def test_a_folder_that_may_not_be_entered_is_not_an_empty_folder(
    folder: Path, instance: duckdb.DuckDBPyConnection, pattern: str
) -> None:
    source = FilesSource(root=folder, connect=instance.cursor)
    for name in ("1", "2"):
        (folder / name).mkdir()
        (folder / name / "x.csv").write_text("user_id\na\n")
    assert len(rows(source, f"FROM '{pattern}'")) == 2
    (folder / "2").chmod(0)
    with as_nobody():
        error = refusal(source, f"FROM '{pattern}'")
    (folder / "2").chmod(0o755)
    assert isinstance(error, SourceRefused)
    assert str(error).startswith(f"{folder}/2")
    assert str(error).endswith(": may not be read (permission denied)")


def test_a_link_to_nothing_is_not_left_out(source: FilesSource, write: Write) -> None:
    link = write("1.csv", "user_id\na\n").with_name("2.csv")
    link.symlink_to("gone.csv")
    error = refusal(source, "FROM '*.csv'")
    assert isinstance(error, SourceRefused)
    assert str(error) == "2.csv: is a link to nothing"


def test_a_pipe_is_not_waited_for(source: FilesSource, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")
    assert str(refusal(source, "FROM 'x.csv'")) == "x.csv: is not a file"


def test_an_error_of_the_disk_is_tried_again_later(source: FilesSource, tmp_path: Path) -> None:
    """The start of /proc/self/mem cannot be read: EIO, as from a broken disk."""
    (tmp_path / "x.csv").symlink_to("/proc/self/mem")
    error = refusal(source, "FROM 'x.csv'")
    assert not isinstance(error, SourceRefused)
    assert str(error) == "x.csv: Input/output error"


def test_too_little_memory_says_which_setting_to_raise(source: FilesSource) -> None:
    query = "SELECT array_agg(a.range ORDER BY b.range) FROM range(10_000_000) a, range(10) b"
    error = refusal(source, query)
    assert not isinstance(error, SourceRefused)
    assert "raise memory_limit in [engine]" in str(error.hint)


def test_an_interrupted_read_is_tried_again_later(
    instance: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    sessions: list[duckdb.DuckDBPyConnection] = []

    def connect() -> duckdb.DuckDBPyConnection:
        sessions.append(instance.cursor())
        return sessions[-1]

    source = FilesSource(root=tmp_path, connect=connect)
    with source.read("SELECT range AS user_id FROM range(50_000_000)", NOW) as reader:
        assert reader.read_next_batch().num_rows > 0
        sessions[0].interrupt()
        with pytest.raises(SourceFailed, match="did not finish") as caught:
            exhaust(reader)
    assert not isinstance(caught.value, SourceRefused)


# --- files that change ----------------------------------------------------------------------------


def exhaust(reader: pa.RecordBatchReader) -> int:
    return sum(batch.num_rows for batch in reader)


def _append(root: Path) -> None:
    with (root / "d/1.csv").open("a") as file:
        file.write("late,1\n")


def _replace(root: Path) -> None:
    shutil.copy2(root / "d/1.csv", root / "new")
    (root / "new").rename(root / "d/1.csv")


def _truncate(root: Path) -> None:
    os.truncate(root / "d/1.csv", 1000)


def _remove(root: Path) -> None:
    (root / "d/1.csv").unlink()


def _touch(root: Path) -> None:
    os.utime(root / "d/1.csv", ns=(1, 1))


def _overwrite(root: Path) -> None:
    with (root / "d/1.csv").open("r+") as file:
        file.seek(400_000)
        file.write("xxx")
    os.utime(root / "d/1.csv", ns=(2, 2))


CHANGES = {
    "appended to": (_append, "d/1.csv"),
    "replaced by a copy": (_replace, "d/1.csv"),
    "truncated": (_truncate, "d/1.csv"),
    "removed": (_remove, "d/1.csv"),
    "touched": (_touch, "d/1.csv"),
    "overwritten in place": (_overwrite, "d/1.csv"),
    "another file arrives": (
        lambda root: (root / "d/2.csv").write_text("user_id,n\nb,2\n"),
        "d/2.csv",
    ),
}


@pytest.mark.parametrize(("change", "name"), CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_while_it_is_read_fails_the_read(
    source: FilesSource, write: Write, tmp_path: Path, change: Callable[[Path], object], name: str
) -> None:
    write("d/1.csv", "user_id,n\n" + GOOD * 10)
    with source.read("SELECT * FROM 'd/*.csv'", NOW) as reader:
        first = reader.read_next_batch()
        assert 0 < first.num_rows <= 65_536
        change(tmp_path)
        with pytest.raises(SourceFailed) as caught:
            exhaust(reader)
    assert type(caught.value) is (SourceReplaced if change is _replace else SourceFailed)
    assert str(caught.value) == f"{name} changed while it was read"
    assert "rename it into place" in str(caught.value.hint)


def test_one_replaced_beside_one_that_is_written_is_not_whole(
    source: FilesSource, write: Write, tmp_path: Path
) -> None:
    write("d/1.csv", "user_id,n\n" + GOOD * 10)
    write("d/2.csv", "user_id,n\n" + GOOD)
    with source.read("SELECT * FROM 'd/*.csv'", NOW) as reader:
        _replace(tmp_path)
        with (tmp_path / "d/2.csv").open("a") as file:
            file.write("b,2\n")
        with pytest.raises(SourceFailed) as caught:
            exhaust(reader)
    assert type(caught.value) is SourceFailed


def test_a_file_that_does_not_change_is_read_to_the_end(source: FilesSource, write: Write) -> None:
    write("d/1.csv", "user_id,n\n" + GOOD * 10)
    with source.read("SELECT * FROM 'd/*.csv'", NOW) as reader:
        assert exhaust(reader) == 300_000


def test_a_change_before_the_first_batch_fails_the_read_too(
    source: FilesSource, write: Write
) -> None:
    path = write("x.csv", "user_id\na\n")
    with source.read("FROM 'x.csv'", NOW) as reader:
        path.write_text("user_id\n")
        with pytest.raises(SourceFailed, match="changed while it was read"):
            exhaust(reader)


def test_an_error_from_a_change_is_not_blamed_on_the_data(
    source: FilesSource, tmp_path: Path
) -> None:
    table = pa.table({"user_id": [f"u{number}" for number in range(400_000)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=20_000)
    with source.read("FROM 'x.parquet'", NOW) as reader:
        assert reader.read_next_batch().num_rows > 0
        (tmp_path / "x.parquet").write_bytes(bytes((tmp_path / "x.parquet").stat().st_size))
        os.utime(tmp_path / "x.parquet", ns=(1, 1))  # the clock of old kernels stands for 10 ms
        with pytest.raises(SourceFailed, match=r"x\.parquet changed while") as caught:
            exhaust(reader)
    assert not isinstance(caught.value, SourceRefused)


def test_another_session_of_the_same_instance_never_sees_a_clean_end(
    source: FilesSource, write: Write, instance: duckdb.DuckDBPyConnection
) -> None:
    """As the engine reads: DuckDB pulls the batches, from its own thread."""
    path = write("x.csv", "user_id,n\n" + GOOD)
    with source.read("FROM 'x.csv'", NOW) as reader, instance.cursor() as con:
        con.register("rows", reader)
        assert con.sql("SELECT count(*) FROM rows").fetchall() == [(30_000,)]
    with source.read("FROM 'x.csv'", NOW) as reader, instance.cursor() as con:
        path.write_text("user_id,n\na,1\n")
        con.register("rows", reader)
        with pytest.raises(duckdb.Error, match="changed while it was read"):
            con.sql("SELECT count(*) FROM rows").fetchall()


# --- sessions -------------------------------------------------------------------------------------


def test_batches_are_read_as_they_are_asked_for(source: FilesSource) -> None:
    with source.read("SELECT range AS user_id FROM range(1_000_000_000_000)", NOW) as reader:
        assert reader.read_next_batch().num_rows <= 65_536


def test_every_session_is_closed_and_leaves_the_instance_as_it_was(
    instance: duckdb.DuckDBPyConnection, tmp_path: Path, write: Write
) -> None:
    sessions: list[duckdb.DuckDBPyConnection] = []

    def connect() -> duckdb.DuckDBPyConnection:
        sessions.append(instance.cursor())
        return sessions[-1]

    write("x.csv", "user_id\na\n")
    source = FilesSource(root=tmp_path, connect=connect)
    settings = "SELECT name, value FROM duckdb_settings() ORDER BY name"
    before = instance.execute(settings).fetchall()
    rows(source, "FROM 'x.csv'")
    refusal(source, "FROM 'nope.csv'")
    assert instance.execute(settings).fetchall() == before
    for session in sessions:
        with pytest.raises(duckdb.ConnectionException):
            session.execute("SELECT 1")
    assert len(sessions) == 2


def test_two_reads_may_be_open_at_once(source: FilesSource, write: Write) -> None:
    write("x.csv", "user_id,n\n" + GOOD)
    with source.read("FROM 'x.csv'", NOW) as one, source.read("FROM 'x.csv'", NOW) as other:
        assert exhaust(other) == exhaust(one) == 30_000


def test_a_consumer_s_own_error_is_not_taken_for_the_source_s(
    source: FilesSource, write: Write
) -> None:
    write("x.csv", "user_id\na\n")
    with pytest.raises(BrokenPipeError), source.read("FROM 'x.csv'", NOW):
        raise BrokenPipeError(32, "Broken pipe")


def test_an_id_is_the_text_that_stands_there(source: FilesSource, write: Write) -> None:
    """A guessed number would be another id: 0x10 is 16 to DuckDB, and -0 is 0."""
    ids = ["-0", "0x10", "0x1A", "7"]
    write("users.csv", "\n".join(["user_id,n", *(f"{i},1" for i in ids)]) + "\n")
    assert sorted(rows(source, "SELECT user_id FROM 'users.csv'")) == [(i,) for i in ids]


def test_files_that_are_too_old_fail_the_read(
    tmp_path: Path, instance: duckdb.DuckDBPyConnection, write: Write
) -> None:
    """Of every name in the query, the newest file counts: a part of long ago is no news."""
    ages = {"orders/1.csv": 30, "orders/2.csv": 1, "customers.csv": 5}
    for name, hours in ages.items():
        path = write(name, "user_id\na\n")
        os.utime(path, times=(NOW.timestamp() - hours * 3600,) * 2)
    source = FilesSource(
        root=tmp_path, connect=instance.cursor, freshness=Freshness(max_age=timedelta(hours=4))
    )
    assert len(rows(source, "SELECT user_id FROM 'orders/*.csv'")) == 2
    assert rows(source, "SELECT 'u1' AS user_id") == [("u1",)]
    stale = refusal(source, "FROM 'orders/*.csv' JOIN 'customers.csv' USING (user_id)")
    assert str(stale) == (
        "customers.csv: stale: the newest data is of 2026-01-31 19:00 UTC, 5 h before this run's "
        "time (freshness.max_age is 4 h)"
    )
    assert not isinstance(stale, SourceRefused)
    assert "orders/1.csv: stale" in str(refusal(source, "FROM 'orders/1.csv'"))
