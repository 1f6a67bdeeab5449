#!/usr/bin/env bash
# A Megatron checkpoint to a Hugging Face folder, with the tokenizer it was trained with (stage export).
#
# usage:    sbatch [options of sbatch] slurm/convert_hf.sh [key=value ...]
# example:  sbatch slurm/convert_hf.sh 'inputs.checkpoint="runs/RUN/stages/pretrain/checkpoints/step=5000"' \
#               inputs.shards=runs/RUN/stages/shards/shards model.base=Llama-2-70b
# needs:    a complete checkpoint, the shards for their tokenizer, and the base model's config.json; no GPU
#
# environment:
#   MEDITRON_RECIPE  the recipe whose model and layout are meant (default: pretrain_70b)
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/convert_hf.sh ...
#SBATCH --job-name=export
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=256G
#SBATCH --time=480
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

run=$("$PYTHON" -m toolkit.launch --in-job export recipe="${MEDITRON_RECIPE:-pretrain_70b}" 'stages=[export]' "$@")
exec "$PYTHON" -m toolkit.job "$run" export
