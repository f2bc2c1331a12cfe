"""Arms: compiled numbers equal the published ones, inverse kinematics, real grasps."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from vla.control.geometry import PoseChecks
from vla.control.safety import SafetyEnvelope
from vla.errors import UnknownNameError
from vla.robots.sim import SimRobot
from vla_envs.tabletop.arms import ARM_NAMES, ArmModel, load_arm, open_gripper
from vla_envs.tabletop.arms.geometry import tabletop_geometry
from vla_envs.tabletop.arms.ik import ToolIK, rotation_error
from vla_envs.tabletop.arms.model import TOOL_DOWN
from vla_envs.tabletop.arms.verify import verify_arm
from vla_envs.tabletop.env import TabletopEnv
from vla_envs.tabletop.suite import TabletopSuite

PI = np.pi
FAST_STEP_M = 0.03  # per control step of 0.1 s


class Cell:
    """One arm over a table with one thing on it."""

    def __init__(self, arm: ArmModel, kind: str = "box", half: float = 0.02) -> None:
        self.arm = arm
        self.model = _scene(arm, kind, half)
        self.data = mujoco.MjData(self.model)
        self.joints = [f"arm/{name}" for name in arm.joint_names]
        self.servos = [self.model.actuator(f"arm/{name}").id for name in arm.actuator_names]
        self.gripper = self.model.actuator(f"arm/{arm.gripper_actuator}").id
        self.ik = ToolIK(self.model, self.joints, "arm/tcp", arm.tool_down_weight, home_q=arm.home_q)
        self.q = arm.home_q.copy()
        for name, angle in zip(self.joints, self.q, strict=True):
            self.data.joint(name).qpos = angle
        open_gripper(self.model, self.data, arm, "arm/")
        self.data.ctrl[self.servos], self.data.ctrl[self.gripper] = self.q, arm.gripper_open_ctrl
        mujoco.mj_forward(self.model, self.data)
        self.commanded = self.tcp.copy()

    @property
    def tcp(self) -> np.ndarray:
        return self.data.site("arm/tcp").xpos

    @property
    def thing(self) -> np.ndarray:
        return self.data.body("thing").xpos

    @property
    def opening(self) -> float:
        arm = self.arm
        q = float(self.data.joint(f"arm/{arm.gripper_joint}").qpos[0])
        return (q - arm.gripper_closed_q) / (arm.gripper_open_q - arm.gripper_closed_q)

    def wait(self, seconds: float, gripper: float | None = None) -> None:
        if gripper is not None:
            self.data.ctrl[self.gripper] = gripper
        mujoco.mj_step(self.model, self.data, round(seconds / self.model.opt.timestep))

    def move(self, target: list[float]) -> float:
        """Ramps the tool to a place at 0.3 m/s; returns the largest lag behind the target, m."""
        goal, lag = np.array(target), 0.0
        while np.linalg.norm(goal - self.commanded) > 1e-9:
            offset = goal - self.commanded
            self.commanded = self.commanded + offset * min(1.0, FAST_STEP_M / np.linalg.norm(offset))
            before, self.q = self.q, self.ik.solve(self.q, self.commanded, 0.0)
            for share in np.linspace(0.02, 1.0, 50):
                self.data.ctrl[self.servos] = before + share * (self.q - before)
                mujoco.mj_step(self.model, self.data)
            mujoco.mj_kinematics(self.model, self.data)
            lag = max(lag, float(np.linalg.norm(self.tcp - self.commanded)))
        return lag


def _scene(arm: ArmModel, kind: str, half: float) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 5.0
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.0, 1.0, 0.1))
    thing = spec.worldbody.add_body(name="thing", pos=(0.0, 0.0, half))
    thing.add_freejoint()
    shape = mujoco.mjtGeom.mjGEOM_BOX if kind == "box" else mujoco.mjtGeom.mjGEOM_CYLINDER
    thing.add_geom(type=shape, size=(half, half, half), mass=0.05)
    spec.attach(arm.spec, prefix="arm/", frame=spec.worldbody.add_frame(pos=arm.base_position))
    return spec.compile()


@pytest.fixture(params=ARM_NAMES)
def arm(request: pytest.FixtureRequest) -> ArmModel:
    return load_arm(request.param)


# --- names and conventions


def test_unknown_arm_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'panda'"):
        load_arm("pandas")


def test_every_load_is_a_fresh_spec() -> None:
    first, second = load_arm("panda"), load_arm("panda")
    first.spec.body("hand").add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.01, 0.0, 0.0))
    assert first.spec.compile().ngeom == second.spec.compile().ngeom + 1


def test_arm_keeps_the_conventions(arm: ArmModel) -> None:
    verify_arm(arm)
    assert arm.spec.worldbody.first_body().name == "base"


def test_home_stands_over_the_workspace_centre(arm: ArmModel) -> None:
    position, rotation = Cell(arm).ik.tcp_pose(arm.home_q)
    assert np.allclose(position[:2], 0.0, atol=1e-3)
    assert 0.12 < position[2] < 0.17
    assert np.allclose(rotation, TOOL_DOWN, atol=5e-3)


def test_wrist_camera_is_the_same_on_every_arm_and_sees_both_fingertips(arm: ArmModel) -> None:
    cell = Cell(arm)
    camera, tcp = cell.data.camera("arm/wrist"), cell.data.site("arm/tcp")
    into_camera = camera.xmat.reshape(3, 3).T
    in_tcp = tcp.xmat.reshape(3, 3).T @ (camera.xpos - tcp.xpos)
    assert np.allclose(in_tcp, [0.115, 0.0, -0.085], atol=1e-6)
    assert (into_camera @ tcp.xmat.reshape(3, 3)[:, 0])[1] > 0.5  # tool x is up in the picture
    tangent = np.tan(np.radians(cell.model.cam("arm/wrist").fovy[0]) / 2.0)
    for name in (name for finger in arm.pad_geoms for name in finger):
        x, y, z = into_camera @ (cell.data.geom(f"arm/{name}").xpos - camera.xpos)
        assert max(abs(x), abs(y)) < -z * tangent


# --- published numbers


def _modified_dh(rows: list[tuple[float, float, float]], q: np.ndarray) -> np.ndarray:
    """Craig's convention; rows of (a, alpha, d)."""
    pose = np.eye(4)
    for (a, alpha, d), theta in zip(rows, q, strict=True):
        ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
        pose = pose @ np.array(
            [
                [ct, -st, 0.0, a],
                [st * ca, ct * ca, -sa, -d * sa],
                [st * sa, ct * sa, ca, d * ca],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
    return pose


def _standard_dh(rows: list[tuple[float, float, float]], q: np.ndarray) -> np.ndarray:
    """Denavit and Hartenberg's own convention; rows of (a, alpha, d)."""
    pose = np.eye(4)
    for (a, alpha, d), theta in zip(rows, q, strict=True):
        ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
        pose = pose @ np.array(
            [
                [ct, -st * ca, st * sa, a * ct],
                [st, ct * ca, -ct * sa, a * st],
                [0.0, sa, ca, d],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
    return pose


H = PI / 2.0
PANDA_DH = [
    (0, 0, 0.333),
    (0, -H, 0),
    (0, H, 0.316),
    (0.0825, H, 0),
    (-0.0825, -H, 0.384),
    (0, H, 0),
    (0.088, H, 0),
]
XARM7_DH = [
    (0, 0, 0.267),
    (0, -H, 0),
    (0, H, 0.293),
    (0.0525, H, 0),
    (0.0775, H, 0.3425),
    (0, H, 0),
    (0.076, -H, 0.097),
]
IIWA14_DH = [
    (0, 0, 0.36),
    (0, -H, 0),
    (0, H, 0.42),
    (0, H, 0),
    (0, -H, 0.40),
    (0, -H, 0),
    (0, H, 0.081),
]
GEN3_DH = [  # (a, alpha, d), thetas q1, q2 + pi ... q7 + pi, after half a turn about x
    (0, H, -0.28481),
    (0, H, -0.01175),
    (0, H, -0.42076),
    (0, H, -0.01275),
    (0, H, -0.31436),
    (0, H, 0),
    (0, PI, -0.16746),
]
UR5E_DH = [(0, H, 0.1625), (-0.425, 0, 0), (-0.3922, 0, 0), (0, H, 0.1333), (0, -H, 0.0997), (0, 0, 0.0996)]


def _body_pose(arm: ArmModel, body: str, q: np.ndarray) -> np.ndarray:
    """Pose of a body in the base's frame."""
    model = arm.spec.copy().compile()
    data = mujoco.MjData(model)
    for name, angle in zip(arm.joint_names, q, strict=True):
        data.joint(name).qpos = angle
    mujoco.mj_kinematics(model, data)
    poses = []
    for name in ("base", body):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = data.body(name).xmat.reshape(3, 3), data.body(name).xpos
        poses.append(pose)
    return np.linalg.inv(poses[0]) @ poses[1]


@pytest.mark.parametrize("seed", range(3))
def test_panda_and_xarm7_link_frames_follow_their_dh_tables(seed: int) -> None:
    q = np.random.default_rng(seed).uniform(-1.0, 1.0, 7)
    assert np.allclose(_body_pose(load_arm("panda"), "link7", q), _modified_dh(PANDA_DH, q), atol=1e-6)
    assert np.allclose(_body_pose(load_arm("xarm7"), "link7", q), _modified_dh(XARM7_DH, q), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_iiwa_wrist_lies_where_its_dh_table_has_it(seed: int) -> None:
    q = np.random.default_rng(seed).uniform(-1.5, 1.5, 7)
    wrist = _body_pose(load_arm("iiwa14"), "link7", q)[:3, 3]
    assert np.allclose(wrist, _modified_dh(IIWA14_DH, q)[:3, 3], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_gen3_flange_lies_where_its_dh_table_has_it(seed: int) -> None:
    q = np.random.default_rng(seed).uniform(-1.5, 1.5, 7)
    flange = _body_pose(load_arm("gen3"), "bracelet_link", q) @ np.array([0.0, 0.0, -0.0615250, 1.0])
    chain = np.diag([1.0, -1.0, -1.0, 1.0]) @ _standard_dh(GEN3_DH, q + np.array([0.0, *[PI] * 6]))
    assert np.allclose(flange, chain[:, 3], atol=5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_ur5e_flange_follows_its_dh_table(seed: int) -> None:
    q = np.random.default_rng(seed).uniform(-2.0, 2.0, 6)
    flange = _body_pose(load_arm("ur5e"), "wrist_3_link", q) @ np.array([0.0, 0.0996, 0.0, 1.0])
    flange[:2] *= -1.0  # the DH base is half a turn from the base link, as on the real controller
    assert np.allclose(flange, _standard_dh(UR5E_DH, q)[:, 3], atol=1e-6)


def test_so101_wrist_frames_are_where_its_cad_export_has_them() -> None:
    stretched = _body_pose(load_arm("so101"), "gripper", np.zeros(5))
    assert np.allclose(stretched[:3, 3], [0.2932, -0.0002, 0.2344], atol=1e-4)
    bent = _body_pose(load_arm("so101"), "gripper", np.array([0.0, -0.3, 0.3, 1.3, 0.0]))
    assert np.allclose(bent[:3, 3], [0.2140, -0.0002, 0.1787], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "tool_height"), [("panda", 0.107 + 0.1034), ("ur5e", 0.0108 + 0.1541), ("xarm7", 0.1645)]
)
def test_tcp_lies_on_the_flange_axis_at_the_fingertips(name: str, tool_height: float) -> None:
    flange = {"panda": ("link7", 0.0), "ur5e": ("wrist_3_link", 0.0996), "xarm7": ("link7", 0.0)}[name]
    arm = load_arm(name)
    model = arm.spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    body = data.body(flange[0])
    offset = body.xmat.reshape(3, 3).T @ (data.site("tcp").xpos - body.xpos)
    along = 1 if name == "ur5e" else 2
    assert offset[along] == pytest.approx(flange[1] + tool_height, abs=2e-3)
    assert np.allclose(np.delete(offset, along), 0.0, atol=1e-6)


FULL = (-2 * PI, 2 * PI)
PANDA_UPPER_LIMITS = ((-3.0718, -0.0698), (-2.8973, 2.8973), (-0.0175, 3.7525), (-2.8973, 2.8973))
PUBLISHED = {  # link masses from the base on (kg), joint limits (rad), torque limits (N m)
    "panda": (
        (0.629769, 4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522),
        ((-2.8973, 2.8973), (-1.7628, 1.7628), (-2.8973, 2.8973), *PANDA_UPPER_LIMITS),
        (87, 87, 87, 87, 12, 12, 12),
    ),
    "ur5e": (
        (4.0, 3.7, 8.393, 2.275, 1.219, 1.219, 0.1889),
        (FULL, FULL, (-PI, PI), FULL, FULL, FULL),
        (150, 150, 150, 28, 28, 28),
    ),
    "xarm7": (
        (0.88556, 2.382, 1.869, 1.6383, 1.7269, 1.3203, 1.325, 0.17),
        (FULL, (-2.059, 2.0944), FULL, (-0.19198, 3.927), FULL, (-1.69297, PI), FULL),
        (50, 50, 30, 30, 30, 20, 20),
    ),
    "gen3": (
        (1.697, 1.3773, 1.1636, 1.1636, 0.9302, 0.6781, 0.6781, 0.5),
        (FULL, (-2.24, 2.24), FULL, (-2.57, 2.57), FULL, (-2.09, 2.09), FULL),
        (39, 39, 39, 39, 9, 9, 9),
    ),
    "iiwa14": (
        (5.0, 5.76, 6.35, 3.5, 3.5, 3.5, 1.8, 1.2),
        (*((-2.96706, 2.96706), (-2.0944, 2.0944)) * 3, (-3.05433, 3.05433)),
        (320, 320, 176, 176, 110, 40, 40),
    ),
    "so101": (
        (0.147, 0.100006, 0.103, 0.104, 0.079, 0.087),
        ((-1.91986, 1.91986), (-1.74533, 1.74533), (-1.69, 1.69), (-1.65806, 1.65806), (-2.74385, 2.84121)),
        (3.35,) * 5,
    ),
}


def test_masses_limits_and_torques_are_the_published_ones(arm: ArmModel) -> None:
    masses, limits, torques = PUBLISHED[arm.name]
    model = arm.spec.compile()
    assert len(arm.joint_names) == len(limits)
    for name, limit in zip(arm.joint_names, limits, strict=True):
        assert np.allclose(model.joint(name).range, limit, atol=1e-4)
    for name, torque in zip(arm.actuator_names, torques, strict=True):
        assert np.allclose(model.actuator(name).forcerange, (-torque, torque))
    first = model.body("base").id
    assert np.allclose(model.body_mass[first : first + len(masses)], masses)
    assert np.allclose(model.body_gravcomp[first : first + len(masses)], 1.0)


def test_inertias_survive_compilation() -> None:
    model = load_arm("panda").spec.compile()
    body = model.body("link3")
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, body.iquat)
    rotation = rotation.reshape(3, 3)
    inertia = rotation @ np.diag(body.inertia) @ rotation.T
    xx, yy, zz, xy, xz, yz = 3.7242e-2, 3.6155e-2, 1.083e-2, -4.761e-3, -1.1396e-2, -1.2805e-2
    assert np.allclose(inertia, [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], atol=1e-6)


# --- inverse kinematics


def _yaw_error(rotation: np.ndarray, yaw: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    wanted = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ TOOL_DOWN
    return rotation_error(wanted @ rotation.T)


def _grid(arm: ArmModel) -> list[np.ndarray]:
    a, b = np.array(arm.object_half_extent) + 0.02
    ring = ((0, 0), (a, 0), (a, b), (0, b), (-a, b), (-a, 0), (-a, -b), (0, -b), (a, -b), (0, 0))
    heights = (0.01, 0.5 * arm.max_tool_height, arm.max_tool_height)
    corners = [(x, y, z) for z in heights for x, y in ring]
    return [np.array(c, float) for c in corners]


def _along(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    steps = max(1, int(np.ceil(np.linalg.norm(end - start) / FAST_STEP_M)))
    return start + (end - start) * np.linspace(1.0 / steps, 1.0, steps)[:, None]


@pytest.mark.parametrize("yaw", [-0.5, 0.0, 0.5])
def test_ik_reaches_the_whole_workspace_along_paths(arm: ArmModel, yaw: float) -> None:
    cell = Cell(arm)
    q, position, angle = arm.home_q.copy(), cell.tcp.copy(), 0.0
    for target in _grid(arm):
        for waypoint in _along(position, target):
            angle += float(np.clip(yaw - angle, -0.15, 0.15))
            q = cell.ik.solve(q, waypoint, angle)
        position = target
        reached, rotation = cell.ik.tcp_pose(q)
        assert np.linalg.norm(reached - target) < 1e-3
        if arm.tool_down_weight >= 1.0:
            assert np.linalg.norm(_yaw_error(rotation, yaw)) < 0.01
        else:
            assert np.degrees(np.arccos(-rotation[2, 2])) < 30.0


def test_ik_of_so101_holds_the_tool_nearly_upright_where_objects_lie() -> None:
    arm = load_arm("so101")
    cell, (a, b) = Cell(arm), arm.object_half_extent
    for x, y in ((a, b), (a, -b), (-a, b), (-a, -b), (0.0, 0.0), (a, 0.0)):
        q = cell.ik.solve(arm.home_q, np.array([x, y, 0.02]), 0.0, iterations=40)
        position, rotation = cell.ik.tcp_pose(q)
        assert np.linalg.norm(position - [x, y, 0.02]) < 1e-3
        assert np.degrees(np.arccos(-rotation[2, 2])) < 20.0


def test_ik_stays_inside_joint_limits_and_finite_when_the_target_is_out_of_reach(arm: ArmModel) -> None:
    cell = Cell(arm)
    q = cell.ik.solve(arm.home_q, np.array([3.0, 1.0, 1.0]), 0.0, iterations=50)
    limits = np.array([cell.model.joint(name).range for name in cell.joints])
    assert np.isfinite(q).all()
    assert (q >= limits[:, 0]).all()
    assert (q <= limits[:, 1]).all()


def test_rotation_error_is_axis_times_angle() -> None:
    assert np.allclose(rotation_error(np.diag([1.0, -1.0, -1.0])), [PI, 0.0, 0.0], atol=1e-6)
    c, s = np.cos(0.3), np.sin(0.3)
    assert np.allclose(rotation_error(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])), [0.0, 0.0, 0.3])


# --- motion and grasping


def test_tool_follows_a_fast_target_and_settles(arm: ArmModel) -> None:
    cell = Cell(arm)
    assert cell.move([0.07, 0.09, 0.13]) < 0.015
    assert cell.move([-0.06, -0.09, 0.13]) < 0.015
    cell.wait(0.3)
    assert np.linalg.norm(cell.tcp - cell.commanded) < 0.002


def test_gripper_closes_and_opens_fully_within_half_a_second(arm: ArmModel) -> None:
    cell = Cell(arm)
    assert cell.opening == pytest.approx(1.0, abs=0.02)
    cell.wait(0.5, arm.gripper_closed_ctrl)
    assert cell.opening == pytest.approx(0.0, abs=0.03)
    cell.wait(0.5, arm.gripper_open_ctrl)
    assert cell.opening == pytest.approx(1.0, abs=0.03)


def test_fingers_of_linkage_grippers_stay_parallel_and_symmetric() -> None:
    for name in ("ur5e", "xarm7", "gen3"):
        cell = Cell(load_arm(name))
        cell.wait(0.1, 0.5 * cell.arm.gripper_closed_ctrl)
        (left, _), (right, _) = (cell.arm.pad_geoms[0], cell.arm.pad_geoms[1])
        left, right = cell.data.geom(f"arm/{left}"), cell.data.geom(f"arm/{right}")
        normals = left.xmat.reshape(3, 3)[:, 1], right.xmat.reshape(3, 3)[:, 1]
        assert np.dot(*normals) == pytest.approx(-1.0, abs=1e-3)
        assert abs(left.xpos[2] - right.xpos[2]) < 1e-3


@pytest.mark.parametrize("name", ["ur5e", "xarm7"])
def test_linkage_stroke_is_about_85_mm_and_closes_to_nothing(name: str) -> None:
    from vla_envs.tabletop.arms import ur5e, xarm7

    gripper = {"ur5e": ur5e, "xarm7": xarm7}[name].GRIPPER
    assert 0.083 < gripper.gap(0.0) < 0.090
    assert -0.001 < gripper.gap(gripper.closing_angle) < 0.003


@pytest.mark.parametrize(("kind", "half"), [("box", 0.02), ("box", 0.015), ("cylinder", 0.02)])
def test_grasped_thing_is_lifted_and_held_by_friction(arm: ArmModel, kind: str, half: float) -> None:
    cell = Cell(arm, kind, half)
    cell.move([0.0, 0.0, half])
    cell.wait(0.5, arm.gripper_closed_ctrl)
    grip = cell.thing - cell.tcp
    for place in ([0.0, 0.0, 0.13], [0.07, 0.09, 0.13], [-0.06, -0.09, 0.13]):
        cell.move(place)
    cell.wait(1.5)
    assert cell.thing[2] > 0.1
    assert np.linalg.norm((cell.thing - cell.tcp) - grip) < 0.01
    cell.wait(0.6, arm.gripper_open_ctrl)
    assert cell.thing[2] < 0.1


@pytest.mark.parametrize("name", ARM_NAMES)
def test_the_safety_envelope_looks_at_joints_and_collisions_of_a_simulated_arm(name: str) -> None:
    robot = SimRobot(TabletopSuite().make("pick", name, render=False), seed=3)
    envelope = SafetyEnvelope.of(robot)
    assert {"joint", "collision", "range", "workspace"} <= set(envelope.checks)
    env, action = robot.env, np.array([0.02, -0.02, -0.03, 0.1, -1], np.float32)
    assert isinstance(env, TabletopEnv)
    robot.connect()
    for _ in range(3):
        predicted = robot.predict_joints(action)
        np.testing.assert_array_equal(robot.predict_joints(action), predicted)  # asking changes nothing
        robot.command(action)
        np.testing.assert_allclose(env.data.ctrl[env._arm_ctrl], predicted, atol=1e-9)
    robot.close()


def test_shapes_of_an_arm_that_lies_on_the_table_breach_the_collision_check() -> None:
    arm, geometry = load_arm("ur5e"), tabletop_geometry("ur5e")
    assert geometry is not None
    embodiment = TabletopSuite().make("pick", "ur5e", render=False).embodiment
    checks = PoseChecks(geometry, embodiment, ("joint", "collision"))
    assert not any(checks.breaches(arm.home_q).values())
    lying = arm.home_q.copy()
    lying[1] += 1.2  # the shoulder lowers the elbow through the table
    assert checks.breaches(lying)["collision"] > 0.01
