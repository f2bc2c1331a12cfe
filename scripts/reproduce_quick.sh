#!/usr/bin/env bash
# From nothing to pick-and-place by instruction with two arms: makes demonstrations, trains, judges on 100
# held-out seeds an arm, on the base and on the swapped instruction of the same scenes. Seeds from 50000 are
# kept for reported numbers: recipes were tuned on lower ones.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup
export PATH="$PWD/.venv/bin:$PATH"
run=outputs/quick
resume=()
if [ -e "$run/run.json" ]; then resume=(--resume); fi
time vla train configs/quick.py --out "$run" "${resume[@]}"
vla eval --policy "$run/policy" --tasks place --arms panda ur5e --first-seed 50000 --episodes 100 \
  --variants base swapped --out "$run/eval"
python scripts/record_result.py "$run/eval" quick \
  --claim "trained from zero by configs/quick.py: place among distractors, two arms, base and swapped instruction" \
  --target ">= 95 % each, n >= 100 an arm" --command "scripts/reproduce_quick.sh" --min-mean 0.95
python scripts/update_readme_results.py
