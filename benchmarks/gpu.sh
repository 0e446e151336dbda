#!/usr/bin/env bash
# All that only a CUDA GPU can show, in eight minutes: what differs from a CPU, encoding in bfloat16,
# one row of a table trained, and searches of every descriptor against one reading of them.
#
#     benchmarks/gpu.sh [results]
#
# Needs `[train]` and nothing else: its pictures are rendered. Writes gpu.json and gpu.log.
set -euo pipefail
out=$(realpath -m "${1:-benchmarks/results}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
cd "$(dirname "$0")/.."
exec > >(tee "$out/gpu.log") 2>&1

python -m pytest -q tests/indexer/encode/test_on_a_gpu.py tests/indexer/search/test_search.py -k gpu
cat > "$work/resnet18.toml" <<'TOML'
[model]
backbone = "resnet18"
[recipe]
epochs = 4
precision = "bfloat16"
freeze_backbone = false
freeze_norm = false
TOML
retrieve wardrobe "$work/shop" --count 6000 --size 224 --workers "$(nproc)"
retrieve train --dataset "$work/shop" --config "$work/resnet18.toml" --out "$work/run" --device cuda --json > "$work/train.json"
for how in "cuda float32" "cuda bfloat16" "cpu float32"; do
    read -r device precision <<< "$how"
    retrieve build-index --dataset "$work/shop" --checkpoint "$work/run" --device "$device" \
        --precision "$precision" --out "$work/index-$device-$precision" --json > "$work/build-$device-$precision.json"
done
for size in 253983 1000000 10000000; do
    timeout 120 python -m benchmarks.speed.on_gpu "$work/index-cuda-float32" "$size" >> "$work/search.jsonl" || echo "$size: not in two minutes"
done
python - "$work" "$out/gpu.json" <<'PY'
import json, pathlib, sys

import torch

work = pathlib.Path(sys.argv[1])
found = {path.stem: json.loads(path.read_text()) for path in sorted(work.glob("*.json"))}
found["search"] = [json.loads(line) for line in (work / "search.jsonl").read_text().splitlines()]
found["gpu"] = torch.cuda.get_device_name()
pathlib.Path(sys.argv[2]).write_text(json.dumps(found, indent=1) + "\n")
PY
