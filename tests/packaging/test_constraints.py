"""constraints.txt pins everything that is installed, and what is installed fits it."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(n): Version(v) for n, v in (line.split("==") for line in lines if line.strip())}


def needed() -> set[str]:
    """Names of everything that the project and its extras install here, transitively."""
    extras = PROJECT["optional-dependencies"]
    todo = [Requirement(r) for r in [*PROJECT["dependencies"], *(r for rs in extras.values() for r in rs)]]
    found: set[str] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name.startswith(("nvidia-", "cuda-")):
            continue  # what a CUDA build of torch brings along; pinned by torch itself
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            todo += [Requirement(r) for r in requires(name) or []]
        except PackageNotFoundError:
            continue
    return found


def installed(name: str) -> str:
    """Its version; empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def test_every_installed_dependency_is_pinned():
    assert needed() <= set(pins())


def test_every_pin_is_needed():
    """Or belongs to an extra that is not installed here."""
    assert not {name for name in set(pins()) - needed() if installed(name)}


def test_pins_lie_inside_the_ranges_of_pyproject():
    pinned = pins()
    for text in [
        *PROJECT["dependencies"],
        *(r for rs in PROJECT["optional-dependencies"].values() for r in rs),
    ]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_what_is_installed_is_what_is_pinned():
    here = {name: installed(name) for name in pins()}
    wrong = {n: v for n, v in pins().items() if here[n] and Version(here[n]).public != v.public}
    assert not wrong


def test_no_pin_brings_cuda_libraries():
    assert not [name for name in pins() if re.match(r"nvidia|cuda", name)]


def test_no_package_host_is_named():
    for path in ("constraints.txt", "pyproject.toml", "scripts/setup", "scripts/quickstart", ".ci/run"):
        assert "://" not in (ROOT / path).read_text(), path
