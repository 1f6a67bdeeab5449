#!/usr/bin/env bash
# Builds Apptainer images on a compute node: containers/NAME.def becomes containers/NAME.sif. An image that is there
# already is replaced when the new one is whole, and kept when the build fails.
#
# usage:    sbatch [options of sbatch] slurm/build_images.sh [NAME ...] [-- options of apptainer build]
# example:  sbatch slurm/build_images.sh
#           sbatch slurm/build_images.sh train -- --fakeroot --build-arg BASE=base.sif
# needs:    Apptainer on the node, and room in its temporary folder (APPTAINER_TMPDIR) and beside the definitions
#
# environment:
#   MEDITRON_APPTAINER  apptainer, singularity, or a path (default: apptainer)
#   MEDITRON_ROOT       the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON     the Python that runs the light core on the host (default: .venv/bin/python there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/build_images.sh ...
#SBATCH --job-name=images
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=480
#SBATCH --requeue
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

builder=${MEDITRON_APPTAINER:-apptainer}
if ! command -v "$builder" >/dev/null; then
    echo "error: no $builder on $(hostname): load its module in the job, or name it with MEDITRON_APPTAINER." >&2
    exit 2
fi
cd -- "$ROOT"
names=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do names+=("$1"); shift; done
[ $# -eq 0 ] || shift # what is left are options of apptainer build
shopt -s nullglob
known=(containers/*.def)
if [ ${#names[@]} -eq 0 ]; then names=("${known[@]##*/}"); fi
if [ ${#names[@]} -eq 0 ]; then
    echo "error: no definition in $ROOT/containers." >&2
    exit 2
fi
for name in "${names[@]}"; do # all of them before the first build, which may take an hour
    if [[ ! $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || [ ! -f "containers/${name%.def}.def" ]; then
        printf 'error: no definition containers/%q.def; there are: %s\n' "${name%.def}" "${known[*]##*/}" >&2
        exit 2
    fi
done

for name in "${names[@]}"; do
    name=${name%.def} part=containers/.${name%.def}.$SLURM_JOB_ID.part
    trap 'rm -f -- "$part"' EXIT
    echo "building containers/$name.sif"
    "$builder" build --force "$@" "$part" "containers/$name.def"
    mv -- "$part" "containers/$name.sif"
    echo "containers/$name.sif is ready"
done
