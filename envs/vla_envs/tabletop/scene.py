"""Composing arm, table, lights, cameras and a task's pool of entities into one MuJoCo model."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import Entity, add_entity

ARM_PREFIX = "arm/"
TIMESTEP_S = 0.002
TABLE_RGBA = (0.78, 0.76, 0.72, 1.0)
FRONT_CAMERA = {"pos": (0.60, 0.0, 0.56), "look_at": (-0.005, 0.0, 0.02), "fovy": 33.0}
OVERVIEW_CAMERA = {"pos": (0.78, 0.52, 0.58), "look_at": (-0.12, 0.0, 0.13), "fovy": 42.0}


def compose(arm: ArmModel, entities: Sequence[Entity]) -> mujoco.MjModel:
    """Compile the scene. World: workspace centre at the origin, table top at z = 0, metres."""
    spec = mujoco.MjSpec()
    spec.modelname = f"tabletop_{arm.name}"
    option = spec.option
    option.timestep = TIMESTEP_S
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 5.0
    quality = spec.visual.quality
    quality.shadowsize = 0
    quality.offsamples = 0
    spec.visual.global_.offwidth = 1280
    spec.visual.global_.offheight = 960
    spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
    spec.visual.headlight.diffuse = [0.35, 0.35, 0.35]
    spec.visual.headlight.specular = [0.05, 0.05, 0.05]
    spec.visual.map.znear = 0.02

    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.93, 0.94, 0.96],
        rgb2=[0.72, 0.76, 0.82],
        width=64,
        height=384,
    )
    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1.5, 1.5, 0.1],
        rgba=TABLE_RGBA,
        friction=[0.4, 0.01, 0.0005],
    )
    light = world.add_light(name="lamp", pos=[0.3, 0.3, 1.5], dir=[-0.2, -0.2, -1])
    light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    light.castshadow = False
    light.diffuse = [0.4, 0.4, 0.4]
    light.specular = [0.1, 0.1, 0.1]
    for name, view in (("front", FRONT_CAMERA), ("overview", OVERVIEW_CAMERA)):
        world.add_camera(
            name=name,
            pos=list(view["pos"]),
            quat=look_at(view["pos"], view["look_at"]).tolist(),
            fovy=view["fovy"],
        )
    frame = world.add_frame(pos=list(arm.base_position))
    spec.attach(arm.spec, prefix=ARM_PREFIX, frame=frame)
    for entity in entities:
        add_entity(spec, entity)
    return spec.compile()


def look_at(position: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Quaternion (w x y z) of a MuJoCo camera (looks along -z, y up) at ``position`` facing ``target``."""
    back = np.asarray(position, float) - np.asarray(target, float)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(back, right), back], axis=1)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, rotation.ravel())
    return quat
