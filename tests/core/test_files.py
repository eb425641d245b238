"""Files that others wrote: never waited for, never more of them in memory than there is."""

import os
import subprocess
import sys

import pytest

from core import files


def test_a_file_is_read_whole_up_to_a_limit(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert files.read(tmp_path / "file") == files.read(tmp_path / "file", most=3_000_000) == content
    with pytest.raises(OSError, match="is larger than"):
        files.read(tmp_path / "file", most=2_999_999)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        files.read(tmp_path / "pipe")


def test_a_high_limit_takes_no_memory(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    code = f"from core import files; print(files.read({str(tmp_path / 'file')!r}, most=1 << 34))"
    command = ["bash", "-c", 'ulimit -v 1048576; exec "$@"', "limited", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "b'abc'\n", done.stderr
