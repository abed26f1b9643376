#!/usr/bin/env bash
# Check and measure a GPU, then train slices of profile paper on it until the time is over (tools/gpu_slices.py, whose
# options these are). What finished, and every checkpoint, is in FOLDER; the same command goes on from there.
#   tools/gpu_session.sh SECONDS FOLDER [OPTIONS OF tools/gpu_slices.py]
# For example: tools/gpu_session.sh 3600 gpu --vlm-weights path/to/liv/model.pt
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
end=$((SECONDS + $1)) folder=$2
shift 2
tools=$(dirname "$0")
PATH="$(cd "$tools/.." && pwd)/.venv/bin:$PATH"

mkdir -p "$folder"
[ -s "$folder/bench.txt" ] || prefvlm bench --only gpu --results "$folder" | tee "$folder/bench.txt"
left=$((end - SECONDS))
if [ "$left" -gt 0 ]; then  # for `timeout`, 0 is no limit
    # 124: the time is up; 137: it was, and something did not stop by itself. Runs survive both.
    timeout --signal=INT --kill-after=20 "$left" python "$tools/gpu_slices.py" --results "$folder" "$@" ||
        [ $? = 124 ] || [ $? = 137 ]
fi
prefvlm runs --results "$folder"
