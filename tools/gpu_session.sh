#!/usr/bin/env bash
# Check and measure a GPU, then train slices of profile paper on it until the time is over: sac, pebble and prefvlm, in
# this order, on three tasks. What finished, and every checkpoint, is in FOLDER; the same command goes on from there.
#   tools/gpu_session.sh SECONDS FOLDER [DEVICE [OPTIONS OF prefvlm train]]
# For example: tools/gpu_session.sh 3600 gpu cuda --vlm-weights path/to/liv/model.pt
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
end=$((SECONDS + $1)) folder=$2 device=${3:-cuda}
shift $(($# < 3 ? $# : 3))
PATH="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin:$PATH"

mkdir -p "$folder"
[ -s "$folder/bench.txt" ] || prefvlm bench --only gpu --results "$folder" | tee "$folder/bench.txt"
for method in sac pebble prefvlm; do
    left=$((end - SECONDS))
    [ "$left" -gt 0 ] || break
    # 124: the time is up; 137: it was, and something did not stop by itself. Runs survive both.
    timeout --signal=INT --kill-after=20 "$left" \
        prefvlm train --profile paper --tasks window-close-v3 drawer-close-v3 button-press-v3 --seeds 0 1 2 3 4 \
        --methods "$method" --device "$device" --results "$folder" "$@" || [ $? = 124 ] || [ $? = 137 ]
done
prefvlm runs --results "$folder"
