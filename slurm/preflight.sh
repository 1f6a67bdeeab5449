#!/usr/bin/env bash
# Before a long run: asks each node for its driver, GPUs, NICs, memory and scratch; then one task for each GPU, as a
# training has them, meet at the training's address and measure all-reduces on each node, between pairs of nodes and on
# all. Prints a table by node, and ends with 4, naming the nodes that are not fit; the launcher keeps away from them
# (recipe preflight; what is asked for: cluster.preflight).
#
# usage:    sbatch [options of sbatch] slurm/preflight.sh [key=value ...]
# example:  sbatch slurm/preflight.sh
#           sbatch --nodes=4 --exclude=node07 slurm/preflight.sh cluster.nodes=4
#           sbatch --time=120 slurm/preflight.sh cluster.preflight.dcgm=3
#           sbatch slurm/preflight.sh cluster.preflight.bandwidth=false
# needs:    the nodes; the training image (build_images.sh) or container=none
#
# environment:
#   MEDITRON_PREFLIGHT_LIMIT_S  seconds to wait for the last rank (default: 300)
#   MEDITRON_ROOT               the toolkit's folder, when sbatch is not called in it
#   MEDITRON_PYTHON             the Python that runs the light core on the host (default: .venv's there, else python3)
#
# Site values (partition, account, QOS) are sbatch's own options: sbatch -p gpu -A med slurm/preflight.sh ...
#SBATCH --job-name=preflight-preflight
#SBATCH --nodes=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=45
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

run=$("$PYTHON" -m toolkit.launch --in-job preflight recipe=preflight "$@")
exec "$PYTHON" -m toolkit.job "$run" preflight
