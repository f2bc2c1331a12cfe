"""``vla doctor``: what this machine can do, row by row, and how to mend what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Literal, get_args

import psutil
from packaging.requirements import Requirement

from vla import registry
from vla.cli.flags import parse
from vla.errors import VlaError
from vla.provenance import usable_cores

Status = Literal["ok", "note", "warn", "fail"]

#: What an extra of pyproject.toml is for, as far as users are concerned.
EXTRAS = {
    "fast": "faster JPEG reading",
    "remote": "data that lies on a server or in a bucket",
    "rerun": "recordings for the Rerun viewer",
    "formats": "HDF5 and parquet demonstrations",
    "control": "limits of acceleration and jerk for arms that declare them",
    "onnx": "export, and the faster engine of a CPU",
    "kernels": "fused action-head kernels: proofs on a CPU, speed on a GPU",
}
#: Of interest to who changes this package; ``scripts/test`` installs it without being asked.
DEVELOPER_EXTRA = "dev"


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What this machine can do, and how to mend what is missing. Exit code 1 if something must be mended.

    Args:
        json: print JSON instead of a table.
        parity: a checkpoint (directory, or default): compare every way its action heads can run here with
            float64 instead, and store the certificate beside it.
        out: where the certificate is written, if not beside the checkpoint.
        overwrite: replace a certificate that says that something failed.
    """

    json: bool = False
    parity: str | None = None
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row: ``mend`` is a command or sentence, empty where nothing is to do."""

    check: str
    status: Status
    found: str
    mend: str = ""


def run(argv: Sequence[str]) -> int:
    flags = parse(Doctor, "doctor", argv)
    if flags.parity is not None:
        from vla.cli.parity import run_parity

        return run_parity(flags.parity, out=flags.out, overwrite=flags.overwrite, as_json=flags.json)
    findings = list(examine())
    print(json.dumps([asdict(f) for f in findings], indent=1) if flags.json else table(findings))
    return int(any(f.status == "fail" for f in findings))


def examine() -> Iterator[Finding]:
    """Every check, in the order in which trouble should be mended."""
    yield _python()
    yield from _packages()
    yield _cores()
    yield _memory()
    yield _renderer()
    yield _gpu()
    yield _display()
    yield from _extras()
    yield from _registered()
    yield _shipped_policy()


def table(findings: Sequence[Finding]) -> str:
    """Aligned rows, each mend on a line of its own."""
    width = max(len(f.check) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.status:<5} {f.check:<{width}}  {f.found}")
        if f.mend:
            lines.append(f"{'':<5} {'':<{width}}  -> {f.mend}")
    counts = [f"{sum(f.status == s for f in findings)} {s}" for s in get_args(Status)]
    return "\n".join([*lines, "", ", ".join(counts)])


def _python() -> Finding:
    new_enough = sys.version_info >= (3, 11)
    return Finding(
        check="python",
        status="ok" if new_enough else "fail",
        found=f"{platform.python_version()} ({sys.executable})",
        mend=""
        if new_enough
        else "use Python 3.11 or newer: PYTHON=/path/to/python3.11 ./scripts/quickstart",
    )


def _packages() -> Iterator[Finding]:
    """Each required package against the range that pyproject.toml asks for."""
    good = {}
    for requirement in map(Requirement, requires("vla") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(check=requirement.name, status="fail", found="not installed", mend=_reinstall())
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            found = f"{installed}, needs {requirement.specifier}"
            yield Finding(check=requirement.name, status="fail", found=found, mend=_reinstall())
        else:
            good[requirement.name] = installed
    shown = ", ".join(
        f"{name} {good[name]}" for name in ("torch", "transformers", "mujoco", "zarr") if name in good
    )
    yield Finding(check="packages", status="ok", found=f"{len(good)} as pyproject.toml asks; {shown}")


def _reinstall() -> str:
    return "pip install -c constraints.txt -e ."


def _cores() -> Finding:
    cores, load = usable_cores(), psutil.getloadavg()[0]
    busy = load > cores
    return Finding(
        check="cores",
        status="warn" if cores < 2 or busy else "ok",
        found=f"{cores} usable, load {load:.1f}",
        mend="other work is running: times will be longer than stated" if busy else "",
    )


def _memory() -> Finding:
    free_gib = psutil.virtual_memory().available / 2**30
    enough = free_gib >= 3
    return Finding(
        check="memory",
        status="ok" if enough else "warn",
        found=f"{free_gib:.1f} GiB available",
        mend="" if enough else "use fewer workers (--workers 1)",
    )


_PROBE = """
import json, os, statistics, sys, time
from vla import registry
for name in registry.names(registry.SUITES):
    registry.suite(name)  # a suite chooses the renderer when it is imported
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><visual><quality shadowsize='0' offsamples='0'/></visual>"
    "<worldbody><light pos='0 0 3' castshadow='false'/><geom type='plane' size='1 1 .1'/>"
    "<geom type='box' size='.2 .2 .2' rgba='1 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 64, 64) as renderer:
    times = []
    for _ in range(12):
        start = time.perf_counter()
        renderer.update_scene(data)
        image = renderer.render()
        times.append(time.perf_counter() - start)
    from OpenGL import GL
    driver = GL.glGetString(GL.GL_RENDERER)
print(json.dumps({"backend": os.environ.get("MUJOCO_GL", "default"), "ms": statistics.median(times[2:]) * 1e3,
    "driver": driver.decode() if driver else "unknown", "drawn": bool(image.max() > image.min())}))
"""


def _renderer() -> Finding:
    """Renders 64x64 in a process of its own: a broken OpenGL must not take the doctor down."""
    mend = "sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri   (then: MUJOCO_GL=egl vla doctor)"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(check="renderer", status="fail", found="no picture within 120 s", mend=mend)
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        return Finding(check="renderer", status="fail", found=reason, mend=mend)
    probe = json.loads(answer.stdout.strip().splitlines()[-1])
    found = f"MUJOCO_GL={probe['backend']}, {probe['driver']}: 64x64 in {probe['ms']:.1f} ms"
    if not probe["drawn"]:
        return Finding(check="renderer", status="fail", found=f"{found}, but the picture is blank", mend=mend)
    return Finding(check="renderer", status="ok", found=found)


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding(check="gpu", status="fail", found="torch is not installed", mend=_reinstall())
    import torch

    if torch.cuda.is_available():
        found = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Finding(check="gpu", status="ok", found=found)
    if Path("/dev/nvidiactl").exists():
        mend = "install a CUDA build of torch and a matching driver"
        return Finding(
            check="gpu", status="warn", found="there is one, but this torch cannot use it", mend=mend
        )
    return Finding(check="gpu", status="ok", found="none: everything runs on the CPU")


def _display() -> Finding:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return Finding(
        check="display", status="ok", found=display or "none: vla run writes videos, opens no viewer"
    )


def _extras() -> Iterator[Finding]:
    """Each extra of pyproject.toml: installed, or what it is for and the command that installs it.

    Lacking one is no fault, and the developers' own is not spoken of at all.
    """
    metadata = distribution("vla").metadata
    for extra in metadata.get_all("Provides-Extra") or []:
        if extra == DEVELOPER_EXTRA:
            continue
        missing = []
        for requirement in map(Requirement, requires("vla") or []):
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
                continue
            try:
                version(requirement.name)
            except PackageNotFoundError:
                missing.append(requirement.name)
        yield Finding(
            check=f"extra {extra}",
            status="note" if missing else "ok",
            found=f"optional, lacks {', '.join(missing)}{_purpose(extra)}" if missing else "installed",
            mend=f"pip install -c constraints.txt -e '.[{extra}]'" if missing else "",
        )


def _purpose(extra: str) -> str:
    return f" (for {EXTRAS[extra]})" if extra in EXTRAS else ""


def _registered() -> Iterator[Finding]:
    for group, what in ((registry.SUITES, "suites"), (registry.POLICIES, "policies")):
        found = registry.names(group)
        yield Finding(
            check=what,
            status="ok" if found else "fail",
            found=", ".join(found) or "none registered",
            mend="" if found else _reinstall(),
        )


def _shipped_policy() -> Finding:
    """Loads it: its contract must be readable and written for exactly these weights."""
    try:
        contract = registry.policy_factory("learned")().contract
    except VlaError as error:
        mend = "restore it from version control, or train one: vla train configs/shipped.py"
        return Finding(check="shipped policy", status="fail", found=str(error), mend=mend)
    found = f"for {', '.join(contract.embodiments)}; {contract.image_size} px; weights match their contract"
    return Finding(check="shipped policy", status="ok", found=found)
