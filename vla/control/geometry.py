"""What a pose of the arm breaks: joint limits, the box around the tool, the arm itself, the table.

A robot gives its geometry as MJCF (:class:`ArmGeometry`); MuJoCo says what touches what. About 0.2 ms a pose
for sixty geoms.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla.embodiment import Embodiment, Field
from vla.errors import ConfigError, UnknownNameError

#: Checks that need a pose, in the order in which they are named.
POSE_CHECKS = ("joint", "workspace", "collision")
#: Largest move of a joint between two poses that are looked at, rad (prismatic: m).
SWEEP_STEP = 0.05
#: What counts as farther: rounding does not.
EPSILON = 1e-6

#: An action in the embodiment's units -> the joint angles that it leads to, float64 [joints].
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ArmGeometry:
    """An arm and what stands around it, as MuJoCo sees it.

    Pairs that may touch are excluded in the MJCF itself (``<contact><exclude>``, ``contype``).

    Args:
        mjcf: XML, complete in itself (no meshes in files).
        joints: names, in the order of the state field in slot ``arm0.joint_position``.
        tcp_site: name of the site at the tool centre; empty: the box of a joint-space arm is not checked.
        margin_m: bodies that come nearer than this count as touching.
    """

    mjcf: str
    joints: tuple[str, ...]
    tcp_site: str = ""
    margin_m: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "joints", tuple(self.joints))
        if not self.joints or not 0 <= self.margin_m <= 0.2:
            raise ConfigError(
                f"ArmGeometry: {len(self.joints)} joints and margin_m {self.margin_m}; expected at least one "
                "joint, and 0 .. 0.2 m."
            )


@runtime_checkable
class Shaped(Protocol):
    """A robot that gives its geometry (optional)."""

    geometry: ArmGeometry | None


@runtime_checkable
class Predicting(Protocol):
    """A robot that says which joint angles an action leads to (optional; tool-space actions need it)."""

    def predict_joints(self, action: np.ndarray) -> np.ndarray:
        """float64 [joints], for one action [action_dim]; nothing moves."""
        ...


@functools.lru_cache(maxsize=16)
def _compiled(geometry: ArmGeometry) -> Any:
    """Its ``mujoco.MjModel``, shared by all that look at it: an evaluation makes an envelope an episode."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(geometry.mjcf)
    model.geom_margin[:] = geometry.margin_m
    return model


class PoseChecks:
    """By how much poses break each limit.

    Args:
        geometry: of the arm.
        embodiment: its joint limits (state field in slot ``arm0.joint_position``) and its box.
        checks: which of ``POSE_CHECKS``.

    Raises:
        ConfigError: the MJCF cannot be built, or does not fit the embodiment.
        UnknownNameError: it has no such joint or site.
    """

    def __init__(self, geometry: ArmGeometry, embodiment: Embodiment, checks: Sequence[str]) -> None:
        import mujoco

        self._mujoco, self.checks = mujoco, tuple(checks)
        try:
            self._model = _compiled(geometry)
        except ValueError as error:
            raise ConfigError(f"The geometry of {embodiment.name!r} is no MJCF: {error}") from error
        self._data = mujoco.MjData(self._model)
        self._address = np.array([_joint(self._model, name) for name in geometry.joints])
        self._margin_m = geometry.margin_m
        self._site = _site(self._model, geometry.tcp_site) if geometry.tcp_site else None
        joints = joint_field(embodiment)
        if joints is None or joints.size != len(geometry.joints):
            raise ConfigError(
                f"The geometry of {embodiment.name!r} has {len(geometry.joints)} joints, its state fields "
                f"are {[f.name for f in embodiment.state]}: expected one in slot 'arm0.joint_position' of "
                "that size."
            )
        self._low, self._high = np.array(joints.low), np.array(joints.high)
        self._box = np.array([embodiment.workspace_low, embodiment.workspace_high])
        if "workspace" in checks and (self._site is None or not self._box.size):
            raise ConfigError(
                f"{embodiment.name!r}: keeping joints in a box needs a workspace and ArmGeometry.tcp_site."
            )

    def tool(self, q: np.ndarray) -> np.ndarray:
        """Where the tool centre is, m, world frame; float64 [3]."""
        assert self._site is not None, "ArmGeometry.tcp_site is not given"
        self._place(q)
        return self._data.site_xpos[self._site].copy()

    def breaches(self, q: np.ndarray) -> Mapping[str, float]:
        """By how much this pose breaks each check: rad beyond a joint's end, m outside, m of overlap."""
        found = {}
        if "joint" in self.checks:
            found["joint"] = float(max(0.0, (self._low - q).max(), (q - self._high).max()))
        self._place(q)
        if "workspace" in self.checks:
            tool = self._data.site_xpos[self._site]
            found["workspace"] = float(max(0.0, (self._box[0] - tool).max(), (tool - self._box[1]).max()))
        if "collision" in self.checks:
            self._mujoco.mj_collision(self._model, self._data)
            nearest = self._data.contact.dist.min() if self._data.ncon else np.inf
            found["collision"] = float(max(0.0, self._margin_m - nearest))
        return found

    def first_breach(self, path: np.ndarray) -> str | None:
        """Name of the check that the way from ``path[0]`` on breaks first; None where it is free.

        What is broken at its beginning may get better or stay, never worse.

        Args:
            path: float64 [n joints], at least two poses; looked at every ``SWEEP_STEP`` between them.
        """
        allowed = self.breaches(path[0])
        for begin, end in itertools.pairwise(path):
            count = max(1, int(np.ceil(np.abs(end - begin).max() / SWEEP_STEP)))
            for k in range(1, count + 1):
                found = self.breaches(begin + (end - begin) * (k / count))
                for name in self.checks:
                    if found[name] > allowed[name] + EPSILON:
                        return name
        return None

    def _place(self, q: np.ndarray) -> None:
        self._data.qpos[self._address] = q
        self._mujoco.mj_kinematics(self._model, self._data)


def joint_field(embodiment: Embodiment) -> Field | None:
    """The state field that says where the first arm's joints are."""
    return next((f for f in embodiment.state if f.slot == "arm0.joint_position" and not f.slot_start), None)


def _joint(model: Any, name: str) -> int:
    known = [model.joint(i).name for i in range(model.njnt)]
    if name not in known:
        raise UnknownNameError("joint of the geometry", name, known)
    return int(model.joint(name).qposadr[0])


def _site(model: Any, name: str) -> int:
    known = [model.site(i).name for i in range(model.nsite)]
    if name not in known:
        raise UnknownNameError("site of the geometry", name, known)
    return int(model.site(name).id)
