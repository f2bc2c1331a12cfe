"""Write the models and joint embodiments that the industrial drivers ship with, from the suite's own arms.

    python scripts/describe_arms.py

The world of each model is that of the suite's table: workspace centre at the origin, table top at z = 0.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vla.robots.actions import joint_embodiment
from vla_envs.counterparts.franka.fr3 import LIMITS
from vla_envs.tabletop.arms import load_arm

FOLDER = Path("vla/robots/descriptions")

for name, arm_name, limits in (("ur5e", "ur5e", None), ("fr3", "panda", np.array(LIMITS))):
    arm = load_arm(arm_name)
    for joint_name, limit in zip(arm.joint_names, limits if limits is not None else [], strict=False):
        arm.spec.joint(joint_name).range = limit
    arm.spec.modelname = name
    arm.spec.body("base").pos = arm.base_position
    model = arm.spec.compile()
    (FOLDER / f"{name}.xml").write_text(arm.spec.to_xml())
    home = np.asarray(arm.home_q, float)
    low, high = np.array([model.joint(joint).range for joint in arm.joint_names]).T
    low, high = np.maximum(low, home - np.pi), np.minimum(high, home + np.pi)
    embodiment = joint_embodiment(f"{name}_joints", low.round(4), high.round(4), home)
    (FOLDER / f"{name}.json").write_text(json.dumps(embodiment.to_json(), indent=1) + "\n")
    print(f"{name}: {', '.join(arm.joint_names)}; tool at site {arm.tcp_site!r}")
