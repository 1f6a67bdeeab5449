#!/usr/bin/env bash
# Builds Apptainer images on a compute node: containers/NAME.def becomes containers/NAME.sif. An image is built again
# only when what it is made from has changed; the one that is there is replaced when the new one is whole and tested,
# and kept when the build fails.
#
# usage:    sbatch [options of sbatch] slurm/build_images.sh [NAME ...] [options of toolkit.images build] [-- options
#           of apptainer build]
# example:  sbatch slurm/build_images.sh
#           sbatch slurm/build_images.sh train --fakeroot --build-arg CUDA_ARCHS=9.0
# needs:    Apptainer on the node, and room in its temporary folder and beside the definitions; what a build unpacks and
#           downloads goes to the job's scratch, TMPDIR, unless APPTAINER_TMPDIR and APPTAINER_CACHEDIR say otherwise
#
# environment:
#   MEDITRON_APPTAINER  apptainer, singularity, or a path (default: the one on PATH, or of env/apptainer/install)
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

export APPTAINER_TMPDIR=${APPTAINER_TMPDIR:-${TMPDIR:-/tmp}}
cache=$APPTAINER_TMPDIR/apptainer-cache-$UID # layers of a registry's images; a home folder's quota is soon full of them
export APPTAINER_CACHEDIR=${APPTAINER_CACHEDIR:-$cache} SINGULARITY_CACHEDIR=${SINGULARITY_CACHEDIR:-$cache}
cd -- "$ROOT" # whose toolkit Python then takes
exec "$PYTHON" -m toolkit.images build "$@"
