# shellcheck shell=bash
# Sourced by the scripts beside it with ROOT, the toolkit's folder, set: help, refusals, and PYTHON, which runs the
# toolkit's light core on the host. Decides nothing of what a job does.

case ${1-} in -h | --help)
    sed -n '2,/^#SBATCH/ { /^#SBATCH/d; s/^# \{0,1\}//p; }' "$0"
    exit 0 ;;
esac
if [ -z "${SLURM_JOB_ID-}" ]; then
    me=$(basename "$0")
    echo "error: $me runs as a job; submit it: sbatch slurm/$me [key=value ...]   (slurm/$me --help has more)" >&2
    exit 2
fi
if [ -n "${SLURM_ARRAY_TASK_ID-}" ]; then
    echo "error: this script does the whole work in one job, not a task of an array; submit it without --array." >&2
    exit 2
fi

ROOT=$(cd -- "$ROOT" && pwd -P)
PYTHON=${MEDITRON_PYTHON:-$ROOT/.venv/bin/python}
[ -x "$PYTHON" ] || [ -n "${MEDITRON_PYTHON-}" ] || PYTHON=python3
if ! command -v "$PYTHON" >/dev/null; then
    echo "error: $PYTHON: no such Python. Make one with env/setup --group host, or name one with MEDITRON_PYTHON." >&2
    exit 2
fi
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
