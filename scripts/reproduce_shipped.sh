#!/usr/bin/env bash
# The shipped policy from nothing, about five hours on two cores, to be continued by the same command: demonstrations of all
# 65 cells and of four seasons, a first part of training; twelve more seasons and more of the hard tasks, a second; a short
# third for insert; then ships it, and judges it on seeds and a season that nobody trained on (scripts/judge_shipped.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup
export PATH="$PWD/.venv/bin:$PATH"
train() {
  local resume=()
  if [ -e "$2/run.json" ]; then resume=(--resume); fi
  vla train "$1" --out "$2" "${resume[@]}"
}
train configs/shipped.py outputs/shipped_first
arms="panda ur5e xarm7 so101 gen3"
more="vla demo --suite tabletop --out outputs/demonstrations/shipped.zarr"
# shellcheck disable=SC2086
$more --tasks insert beside place relation pick stack --arms $arms --episodes 200
$more --tasks insert stack --arms so101 --episodes 320
train configs/shipped_more.py outputs/shipped_second
train configs/shipped_insert.py outputs/shipped
python scripts/ship_policy.py outputs/shipped/policy
bash scripts/judge_shipped.sh outputs/shipped
