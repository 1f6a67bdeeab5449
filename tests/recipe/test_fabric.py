"""What a recipe may say of its fabric."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from toolkit.errors import RecipeError
from toolkit.recipe import compose
from toolkit.recipe.compose import recipes_dir
from toolkit.recipe.fabric import KEYS, fits
from toolkit.recipe.schema import Nccl
from toolkit.recipe.typed import build


def test_a_sites_policy_is_typed() -> None:
    words = ["cluster.nccl.traffic_class=104", "cluster.nccl.hca=[mlx5_0,'mlx5_1:1']", "cluster.nccl.gdr_level=PHB",
             "+cluster.nccl.env.NCCL_IB_PKEY=1", "cluster.nccl.required=false"]  # fmt: skip
    nccl = compose("pretrain_70b", words).recipe.cluster.nccl
    assert nccl.traffic_class == 104 and nccl.hca == ("mlx5_0", "mlx5_1:1") and nccl.gdr_level == "PHB"
    assert nccl.env == {"NCCL_IB_PKEY": "1"} and nccl.required is False and nccl.timeout is None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cluster.nccl.traffic_class=256", "must lie between 0 and 255"),
        ("cluster.nccl.service_level=16", "must lie between 0 and 15"),
        ("cluster.nccl.retry=8", "must lie between 0 and 7"),
        ("cluster.nccl.timeout=0", "must lie between 1 and 31"),
        ("cluster.nccl.qps=0", "must lie between 1 and 128"),
        ("cluster.nccl.cross_nic=3", "must lie between 0 and 2"),
        ("cluster.nccl.gid_index=-1", "must lie between 0 and 1023"),
        ("cluster.nccl.gdr_level=NEAR", "'cluster.nccl.gdr_level' is 'NEAR'"),
        ("cluster.nccl.hca=['mlx5_0,evil']", "cluster.nccl.hca[0]='mlx5_0,evil' is no name of one"),
        ("cluster.nccl.hca=['^mlx5_0']", "is no name of one"),
        ("cluster.nccl.sockets=['eno1 eno2']", "cluster.nccl.sockets[0]='eno1 eno2' is no name of one"),
        ("cluster.nccl.tc=104", "unknown key 'cluster.nccl.tc'"),
        ("+cluster.nccl.env.LD_PRELOAD=/tmp/x.so", "would change what is run"),
        ("+cluster.nccl.env.PATH=/tmp", "would change what is run"),
        ("+cluster.nccl.env.PYTHONSTARTUP=/tmp/x", "would change what is run"),
        ("+cluster.nccl.env.APPTAINERENV_X=1", "would change what is run"),
        ("+cluster.nccl.env.MASTER_ADDR=evil", "would change what is run"),
        ("+cluster.nccl.env.WANDB_API_KEY=abc", "looks like a secret"),
        ("+cluster.nccl.env.HF_TOKEN=abc", "looks like a secret"),
        ("+cluster.nccl.env.MY_SECRET_X=abc", "looks like a secret"),
        ("+cluster.nccl.env.NCCL_IB_TC=106", "has a key of its own: use cluster.nccl.traffic_class"),
        ("+cluster.nccl.env.CUDA_DEVICE_MAX_CONNECTIONS=1", "parallel.cuda_connections"),
        ("+cluster.nccl.env.NCCL_X='a$b'", "would not reach an image as it is"),
        ("+cluster.nccl.env.NCCL_NET=IBext", "does not go with cluster.nccl.required"),
        ("+cluster.nccl.env.NCCL-X=1", "no name of a variable"),
    ],
)
def test_what_is_refused(word: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        compose("pretrain_70b", [word])
    told = str(caught.value).replace(". Use ", ": use ")
    assert said in told, told


def test_what_fits_a_file() -> None:
    assert fits("=mlx5_0:1,mlx5_1:1") and fits("") and fits("a b#c;d")
    assert not any(fits(text) for text in ("a\nb", "a'b", 'a"b', "a$b", "a`b", "a\\b", "\x00", "\x1b[0m"))
    assert all(key.startswith(("cluster.", "parallel.")) for key in KEYS.values())


def test_the_template_shows_every_value() -> None:
    stated = yaml.safe_load((recipes_dir() / "cluster" / "template.yaml").read_text(encoding="utf-8"))["nccl"]
    assert stated.keys() == {field.name for field in dataclasses.fields(Nccl)}
    assert build(Nccl, stated) == Nccl()
