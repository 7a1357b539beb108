#!/usr/bin/env bash
# ResNet-32 at the published length: the rows of experiments/paper_scale.txt, then a
# report of those that are finished, then the cost of a step on this device.
#
#   LTJAX_DATA=FOLDER experiments/paper_scale.sh [OUT]
#
# It runs unattended. After MINUTES (25) it stops with its state saved and status 124, and
# the same command continues. SETTINGS are added to every row: "--epochs 2" tries it out.
#
# Expected on one GPU, one seed: an hour and a half. This is an estimate, not a
# measurement: 8,000 images/s of plain training assumed; 2.3 million images for each of
# the four long-tailed rows (12,000 x 200), 3.8 million for each of the noisy ones
# (48,000 x 80); a step of GradTail taken for 2 and one of GDW and MW-Net for 3.3 plain
# ones; two minutes a row for compilation and evaluation.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-runs/paper_scale}
minutes=${MINUTES:-25}
deadline=$((SECONDS + 60 * minutes))
mkdir -p "$out"
sed "/^[a-z]/ s|\$| ${SETTINGS:-}|" experiments/paper_scale.txt > "$out/rows.txt"

limited() { # COMMAND: stopped when the time is over
  timeout --signal=TERM --kill-after=300 "$((deadline > SECONDS ? deadline - SECONDS : 1))" "$@"
}

status=0
limited python -m experiments.queue "$out/rows.txt" --out "$out" --keep "$out/records" || status=$?
if compgen -G "$out/records/*/summary.json" > /dev/null; then
  python -m experiments.report "$out/records" --out "$out/report"
fi
if [ "$status" -eq 0 ] && [ -z "${SETTINGS:-}" ]; then
  limited python -m benchmarks.cost --device --out "$out/cost" || status=$?
fi
exit "$status"
