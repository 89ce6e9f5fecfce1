#!/bin/bash
# A run on two nodes of eight GPUs that goes on where it was stopped: by the time limit, or for a job that goes first.
#   sbatch slurm.sh showo_clip /shared/runs/paper
# The recipe, and a folder for the run that all nodes see; what follows them is passed on to `maskrl train`.
#SBATCH --job-name=maskrl --nodes=2 --ntasks-per-node=1 --gpus-per-node=8
#SBATCH --time=24:00:00 --signal=B:TERM@900
#SBATCH --requeue --open-mode=append
set -u
recipe=$1 run=$2
shift 2

# 15 minutes before the limit: finish the update under way, save, and queue again.
is_out_of_time= step=
trap 'is_out_of_time=yes; [ -z "$step" ] || kill -TERM "$step"' TERM
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=800

gpus=${SLURM_GPUS_PER_NODE:-8} # or a kind and a number, h100:8
begin=(--recipe "$recipe")
if [ -e "$run/run.json" ]; then begin=(--resume); fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=0 --wait=900 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${gpus##*:}" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:${MASTER_PORT:-29500}" \
    -m maskrl -- train --run "$run" "${begin[@]}" "$@" &
step=$!
code=0
wait "$step" || code=$?
if [ -n "$is_out_of_time" ]; then
    wait "$step"
    echo "out of time: $SLURM_JOB_ID is queued again, to go on from what $run has saved"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
