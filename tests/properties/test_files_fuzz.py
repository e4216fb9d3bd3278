"""A file of any bytes is read as exactly its rows, or refused with the place; never as fewer."""

from __future__ import annotations

import codecs
import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audience_sync.errors import SourceRefused
from audience_sync.sources.csv_dialect import delimiter_of
from audience_sync.sources.files import FilesSource

NOW = datetime(2026, 2, 1, tzinfo=UTC)
Row = tuple[str, ...]

# A quoted carriage return alone makes DuckDB see mixed line ends; it refuses such a file.
TEXT = st.text(alphabet="ab0 é,;'\"\n|#", min_size=1, max_size=5)
TAME = st.text(alphabet="ab0é,;'\"", min_size=1, max_size=5).filter(lambda text: text.strip())
LINE_ENDS = st.sampled_from(["\n", "\r\n"])


@pytest.fixture(scope="module")
def source() -> Iterator[FilesSource]:
    with tempfile.TemporaryDirectory() as root, duckdb.connect(config={"threads": 2}) as con:
        yield FilesSource(root=Path(root), connect=con.cursor)


def written(ids: list[str], line_end: str, *, columns: int) -> bytes:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator=line_end)
    writer.writerow(["user_id", "n", "note"][:columns])
    writer.writerows(
        [user_id, str(number), user_id][:columns] for number, user_id in enumerate(ids)
    )
    return content.getvalue().encode()


def read(source: FilesSource, content: bytes) -> list[Row] | None:
    """``None`` when the file was refused."""
    (source._root / "x.csv").write_bytes(content)
    try:
        with source.read("FROM read_csv('x.csv', all_varchar = true)", NOW) as reader:
            return [tuple(row.values()) for batch in reader for row in batch.to_pylist()]
    except SourceRefused:
        return None


def whole_rows(content: bytes) -> list[Row]:
    """The rows below the header, by the ``csv`` module."""
    found = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    return [tuple(row) for row in found][1:]


@given(
    ids=st.lists(TEXT, max_size=6),
    line_end=LINE_ENDS,
    columns=st.integers(1, 3),
    at=st.integers(min_value=0),
)
@example(ids=["a\n", "b"], line_end="\n", columns=2, at=13)
@example(ids=["a", "b"], line_end="\r\n", columns=2, at=13)
@example(ids=['"\n"', "b"], line_end="\n", columns=3, at=12)
def test_a_cut_file_is_refused_or_exactly_a_shorter_one(
    source: FilesSource, ids: list[str], line_end: str, columns: int, at: int
) -> None:
    content = written(ids, line_end, columns=columns)
    cut = content[: at % (len(content) + 1)]
    found = read(source, cut)
    if found is not None:
        ends = {0} | {len(written(ids[:n], line_end, columns=columns)) for n in range(len(ids) + 1)}
        assert len(cut) in ends
        assert found == whole_rows(cut)


@given(ids=st.lists(TAME, max_size=6), line_end=LINE_ENDS, left=st.integers(0, 6))
def test_a_file_of_whole_rows_is_read(
    source: FilesSource, ids: list[str], line_end: str, left: int
) -> None:
    """So that the promise above is not kept by refusing everything."""
    content = written(ids[:left], line_end, columns=2)
    assert read(source, content) == whole_rows(content)


@given(ids=st.lists(TAME, min_size=2, max_size=6), data=st.data())
def test_a_row_that_loses_or_gains_a_column_is_refused(
    source: FilesSource, ids: list[str], data: st.DataObject
) -> None:
    """Wherever it is, and whatever the others are."""
    number = data.draw(st.integers(0, len(ids) - 1))
    bad = data.draw(st.sampled_from(["zz\n", "zz,1,2\n", '"zz,1\n', 'zz","1\n', '"z"z,1\n']))
    before = written(ids[:number], "\n", columns=2)
    after = written(ids[number:], "\n", columns=2).partition(b"\n")[2]
    content = before + bad.encode() + after
    if '"' in bad and b'"' in after:
        return  # a later quote may close what the bad row opened
    assert read(source, content) is None


# --- any file: exactly its rows, or refused with the place ----------------------------------------

CELLS = st.sampled_from(
    [
        *("", "a", "7", "007", " 7", "0x1", "1.5", "1e5", "true", "T", "nan", "NULL"),
        *("2026-01-31", "01/02/2026", "é", "日本", '"', 'a"b', "a,b", "a;b", "x\ny", "x\r\ny"),
        *(" ", "#x", "\\", "'", "\t"),
    ]
) | st.text(alphabet="ab,;\"\n\r'\\ 0", max_size=4)
PIECES = st.sampled_from(
    [
        *(b"", b'"', b'""', b",", b";", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xe9", b" "),
        *(codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b"\x1a", b"\x1f\x8b", b"PK\x03\x04"),
    ]
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most: int = 3) -> bytes:
    """A few bytes taken out, and others put in, in a few places."""
    for _ in range(draw(st.integers(0, most))):
        at, length = draw(st.integers(0, len(whole))), draw(st.integers(0, 4))
        whole = whole[:at] + draw(PIECES | st.binary(max_size=3)) + whole[at + length :]
    return whole


@st.composite
def csv_files(draw: st.DrawFn) -> bytes:
    names = ["user_id", "n", "note", "x"][: draw(st.integers(1, 4))]
    width = len(names)
    content = io.StringIO()
    writer = csv.writer(
        content,
        delimiter=draw(st.sampled_from(",;\t|")),
        lineterminator=draw(LINE_ENDS),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerow(names)
    writer.writerows(draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=6)))
    mark = draw(st.sampled_from([b"", codecs.BOM_UTF8]))
    whole = mark + content.getvalue().encode()
    return draw(damaged(whole))


def typed(source: FilesSource, name: str, content: bytes) -> list[dict[str, object]] | None:
    """The rows with the types they get by themselves; ``None`` when the file was refused."""
    (source._root / name).write_bytes(content)
    try:
        with source.read(f"FROM '{name}'", NOW) as reader:
            return [row for batch in reader for row in batch.to_pylist()]
    except SourceRefused as error:
        refusal = str(error)
    assert refusal.startswith((f"{name}: ", f"{name} ", "query: "))
    return None


def reference(content: bytes) -> list[list[str]]:
    """The rows below the header by the ``csv`` module.

    Raises:
        UnicodeError, csv.Error: it is no CSV file.
    """
    text = content.decode("utf-8-sig")
    delimiter = delimiter_of(text.partition("\n")[0])
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    return list(rows)[1:]


def is_blank(values: Iterable[object]) -> bool:
    """A row that can be nobody, which is read or left out: both are right."""
    return all(value is None or not str(value).strip() for value in values)


def is_had_back(text: str, value: object) -> bool:
    """Whether ``value`` says all that ``text`` does, but for the form of floats and times."""
    if value is None:
        return not text.strip()
    if isinstance(value, bool | int):
        return text.strip().lower() == str(value).lower()
    return not isinstance(value, str) or value == text


@given(content=csv_files())
@example(content=b'"user_id\n')
@example(content=b'user_id,"n\na,1\nb,2\n')
@example(content=b'user_id,"n\na,1\nb,"\nc,2\n')
def test_any_csv_file_is_exactly_its_rows_or_refused(source: FilesSource, content: bytes) -> None:
    read = typed(source, "x.csv", content)
    if read is None or b'" ' in content or b' "' in content:
        return  # spaces outside of quotes are nothing to DuckDB, and a fault to the csv module
    found = [tuple(row.values()) for row in read if not is_blank(row.values())]
    expected = [texts for texts in reference(content) if not is_blank(texts)]
    assert len(found) == len(expected)
    for row, texts in zip(found, expected, strict=True):
        if len(texts) == len(row) + 1 and not texts[-1]:
            texts.pop()  # a delimiter at the end of a line is no column to DuckDB
        assert len(texts) == len(row)
        assert all(map(is_had_back, texts, row)), (texts, row)


UUID = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
VALUES = (
    st.sampled_from(["a", "", "007", "2026-01-31", "01-02-2026", UUID, "é", "\0", '"', "\n"])
    | st.sampled_from([None, True, False, 0, 1.5, 2**63, 10**30, 1e300, [], [1], {}, {"a": "b"}])
    | st.integers()
    | st.text(max_size=3)
)


@st.composite
def json_files(draw: st.DrawFn) -> bytes:
    """An array of objects, or one in each line."""
    values = {"user_id": VALUES}
    objects = st.fixed_dictionaries(values, optional={"n": VALUES, "note": VALUES})
    items = draw(st.lists(objects, min_size=1, max_size=5))
    ascii_only = draw(st.booleans())
    if draw(st.booleans()):
        text = json.dumps(items, ensure_ascii=ascii_only) + "\n"
    else:
        text = "".join(json.dumps(item, ensure_ascii=ascii_only) + "\n" for item in items)
    return draw(damaged(text.encode("utf-8", "surrogatepass"), most=2))


@given(content=json_files())
@example(content=codecs.BOM_UTF8 + b'[{"user_id": "a"}]\n')
@example(content=b'[{"user_id": "a"},\n')
def test_any_json_file_is_exactly_its_values_or_refused(
    source: FilesSource, content: bytes
) -> None:
    found = typed(source, "x.json", content)
    if found is None or "user_id" not in (found or [{}])[0]:
        return
    text = content.decode("utf-8-sig")
    try:
        array = text.lstrip().startswith("[")
        expected = json.loads(text) if array else list(map(json.loads, text.split("\n")[:-1]))
    except ValueError:
        return  # DuckDB reads more than JSON: a comma after the last item, values in one line
    assert len(found) == len(expected)
    for row, item in zip(found, expected, strict=True):
        for name, value in item.items():
            if value is None:
                assert row[name] is None
            elif isinstance(value, str):
                assert row[name] is not None
                assert not isinstance(row[name], str) or row[name] == value
