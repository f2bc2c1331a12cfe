#!/usr/bin/env bash
# From nothing to pick-and-place by instruction with two arms: makes demonstrations, trains, judges on 100
# held-out seeds an arm, on the base and on the swapped instruction of the same scenes.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup
export PATH="$PWD/.venv/bin:$PATH"
run=outputs/quick
time vla train configs/quick.py --out "$run"
vla eval --policy "$run" --tasks place --arms panda ur5e --episodes 100 --variants base swapped --out "$run/eval"
python scripts/record_result.py "$run/eval" quick \
  --claim "trained from zero by configs/quick.py: place among distractors, two arms, base and swapped instruction" \
  --target ">= 95 % each, n >= 100" --command "scripts/reproduce_quick.sh"
