#!/usr/bin/env bash
# The corpus from its sources: documents read, filtered, deduplicated, kept clear of benchmarks, split (stage corpus).
#
# usage:    sbatch [options of sbatch] slurm/build_corpus.sh [key=value ...]
# example:  sbatch slurm/build_corpus.sh corpus=jats corpus.sources.papers.path=pmc corpus.workers=32
#           sbatch slurm/build_corpus.sh corpus.sources.guidelines.path=guidelines corpus.sources.papers.path=pmc \
#               corpus.sources.abstracts.path=pubmed corpus.sources.replay.path=c4 \
#               corpus.decontaminate.benchmarks.medqa=FILE
# needs:    files of the sources; python -m toolkit.corpus downloads says where they come from
# It is one job with corpus.workers processes; killed and submitted again with run=RUN it goes on. For an array of jobs
# that share the files, let the launcher submit it:
#   python -m toolkit.launch recipe=gap_replay corpus.tasks=8 corpus.sources.papers.path=... ...
#
# environment:
#   MEDITRON_RECIPE  the recipe whose corpus is meant (default: gap_replay)
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p cpu -A med slurm/build_corpus.sh ...
#SBATCH --job-name=corpus
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

run=$("$PYTHON" -m toolkit.launch --in-job corpus recipe="${MEDITRON_RECIPE:-gap_replay}" 'stages=[corpus]' "$@")
exec "$PYTHON" -m toolkit.job "$run" corpus
