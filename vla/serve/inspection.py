"""Our policies and simulated arms inside inspect-robots: ``policy="vla"``, ``embodiment="vla_sim"``.

inspect-robots evaluates any policy on any embodiment that declare spaces and what their numbers mean. What
an embodiment of ours says about itself is translated here, and what has no word there (a yaw, a direction of
the gripper) stays in the names of the dimensions and in ``docs``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from vla import registry
from vla.control.policies import EXECUTION_HORIZON, PolicySpec, check_contract, contract_of
from vla.control.safety import SafetyEnvelope
from vla.embodiment import Embodiment
from vla.errors import ConfigError, IncompatibleError, MissingExtraError
from vla.interfaces import Env
from vla.robots import Reading
from vla.robots.sim import SimRobot
from vla.types import Observation

try:
    import inspect_robots as ir
except ImportError as _error:
    raise MissingExtraError("inspect-robots", "inspect", "Running in inspect-robots") from _error

#: Kind of the arm's first action field (unit without time, mode) -> control mode of inspect-robots.
_MODES = {
    ("rad", "absolute"): "joint_pos",
    ("rad", "velocity"): "joint_vel",
    ("rad", "delta"): "joint_delta",
    ("m", "absolute"): "eef_abs_pose",
    ("m", "delta"): "eef_delta_pose",
}
_ROTATIONS = {
    "quat_wxyz": "quat_wxyz",
    "matrix_6d": "rot6d",
    "rotvec": "axis_angle",
    "euler_xyz": "euler_xyz",
}


class InspectPolicy:
    """A policy of ours for one arm.

    Args:
        policy: as after ``--policy``: ``learned``, ``learned:DIRECTORY``, ``remote:url=ws://...``.
        arm: one of the embodiments it was trained on.

    Raises:
        ConfigError: a policy without a contract, which does not say which arms it may drive.
        IncompatibleError: it was not trained on that arm.
    """

    def __init__(self, policy: str = "learned", arm: str = "panda") -> None:
        self._policy = PolicySpec.parse(policy).build()
        contract: Any = contract_of(self._policy)
        arms = getattr(contract, "embodiments", {})
        if not arms:
            raise ConfigError(
                f"Policy {policy!r} does not say which arms it drives: serve one with a contract."
            )
        if arm not in arms:
            raise IncompatibleError("policy", repr(arm), [f"trained on {', '.join(sorted(arms))}"])
        self._arm: Embodiment = arms[arm]
        check_contract(self._policy, self._arm)
        self._horizon = getattr(contract, "execution_horizon", EXECUTION_HORIZON)
        self.info = ir.PolicyInfo(
            name=policy,
            action_space=action_space(self._arm),
            observation_space=observation_space(self._arm),
            control_hz=self._arm.control_hz,
            checkpoint=contract.weights_sha256[:12],
        )
        self.config = ir.PolicyConfig(action_horizon=self._horizon)

    def reset(self, scene: ir.Scene) -> None:
        """A new episode begins."""
        self._policy.reset()

    def act(self, observation: ir.Observation) -> ir.ActionChunk:
        """As many actions as are executed before the policy is asked again."""
        steps = int(observation.extra.get("env_step", 0))
        seen = Observation(
            images=observation.images,
            state={name: np.asarray(value, np.float32) for name, value in observation.state.items()},
            instruction=observation.instruction or "",
            embodiment=self._arm.name,
            time_s=steps / self._arm.control_hz,
        )
        began = time.perf_counter()
        (chunk,) = self._policy.act([seen])
        return ir.ActionChunk(
            actions=[ir.Action(data=row) for row in chunk.actions[: self._horizon]],
            control_hz=chunk.control_hz,
            inference_latency_s=time.perf_counter() - began,
        )


class InspectSim:
    """A simulated arm of a registered suite, behind our safety envelope.

    A scene's ``init_seed`` is the episode's seed; its instruction is followed where the suite can.

    Args:
        suite, task, arm: which simulation.
        image_size: px.
    """

    def __init__(
        self, suite: str = "tabletop", task: str = "place", arm: str = "panda", image_size: int = 64
    ) -> None:
        self._env: Env = registry.suite(suite).make(task, arm, image_size=image_size)
        self._envelope = SafetyEnvelope.of(SimRobot(self._env, seed=0))
        self._robot: SimRobot | None = None
        self._reading: Reading | None = None
        self.info = ir.EmbodimentInfo(
            name=f"vla {suite} {arm}",
            action_space=action_space(self._env.embodiment),
            observation_space=observation_space(self._env.embodiment),
            control_hz=self._env.embodiment.control_hz,
            is_simulated=True,
            capabilities=frozenset({"seedable", "resettable", "privileged_success"}),
            docs=described(self._env.embodiment),
        )

    def reset(self, scene: ir.Scene, *, seed: int | None = None) -> ir.Observation:
        """The episode of the scene's seed, exactly; ``seed`` where it has none."""
        chosen = scene.init_seed if scene.init_seed is not None else seed or 0
        robot = SimRobot(self._env, seed=chosen)
        self._envelope.reset()
        reading = robot.connect()
        if scene.instruction and scene.instruction != reading.observation.instruction:
            reading = robot.set_instruction(scene.instruction)
        self._robot, self._reading = robot, reading
        return self._seen(reading)

    def step(self, action: ir.Action) -> ir.StepResult:
        """One action, inside the limits of the safety envelope."""
        if self._robot is None or self._reading is None:
            raise ConfigError("reset() before step().")
        safe = self._envelope(np.asarray(action.data, np.float32), self._reading.observation.state)
        reading = self._reading = self._robot.command(safe.action)
        success = bool(reading.info["success"])
        return ir.StepResult(
            observation=self._seen(reading),
            terminated=success,
            termination_reason="success" if success else None,
            truncated=reading.done and not success,
            info={"success": success},
        )

    def close(self) -> None:
        """Let go of the simulation."""
        self._env.close()

    def _seen(self, reading: Reading) -> ir.Observation:
        seen = reading.observation
        return ir.Observation(
            images=dict(seen.images),
            state=dict(seen.state),
            instruction=seen.instruction,
            state_time=seen.time_s,
        )


def action_space(arm: Embodiment) -> ir.Box:
    """Bounds and meaning of an arm's action vector; raises :class:`ConfigError` where there is no word."""
    first = arm.action[0]
    mode = _MODES.get((first.unit.partition("/")[0], first.mode))
    if mode is None:
        raise ConfigError(
            f"inspect-robots has no word for actions of {first.unit!r}, {first.mode} ({arm.name!r}); it has "
            f"{sorted(set(_MODES.values()))}."
        )
    rotation = next((f.rotation_format for f in arm.action if f.rotation_format in _ROTATIONS), "none")
    gripper = any(f.gripper_sign != "none" for f in arm.action)
    labels = [f.name if f.size == 1 else f"{f.name}[{i}]" for f in arm.action for i in range(f.size)]
    return ir.Box(
        shape=(arm.action_dim,),
        low=arm.action_low,
        high=arm.action_high,
        semantics=ir.ActionSemantics(
            control_mode=mode,  # type: ignore[arg-type]
            rotation_repr=_ROTATIONS.get(rotation, "none"),  # type: ignore[arg-type]
            gripper="continuous" if gripper else "none",
            frame="world" if first.frame == "world" else "base",
            dim_labels=tuple(labels),
        ),
    )


def observation_space(arm: Embodiment) -> ir.ObservationSpace:
    """Cameras and state fields under their own names."""
    return ir.ObservationSpace(
        cameras=tuple(ir.CameraSpec(c.name, c.height, c.width) for c in arm.cameras),
        state=ir.StateSpec(
            tuple(ir.StateField(f.name, (f.size,), unit=f.unit, dtype="float32") for f in arm.state)
        ),
    )


def described(arm: Embodiment) -> str:
    """What every number of the action means, for whoever reads."""
    lines = [
        f"- {f.name} ({f.size}): {f.mode}, {f.unit}, frame {f.frame}"
        + (f", rotation as {f.rotation_format}" if f.rotation_format != "none" else "")
        + (f", {f.gripper_sign.replace('_', ' ')} the gripper" if f.gripper_sign != "none" else "")
        for f in arm.action
    ]
    return "Actions, in order:\n" + "\n".join(lines)
