#!/usr/bin/env bash
# Judge the shipped policy and write docs/results and the README's table.
#   scripts/judge_shipped.sh [RUN_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup
export PATH="$PWD/.venv/bin:$PATH"
run=${1:-outputs/shipped}
short="--first-seed 60000 --audit off --videos 0 --failure-videos 0"
vla eval $short --episodes 25 --variants base swapped --out "$run/eval"
vla eval $short --episodes 5 --ablations blank --out "$run/blank"
vla eval $short --episodes 10 --wordings heldout --out "$run/heldout"
vla eval $short --episodes 12 --suite tabletop@1011 --out "$run/season"
other="--first-seed 90000 --audit off --videos 0 --failure-videos 0"
vla eval $other --episodes 5 --ablations shuffled no_words --out "$run/words"
vla eval $other --episodes 12 --suite tabletop@1012+unseen --out "$run/unseen"
missed=0
python scripts/record_result.py "$run/eval" shipped \
  --claim "shipped policy, 13 tasks x 5 arms: base and swapped instruction" \
  --target "mean >= 97 %, worst cell >= 90 %, swapped >= 96 %" \
  --command "scripts/judge_shipped.sh" --min-mean 0.97 --min-worst-cell 0.9 || missed=1
python scripts/record_result.py "$run/heldout" shipped_heldout_wordings \
  --claim "shipped policy told in phrasings that no demonstration used" \
  --target "none stated" --command "scripts/judge_shipped.sh"
python scripts/record_result.py "$run/season" shipped_season \
  --claim "shipped policy in a season that nobody trained on (tabletop@1011: other layouts, colours, objects, wordings)" \
  --target "mean >= 97 %, worst cell >= 90 %" --command "scripts/judge_shipped.sh" || missed=1
python scripts/record_result.py "$run/words" shipped_words \
  --claim "shipped policy without words, and with the words of its instruction in another order (which says the same where one thing is named)" \
  --target "at chance" --command "scripts/judge_shipped.sh"
python scripts/record_result.py "$run/unseen" shipped_unseen \
  --claim "shipped policy on colours and shapes that no demonstration joins (tabletop@1012+unseen)" \
  --target "mean >= 85 %" --command "scripts/judge_shipped.sh" --min-mean 0.85 || missed=1
python scripts/record_result.py "$run/blank" shipped_blank \
  --claim "shipped policy with grey cameras" --target "at chance" --command "scripts/judge_shipped.sh"
python scripts/update_readme_results.py
exit "$missed"
