"""The shipped policy on a UR5e through ur-rtde: closed loop against the counterpart, beside simulation.

    python scripts/study_ur.py --seeds 2 --out docs/results/ur.json

The counterpart is a process of its own that speaks the controller's protocols on a loopback address; the
table, the objects and the cameras are in its world. Control is at 10 Hz in real time: leave the machine some
idle time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from counterpart_study import against, parser

from vla_envs.counterparts.running import ur_counterpart
from vla_envs.counterparts.ur.robot import counterpart_robot
from vla_policies.learned import LearnedPolicy


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--host", default="127.0.0.2")
    made.add_argument(
        "--gripper-m-s", type=float, default=0.0, help="fastest fingers; 0 as simulated, 0.15 a real 2F-85"
    )
    args = made.parse_args()
    policy = LearnedPolicy.load(args.policy)
    size = policy.contract.image_size
    with ur_counterpart(
        args.host, task=args.tasks[0], image_size=size, gripper_m_s=args.gripper_m_s
    ) as counterpart:
        robot = counterpart_robot(args.host, image_size=size)
        describe = {
            "claim": "the shipped policy does its tasks through ur-rtde 1.6.5 and the UR counterpart",
            "fingers": f"at most {args.gripper_m_s} m/s" if args.gripper_m_s else "as simulated",
        }
        against(args, "ur5e", policy, counterpart, robot, describe)


if __name__ == "__main__":
    main()
