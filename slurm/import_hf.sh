#!/usr/bin/env bash
# A Hugging Face Llama-2 folder to a Megatron checkpoint, with rows for the added tokens and the layout's padding (stage
# import).
#
# usage:    sbatch [options of sbatch] slurm/import_hf.sh [key=value ...]
# example:  sbatch slurm/import_hf.sh model.base=Llama-2-70b
#           MEDITRON_RECIPE=pretrain_7b sbatch slurm/import_hf.sh model.base=Llama-2-7b
# needs:    the model's folder; memory of the host for the largest tensors, no GPU
#
# environment:
#   MEDITRON_RECIPE  the recipe whose model and layout are meant (default: pretrain_70b)
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/import_hf.sh ...
#SBATCH --job-name=import
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

run=$("$PYTHON" -m toolkit.launch --in-job import recipe="${MEDITRON_RECIPE:-pretrain_70b}" 'stages=[import]' "$@")
exec "$PYTHON" -m toolkit.job "$run" import
