#!/usr/bin/env bash
# Grounding tokens for Qwen2.5-VL-3B on one GPU of 24 GB. These commands were NOT run: there was no GPU of that kind and no
# room for the weights. Sizes follow from the weights alone: the host takes 7.5 GB in bfloat16, what trains in step 3 is below
# 0.1 GB with its optimiser, in step 4 about 3 GB; the rest is activations, which max_tokens and gradient checkpointing bound.
# Licence of this host: Qwen Research, which forbids commercial use; Qwen/Qwen2.5-VL-7B-Instruct and Qwen/Qwen3-VL-4B-Instruct
# are Apache 2.0 (set HOST).
set -euo pipefail
HOST="${HOST:-Qwen/Qwen2.5-VL-3B-Instruct}"
DATA="${1:?usage: examples/graft_24gb.sh points.jsonl [folder]}"
RUN="${2:-runs/graft}"

# 1. The data: rows with points, see docs/data_format.md.
molmopoint data check "$DATA"

# 2. The graft.
molmopoint graft "$HOST" --out "$RUN/start"

# 3. The heads and the rows of the new tokens alone; the host stays as it is.
molmopoint finetune "$DATA" --model "$RUN/start" --recipe graft --out "$RUN/heads" \
  --set data.crops_per_image=4 --set data.max_tokens=4096

# 4. Adapters on the text model beside them, from there on.
molmopoint finetune "$DATA" --model "$RUN/heads/model" --recipe graft-lora --out "$RUN/lora" \
  --set data.crops_per_image=4 --set data.max_tokens=4096 --set lora.rank=16 --set lora.alpha=32 --set groups.vit.peak=0.0

# 5. How well it points.
molmopoint eval point_bench --model "$RUN/lora/model" --out "$RUN/scores"
