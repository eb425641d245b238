import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


def start(folder: pathlib.Path, *, path: list[pathlib.Path]) -> subprocess.CompletedProcess:
    """Imports `experiments` in a new interpreter that looks into `path` first."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", "import experiments"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_our_own_packages_pass(tmp_path: pathlib.Path):
    result = start(tmp_path, path=[ROOT])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", ["core/__init__.py", "agents/__init__.py", "generative.py"])
def test_a_foreign_package_is_named_and_never_run(tmp_path: pathlib.Path, file: str):
    write(tmp_path / "foreign" / file)
    result = start(tmp_path, path=[tmp_path / "foreign", ROOT])
    assert result.returncode == 1
    name = pathlib.Path(file).parts[0]
    message = result.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: `import {name.removesuffix('.py')}` finds {tmp_path / 'foreign' / name},")
    assert "PYTHONPATH" in message
    assert result.stdout == ""


def test_a_folder_without_an_init_stands_in_front_of_nothing(tmp_path: pathlib.Path):
    write(tmp_path / "foreign" / "core" / "notes.py")
    result = start(tmp_path, path=[tmp_path / "foreign", ROOT])
    assert result.returncode == 0, result.stderr


def write(module: pathlib.Path) -> None:
    module.parent.mkdir(parents=True)
    module.write_text("print('the foreign package ran')")
