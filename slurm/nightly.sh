#!/usr/bin/env bash
# Exports a checkpoint, scores it and writes the report (recipe nightly), and submits itself again for tomorrow with the
# same arguments, also when tonight's work fails. Which checkpoint: inputs.checkpoint=FOLDER, else the newest complete
# one of the newest pretraining below runs/.
#
# usage:    sbatch [options of sbatch] slurm/nightly.sh [key=value ...]
# example:  sbatch --begin=02:00 slurm/nightly.sh model.base=Llama-2-70b inputs.shards=runs/RUN/stages/shards/shards \
#               'score.benchmarks=[medqa4]' score.paths.medqa4=medqa/test.jsonl
#           scancel --name=nightly-export --state=PENDING      (no more nights)
# needs:    shards for their tokenizer, the base model's folder, the benchmarks' files
#
# Where scrontab is enabled, this line does without the resubmission:
#   0 2 * * * NIGHTLY_AGAIN=no MEDITRON_ROOT=/path/of/toolkit /path/of/toolkit/slurm/nightly.sh model.base=... ...
#
# environment:
#   NIGHTLY_AGAIN    no: this night is the last one
#   NIGHTLY_AT       when tomorrow's job may begin, as sbatch --begin takes it (default: now+1day; 02:00 does not drift)
#   NIGHTLY_RUNS     the folder of runs (default: runs)
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/nightly.sh ...
#SBATCH --job-name=nightly-export
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

again() { # in an environment without what Slurm says of this job, which sbatch would take for options
    local name options=(--job-name="$SLURM_JOB_NAME" --begin="${NIGHTLY_AT:-now+1day}")
    [ -z "${SLURM_JOB_PARTITION-}" ] || options+=(--partition="$SLURM_JOB_PARTITION")
    [ -z "${SLURM_JOB_ACCOUNT-}" ] || options+=(--account="$SLURM_JOB_ACCOUNT")
    [ -z "${SLURM_JOB_QOS-}" ] || options+=(--qos="$SLURM_JOB_QOS")
    # Waiting already: this job was queued again after it had done this, or somebody submitted a second one.
    [ -z "$(squeue --noheader --me --states=PENDING --name="$SLURM_JOB_NAME" --format=%i)" ] || return 0
    for name in "${!SLURM_@}" "${!SBATCH_@}"; do [ "$name" = SLURM_CONF ] || unset "$name"; done
    sbatch "${options[@]}" "$ROOT/slurm/nightly.sh" "$@"
}
if [ "${NIGHTLY_AGAIN:-yes}" != no ]; then
    (again "$@") || echo "error: tomorrow's job was not accepted; submit it by hand. Tonight's goes on." >&2
fi

latest='import sys; from toolkit import checkpoint as c, cli; sys.exit(cli.run(lambda w: print(c.latest(w[0]))))'
case "$*" in *inputs.checkpoint=*) ;; *)
    newest=
    for folder in "${NIGHTLY_RUNS:-runs}"/*/stages/pretrain/checkpoints; do
        if [ -d "$folder" ] && { [ -z "$newest" ] || [ "$folder" -nt "$newest" ]; }; then newest=$folder; fi
    done
    if [ -z "$newest" ]; then
        echo "error: no pretraining below ${NIGHTLY_RUNS:-runs}: give inputs.checkpoint=FOLDER, or NIGHTLY_RUNS." >&2
        exit 2
    fi
    # The newest that is whole: one may be in the middle of being written.
    found=$("$PYTHON" -c "$latest" "$newest")
    found=${found//\'/\\\'}
    set -- "$@" "inputs.checkpoint='$found'"
esac

run=$("$PYTHON" -m toolkit.launch --in-job export recipe=nightly "$@")
exec "$PYTHON" -m toolkit.job "$run" export
