#!/usr/bin/env bash
# Scores a Hugging Face model on benchmarks, with confidence intervals (recipe score). Then follows the report.
#
# usage:    sbatch [options of sbatch] slurm/score.sh [key=value ...]
# example:  sbatch slurm/score.sh model.base=models/mine 'score.benchmarks=[medqa4]' score.paths.medqa4=medqa/test.jsonl
#           sbatch slurm/score.sh model.base=models/mine score.limit=100 'score.paths={medqa4: ..., medmcqa: ..., ...}'
# needs:    the model's folder and the benchmarks' files
#
# environment:
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/score.sh ...
#SBATCH --job-name=score-score
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=8
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

run=$("$PYTHON" -m toolkit.launch --in-job score recipe=score "$@")
exec "$PYTHON" -m toolkit.job "$run" score
