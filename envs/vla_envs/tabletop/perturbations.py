"""Changes of a scene that leave the task what it is: the same seed, seen or begun otherwise.

Each is drawn from the scene's seed alone, applied at reset and taken back at the next one. How far they go is
meant to be what moves in a laboratory from one week to the next, not what breaks a camera.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from vla_envs.tabletop.scene import ARM_PREFIX
from vla_envs.tabletop.tasks import Goal, Layout
from vla_envs.tabletop.world import World

#: camera_pose: the front camera moved by up to 25 mm an axis and turned by up to 4 degrees, that of the wrist
#: by a fifth of it. lighting: the lamp from another direction, 0.4 to 1.8 times as strong, tinted. texture:
#: the table in another colour. start_pose: the tool up to 80 mm to the side and 60 mm higher, turned by up to
#: 0.5 rad. distractors: what the instruction does not mean has other colours.
PERTURBATIONS = ("camera_pose", "lighting", "texture", "start_pose", "distractors")
_VISUAL = ("cam_pos", "cam_quat", "light_dir", "light_diffuse", "light_ambient")
_CAMERA_M, _CAMERA_RAD = 0.025, math.radians(4)


class Visuals:
    """The looks of a compiled scene: changed for an episode, and back."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._plain = {name: getattr(model, name).copy() for name in _VISUAL}

    def restore(self) -> None:
        """As compiled."""
        for name, value in self._plain.items():
            getattr(self._model, name)[:] = value

    def perturb(self, name: str, rng: np.random.Generator) -> None:
        """Apply ``camera_pose``, ``lighting`` or ``texture``; others change no looks."""
        model = self._model
        if name == "camera_pose":
            for camera in ("front", ARM_PREFIX + "wrist"):
                index = model.camera(camera).id
                share = 1.0 if camera == "front" else 0.2  # the wrist camera sits on its bracket
                model.cam_pos[index] += rng.uniform(-_CAMERA_M, _CAMERA_M, 3) * share
                axis = rng.normal(size=3)
                turn = np.zeros(4)
                angle = rng.uniform(0.5, 1.0) * _CAMERA_RAD * share
                mujoco.mju_axisAngle2Quat(turn, axis / np.linalg.norm(axis), angle)
                before = model.cam_quat[index].copy()
                mujoco.mju_mulQuat(model.cam_quat[index], before, turn)
        elif name == "lighting":
            angle = rng.uniform(0, 2 * math.pi)
            model.light_dir[:] = [math.cos(angle), math.sin(angle), -0.7]
            tint = 1 + rng.uniform(-0.15, 0.15, 3)
            strength = rng.uniform(0.4, 0.7) if rng.random() < 0.5 else rng.uniform(1.4, 1.8)
            model.light_diffuse[:] = np.clip(model.light_diffuse * strength * tint, 0, 1)
            model.light_ambient[:] = np.clip(0.15 * (strength - 1), 0, 1)
        elif name == "texture":
            table = model.geom("table").id
            model.geom_rgba[table, :3] = rng.uniform(0.25, 0.85, 3)


def start_offset(name: str, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """How far the arm starts from where it would: [3] m and rad; zeros but for ``start_pose``."""
    if name != "start_pose":
        return np.zeros(3), 0.0
    side = rng.choice([-1.0, 1.0], size=2) * rng.uniform(0.04, 0.08, 2)
    return np.array([*side, rng.uniform(0.0, 0.06)]), float(rng.choice([-1, 1]) * rng.uniform(0.25, 0.5))


def other_distractors(layout: Layout, goal: Goal, palette: Sequence[str], rng: np.random.Generator) -> Layout:
    """The layout with other colours on what the goal does not mean; as it was where nothing can change.

    Things of one kind that were alike or differed in colour still do, and none of them takes the colour of
    the target or the destination.
    """
    meant = {goal.target, goal.destination}
    kinds = {name: name.split("/")[0].rstrip("0123456789") for name in layout.colors}
    kept = {name: color for name, color in layout.colors.items() if name in meant}
    taken = {(kinds[name], color) for name, color in kept.items()}
    drawn: dict[tuple[str, str], str] = {}
    for name, color in layout.colors.items():
        key = (kinds[name], color)
        if name in meant or key in drawn:
            continue
        used = {new for (kind, _), new in drawn.items() if kind == key[0]}
        free = [c for c in palette if (key[0], c) not in taken and c not in used and c != color]
        drawn[key] = str(rng.choice(free)) if free else color
    colors = {name: kept.get(name) or drawn[kinds[name], color] for name, color in layout.colors.items()}
    if len({(kinds[n], c) for n, c in colors.items()}) < len(
        {(kinds[n], c) for n, c in layout.colors.items()}
    ):
        return layout
    return dataclasses.replace(layout, colors=colors)


def repaint(
    world: World,
    before: Layout,
    after: Layout,
    palette: Mapping[str, Sequence[float]],
    rng: np.random.Generator,
) -> None:
    """Paint what has another colour now."""
    for name, color in after.colors.items():
        if before.colors[name] != color:
            shade = np.clip(np.array(palette[color]) + rng.uniform(-0.05, 0.05, 3), 0, 1)
            world.paint(name, shade.tolist())
