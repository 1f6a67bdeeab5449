#!/usr/bin/env bash
# Documents to Megatron's .bin/.idx: tokenizes the parts of a corpus, train/ and valid/ (stage shards).
#
# usage:    sbatch [options of sbatch] slurm/shard_data.sh [key=value ...]
# example:  sbatch slurm/shard_data.sh inputs.corpus=corpus model.base=Llama-2-70b data.shard_workers=32
# needs:    a corpus (train/*.jsonl.zst and valid/*.jsonl.zst; .jsonl, .gz and .parquet as well) and the base model's
#           folder with its tokenizer.model or tokenizer.json
# makes:    RUN/stages/shards/shards, with a .bin/.idx pair for each file and blend.json, for inputs.shards=...
# It is one job with data.shard_workers processes; a file that is done is not encoded again when it is requeued. For an
# array of jobs that share the files, let the launcher submit it:
#   python -m toolkit.launch recipe=pretrain_70b 'stages=[shards]' data.shard_parts=16 inputs.corpus=... model.base=...
#
# environment:
#   MEDITRON_RECIPE  the recipe whose model and layout are meant (default: pretrain_70b)
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/shard_data.sh ...
#SBATCH --job-name=shards
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

run=$("$PYTHON" -m toolkit.launch --in-job shards recipe="${MEDITRON_RECIPE:-pretrain_70b}" 'stages=[shards]' "$@")
exec "$PYTHON" -m toolkit.job "$run" shards
