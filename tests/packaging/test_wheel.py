"""What other people install: three import packages, the console script, nothing else."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_has_exactly_three_packages(wheel: zipfile.ZipFile):
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"vla", "vla_envs", "vla_policies"}
    assert len(top) == 4


def test_the_wheel_has_every_source_file(wheel: zipfile.ZipFile):
    for name, folder in (
        ("vla", "vla"),
        ("vla_envs", "envs/vla_envs"),
        ("vla_policies", "policies/vla_policies"),
    ):
        there = {p for p in wheel.namelist() if p.startswith(f"{name}/")}
        here = {f"{name}/{p.relative_to(ROOT / folder).as_posix()}" for p in (ROOT / folder).rglob("*.py")}
        assert here <= there
    assert "vla/py.typed" in wheel.namelist()


def test_the_wheel_has_the_shipped_policy(wheel: zipfile.ZipFile):
    folder = "vla_policies/pretrained/tabletop"
    assert {f"{folder}/policy.json", f"{folder}/model.safetensors"} <= set(wheel.namelist())


def test_the_wheel_registers_its_entry_points(wheel: zipfile.ZipFile):
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt")]
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert points["console_scripts"]["vla"] == "vla.cli.main:main"
    assert "tabletop" in points["vla.suites"]
    assert {"learned", "expert", "zero", "random", "replay"} <= set(points["vla.policies"])


def test_the_wheel_carries_its_licence(wheel: zipfile.ZipFile):
    (name,) = [n for n in wheel.namelist() if n.endswith("/LICENSE")]
    assert "Apache License" in wheel.read(name).decode()
