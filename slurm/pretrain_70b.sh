#!/usr/bin/env bash
# Continues the pretraining of Llama-2-70B on GAP-Replay, TP=PP=8, on 16 nodes of 8 A100-80GB (recipe pretrain_70b).
# It goes on by itself over time limits, preemption and dead nodes; then its post-run jobs follow: export, finetune,
# export, score, report.
#
# usage:    sbatch [options of sbatch] slurm/pretrain_70b.sh [key=value ...]
# example:  sbatch slurm/pretrain_70b.sh inputs.shards=shards inputs.checkpoint=imported model.base=Llama-2-70b \
#               finetune.path=medmcqa/train.json 'score.paths={medqa4: medqa/test.jsonl, medmcqa: dev.json, ...}'
# needs:    shards (shard_data.sh), the imported checkpoint (import_hf.sh), the training image (build_images.sh) or
#           container=none, and the files of the post-run jobs; 'stages=[pretrain]' leaves those out
#
# plan:     what it takes shows `python -m toolkit.plan recipe=pretrain_70b`; what that refuses starts with --force alone
#
# environment:
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/pretrain_70b.sh ...
#SBATCH --job-name=pretrain_70b-pretrain
#SBATCH --nodes=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=1440
#SBATCH --signal=B:USR2@600
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

set -euo pipefail

ROOT=${MEDITRON_ROOT:-${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}
if [ ! -f "$ROOT/toolkit/job.py" ]; then
    echo "error: no toolkit in $ROOT: call sbatch in the toolkit's folder, or set MEDITRON_ROOT to it." >&2
    exit 2
fi
# shellcheck source=slurm/common.sh
source "$ROOT/slurm/common.sh"

run=$("$PYTHON" -m toolkit.launch --in-job pretrain recipe=pretrain_70b "$@")
exec "$PYTHON" -m toolkit.job "$run" pretrain
