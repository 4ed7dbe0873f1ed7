#!/usr/bin/env bash
# Slurm: sbatch slurm.sh, on a file system that all nodes share and that has file locks.
# The array counts from 0, shares count from 1. The last job starts by itself when all shares have ended.
#SBATCH --job-name=my-cot
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail
OUT=${OUT:-/shared/my-cot}
RECIPE=${RECIPE:-my-recipe.yaml}

if [[ "${SLURM_ARRAY_TASK_ID:-}" == "${SLURM_ARRAY_TASK_MIN:-0}" && "${SLURM_RESTART_COUNT:-0}" == 0 ]]; then
  sbatch --job-name=my-cot-last --dependency="afterany:${SLURM_ARRAY_JOB_ID}" --cpus-per-task=8 --time=24:00:00 \
    --wrap="p2r-data build '$RECIPE' --out '$OUT'"
fi

# the signal before the time limit comes to this shell: hand it on, so that the build drains and ends with 3
p2r-data build "$RECIPE" --out "$OUT" --shard "$((SLURM_ARRAY_TASK_ID + 1))/${SLURM_ARRAY_TASK_COUNT}" &
build=$!
trap 'kill -TERM "$build" 2>/dev/null || true' TERM
code=0
wait "$build" || code=$?
if ((code > 128)); then # the trap ended the first wait
  code=0
  wait "$build" || code=$?
fi
if ((code == 3)); then # not done yet: the same share goes on in a new allocation
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
