"""The README's moving picture: the shipped policy drives four arms, each told something else.

usage: python scripts/make_media.py [--policy default] [--out docs/media/demo.webp]

Plays seeds in order until each sentence was obeyed and says which seeds it used, failures included: the
picture shows what success looks like, docs/results says how often it happens.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from vla import registry
from vla.control.chunks import ChunkExecutor
from vla.interfaces import Policy, observation_from_gym

SAID = (
    ("panda", "put the red cube in the blue bowl"),
    ("ur5e", "stack the yellow cube on the green cube"),
    ("xarm7", "open the red drawer"),
    ("so101", "press the green button"),
)
SIZE_PX, FRAME_MS, REST_FRAMES = 288, 100, 8


def play(policy: Policy, arm: str, sentence: str) -> list[np.ndarray]:
    """Frames of the first seed at which the policy obeys; prints what it tried."""
    seed = 0
    for _ in range(10):
        env, seed = registry.suite("tabletop").env_for_instruction(sentence, arm, seed)  # type: ignore[attr-defined]
        policy.reset()
        obs, frames = env.reset(seed=seed)[0], []
        env.set_instruction(sentence)
        obs["instruction"] = sentence
        while True:
            frames.append(captioned(env.render_frame(SIZE_PX), arm, sentence))
            (chunk,) = policy.act([observation_from_gym(obs, env.embodiment)])
            obs, _, terminated, truncated, info = env.step(chunk.actions[0])
            if terminated or truncated:
                break
        env.close()
        print(f"{arm}, seed {seed}: {sentence!r} {'done' if info['success'] else 'not done'}")
        if info["success"]:
            return frames + frames[-1:] * REST_FRAMES
        seed += 1
    sys.exit(f"{arm} never did {sentence!r}")


def captioned(frame: np.ndarray, arm: str, sentence: str) -> np.ndarray:
    """The frame with a strip of text below it."""
    strip = np.full((28, SIZE_PX, 3), 24, np.uint8)
    cv2.putText(
        strip, f"{arm}: {sentence}", (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.37, (235,) * 3, 1, cv2.LINE_AA
    )
    return np.vstack([frame, strip])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default=None, help="policy directory; the shipped one if not given")
    parser.add_argument("--out", type=Path, default=Path("docs/media/demo.webp"))
    args = parser.parse_args()
    policy = ChunkExecutor(registry.policy_factory("learned")(path=args.policy), execution_horizon=2)
    clips = [play(policy, arm, sentence) for arm, sentence in SAID]
    length = max(len(clip) for clip in clips)
    padded = [clip + clip[-1:] * (length - len(clip)) for clip in clips]
    tiles = [np.vstack([np.hstack([a, b]), np.hstack([c, d])]) for a, b, c, d in zip(*padded, strict=True)]
    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(tile[:, :, ::-1]) for tile in tiles]
    animation.durations = np.full(len(tiles), FRAME_MS, np.int32)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwriteanimation(str(args.out), animation, [cv2.IMWRITE_WEBP_QUALITY, 60]):
        sys.exit(f"could not write {args.out}")
    print(f"{args.out}: {len(tiles)} frames, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
