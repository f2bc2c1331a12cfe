"""What lies where in the HDF5 files of robomimic, robosuite, LIBERO and ALOHA.

::

    robomimic, robosuite  one file: data/demo_*/{actions, states, rewards, dones, obs/*}
    LIBERO                the same, a file a task; data.attrs["problem_info"] has the instruction
    ALOHA                 a file an episode: action, observations/{qpos, qvel, effort, images/*}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from vla.errors import DatasetError
from vla.text import quoted

Layout = Literal["robomimic", "libero", "aloha"]
_EXPECTED = (
    "expected data/demo_*/actions (robomimic, robosuite, LIBERO) or action and observations/qpos (ALOHA)"
)
_CONTROLLER_KEYS = ("type", "control_delta", "output_max", "output_min", "input_max", "input_min")


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """One episode: its name, what opens the group that holds it, and what the file says of it."""

    name: str
    group: Callable[[], Any]
    instruction: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a file says of all its episodes; ``joints`` names the entries of MuJoCo's flattened state."""

    layout: Layout
    control_hz: float | None = None
    robot: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    joints: tuple[str, ...] = ()


def file_facts(file: Any, path: Path) -> FileFacts:
    """Layout of an open ``h5py.File`` and what its attributes say.

    Raises:
        DatasetError: none of the known layouts.
    """
    if "action" in file and "observations/qpos" in file:
        facts = {key: _plain(file.attrs[key]) for key in ("sim", "compress") if key in file.attrs}
        return FileFacts(layout="aloha", facts=facts)
    if "data" not in file or not demo_names(file["data"]):
        raise DatasetError(f"{path} has {quoted(sorted(file)[:8])} at its top: {_EXPECTED}.")
    whole = [name for name in demo_names(file["data"]) if _has_actions(file["data"], name)]
    if not whole:
        raise DatasetError(f"{path} has {quoted(sorted(file)[:8])} at its top: {_EXPECTED}.")
    attributes = file["data"].attrs
    settings = _json(attributes, "env_args", path).get("env_kwargs") or _json(attributes, "env_info", path)
    environment = _json(attributes, "env_args", path).get("env_name") or attributes.get("env")
    robots = settings.get("robots")
    robots = [robots] if isinstance(robots, str) else list(robots or [])
    facts: dict[str, Any] = {"env": str(environment)} if environment else {}
    controller = settings.get("controller_configs")
    if isinstance(controller, Mapping):
        facts["controller"] = {k: controller[k] for k in _CONTROLLER_KEYS if k in controller}
    if "macros_image_convention" in attributes:
        facts["image_convention"] = _plain(attributes["macros_image_convention"])
    rate = settings.get("control_freq")
    first = file["data"][whole[0]]
    return FileFacts(
        layout="libero" if "problem_info" in attributes else "robomimic",
        control_hz=float(rate) if rate else None,
        robot="+".join(robots) or None,
        facts=facts,
        joints=flat_state_names(str(first.attrs["model_file"])) if "model_file" in first.attrs else (),
    )


def demonstrations(file: Any, facts: FileFacts, path: Path) -> Iterator[Demonstration]:
    """The episodes of a file in the order of their numbers."""
    if facts.layout == "aloha":
        yield Demonstration(name="/", group=lambda: file, facts={**facts.facts, "file": path.name})
        return
    instruction = ""
    if facts.layout == "libero":
        said = _json(file["data"].attrs, "problem_info", path).get("language_instruction", "")
        instruction = "".join(said) if isinstance(said, list) else str(said)
        if not instruction.strip():
            raise DatasetError(f"{path}: data.attrs['problem_info'] has no 'language_instruction'; it must.")
    masks = {name: {_plain(v) for v in values[()]} for name, values in file.get("mask", {}).items()}
    for name in demo_names(file["data"]):
        filters = sorted(mask for mask, members in masks.items() if name in members)
        yield Demonstration(
            name=f"/data/{name}",
            group=partial(file["data"].__getitem__, name),
            instruction=instruction,
            facts={
                **facts.facts,
                "file": path.name,
                "demo": name,
                **({"filters": filters} if filters else {}),
            },
        )


def demo_names(group: Any) -> list[str]:
    """Episodes in the order of their numbers (demo_2 before demo_10)."""
    return sorted(group, key=natural)


def natural(text: str) -> list[Any]:
    """A key that sorts names by the numbers in them."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _has_actions(group: Any, name: str) -> bool:
    try:
        return "actions" in group[name]
    except (KeyError, OSError, RuntimeError, TypeError):  # this one is damaged: opening it says so
        return False


def flat_state_names(model: str) -> tuple[str, ...]:
    """Entries of ``[time, qpos, qvel]`` for a MuJoCo model (MJCF); empty where it cannot be read.

    Positions and velocities follow the order of the joints: those of a body, then of the bodies in it.
    """
    try:
        root = ElementTree.fromstring(model)
    except ElementTree.ParseError:
        return ()
    positions, velocities = [], []
    for joint in (j for body in root.iter("worldbody") for j in _joints(body)):
        name = joint.get("name", "joint")
        kind = "free" if joint.tag == "freejoint" else joint.get("type", "hinge")
        num_q, num_v = {"free": (7, 6), "ball": (4, 3)}.get(kind, (1, 1))
        positions += [name if num_q == 1 else f"{name}[{i}]" for i in range(num_q)]
        velocities += [f"{name}.vel" if num_v == 1 else f"{name}[{i}].vel" for i in range(num_v)]
    return ("time", *positions, *velocities)


def _joints(body: Any) -> Iterator[Any]:
    yield from (child for child in body if child.tag in ("joint", "freejoint"))
    for child in body:
        if child.tag == "body":
            yield from _joints(child)


def _json(attributes: Any, name: str, path: Path) -> dict[str, Any]:
    if name not in attributes:
        return {}
    try:
        data = json.loads(_plain(attributes[name]))
    except ValueError as error:
        raise DatasetError(f"{path}: data.attrs[{name!r}] is not JSON ({error}).") from error
    return data if isinstance(data, dict) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if hasattr(value, "item") else value
