#!/usr/bin/env bash
# Judge the shipped policy and write docs/results and the README's table.
#   scripts/judge_shipped.sh [RUN_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup
export PATH="$PWD/.venv/bin:$PATH"
run=${1:-outputs/shipped}
vla eval --first-seed 50000 --episodes 25 --variants base swapped --ablations blank --out "$run/eval"
vla eval --policy random --first-seed 50000 --episodes 5 --out "$run/chance"
vla eval --first-seed 50000 --episodes 10 --wordings heldout --out "$run/heldout"
missed=0
python scripts/record_result.py "$run/eval" shipped \
  --claim "shipped policy, 8 tasks x 4 arms: base and swapped instruction, blank cameras" \
  --target "mean >= 90 %, worst cell >= 75 %, swapped >= 90 %, blank at chance" \
  --command "scripts/judge_shipped.sh" --min-mean 0.9 --min-worst-cell 0.75 --chance "$run/chance" || missed=1
python scripts/record_result.py "$run/heldout" shipped_heldout_wordings \
  --claim "shipped policy told in phrasings that no demonstration used" \
  --target "none stated" --command "scripts/judge_shipped.sh"
python scripts/update_readme_results.py
exit "$missed"
