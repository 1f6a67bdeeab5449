#!/usr/bin/env bash
# Finetunes a pretrained checkpoint on a benchmark's training rows, loss on the answers, on 4 nodes of 8 A100-80GB
# (recipe finetune_70b). Then follow export, score, report.
#
# usage:    sbatch [options of sbatch] slurm/finetune.sh [key=value ...]
# example:  sbatch slurm/finetune.sh 'inputs.checkpoint="runs/RUN/stages/pretrain/checkpoints/step=23000"' \
#               inputs.shards=runs/RUN/stages/shards/shards model.base=Llama-2-70b \
#               finetune.path=medmcqa/train.json 'score.paths={medmcqa: medmcqa/dev.json, mmlu_medical: mmlu}'
# others:   finetune.benchmark=medqa finetune.path=medqa/train.jsonl                another benchmark
#           finetune.benchmark=mixedmed 'finetune.paths={medqa: FILE, medmcqa: FILE, pubmedqa: FILE}'   several; weights:
#           finetune.benchmark='medqa*2+medmcqa*0.5'
#           finetune.target=cot           the row's explanation, then the letter; rows without one are left out
#           finetune.format=template finetune.template=FOLDER    another model's chat template, or =plain
#           finetune.peft=lora            adapters alone; the export has them merged
#           The 7B on one node: python -m toolkit.launch recipe=finetune_7b ...
# needs:    the checkpoint, the shards for their tokenizer, the rows; the training image (build_images.sh) or
#           container=none
#
# environment:
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/finetune.sh ...
#SBATCH --job-name=finetune_70b-finetune
#SBATCH --nodes=4
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

run=$("$PYTHON" -m toolkit.launch --in-job finetune recipe=finetune_70b "$@")
exec "$PYTHON" -m toolkit.job "$run" finetune
