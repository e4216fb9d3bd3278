"""Every process spills into a folder of its own, and those of killed ones are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audience_sync.engines.instance import spill_folder
from audience_sync.errors import StoreFailed

HOLDER = """
import sys, time
from pathlib import Path
from audience_sync.engines.instance import spill_folder
print(spill_folder(Path(sys.argv[1])).folder, flush=True)
time.sleep(60)
"""


def test_folders_are_private_and_apart(tmp_path: Path) -> None:
    parent = tmp_path / "spill"
    one, other = spill_folder(parent).folder, spill_folder(parent).folder
    assert one != other
    assert one.stat().st_mode & 0o077 == 0
    assert parent.stat().st_mode & 0o077 == 0


def test_a_living_processs_folder_stays_and_a_killed_ones_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        (folder / "duckdb_temp_storage-0.tmp").write_bytes(b"rows")
        spill_folder(tmp_path)
        assert folder.exists()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    spill_folder(tmp_path)
    assert not folder.exists()


def test_a_file_in_its_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "spill").write_text("")
    with pytest.raises(StoreFailed, match="cannot be used"):
        spill_folder(tmp_path / "spill")


def test_many_processes_start_and_end_at_once(tmp_path: Path) -> None:
    """Who sweeps may meet a folder that another process removes, or has just made."""
    program = (
        "import sys, pathlib; from audience_sync.engines.instance import spill_folder\n"
        "for _ in range(60): assert spill_folder(pathlib.Path(sys.argv[1])).folder.is_dir()"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "spill")]) for _ in range(6)
    ]
    assert [process.wait(60) for process in running] == [0] * 6
