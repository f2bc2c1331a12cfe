"""Demonstrations written in conventions of one's choosing: what ``scripts/study_solver.py`` plants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.conversion import flip_image
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve.robot import MujocoRobot
from vla.data.source import read_frames
from vla.data.store import EpisodeStore

TASKS = ("pick", "place")
STATE, ACTION = "observation.state", "action"
JOINT = ("joint_action", "joint_action_unit")
HZ = 10.0
_LENGTH = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
_ANGLE = {"rad": 1.0, "deg": np.pi / 180}


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """One demonstration, metres and radians; ``turned`` follows from the joints."""

    position: np.ndarray
    turned: Rotation
    joints: np.ndarray
    opening: np.ndarray
    move: np.ndarray
    turn: np.ndarray
    target: np.ndarray
    command: np.ndarray
    pictures: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How demonstrations are written; the defaults are the clean convention."""

    position_unit: str = "m"
    axes: tuple[int, int, int] = (0, 1, 2)
    mirror: int = 1  # sign of the second position entry
    rotation: str = "quat_xyzw"
    rotation_unit: str = "rad"
    sign_flips: bool = False
    joint_unit: str = "rad"
    opening: tuple[float, float] = (1.0, 0.0)  # stored value of open, of closed
    command: tuple[float, float] = (-1.0, 1.0)
    mode: str = "delta"  # of the action; "joint" for joint targets, "joint_delta", "joint_velocity"
    joint_step: float = 1.0  # rad that a stored change or speed of 1 means
    frame: str = "world"
    action_unit: str = "m"
    turn_unit: str = "rad"
    turn_scale: float = 1.0  # of that unit, that an entry of 1 turns
    base_deg: float = 0.0  # by which the action's axes are turned about z against the state's
    yaw_only: bool = False
    turns: bool = True  # whether the action has entries that turn the tool
    lag: int = 0
    hz: float = HZ  # steps a second, as speeds are meant
    stated_hz: float = HZ
    stamp_hz: float = HZ
    joints_first: bool = False
    flip: str = ""  # "" : without pictures
    bgr: bool = False
    swapped: bool = False


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A planted error and the questions it concerns."""

    name: str
    plan: Plan
    questions: tuple[str, ...]
    refuses: tuple[str, ...] = ()  # questions without a right answer: found when they are refused


def kinds() -> list[Kind]:
    """Every planted error; the first is none."""
    rotation = ("rotation", "rotation_unit")
    table: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
        ("clean", {}, ("position", "rotation", "action_mode", "gripper_action")),
        ("clean with pictures", {"flip": "none"}, ("camera.front", "camera.wrist")),
        ("quaternion wxyz", {"rotation": "quat_wxyz"}, rotation),
        ("quaternion sign flips", {"sign_flips": True}, ("rotation_sign_flips",)),
        *((f"rotation {f}", {"rotation": f}, rotation)
          for f in ("euler_xyz", "euler_zyx", "euler_XYZ", "euler_ZYX", "rotvec", "matrix", "matrix_6d")),
        ("euler in degrees", {"rotation": "euler_xyz", "rotation_unit": "deg"}, rotation),
        ("joints in degrees", {"joint_unit": "deg"}, ("joint_unit",)),
        ("position in mm", {"position_unit": "mm"}, ("position_unit",)),
        ("position in cm", {"position_unit": "cm"}, ("position_unit",)),
        ("position x and y swapped", {"axes": (1, 0, 2)}, ("position",)),
        ("position y mirrored", {"mirror": -1}, ("position",)),
        ("joints before position", {"joints_first": True}, ("position", "joints", "rotation")),
        ("gripper state inverted", {"opening": (0.0, 1.0)}, ("gripper_state",)),
        ("gripper state a width in m", {"opening": (0.08, 0.0)}, ("gripper_state",)),
        ("gripper action inverted", {"command": (1.0, -1.0)}, ("gripper_action",)),
        ("gripper action 0 open 1 closed", {"command": (0.0, 1.0)}, ("gripper_action",)),
        ("gripper action 1 open 0 closed", {"command": (1.0, 0.0)}, ("gripper_action",)),
        ("absolute for delta", {"mode": "absolute"}, ("action_mode", "action_rotation")),
        ("absolute in mm", {"mode": "absolute", "action_unit": "mm"}, ("action_mode", "action_unit")),
        ("velocity for delta", {"mode": "velocity"}, ("action_mode", "action_unit")),
        ("velocity in cm", {"mode": "velocity", "action_unit": "cm"}, ("action_mode", "action_unit")),
        ("velocity in cm, no turns", {"mode": "velocity", "action_unit": "cm", "turns": False},
         ("action_position",)),
        ("action in mm, no turns", {"action_unit": "mm", "turns": False}, ("action_position",)),
        ("joint speeds at 50 Hz", {"mode": "joint_velocity", "hz": 50.0, "stated_hz": 50.0, "stamp_hz": 50.0},
         ("joints", "control_hz")),
        ("joint targets for delta", {"mode": "joint"}, ("joint_action",)),
        ("joint changes for delta", {"mode": "joint_delta"}, JOINT),
        ("joint changes in degrees", {"mode": "joint_delta", "joint_step": np.pi / 180}, JOINT),
        ("joint speeds for delta", {"mode": "joint_velocity"}, JOINT),
        ("joint changes scaled", {"mode": "joint_delta", "joint_step": 0.05}, ("joint_action",)),
        *((f"{name}, turns scaled by {scale}", {**change, "turn_scale": scale}, ("action_position",))
          for name, change, scale in (("action in mm", {"action_unit": "mm"}, 0.07),
                                      ("action in mm", {"action_unit": "mm"}, 0.15),
                                      ("velocity in cm", {"mode": "velocity", "action_unit": "cm"}, 0.6))),
        ("action's axes turned by 15 degrees", {"base_deg": 15.0}, ("position", "rotation")),
        ("action's axes turned by 45 degrees", {"base_deg": 45.0}, ("position", "rotation")),
        ("tool frame for world", {"frame": "tool"}, ("action_frame",)),
        ("action in mm", {"action_unit": "mm"}, ("action_unit",)),
        ("action turns in degrees", {"turn_unit": "deg"}, ("action_rotation_unit",)),
        ("action with yaw only", {"yaw_only": True}, ("action_rotation",)),
        *((f"action {n} late", {"lag": n}, ("action_lag",)) for n in (1, 2, 3)),
        ("stated rate doubled", {"stated_hz": 2 * HZ}, ("control_hz",)),
        ("time stamps half as far apart", {"stamp_hz": 2 * HZ}, ("control_hz",)),
        ("pictures upside down", {"flip": "vertical"}, ("camera.front", "camera.wrist")),
        ("pictures mirrored", {"flip": "horizontal"}, ("camera.front", "camera.wrist")),
        ("pictures turned by 180", {"flip": "rotate_180"}, ("camera.front", "camera.wrist")),
        ("red and blue swapped", {"flip": "none", "bgr": True}, ("camera.front", "camera.wrist")),
        ("camera columns swapped", {"flip": "none", "swapped": True}, ("camera.front", "camera.wrist")),
    ]  # fmt: skip
    twins = ("action_mode", "action_unit")  # 1 cm/s at 10 Hz is 1 mm/step, 1 rad/s at 57 Hz 1 deg/step
    unanswerable = {
        "joint changes scaled": ("joint_action_unit",),
        "velocity in cm, no turns": twins,
        "action in mm, no turns": twins,
        "joint speeds at 50 Hz": JOINT,
        "action in mm, turns scaled by 0.07": (*twins, "action_rotation_unit"),
        "action in mm, turns scaled by 0.15": (*twins, "action_rotation_unit"),
        "velocity in cm, turns scaled by 0.6": (*twins, "action_rotation_unit"),
        "action's axes turned by 15 degrees": ("action_position", *twins, "action_frame"),
        "action's axes turned by 45 degrees": ("action_position", *twins, "action_frame"),
    }
    return [
        Kind(name=name, plan=Plan(**changes), questions=asked, refuses=unanswerable.get(name, ()))
        for name, changes, asked in table
    ]


def load_demos(
    store: EpisodeStore, arm: str, count: int, robot: MujocoRobot, first_seed: int = 0
) -> list[Demo]:
    """Demonstrations of the grasping tasks from ``first_seed`` on, evenly spread, as they were executed."""
    numbers = [
        e.index
        for e in store.episodes
        if e.embodiment == arm
        and e.provenance.get("task") in TASKS
        and e.provenance.get("seed", 0) >= first_seed
        and e.length > 6
    ]
    picked = [numbers[i] for i in np.linspace(0, len(numbers) - 1, min(count, len(numbers))).astype(int)]
    return [_demo(store, arm, number, robot) for number in picked]


def _demo(store: EpisodeStore, arm: str, number: int, robot: MujocoRobot) -> Demo:
    embodiment = store.embodiments[arm]
    state = np.asarray(store.column(number, "state"), np.float64)
    action = np.asarray(store.column(number, "executed"), np.float64)

    def part(name: str) -> np.ndarray:
        return state[:, embodiment.field_slice(name, of="state")]

    joints, position = part("joint_position"), part("tcp_position")
    pictures = {
        name: read_frames(store.frame_reader(number, name), range(len(state))) for name in ("front", "wrist")
    }
    return Demo(
        position=position,
        turned=robot.forward(joints)[1],
        joints=joints,
        opening=part("gripper_opening")[:, 0],
        move=action[:, :3],
        turn=action[:, 3],
        target=position + part("tcp_error") + action[:, :3],
        command=action[:, 4],
        pictures=pictures,
    )


def write(demos: list[Demo], plan: Plan, seed: int) -> MemoryDataset:
    """The demonstrations as a raw data set with the plan's conventions."""
    rng = np.random.default_rng(seed)
    episodes = []
    for demo in demos:
        state, action = _state(demo, plan, rng), _action(demo, plan)
        late = np.concatenate([np.repeat(action[:1], plan.lag, axis=0), action])[: len(action)]
        columns = {STATE: state.astype(np.float32), ACTION: late.astype(np.float32)}
        times = np.arange(len(state)) / plan.stamp_hz
        episodes.append(
            MemoryEpisode(columns=columns, pictures=_pictures(demo, plan), time_s=times, instruction="pick")
        )
    return MemoryDataset(episodes, control_hz=plan.stated_hz)


def _state(demo: Demo, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    position = demo.position[:, list(plan.axes)] * [1, plan.mirror, 1] / _LENGTH[plan.position_unit]
    rotation = _written(demo.turned, plan.rotation) / _ANGLE[plan.rotation_unit]
    if plan.sign_flips:
        rotation = rotation * rng.choice([-1.0, 1.0], (len(rotation), 1))
    joints = demo.joints / _ANGLE[plan.joint_unit]
    opened, closed = plan.opening
    gripper = (closed + demo.opening * (opened - closed))[:, None]
    told = gripper_command(demo, plan)
    before = np.concatenate([told[:1], told[:-1]])  # controllers repeat the last command in their state
    pose, arm = [position, rotation], [joints, gripper]
    return np.hstack([*(arm + pose if plan.joints_first else pose + arm), before])


def gripper_command(demo: Demo, plan: Plan) -> np.ndarray:
    opened, closed = plan.command
    return (opened + (demo.command + 1) / 2 * (closed - opened))[:, None]


def _action(demo: Demo, plan: Plan) -> np.ndarray:
    gripper = gripper_command(demo, plan)
    last = np.minimum(np.arange(len(demo.move)) + 1, len(demo.move) - 1)
    if plan.mode == "joint":
        return np.hstack([demo.joints[last], gripper])
    if plan.mode.startswith("joint"):
        rate = plan.hz if plan.mode == "joint_velocity" else 1.0
        return np.hstack([(demo.joints[last] - demo.joints) * rate / plan.joint_step, gripper])
    if plan.mode == "absolute":
        turned = _written(Rotation.from_quat(demo.turned.as_quat()[last]), "quat_xyzw")
        return np.hstack([demo.target / _LENGTH[plan.action_unit], turned, gripper])
    move, turn = demo.move, np.column_stack([0 * demo.turn, 0 * demo.turn, demo.turn])
    if plan.base_deg:
        base = Rotation.from_euler("z", plan.base_deg, degrees=True)
        move, turn = base.apply(move), base.apply(turn)
    if plan.frame == "tool":
        move, turn = demo.turned.inv().apply(move), demo.turned.inv().apply(turn)
    rate = plan.hz if plan.mode == "velocity" else 1.0
    turn = (turn[:, 2:] if plan.yaw_only else turn) / _ANGLE[plan.turn_unit] / plan.turn_scale
    turns = [turn * rate] if plan.turns else []
    return np.hstack([move / _LENGTH[plan.action_unit] * rate, *turns, gripper])


def _pictures(demo: Demo, plan: Plan) -> dict[str, np.ndarray]:
    if not plan.flip:
        return {}
    shown = {"front": "wrist", "wrist": "front"} if plan.swapped else {"front": "front", "wrist": "wrist"}
    out = {}
    for name, source in shown.items():
        pictures = np.stack([flip_image(p, plan.flip) for p in demo.pictures[source]])  # type: ignore[arg-type]
        out[name] = np.ascontiguousarray(pictures[..., ::-1] if plan.bgr else pictures)
    return out


def _written(rotation: Rotation, written: str) -> np.ndarray:
    if written.startswith("quat"):
        return rotation.as_quat(scalar_first=written == "quat_wxyz")
    if written.startswith("euler"):
        return rotation.as_euler(written.removeprefix("euler_"))
    if written == "rotvec":
        return rotation.as_rotvec()
    matrix = rotation.as_matrix()
    if written == "matrix":
        return matrix.reshape(-1, 9)
    return np.swapaxes(matrix[:, :, :2], 1, 2).reshape(-1, 6)
