#!/usr/bin/env bash
# Train a profile on a machine that is lent in slices: for SECONDS, then put every run's small files into one archive.
#   tools/train_slice.sh PROFILE SECONDS FOLDER
# The next call goes on from the last checkpoint, or, on a new machine into which the archive was unpacked, from the
# runs that had finished. Unpack with: tar -xzf FOLDER/results-PROFILE.tar.gz
set -euo pipefail
[ $# = 3 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
profile=$1 seconds=$2 folder=$3
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

# 124: the time is up; 137: it was, and something did not stop by itself. Runs survive both.
timeout --signal=INT --kill-after=20 "$seconds" prefvlm reproduce --profile "$profile" || [ $? = 124 ] || [ $? = 137 ]
prefvlm runs --profile "$profile"
mkdir -p "$folder"
find "results/$profile" -name '*.csv' -o -name '*.parquet' -o -path "results/$profile/*/*/*/*.json" |
    tar -czf "$folder/results-$profile.tar.gz" --files-from=-
