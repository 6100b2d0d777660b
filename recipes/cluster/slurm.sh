#!/bin/sh
# A run on machines of a SLURM cluster, which goes on by itself after its time is up, it is preempted, or a machine fails.
#
#   sbatch recipes/cluster/slurm.sh imagenet256/robustok_tokenizer
#   sbatch --nodes 4 recipes/cluster/slurm.sh imagenet256/llamagen_l --set run.name=large
#   SHARD=1 sbatch recipes/cluster/slurm.sh RECIPE      divides the weights among all GPUs, as fsdp_8.yaml does
#
# Five minutes before the time is up, SLURM sends SIGTERM (--signal). All processes stop at the same step, write a
# checkpoint and end, and the job is queued again; it resumes at that step. After a failure it is queued again too, at
# most $MOST_RESTARTS times, and resumes at the last checkpoint; after a mistake in the recipe it is not. With another
# number of machines or GPUs, the same checkpoint is read.
#
# srun starts one process for each GPU, and this script sets what accelerate reads. No launcher stands between: those
# kill a process that needs more than 30 seconds to write its checkpoint.
#
# To change: the lines #SBATCH; RUNS, a folder that all machines see. On the login node, `robustok fetch RECIPE` downloads
# what the recipe needs.
#SBATCH --job-name=robustok
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300

RUNS=${RUNS:-${SCRATCH:-$PWD}/runs}
MOST_RESTARTS=${MOST_RESTARTS:-20}

export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-8}}"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
export MASTER_ADDR MASTER_PORT
if [ -n "$SHARD" ]; then
    export ACCELERATE_USE_FSDP=true FSDP_VERSION=2
fi

# Since SLURM 22.05, srun does not take --cpus-per-task from sbatch: each process would get one core. In the single quotes
# are variables that each process has of its own.
# shellcheck disable=SC2016
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 sh -c '
    export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" WORLD_SIZE="$SLURM_NTASKS"
    export LOCAL_WORLD_SIZE="${SLURM_NTASKS_PER_NODE:-1}"
    exec python -m robustok_core run "$@"' robustok "$@" --out "$RUNS" &
trap 'kill -TERM $!' TERM
wait $!
code=$?
while kill -0 $! 2> /dev/null; do # the trap ended the wait
    wait $!
    code=$?
done

if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then
    exit "$code"
fi
if [ "$code" -eq 130 ] || [ "${SLURM_RESTART_COUNT:-0}" -lt "$MOST_RESTARTS" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
