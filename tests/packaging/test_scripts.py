"""The shell scripts parse, are executable, and stop with a message instead of half a set-up."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("scripts/quickstart", "scripts/test", "scripts/setup", "scripts/setup_benchmark", ".ci/run")


@pytest.mark.parametrize("name", [*SCRIPTS, *(str(p.relative_to(ROOT)) for p in ROOT.glob("scripts/*.sh"))])
def test_scripts_parse_and_are_executable(name: str):
    assert os.access(ROOT / name, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / name)], check=False).returncode == 0


def test_setup_is_run_not_sourced():
    """Sourced behind `&&` it would go on after an error."""
    for path in (*(ROOT / name for name in SCRIPTS), *ROOT.glob("scripts/*.sh")):
        assert "source scripts/setup" not in path.read_text(), path


def setup_in(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup in a copy of its surroundings."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/setup", folder / "scripts/setup")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("apt-get", "sudo"):  # no test touches the system
        fake(folder / "bin" / name, f"echo {name} was called >&2; exit 1")
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "scripts/setup"],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def fake(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def test_an_old_python_is_refused_with_the_way_out(tmp_path: Path):
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        fake(tmp_path / "bin" / name, "exit 1")
    answer = setup_in(tmp_path, PYTHON="")
    assert answer.returncode != 0
    assert "needs Python 3.11 or newer" in answer.stderr


def test_missing_opengl_names_the_packages(tmp_path: Path):
    """A .venv whose pip works and whose MuJoCo cannot render; apt-get fails too."""
    fake(tmp_path / ".venv/bin/python", 'case "$*" in *GLContext*) exit 1;; *) exit 0;; esac')
    answer = setup_in(tmp_path)
    assert answer.returncode != 0
    assert "libegl1 libegl-mesa0 libgl1-mesa-dri" in answer.stderr
    assert not (tmp_path / ".venv/setup-stamp").exists()


def test_setup_says_what_it_fetches_and_how_much_is_to_come(tmp_path: Path):
    lines = (
        "Collecting torch", "  Downloading torch-2.13.0-cp311-none-any.whl.metadata (5 kB)",
        "Downloading torch-2.13.0-cp311-none-any.whl (180.5 MB)",
        "  Using cached https://a.b/numpy-2.3.0-cp311-none-any.whl (500 kB)",
        "Installing collected packages: numpy, torch",
    )  # fmt: skip
    pip = "; ".join(f"echo '{line}'" for line in lines)
    fake(tmp_path / ".venv/bin/python", f'case "$*" in *"-e .["*) {pip};; *GLContext*) exit 1;; esac')
    text = setup_in(tmp_path).stderr
    assert "about 500 MB to fetch" in text
    assert re.search(r"\[1 of about \d+\] torch \(180.5 MB\)\n.*\[2 of about \d+\] numpy \(500 kB\)", text)
    assert "unpacking 2 packages" in text
    assert "metadata" not in text


def test_pip_that_fails_stops_the_setup_and_is_heard(tmp_path: Path):
    body = 'case "$*" in *"-e .["*) echo "ERROR: no such release"; exit 1;; *) exit 0;; esac'
    fake(tmp_path / ".venv/bin/python", body)
    answer = setup_in(tmp_path)
    assert answer.returncode != 0
    assert "ERROR: no such release" in answer.stderr
    assert not (tmp_path / ".venv/setup-stamp").exists()


def test_a_broken_venv_is_refused_with_the_way_out(tmp_path: Path):
    fake(tmp_path / ".venv/bin/python", "exit 1")
    answer = setup_in(tmp_path)
    assert answer.returncode != 0
    assert "rm -r .venv" in answer.stderr


def test_a_finished_setup_is_not_repeated(tmp_path: Path):
    fake(
        tmp_path / ".venv/bin/python",
        'case "$*" in "-c import pip") exit 0;; *) echo repeated >&2; exit 1;; esac',
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
    assert (answer.returncode, answer.stderr) == (0, "")
    (tmp_path / ".venv/setup-stamp").write_text("123 dev\n")
    shutil.rmtree(tmp_path / "scripts")
    assert "repeated" in setup_in(tmp_path).stderr


def setup_benchmark(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "scripts/setup_benchmark"), *names],
        env={**os.environ, "VLA_BENCHMARKS": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_benchmarks_are_pinned_to_the_last_package_and_unknown_ones_are_told(tmp_path: Path):
    lists = sorted((ROOT / "scripts/benchmarks").glob("*.txt"))
    assert [path.stem for path in lists] == ["gymnasium_robotics", "libero", "metaworld"]
    for path in lists:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), path
        assert {"numpy", "msgpack"} <= {line.partition("==")[0] for line in lines}, path
    for names in ((), ("metawrld",)):
        answer = setup_benchmark(tmp_path, *names)
        assert answer.returncode == 1
        assert "gymnasium_robotics libero metaworld" in answer.stderr


def test_a_benchmark_that_pip_cannot_install_or_python_not_import_is_not_called_ready(tmp_path: Path):
    python = tmp_path / "metaworld/bin/python"
    for body, complaint in (
        ('case "$*" in *"pip install"*) echo "ERROR: no such release"; exit 1;; esac', "no such release"),
        ('case "$*" in *serving*) echo "ImportError: libEGL"; exit 1;; esac', "ImportError: libEGL"),
    ):
        fake(python, body)
        answer = setup_benchmark(tmp_path, "metaworld")
        assert answer.returncode == 1
        assert complaint in answer.stderr
        assert not (tmp_path / "metaworld/setup-stamp").exists()
    fake(python, "exit 0")
    assert setup_benchmark(tmp_path, "metaworld").returncode == 0
    assert "is ready" in setup_benchmark(tmp_path, "metaworld").stderr
