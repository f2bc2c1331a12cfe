"""The shipped policy on a UR5e behind rosbridge: closed loop against the counterpart, beside simulation.

    python scripts/study_ros2.py --seeds 2 --out docs/results/ros2_policy.json

The counterpart is a process of its own: ros2_control's topics behind a websocket on a loopback address; the
table, the objects and the cameras are in its world. Control is at 10 Hz in real time: leave the machine some
idle time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from counterpart_study import against, parser

from vla_envs.counterparts.ros.robot import counterpart_robot
from vla_envs.counterparts.running import ros_counterpart
from vla_policies.learned import LearnedPolicy


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--host", default="127.0.0.4")
    args = made.parse_args()
    policy = LearnedPolicy.load(args.policy)
    size = policy.contract.image_size
    with ros_counterpart(args.host, task=args.tasks[0], image_size=size) as counterpart:
        robot = counterpart_robot(args.host, image_size=size)
        describe = {
            "claim": "the shipped policy does its tasks through rosbridge and ros2_control's counterpart",
        }
        against(args, "ur5e", policy, counterpart, robot, describe)


if __name__ == "__main__":
    main()
