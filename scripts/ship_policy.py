"""Make a trained policy the shipped one: policies/vla_policies/pretrained/tabletop.

usage: python scripts/ship_policy.py POLICY_DIR

Loads it first, so that only a whole policy with a fitting contract is copied, and refuses more than 20 MB.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from vla_policies.learned import LearnedPolicy

SHIPPED = Path(__file__).parents[1] / "policies/vla_policies/pretrained/tabletop"
MAX_BYTES = 20_000_000
FILES = ("policy.json", "model.safetensors", "config.json", "preprocessor_config.json")


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 2
    source = Path(sys.argv[1])
    policy = LearnedPolicy.load(source)
    size = sum((source / name).stat().st_size for name in FILES)
    if size > MAX_BYTES:
        print(f"{source} is {size / 1e6:.1f} MB; a shipped policy has at most {MAX_BYTES / 1e6:.0f} MB.")
        return 1
    SHIPPED.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(source / name, SHIPPED / name)
        (SHIPPED / name).chmod(0o644)
    arms = ", ".join(sorted(policy.contract.embodiments))
    print(f"shipped {source} ({size / 1e6:.1f} MB, drives {arms})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
