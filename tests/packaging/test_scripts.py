"""The shell scripts parse, are executable, and stop with a message instead of half a set-up."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("scripts/quickstart", "scripts/test", "scripts/setup", ".ci/run")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_and_are_executable(name: str):
    assert os.access(ROOT / name, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / name)], check=False).returncode == 0


def setup_in(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup in a copy of its surroundings."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/setup", folder / "scripts/setup")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    command = ["bash", "-c", "source scripts/setup && echo ready"]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def fake(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def test_an_old_python_is_refused_with_the_way_out(tmp_path: Path):
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        fake(tmp_path / "bin" / name, "exit 1")
    answer = setup_in(tmp_path, PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin", PYTHON="")
    assert answer.returncode != 0
    assert "needs Python 3.11 or newer" in answer.stderr


def test_a_broken_venv_is_refused_with_the_way_out(tmp_path: Path):
    fake(tmp_path / ".venv/bin/python", "exit 1")
    answer = setup_in(tmp_path)
    assert answer.returncode != 0
    assert "rm -r .venv" in answer.stderr


def test_a_finished_setup_is_not_repeated(tmp_path: Path):
    fake(
        tmp_path / ".venv/bin/python", 'case "$*" in "-c pass") exit 0;; *) echo repeated >&2; exit 1;; esac'
    )
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    total = subprocess.run(
        "cat pyproject.toml constraints.txt | cksum | tr -d ' '",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (tmp_path / ".venv/setup-stamp").write_text(f"{total} dev\n")
    answer = setup_in(tmp_path)
    assert answer.stdout.strip() == "ready", answer.stderr
    (tmp_path / ".venv/setup-stamp").write_text("123 dev\n")
    shutil.rmtree(tmp_path / "scripts")
    assert "repeated" in setup_in(tmp_path).stderr
