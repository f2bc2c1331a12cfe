"""The tabletop environment: one arm, one task, a scene per seed, an instruction, and its success."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import mujoco
import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.errors import EnvError
from vla.interfaces import Wording
from vla.pictures import UndrawnPictures
from vla_envs.tabletop import labels, snapshot
from vla_envs.tabletop.arms import ArmModel, load_arm, open_gripper
from vla_envs.tabletop.arms.geometry import tabletop_geometry
from vla_envs.tabletop.arms.ik import ToolIK
from vla_envs.tabletop.cameras import SceneRenderer, camera_name
from vla_envs.tabletop.embodiments import tabletop_embodiment
from vla_envs.tabletop.gym_spaces import observation_space, reset_options
from vla_envs.tabletop.instructions import phrase
from vla_envs.tabletop.names import COLORS
from vla_envs.tabletop.perturbations import Visuals, other_distractors, repaint, start_offset
from vla_envs.tabletop.scene import ARM_PREFIX, TABLE_RGBA, TIMESTEP_S, compose
from vla_envs.tabletop.seasons import Season
from vla_envs.tabletop.tasks import Goal, Layout, Placement, make_task
from vla_envs.tabletop.tasks.matching import match_goal, plain_sentence
from vla_envs.tabletop.world import World

CONTROL_HZ = 10.0
HOLD_STEPS = 3  # success must hold this many control steps
_SUBSTEPS = round(1.0 / (CONTROL_HZ * TIMESTEP_S))
_RAMP = 10  # servo targets reach the new pose in this many equal pieces ...
_RAMP_DONE = 6  # ... of which the last ones only hold it
_MAX_YAW_RAD = 1.0


class TabletopEnv(gymnasium.Env):
    """See :class:`vla.interfaces.Env` for the contract.

    Args:
        task: one of ``names.TASKS``.
        embodiment: one of ``names.ARMS`` or a foreign arm found on ``VLA_ARM_PATH``.
        image_size: pixels per side of both cameras.
        render: False leaves ``images`` empty, for experts and physics studies.
        detailed: use the menagerie model of the arm instead of ours.
        season: layouts, colours, objects and wordings of this season; None: the public ones.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        embodiment: str,
        *,
        image_size: int = 64,
        render: bool = True,
        detailed: bool = False,
        season: Season | None = None,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        self.task = make_task(task)
        self.arm: ArmModel = load_arm(embodiment, detailed=detailed)
        self.render_mode = render_mode
        self.max_steps = self.task.max_steps
        self.season = season
        self._public_pool = self.task.pool(self.arm)
        pool = self._public_pool if season is None else season.reshape(self._public_pool)
        self.model = compose(self.arm, pool)
        self._fingerprint = _fingerprint(self.model, self.max_steps, season)
        self.data = mujoco.MjData(self.model)
        self.world = World(self.model, self.data, self.arm, pool)
        self.embodiment: Embodiment = tabletop_embodiment(self.arm, image_size)
        self._ik = ToolIK(
            self.model,
            tuple(ARM_PREFIX + j for j in self.arm.joint_names),
            ARM_PREFIX + self.arm.tcp_site,
            home_q=self.arm.home_q,
            tool_down_weight=self.arm.tool_down_weight,
        )
        self._arm_ctrl = np.array([self.model.actuator(ARM_PREFIX + a).id for a in self.arm.actuator_names])
        self._gripper_ctrl = self.model.actuator(ARM_PREFIX + self.arm.gripper_actuator).id
        self._visuals = Visuals(self.model)
        self._renderer = SceneRenderer(self.model) if render else None
        self._render = render
        self.draws_on_demand = False
        self._moments = 0  # counts observations: pictures of an earlier one cannot be drawn any more
        self._low, self._high = (
            np.array(self.embodiment.workspace_low),
            np.array(self.embodiment.workspace_high),
        )
        self.goal: Goal | None = None
        self._steps = self._held_steps = 0
        self._gripper_command = -1.0
        self._q_command = self.arm.home_q.astype(float)
        self._already: list[tuple[str, str, str | None]] = []
        self._others: list[Goal] = []  # what else the scene was asked to do at reset
        self._first_other = 0
        self._things: dict[str, Callable[[World], np.ndarray]] = {}
        self.layout: Layout | None = None
        self.instruction = ""
        self.action_space = gymnasium.spaces.Box(self.embodiment.action_low, self.embodiment.action_high)
        self.observation_space = observation_space(self.embodiment, render)

    # --- gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A scene drawn from ``seed``; see :class:`vla.interfaces.Env` for ``options``."""
        super().reset(seed=seed)
        variant, wording, perturbation = reset_options(options)
        self._visuals.restore()
        if seed is None:
            seed = int(self.np_random.integers(1 << 31))
        rng = self.draw(seed)
        assert self.layout is not None
        goals = self.task.goals(self.layout, self.arm)
        base = goals[int(rng.integers(len(goals)))]
        others = [g for g in goals if g.target != base.target] or [g for g in goals if g != base]
        if not others:
            raise EnvError(f"Scene {seed} of {self.task.name!r} admits one goal only: nothing to swap to.")
        swapped = others[int(rng.integers(len(others)))]
        asked = swapped if variant == "swapped" else base
        changes = self._generator(seed, 3)
        if perturbation == "distractors":
            goals, asked = self._change_distractors(asked, changes)
        self._visuals.perturb(perturbation, changes)
        self._set_goal(asked, self._generator(seed, 1), wording)
        self._others = [goal for goal in goals if goal != asked]
        self._things = labels.name_things(self.task, goals)
        words = self._generator(seed, 2)
        self._first_other = int(words.integers(len(self._others)))
        others = [self._phrase(goal, words, wording) for goal in self._others]
        self._start_pose(rng, *start_offset(perturbation, changes))
        season = {} if self.season is None else {"season": str(self.season)}
        info = {**season, "other_instructions": others, "things": list(self._things), **self._info(clipped=0)}
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of 0.1 s.

        Args:
            action: float32 [5], see ``embodiments``; NaN or a wrong shape raises ActionError; what lies
                outside the range is clipped and counted in ``info["clipped"]``.
        """
        if self.goal is None:
            raise EnvError("step() before reset(): call env.reset(seed=...) first.")
        wanted = self.embodiment.check_action(action)
        if wanted.shape != (self.embodiment.action_dim,):
            raise EnvError(f"One action of shape ({self.embodiment.action_dim},), not {wanted.shape}.")
        clean = np.clip(wanted, self.embodiment.action_low, self.embodiment.action_high).astype(float)
        clipped = int((np.abs(clean - wanted) > 1e-6).sum())
        self._command(clean)
        self._simulate()
        self._steps += 1
        done = self.task.achieved(self.goal, self.world)
        self._held_steps = self._held_steps + 1 if done else 0
        info = self._info(clipped)
        success = info["success"]
        return self._observe(), float(success), success, self._steps >= self.max_steps and not success, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """uint8 [480 480 3] picture of the whole scene."""
        return self.render_frame(480)

    def render_frame(self, size: int = 480, camera: str = "overview") -> np.ndarray:
        """uint8 [size size 3] from ``overview``, ``front`` or ``wrist``."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.model)
        return self._renderer.render(self.data, camera_name(camera), size)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # --- beyond gymnasium

    def draw(self, seed: int) -> np.random.Generator:
        """Only draw the scene of a seed (no start pose, no goal); returns the generator for the rest."""
        rng = self._generator(seed, 0)
        self._draw_scene(rng)
        mujoco.mj_kinematics(self.model, self.data)
        return rng

    def set_instruction(self, text: str) -> None:
        """Change what is asked, mid-motion; success is scored on it from now on.

        Raises:
            ParseError: when the sentence names nothing that this scene can do; the goal stays.
        """
        if self.layout is None:
            raise EnvError("set_instruction() before reset(): call env.reset(seed=...) first.")
        self.goal = match_goal(text, self._goals_now())
        self.instruction = text
        self._held_steps = 0
        self._others = []
        self._already = self._achieved_goals()

    @property
    def geometry(self) -> ArmGeometry | None:
        """Shapes of the arm and the table, for the safety envelope."""
        return tabletop_geometry(self.arm.name)

    def predict_joints(self, action: np.ndarray) -> np.ndarray:
        """float64 [n] rad: the joint targets that an action leads to; nothing moves."""
        position, yaw = self._aim(action)
        return self._ik.solve(self._q_command, position, yaw)

    def current_info(self) -> dict[str, Any]:
        """What ``info`` would say now, for instance after :meth:`set_instruction`."""
        return self._info(clipped=0)

    def scene(self) -> str:
        """The name of its task."""
        return self.task.name

    def sentences(self) -> list[str]:
        """One sentence for each goal that the scene admits as it stands now; none before :meth:`reset`."""
        return [plain_sentence(goal) for goal in self._goals_now()]

    def things(self) -> list[str]:
        """Everything that these sentences name, as they name it."""
        words = [w for goal in self._goals_now() for w in (goal.target_words, goal.destination_words)]
        return list(dict.fromkeys(word for word in words if word is not None))

    @property
    def fingerprint(self) -> str:
        """Hash of the compiled scene and the control constants: demonstrations of another one differ."""
        return self._fingerprint

    def save_state(self) -> dict[str, Any]:
        """Everything needed to continue exactly from here."""
        if self.goal is None or self.layout is None:
            raise EnvError("save_state() before reset(): call env.reset(seed=...) first.")
        return {
            "physics": snapshot.save_physics(self.model, self.data),
            "commanded": self.world.commanded.copy(),
            "q_command": self._q_command.copy(),
            "scalars": {
                "commanded_yaw": self.world.commanded_yaw,
                "gripper_command": self._gripper_command,
                "steps": self._steps,
                "held_steps": self._held_steps,
                "instruction": self.instruction,
                "already": [list(goal) for goal in self._already],
                "goal": dataclasses.asdict(self.goal),
                "layout": dataclasses.asdict(self.layout),
                "others": [dataclasses.asdict(goal) for goal in self._others],
                "first_other": self._first_other,
            },
        }

    def restore_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Continue from a saved state (of the same task and arm); returns the observation there."""
        snapshot.restore_physics(self.model, self.data, state["physics"])
        scalars = state["scalars"]
        self.world.commanded = np.array(state["commanded"])
        self.world.commanded_yaw = scalars["commanded_yaw"]
        self._q_command = np.array(state["q_command"])
        self._gripper_command = scalars["gripper_command"]
        self._steps, self._held_steps = scalars["steps"], scalars["held_steps"]
        self.instruction = scalars["instruction"]
        self._already = [(verb, target, place) for verb, target, place in scalars["already"]]
        self.goal = Goal(**scalars["goal"])
        self.layout = Layout.from_json(scalars["layout"])
        self._others = [Goal(**goal) for goal in scalars["others"]]
        self._first_other = scalars["first_other"]
        self._things = labels.name_things(self.task, self.task.goals(self.layout, self.arm))
        return self._observe()

    @property
    def steps(self) -> int:
        """Control steps since reset."""
        return self._steps

    @property
    def gripper_command(self) -> float:
        """Last gripper command, -1 open .. +1 closed."""
        return self._gripper_command

    # --- inside

    def _generator(self, seed: int, stream: int) -> np.random.Generator:
        if self.season is None:
            return np.random.default_rng([seed, stream])
        self.season.check_seed(seed)
        return self.season.generator(seed, stream)

    def _draw_scene(self, rng: np.random.Generator) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self.layout = self.task.layout(rng, self.arm)
        palette = COLORS
        if self.season is not None:
            palette = self.season.colors
            self.layout = self.season.redraw(
                self.layout, self._public_pool, list(self.world.pool.values()), rng
            )
        for i, name in enumerate(self.world.pool):
            placement = self.layout.placements.get(name)
            if placement is None:
                self.world.park(name, i)
            else:
                self.world.place(name, placement.position, placement.yaw)
        for name, color in self.layout.colors.items():
            shade = np.clip(np.array(palette[color]) + rng.uniform(-0.05, 0.05, 3), 0, 1)
            self.world.paint(name, shade.tolist())
        for name, value in self.layout.slides.items():
            self.world.set_slide(name, value)
        table = self.model.geom("table").id
        self.model.geom_rgba[table, :3] = np.array(TABLE_RGBA[:3]) + rng.uniform(-0.06, 0.06)

    def _change_distractors(self, asked: Goal, rng: np.random.Generator) -> tuple[list[Goal], Goal]:
        """Other colours on what is not meant; the goals of the scene now, and the one asked for."""
        assert self.layout is not None
        palette = COLORS if self.season is None else self.season.colors
        names = list(COLORS) if self.season is None else sorted(set(self.layout.colors.values()))
        changed = other_distractors(self.layout, asked, names, rng)
        goals = self.task.goals(changed, self.arm)
        meant = asked.verb, asked.target, asked.destination
        for goal in goals:
            if (goal.verb, goal.target, goal.destination) == meant:
                repaint(self.world, self.layout, changed, palette, rng)
                self.layout = changed
                return goals, goal
        return self.task.goals(self.layout, self.arm), asked  # what is meant was told from what has changed

    def _start_pose(self, rng: np.random.Generator, offset: np.ndarray, turn: float) -> None:
        world = self.world
        q = self.arm.home_q.astype(float)
        self._place_arm(q)
        start = world.tcp + rng.uniform([-0.03, -0.04, -0.02], [0.03, 0.04, 0.02]) + offset
        start = np.clip(start, self._low, self._high)
        yaw = float(rng.uniform(-0.2, 0.2)) + turn
        q = self._ik.solve(q, start, yaw, iterations=40)
        self._place_arm(q)
        world.commanded, world.commanded_yaw = world.tcp.copy(), yaw
        self._q_command = q
        self._gripper_command = -1.0
        self._steps = self._held_steps = 0
        for _ in range(3):
            self._simulate()
        self._already = self._achieved_goals()

    def _place_arm(self, q: np.ndarray) -> None:
        arm, data = self.arm, self.data
        for name, angle in zip(arm.joint_names, q, strict=True):
            data.qpos[self.model.joint(ARM_PREFIX + name).qposadr[0]] = angle
        open_gripper(self.model, data, arm, ARM_PREFIX)
        data.ctrl[self._arm_ctrl] = q
        data.ctrl[self._gripper_ctrl] = arm.gripper_open_ctrl
        mujoco.mj_forward(self.model, data)

    def _command(self, action: np.ndarray) -> None:
        """Integrate the tool target and solve for joint targets."""
        world = self.world
        world.commanded, world.commanded_yaw = self._aim(action)
        self._gripper_command = float(action[4])
        self._q_command = self._ik.solve(self._q_command, world.commanded, world.commanded_yaw)

    def _aim(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        """Position [3] m and yaw, rad, that the tool is sent to by an action."""
        position = np.clip(self.world.commanded + action[:3], self._low, self._high)
        yaw = float(np.clip(self.world.commanded_yaw + action[3], -_MAX_YAW_RAD, _MAX_YAW_RAD))
        return position, yaw

    def _simulate(self) -> None:
        data, arm = self.data, self.arm
        start = data.ctrl[self._arm_ctrl].copy()
        share = (self._gripper_command + 1.0) / 2.0
        data.ctrl[self._gripper_ctrl] = arm.gripper_open_ctrl + share * (
            arm.gripper_closed_ctrl - arm.gripper_open_ctrl
        )
        for piece in range(1, _RAMP + 1):
            data.ctrl[self._arm_ctrl] = start + min(1.0, piece / _RAMP_DONE) * (self._q_command - start)
            mujoco.mj_step(self.model, data, _SUBSTEPS // _RAMP)
        mujoco.mj_forward(self.model, data)

    def _set_goal(self, goal: Goal, rng: np.random.Generator, wording: Wording) -> None:
        self.goal = goal
        self.instruction = self._phrase(goal, rng, wording)

    def _phrase(self, goal: Goal, rng: np.random.Generator, wording: Wording) -> str:
        templates = None if self.season is None else self.season.templates
        words = (goal.target_words, goal.destination_words)
        return phrase(goal.verb, *words, rng, wording, goal.prep, templates)

    def _goals_now(self) -> list[Goal]:
        return [] if self.layout is None else self.task.goals(self._layout_now(), self.arm)

    def _layout_now(self) -> Layout:
        """The layout as it stands now: things may have been moved."""
        assert self.layout is not None
        placements = {
            name: Placement(position=tuple(self.world.position(name)), yaw=self.world.yaw(name))
            for name in self.layout.placements
        }
        slides = {name: self.world.slide(name) for name in self.layout.slides}
        return Layout(placements=placements, colors=self.layout.colors, slides=slides)

    def _achieved_goals(self) -> list[tuple[str, str, str | None]]:
        assert self.layout is not None
        goals = [*self.task.goals(self.layout, self.arm), *([self.goal] if self.goal else [])]
        return [(g.verb, g.target, g.destination) for g in goals if self.task.achieved(g, self.world)]

    def _info(self, clipped: int) -> dict[str, Any]:
        assert self.goal is not None
        mine = (self.goal.verb, self.goal.target, self.goal.destination)
        wrong = [g for g in self._achieved_goals() if g not in (*self._already, mine)]
        return {
            "success": self._held_steps >= HOLD_STEPS,
            "wrong": bool(wrong),
            "instruction": self.instruction,
            "clipped": clipped,
            "aux": self._labels(),
        }

    def _labels(self) -> dict[str, np.ndarray]:
        assert self.goal is not None
        asked, phase = (
            labels.where(self.task, self.goal, self.world),
            labels.phase(self.task, self.goal, self.world),
        )
        other = labels.NOWHERE
        number = np.nan
        if self._others:
            number = float((self._first_other + self._steps) % len(self._others))
            other = labels.where(self.task, self._others[int(number)], self.world)
        return {
            **labels.locate(asked, self.world, ""),
            "phase": np.array([phase], np.float32),
            "other_instruction": np.array([number], np.float32),
            **labels.locate(other, self.world, "other_"),
            **labels.locate_things(self._things, self.world),
        }

    def _observe(self) -> dict[str, Any]:
        world = self.world
        yaw = world.tcp_yaw
        state = {
            "tcp_position": world.tcp,
            "tcp_yaw": [np.cos(2 * yaw), np.sin(2 * yaw)],
            "tcp_error": world.commanded - world.tcp,
            "joint_position": world.joint_position,
            "gripper_opening": [np.clip(world.gripper_opening, -0.2, 1.2)],
            "gripper_command": [self._gripper_command],
        }
        return {
            "images": self._pictures(),
            "state": {name: np.array(value, np.float32) for name, value in state.items()},
            "instruction": self.instruction,
        }

    def _pictures(self) -> Mapping[str, np.ndarray]:
        self._moments += 1
        if not self._render:
            return {}
        size, now = {c.name: c.height for c in self.embodiment.cameras}, self._moments
        pictures = UndrawnPictures(
            tuple(size),
            lambda name: self.render_frame(size[name], name),
            lambda: self._moments == now,
        )
        return pictures if self.draws_on_demand else dict(pictures)


def _fingerprint(model: mujoco.MjModel, max_steps: int, season: Season | None) -> str:
    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    constants = (CONTROL_HZ, _SUBSTEPS, _RAMP, _RAMP_DONE, _MAX_YAW_RAD, HOLD_STEPS, max_steps)
    which = b"" if season is None else f"season {season}".encode()
    return hashlib.sha256(buffer.tobytes() + repr(constants).encode() + which).hexdigest()[:16]


def make_env(**kwargs: Any) -> TabletopEnv:
    """Gymnasium's entry point."""
    return TabletopEnv(**kwargs)
