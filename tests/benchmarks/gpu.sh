#!/usr/bin/env bash
# What one GPU does in ten minutes: bash tests/benchmarks/gpu.sh DIR OUT
#
# DIR is the folder of the other benchmarks; OUT gets one JSON file a step. What is most asked for comes first.
set -uo pipefail
cd "$(dirname "$0")/../.."
data=$1 out=$2
step() {
  local name=$1 limit=$2
  shift 2
  timeout "$limit" python -m tests.benchmarks.gpu "$@" --out "$out/$name.json" 2>"$out/$name.log" ||
    echo "$name: ended with $? within $limit s" | tee -a "$out/failed.txt"
}
mkdir -p "$out"
step resnet18-32 180 journey resnet18-32
step agreement 90 agreement --data "$data"
step vit-b16-224 240 journey vit-b16-224 --share 0.5
step resnet18-224 90 journey resnet18-224 --share 0.25
