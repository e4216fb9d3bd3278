"""A CSV file cut at any byte is refused, or read as exactly the rows that are left whole."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audience_sync.errors import SourceRefused
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
