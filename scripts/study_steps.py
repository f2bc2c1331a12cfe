"""How many denoising steps a policy needs: closed-loop success on the same episodes, and time beside it.

    python scripts/study_steps.py --settings 10 4 --seeds 100 --out docs/results/steps.json

A setting is a number of steps, with a schedule behind the colon (``vla.models.heads.schedules``); the first
is what the others are compared with, pair by pair. The flow or diffusion head decides.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from paired_study import parser, study

from vla.errors import VlaError
from vla.models.saving import load_policy, save_policy

LIMIT = 0.01  # what fewer steps may lose


def prepare(policy: str, setting: str, head: str, folder: Path) -> Path:
    """The same weights under a contract with these steps."""
    net, contract = load_policy(policy)
    steps, _, schedule = setting.partition(":")
    settings = {**net.config.head_settings, "schedule": schedule or "uniform"}
    network = replace(net.config, head_settings=settings).to_json()
    heads = (head, *(name for name in contract.heads if name != head))
    made = replace(contract, network=network, num_flow_steps=int(steps), heads=heads)
    save_policy(folder, net.state_dict(), made)
    return folder


def main() -> None:
    options = parser(__doc__ or "", ("10", "4"))
    options.add_argument("--policy", default="policies/vla_policies/pretrained/tabletop")
    options.add_argument("--head", default="flow")
    args = options.parse_args()

    def describe(rows: list[dict[str, Any]]) -> dict[str, Any]:
        verdicts = []
        for row in rows[1:]:
            low = row["minus_first"]["low"]
            shown = "shown" if low > -LIMIT else f"not shown by this n (interval from {100 * low:+.1f})"
            verdicts.append(f"{row['setting']} steps: less than 1 point lost is {shown}")
        return {
            "claim": f"fewer denoising steps of the {args.head} head, paired episodes; {'; '.join(verdicts)}",
            "target": f"4 steps lose < 1 point against {rows[0]['setting']}",
            "head": args.head,
        }

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folders = [
            prepare(args.policy, setting, args.head, scratch / f"policy{i}")
            for i, setting in enumerate(args.settings)
        ]
        study(args, folders, scratch, describe)


if __name__ == "__main__":
    try:
        main()
    except VlaError as error:
        sys.exit(str(error))
