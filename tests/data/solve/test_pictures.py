"""Flips and colour orders are found by rendering, and refused without a scene to render."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.solve.arm import dataset, motions, robot
from vla.data.conversion import flip_image
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve import solve
from vla.embodiment import Camera

MADE = motions(num=16, length=14)
SIZE = 24


class Scene:
    """The arm as a blob on a plain table, seen by two cameras."""

    fixed_frame, control_hz = True, 10.0
    cameras = tuple(Camera(name=n, role=n, height=SIZE, width=SIZE) for n in ("front", "side"))

    def __init__(self) -> None:
        self._arm = robot()
        self.num_joints, self.limits, self.forward = self._arm.num_joints, self._arm.limits, self._arm.forward

    def render(self, q, camera, size):
        place = np.sin(q[:3])
        across, up = (place[1], place[2]) if camera == "front" else (place[2], place[0])
        y, x = np.mgrid[0:size, 0:size] / size
        image = np.stack([120 + 60 * x, 90 + 40 * y, 50 + 20 * x], axis=-1)
        image[np.hypot(x - 0.5 - across / 2, y - up / 2) < 0.15] = (230, 120, 20)
        return image.astype(np.uint8)

    def camera_pose(self, q, camera):
        return np.array([0.0, 0.0, 1.0]), np.eye(3), 1.0


SCENE = Scene()
VIEWS = [{c.name: [SCENE.render(q, c.name, SIZE) for q in m.joints] for c in Scene.cameras} for m in MADE]


def photographed(flip="none", bgr=False, swapped=False) -> MemoryDataset:
    rng, episodes, plain = np.random.default_rng(0), [], dataset(MADE)
    for i in range(len(MADE)):
        pictures = {}
        for name, seen in (("a", "front"), ("b", "side")) if not swapped else (("a", "side"), ("b", "front")):
            frames = np.stack([flip_image(view, flip) for view in VIEWS[i][seen]])
            noisy = np.clip(frames + rng.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)
            pictures[name] = np.ascontiguousarray(noisy[..., ::-1]) if bgr else noisy
        columns = {n: plain.column(i, n) for n in plain.columns}
        episodes.append(MemoryEpisode(columns=columns, pictures=pictures, instruction="do it"))
    return MemoryDataset(episodes, control_hz=10.0)


@pytest.mark.parametrize(
    ("flip", "bgr"), [("none", False), ("vertical", False), ("horizontal", True), ("rotate_180", False)]
)
def test_flips_and_colour_orders_are_found(flip, bgr):
    solution = solve(photographed(flip, bgr), model=SCENE)
    assert solution.value("camera.a") == {"camera": "front", "flip": flip, "bgr": bgr}


def test_swapped_cameras_are_found():
    solution = solve(photographed(swapped=True), model=SCENE)
    assert [solution.value(f"camera.{c}")["camera"] for c in "ab"] == ["side", "front"]


def test_pictures_without_a_simulator_are_refused():
    assert "simulator" in solve(photographed(), model=robot()).answers["camera.a"].refused


def test_pictures_of_something_else_are_refused():
    rng, plain = np.random.default_rng(0), dataset(MADE)
    episodes = [
        MemoryEpisode(
            columns={n: plain.column(i, n) for n in plain.columns},
            pictures={"a": rng.integers(0, 255, (14, SIZE, SIZE, 3), np.uint8)},
        )
        for i in range(len(MADE))
    ]
    assert solve(MemoryDataset(episodes, control_hz=10.0), model=SCENE).value("camera.a") is None
