"""Which simulated camera a column of pictures is, and whether it was flipped or has red and blue swapped.

The recorded arm is rendered in the suite's scene with an empty table, and each stored picture is compared
with it under 4 flips x 2 colour orders x every camera. Things on the table differ and are outvoted: errors
are capped. A hand camera sees little of its own arm, so the same hypotheses must also carry one picture onto
a later one along the table, as its motion demands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import cv2
import numpy as np

from vla.data.conversion import flip_image
from vla.data.description import Flip
from vla.data.solve.answers import Answer, accept, refuse
from vla.data.solve.robot import SceneModel
from vla.data.solve.tracks import Tracks
from vla.data.source import RawDataset, read_frames

_FRAMES = 48
_APART = 3  # steps between the pictures of a pair
_CAP = 40.0  # grey levels; more is a thing that the empty scene lacks
_STILL = 6.0  # grey levels over all frames
_MARGIN = 0.10  # the second best must be this much worse for full confidence
_FLIPS: tuple[Flip, ...] = get_args(Flip)


def camera_answers(
    raw: RawDataset, tracks: Tracks, scene: SceneModel | None, joints: Sequence[np.ndarray] | None
) -> list[Answer]:
    """A question ``camera.<column>`` for each column of pictures.

    Args:
        joints: joint angles [T n], rad, of each episode of ``tracks``.
    """
    if scene is None or joints is None:
        why = "flips and colours need a simulator of the scene (--suite, --arm) and the joints in the state"
        return [refuse(f"camera.{name}", why) for name in raw.cameras]
    return [_camera(raw, name, tracks, scene, joints) for name in raw.cameras]


def _camera(
    raw: RawDataset, column: str, tracks: Tracks, scene: SceneModel, joints: Sequence[np.ndarray]
) -> Answer:
    question, size = f"camera.{column}", raw.cameras[column].height
    if raw.cameras[column].width != size:
        return refuse(question, "the pictures are not square as the simulator's are")
    picks = _picks([len(q) for q in joints])
    stored, later = [], []
    for e, t in picks:
        first, second = read_frames(raw.frame_reader(tracks.numbers[e], column), [t, t + _APART])
        stored.append(first)
        later.append(second)
    if not picks or (np.std([p.mean() for p in stored]) < 1e-6 and np.std(stored[0]) < 1):
        return refuse(question, "too few pictures, or empty ones")
    scores = _scores(scene, [(joints[e], t) for e, t in picks], stored, later)
    ranked = sorted(scores, key=lambda h: float(scores[h].mean()))
    best, second = ranked[0], ranked[1]
    wins = float(np.mean([scores[best][i] <= scores[second][i] for i in range(len(picks))]))
    ratio = float(scores[second].mean() / max(scores[best].mean(), 1e-6))
    said = (
        f"{len(picks)} frames against renderings: the next best ({second[0]}, {second[1]}, "
        f"{'BGR' if second[2] else 'RGB'}) fits worse by {100 * (ratio - 1):.0f} %, "
        f"in {100 * wins:.0f} % of them"
    )
    sure = min((ratio - 1) / _MARGIN, 1.0) * (0.4 + 0.6 * wins) * (1 - np.exp(-len(picks) / 4))
    value = {"camera": best[0], "flip": best[1], "bgr": best[2]}
    return accept(question, value, sure, said, "the renderings do not tell the hypotheses apart")


def _scores(
    scene: SceneModel, poses: list[tuple[np.ndarray, int]], stored: list[np.ndarray], later: list[np.ndarray]
) -> dict[tuple[str, Flip, bool], np.ndarray]:
    """For each hypothesis how badly each frame fits: about 1 for the look and 0..1 for the motion."""
    size, still = len(stored[0]), np.std(np.stack(stored).astype(np.float32), axis=0).max(axis=2) < _STILL
    looks: dict[tuple[str, Flip, bool], np.ndarray] = {}
    carries: dict[tuple[str, Flip], np.ndarray] = {}
    for camera in (c.name for c in scene.cameras):
        rendered = [scene.render(q[t], camera, size) for q, t in poses]
        for flip in _FLIPS:
            befores, afters = ([_upright(p, flip, False) for p in pictures] for pictures in (stored, later))
            mask = _turned(still, flip)
            carries[camera, flip] = np.array(
                [
                    _carry(scene, camera, q, t, a, b, mask)
                    for (q, t), a, b in zip(poses, befores, afters, strict=True)
                ]
            )
            for bgr in (False, True):
                upright = [_upright(p, flip, bgr) for p in stored]
                looks[camera, flip, bgr] = np.array(
                    [_differ(a, b) for a, b in zip(upright, rendered, strict=True)]
                )
    unit = max(min(float(look.mean()) for look in looks.values()), 1.0)
    return {h: look / unit + carries[h[0], h[1]] for h, look in looks.items()}


def _picks(lengths: list[int]) -> list[tuple[int, int]]:
    """(episode, step) of the frames to look at, early and late in turn."""
    usable = [e for e, n in enumerate(lengths) if n > _APART + 1]
    chosen = [usable[i] for i in np.linspace(0, len(usable) - 1, _FRAMES).astype(int)] if usable else []
    shares = np.linspace(0.1, 0.7, _FRAMES)
    found = {(e, int(share * (lengths[e] - _APART - 1))) for e, share in zip(chosen, shares, strict=False)}
    return sorted(found)


def _upright(picture: np.ndarray, flip: Flip, bgr: bool) -> np.ndarray:
    turned = flip_image(picture, flip)
    return np.ascontiguousarray(turned[:, :, ::-1] if bgr else turned)


def _differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.minimum(np.abs(a.astype(np.float32) - b), _CAP).mean())


def _carry(
    scene: SceneModel,
    camera: str,
    joints: np.ndarray,
    t: int,
    first: np.ndarray,
    second: np.ndarray,
    still: np.ndarray,
) -> float:
    """How badly a later picture fits the first one moved as the table moves, 0..1; 1 for a still camera.

    The difference is counted in units of what stands out from the table; pixels that are the same in every
    frame (the fingers before a hand camera) are left out.
    """
    size = len(first)
    before, after = (scene.camera_pose(joints[i], camera) for i in (t, t + _APART))
    if np.allclose(before[0], after[0], atol=1e-4) and np.allclose(before[1], after[1], atol=1e-3):
        return 1.0
    carry = _table_to_pixels(*after, size) @ np.linalg.inv(_table_to_pixels(*before, size))
    seen = cv2.warpPerspective(np.full((size, size), 255, np.uint8), carry, (size, size)) == 255
    moved = cv2.warpPerspective(first, carry, (size, size)).astype(np.float32)
    used = seen & ~still
    if used.mean() < 0.05:
        return 1.0
    plain = np.median(second[used], axis=0)  # the table
    off = np.abs(second - moved)[used]
    things = np.abs(second - plain)[used] + np.abs(moved - plain)[used]
    return float(off.sum() / max(things.sum(), 1.0))


def _turned(mask: np.ndarray, flip: Flip) -> np.ndarray:
    return flip_image(mask[:, :, None], flip)[:, :, 0]


def _table_to_pixels(position: np.ndarray, rotation: np.ndarray, fovy: float, size: int) -> np.ndarray:
    """[3 3] homography from table coordinates (x, y, 1) at height 0 to pixels."""
    focal = size / 2 / np.tan(fovy / 2)
    camera = np.array([[focal, 0, size / 2], [0, -focal, size / 2], [0, 0, 1.0]]) @ np.diag([1.0, 1.0, -1.0])
    return camera @ np.column_stack([rotation.T[:, 0], rotation.T[:, 1], -rotation.T @ position])
