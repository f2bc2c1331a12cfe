"""Shapes of the arms that are shipped: they are free where arms work, and touch where arms must not go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vla.control.geometry import ArmGeometry, PoseChecks
from vla.embodiment import Embodiment
from vla.errors import EmbodimentError
from vla.robots import fr3, so101, ur5e
from vla.robots.kinematics import Kinematics, tool_down
from vla.robots.shapes import arm_geometry

ARMS = {
    "ur5e": (ur5e.ur5e_embodiment, ur5e.ur5e_kinematics, ur5e.FOLDER / "ur5e.xml", ur5e.JOINTS),
    "fr3": (fr3.fr3_embodiment, fr3.fr3_kinematics, fr3.FOLDER / "fr3.xml", fr3.JOINTS),
    "so101": (so101.so101_embodiment, so101.so101_kinematics, so101.MODEL, so101.JOINTS),
}


@pytest.fixture(params=ARMS)
def arm(request: pytest.FixtureRequest) -> tuple[Embodiment, Kinematics, ArmGeometry]:
    embodiment, kinematics, path, joints = ARMS[request.param]
    return embodiment(), kinematics(), arm_geometry(path, joints, "tcp")


def overlap(arm: tuple[Embodiment, Kinematics, ArmGeometry]) -> Callable[[np.ndarray], float]:
    embodiment, _, geometry = arm
    checks = PoseChecks(geometry, embodiment, ("collision",))
    return lambda q: checks.breaches(np.asarray(q, float))["collision"]


def test_an_arm_is_free_at_home_and_over_the_whole_table(arm) -> None:
    _, kinematics, _ = arm
    touching = overlap(arm)
    assert touching(kinematics.home_q) == 0
    for x in (-0.05, 0.05):
        for y in (-0.12, 0.0, 0.12):
            for z in (0.015, 0.15):
                q = kinematics.solve(kinematics.home_q, np.array([x, y, z]), tool_down(0.0), iterations=50)
                assert touching(q) == 0, (x, y, z)


def test_an_arm_that_bends_into_the_table_touches_it(arm) -> None:
    _, kinematics, _ = arm
    touching, found = overlap(arm), []
    for joint in range(len(kinematics.home_q)):
        for end in (kinematics.low[joint], kinematics.high[joint]):
            q = kinematics.home_q.copy()
            q[joint] = end
            found.append(touching(q))
    assert max(found) > 0.01


def test_the_model_must_be_one_that_can_be_looked_at(tmp_path) -> None:
    with pytest.raises(EmbodimentError, match=r"lacks \['elbow', 'tool'\]"):
        arm_geometry(so101.MODEL, ("shoulder_pan", "elbow"), "tool")
    with pytest.raises(EmbodimentError, match="cannot be loaded"):
        arm_geometry(tmp_path / "none.xml", ("a",), "tcp")
