#!/usr/bin/env bash
# A day of ieee33 for several weights of carbon in the dispatch, then one page that compares them.
#
#     examples/sweep_lambda.sh [FOLDER]        LAMBDAS and UNTIL say which weights and how long
set -euo pipefail
folder=${1:-results/sweep}
mkdir -p "$folder"
traces=()
for weight in ${LAMBDAS:-0 0.01 0.1 1}; do
  trace="$folder/lambda_$weight.h5"
  cosim run ieee33 --driver native --quiet --force --until "${UNTIL:-24h}" \
    --set "grid.lambda_kw_per_kg_h=$weight" --out "$trace"
  traces+=("$trace")
done
cosim report "${traces[@]}" --out "$folder/sweep.html"
