#!/usr/bin/env bash
# The shipped policy: makes the demonstrations of all 65 cells and of four seasons, trains, ships, judges on held-out seeds (from
# 50000, kept for reported numbers), on the base and the swapped instruction, with grey cameras beside policies
# that neither look nor listen, and with phrasings that no demonstration used.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup
export PATH="$PWD/.venv/bin:$PATH"
run=outputs/shipped
resume=()
if [ -e "$run/run.json" ]; then resume=(--resume); fi
vla train configs/shipped.py --out "$run" "${resume[@]}"
python scripts/ship_policy.py "$run/policy"
bash scripts/judge_shipped.sh "$run"
