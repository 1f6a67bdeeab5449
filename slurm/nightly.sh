#!/usr/bin/env bash
# A night: finds checkpoints of watched trainings that have no scores yet, and submits an array that exports and scores
# them and a job that compares them with the last good night's (recipe nightly); that job ends with 5 when one is worse.
# Submits itself again for tomorrow with the same arguments, also when tonight's work fails. Nights that were missed are
# caught up with in one; while one is still at work, the next does nothing.
#
# usage:    sbatch [options of sbatch] slurm/nightly.sh [key=value ...] [--wait]
# example:  sbatch --begin=02:00 slurm/nightly.sh 'night.watch=[runs/pretrain_70b-*]' 'score.benchmarks=[medqa4]' \
#               score.paths.medqa4=medqa/test.jsonl
#           python -m toolkit.night status                  (what the nights came to; nights/index.html has it as a page)
#           scancel --name=nightly --state=PENDING          (no more nights)
# needs:    runs to watch, or folders of checkpoints with model.base and inputs.shards; the benchmarks' files
#
# Where scrontab is enabled, this line does without the resubmission:
#   0 2 * * * NIGHTLY_AGAIN=no MEDITRON_ROOT=/path/of/toolkit /path/of/toolkit/slurm/nightly.sh night.watch=... ...
#
# environment:
#   NIGHTLY_AGAIN    no: this night is the last one
#   NIGHTLY_AT       when tomorrow's job may begin, as sbatch --begin takes it (default: now+1day; 02:00 does not drift)
#   MEDITRON_ROOT    the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON  the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/nightly.sh ...
#SBATCH --job-name=nightly
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=60
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

exec "$PYTHON" -m toolkit.night run "$@"
