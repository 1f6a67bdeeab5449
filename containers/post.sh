# shellcheck shell=sh
# What the %post of the GPU images shares: read there with `.`, as root, in the image that is being built.
# Decides how a package gets in; which ones is each definition's own.

export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$*"; }

# CUDA=no leaves out what cannot be built without nvcc, for a trial on a machine or base without it.
case $CUDA in
    yes | no) ;;
    *) say "error: --build-arg CUDA=$CUDA: yes or no" >&2; exit 2 ;;
esac
left_out() { say "CUDA=no: left out: $*"; }

# Packages of the distribution, without what they only recommend.
packages() {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@"
    find /var/lib/apt/lists /var/cache/apt -mindepth 1 -delete
}

# The user space of RDMA: what NCCL loads to talk to the devices that the host shows. It belongs to the image and matches
# its libraries; the host's own copies are never bound over it. A vendor's container that has it keeps its own.
rdma() {
    if ldconfig -p | grep -q libmlx5; then
        say "the base has libmlx5; its RDMA user space stays"
    else
        packages libibverbs1 librdmacm1 ibverbs-providers ibverbs-utils
    fi
}

# pip of the Python that is first on PATH; a virtual environment made by uv has none.
install() {
    if python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip install --quiet --no-compile "$@"
    else
        uv pip install --quiet --python "$(command -v python3)" "$@"
    fi
}

version_of() { python3 -c 'import importlib.metadata as m, sys; print(m.version(sys.argv[1]))' "$1" 2>/dev/null || echo none; }

# What of host.lock is not installed, as NAME==VERSION: the light core, without replacing what a vendor brings. Lines with
# a marker are for older Pythons than any image has.
missing_core() {
    python3 - /opt/meditron/env/host.lock <<'END'
import importlib.metadata, re, sys
from pathlib import Path
for name, version in re.findall(r"^([\w.-]+)==([\w.+-]+)(?![^\n]*;)", Path(sys.argv[1]).read_text(encoding="utf-8"), re.M):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(f"{name}=={version}")
END
}

# A command from source in /usr/local/bin: all_reduce_perf of nccl-tests, without MPI, for the GPUs in $1 ("8.0;9.0").
nccl_tests() {
    if [ "$CUDA" = no ]; then left_out "nccl-tests"; return; fi
    archs=$1 git=$2 ref=$3 nccl=${4:-/usr}
    gencode=
    for arch in $(printf %s "$archs" | tr ';' ' '); do
        number=$(printf %s "$arch" | tr -d .)
        gencode="$gencode -gencode=arch=compute_$number,code=sm_$number"
    done
    git clone --quiet --depth 1 --branch "$ref" "$git" /tmp/nccl-tests
    make -C /tmp/nccl-tests -j "$(nproc)" MPI=0 CUDA_HOME=/usr/local/cuda NCCL_HOME="$nccl" NVCC_GENCODE="$gencode"
    install -D -m 755 -t "${5:-/usr/local/bin}" /tmp/nccl-tests/build/*_perf
    rm -rf /tmp/nccl-tests
}

# The toolkit's copy as it should lie: no byte code of the host, all of it readable.
finish() {
    find /opt/meditron -name __pycache__ -type d -prune -exec rm -rf {} +
    python3 -m compileall -q /opt/meditron/toolkit
    chmod -R go=rX /opt/meditron
}
