"""The shipped policy on an FR3 through franka-rs: closed loop against franka-sim, beside direct simulation.

    python scripts/study_franka.py --seeds 2 --out docs/results/franka.json

franka-sim (``scripts/setup_counterpart``) enforces the arm's limits and reflexes; the tabletop's Panda
mirrors its joints before objects and cameras, and what it touches is not felt by franka-sim. Control is at
10 Hz of franka-sim's own clock.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

from counterpart_study import against, parser

from vla_envs.counterparts.franka.robot import counterpart_robot
from vla_envs.counterparts.running import franka_counterpart
from vla_policies.learned import LearnedPolicy


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--host", default="127.0.0.3")
    args = made.parse_args()
    policy = LearnedPolicy.load(args.policy)
    size = policy.contract.image_size
    with franka_counterpart(args.host, task=args.tasks[0], image_size=size) as counterpart:
        robot = counterpart_robot(args.host, image_size=size)

        def let_go(row: dict[str, Any]) -> None:
            if "reflex" in row.get("error", ""):
                robot.recover()
            robot.close()

        describe = {
            "claim": "the shipped policy does its tasks through franka-rs 0.4.0 and franka-sim 1.1.7",
            "plant": "franka-sim's FR3 with motion limits enforced, mirrored by the tabletop's Panda; "
            "contact forces do not reach franka-sim",
        }
        against(args, "panda", policy, counterpart, robot, describe, after=let_go)


if __name__ == "__main__":
    main()
