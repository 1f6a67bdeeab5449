"""What compose refuses, in which words, and what it makes of recipes on top of recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import errors
from toolkit.errors import RecipeError, RunError
from toolkit.recipe import compose, list_recipes, load, save

pytestmark = pytest.mark.usefixtures("recipes")


def refusal(name: str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        compose(name, overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("override", "what", "do"),
    [
        ("modle=llama_demo", "unknown key 'modle'", "did you mean 'model'?"),
        ("model=llama2_7", "unknown model 'llama2_7'", "did you mean 'llama2_7b'?"),
        ("cluster=slrum", "unknown cluster 'slrum'", "valid: a100_roce, h100_ib, local, slurm_dev, template"),
        ("model=../model/llama_demo", "unknown model '../model/llama_demo'", "llama_demo"),
        ("train.stps=3", "unknown key 'train.stps'", "did you mean 'train.steps'?"),
        ("+train.stps=3", "unknown key 'train.stps'", "did you mean 'train.steps'?"),
        ("~train.stps", "'train.stps' is not stated", "did you mean 'train.steps'?"),
        ("corpus.sources.world.knid=jats", "unknown key 'corpus.sources.world.knid'", "'corpus.sources.world.kind'"),
        ("train.steps.x=3", "'train.steps' must be a whole number", ""),
        ("titel=x", "unknown key 'titel'", "did you mean 'title'?"),
        ("defaults=[]", "unknown key 'defaults'", "valid: "),
        ("hydra.run.dir=/tmp", "unknown key 'hydra.run.dir'", ""),
        ("hydra.searchpath=[/tmp]", "unknown key 'hydra.searchpath'", ""),
        ("model@other=llama_demo", "'@other' has no meaning here", ""),
        ("~model", "'model' cannot be left out", "model=CHOICE"),
        ("benchmark=medqa4", "'benchmark' is not chosen like this", "score.benchmarks=[...]"),
        ("score.benchmarks=[demo_clze]", "unknown benchmark 'demo_clze' in score.benchmarks", "'demo_cloze'"),
        ("finetune.benchmark=medqa5", "unknown benchmark 'medqa5' in finetune.benchmark", "'medqa'"),
        ("stages=[corpus,corups]", "unknown stage 'corups'", "did you mean 'corpus'?"),
        ("~train.lr", "'train.lr' is missing", "train.lr="),
        # wrong types
        ("train.steps=many", "'train.steps' must be a whole number, not 'many' (str)", ""),
        ("train.steps=true", "'train.steps' must be a whole number, not True (bool)", ""),
        ("train.steps=2.5", "'train.steps' must be a whole number, not 2.5 (float)", ""),
        ("train.steps=2.0", "'train.steps' must be a whole number, not 2.0 (float)", ""),
        ("train.steps=null", "'train.steps' must be a whole number, not null", ""),
        ("train.steps=[1]", "'train.steps' must be a whole number, not [1] (list)", ""),
        ("train.steps=???", "Missing mandatory value", ""),
        ("train.lr=nan", "'train.lr' must be a finite number", ""),
        ("train.lr=-inf", "'train.lr' must be a finite number", ""),
        ("train.lr='nan'", "'train.lr' must be a finite number", ""),
        ("train.lr=fast", "'train.lr' must be a number, not 'fast' (str)", ""),
        ("train.lr=true", "'train.lr' must be a number, not True (bool)", ""),
        ("title=[a]", "'title' must be text, not ['a'] (list)", ""),
        ("title=true", "'title' must be text, not True (bool)", ""),
        ("parallel.sequence=1", "'parallel.sequence' must be true or false, not 1 (int)", ""),
        ("parallel.sequence='false'", "'parallel.sequence' must be true or false, not 'false' (str)", ""),
        ("stages=corpus", "'stages' must be a list, not 'corpus' (str)", ""),
        ("stages={corpus:1}", "Error merging override ++stages={corpus:1}", ""),
        ("score.paths=x", "'score.paths' must be a mapping, not 'x' (str)", ""),
        ("score.paths=[x]", "Error merging override ++score.paths=[x]", ""),
        ("finetune=x", "'finetune' must be a mapping, not 'x' (str)", ""),
        ("train.precision=bf61", "'train.precision' is 'bf61' (str)", "did you mean 'bf16'?"),
        ("train.precision=true", "'train.precision' is True (bool)", "valid: bf16, fp32"),
        ("guard.spike=rolback", "'guard.spike' is 'rolback' (str)", "did you mean 'rollback'?"),
        ("guard.floor=nan", "'guard.floor' must be a finite number", ""),
        ("train.async_save=1", "'train.async_save' must be true or false", ""),
        ("watch.mfu=7n", "'watch.mfu' is '7n' (str)", "valid: 6n, 6n_causal, 6n_full, paper"),
        ("watch.wandb=true", "'watch.wandb' must be a mapping, not True (bool)", ""),
        ("watch.wandb.projct=p", "unknown key 'watch.wandb.projct'", "did you mean 'watch.wandb.project'?"),
        ("watch.wandb.api_key=x", "unknown key 'watch.wandb.api_key'", ""),
        ("watch.wandb.mode=offline", "'watch.wandb.project' is missing", ""),
        ("watch.tensorboard=yes please", "'watch.tensorboard' must be true or false", ""),
        ("watch.mlflow=[x]", "'watch.mlflow' must be a mapping", ""),
        ("cluster.pue=nan", "'cluster.pue' must be a finite number", ""),
        ("cluster.peak_tflops=fast", "'cluster.peak_tflops' must be a number", ""),
        (
            "corpus.sources.world.kind=pdf",
            "'corpus.sources.world.kind' is 'pdf' (str)",
            "valid: abstracts, guidelines, jats, jsonl, pmc",
        ),
        ("runs=null", "'runs' must be text, not null", ""),
        # what would need a shell, a sweep or the environment
        ("train.steps=1,2", "'train.steps=1,2' gives several values", "train.steps=[a,b]"),
        ("train.steps=range(1,3)", "gives several values", ""),
        ("train.steps=choice(1,2)", "gives several values", ""),
        ("train.steps=glob(*)", "gives several values", ""),
        ("train.steps", "cannot read 'train.steps'", "write key=value"),
        ("title=$(id)", "cannot read 'title=$(id)'", "write key=value"),
        ("title=`id`", "cannot read 'title=`id`'", "write key=value"),
        ("title=é", "cannot read 'title=é'", "write key=value"),
        ("title='", 'cannot read "title=\'"', "write key=value"),
        ("title=a\nb", r"cannot read 'title=a\nb'", "write key=value"),
        ("title=\udcff", r"cannot read 'title=\udcff'", "write key=value"),
        ("${title}=x", "cannot read '${title}=x'", "write key=value"),
        ("title=" + "[" * 3000, "cannot read", "write key=value"),
        ("title=${oc.env:SECRET_TOKEN}", "only references to other keys are read", ""),
        ("title='a ${oc.env:SECRET_TOKEN,none} b'", "only references to other keys are read", ""),
        ("title='${${title}:SECRET_TOKEN}'", "only references to other keys are read", ""),
        ("title='${oc.decode:${oc.env:SECRET_TOKEN}}'", "only references to other keys are read", ""),
        ("title=${hydra:runtime.cwd}", "only references to other keys are read", ""),
        ("corpus.sources.world.options.seed=${oc.env:SECRET_TOKEN}", "only references to other keys are read", ""),
        ("stages=['${oc.env:SECRET_TOKEN}']", "only references to other keys are read", ""),
        ("train.steps=${train.stps}", "Interpolation key 'train.stps' not found", ""),
        ("train.steps=${train.steps}", "Recursive interpolation", ""),
        ("name=../elsewhere", "name '../elsewhere' cannot begin a folder's name", ""),
        ("name='a/b'", "cannot begin a folder's name", ""),
    ],
)
def test_a_bad_argument_is_refused(
    override: str, what: str, do: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "xyz-in-the-environment")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    err = refusal("demo", override)
    assert what in err.what, err.what
    assert do in err.do
    assert err.where == "command line"
    assert "xyz-in-the-environment" not in str(err)
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "override", "what"),
    [
        ("pretrain_70b", "parallel.vp=1", "parallel.vp=1 is no interleaving"),
        ("pretrain_70b", "parallel.vp=0", "parallel.vp is 0"),
        ("pretrain_70b", "parallel.vp=3", "parallel.pp=8 x vp=3 does not divide model.layers=80"),
        ("pretrain_70b", "parallel.vp=5 finetune.micro_batch=8", "and finetune.global_batch=64 makes 4"),
        ("pretrain_70b", "parallel.cuda_connections=0", "parallel.cuda_connections=0 must lie between 1 and 32"),
        ("pretrain_70b", "parallel.cuda_connections=33", "parallel.cuda_connections=33 must lie between 1 and 32"),
        ("pretrain_70b", "parallel.cuda_connections=-1", "parallel.cuda_connections=-1 must lie"),
        ("pretrain_70b", "parallel.tp_overlap=true parallel.sequence=false", "tp_overlap=true needs parallel.sequence"),
        ("pretrain_70b", "parallel.tp_overlap=true train.layers=local", "does not go with train.layers=local"),
        ("pretrain_70b", "parallel.cp=2 train.layers=local", "parallel.cp=2 does not go with train.layers=local"),
        ("pretrain_70b", "parallel.cp=2 train.attention=unfused", "unfused does not go with parallel.cp=2"),
        ("pretrain_70b", "train.attention=fused train.layers=local", "train.attention=fused does not go with"),
        ("pretrain_70b", "train.attention=fast", "'train.attention' is 'fast'"),
        ("pretrain_70b", "train.layers=apex", "'train.layers' is 'apex'"),
        ("pretrain_8b", "model.extra_tokens=meditron", "extra_tokens=meditron does not go with model.family=llama3"),
        ("pretrain_70b", "model.family=llama4", "'model.family' is 'llama4'"),
        (
            "pretrain_70b",
            "data.reset_attention=true train.attention=unfused",
            "data.reset_attention=true does not go with train.attention=unfused",
        ),
        ("demo", "train.attention=fused", "train.attention=fused does not go with cluster.device=cpu"),
        ("demo", "parallel.cp=2 parallel.tp=1", "parallel.cp=2 does not go with cluster.device=cpu"),
        ("demo", "parallel.sequence=true parallel.tp_overlap=true", "does not go with cluster.device=cpu"),
    ],
)
def test_what_layers_gpus_and_schedules_cannot_do(recipe: str, override: str, what: str) -> None:
    assert what in refusal(recipe, *override.split()).what


def test_text_that_only_looks_dangerous_stays_text() -> None:
    text = '$(touch x) `id` ; é 日本 "quoted" \\ {} $HOME'
    assert compose("demo", [f"title='{text}'"]).recipe.title == text


@pytest.mark.parametrize(
    ("overrides", "what", "where"),
    [
        (["parallel.pp=3"], "parallel.pp=3 x vp=1 does not divide model.layers=4", "command line and model/llama_demo"),
        (["parallel.tp=3"], "parallel.tp=3 does not divide model.heads=4", "command line and model/llama_demo.yaml"),
        (["parallel.tp=4"], "parallel.tp=4 does not divide model.kv_heads=2 (KV groups)", "command line and model"),
        (["model.ffn=351"], "parallel.tp=2 does not divide model.ffn=351", "parallel/tp2_pp2.yaml and command line"),
        (["model.kv_heads=3"], "model.kv_heads=3 does not divide model.heads=4", "command line and model"),
        (["model.hidden=130"], "model.heads=4 does not divide model.hidden=130", "model/llama_demo.yaml and command"),
        (["model.hidden=132"], "model.hidden=132 / model.heads=4 is odd", "command line and model/llama_demo.yaml"),
        (["train.global_batch=40"], "is not a multiple of train.micro_batch=16 x dp=1 = 16", "command line and train"),
        (["finetune.micro_batch=5"], "finetune.global_batch=32 is not a multiple", "demo.yaml and command line"),
        (["cluster.devices_per_node=6"], "= 4 does not divide cluster.nodes=1 x cluster.devices_per_node=6 = 6", ""),
        (["train.seq_length=1024"], "train.seq_length=1024 is above model.max_positions=512", "command line and model"),
        (["finetune.seq_length=1024"], "finetune.seq_length=1024 is above model.max_positions=512", "command line"),
        (["parallel.vp=3"], "parallel.pp=2 x vp=3 does not divide model.layers=4", "parallel/tp2_pp2.yaml and model"),
        (
            ["parallel.tp=1", "parallel.pp=4", "parallel.sequence=true"],
            "parallel.sequence=true needs parallel.tp=1 above 1",
            "",
        ),
        (
            ["parallel=tp1_pp1", "cluster.devices_per_node=1", "parallel.vp=2"],
            "parallel.vp=2 needs parallel.pp=1 above 1",
            "command line",
        ),
        (
            ["parallel.vp=2", "train.global_batch=48"],
            "parallel.vp=2 needs micro-batches in multiples of parallel.pp=2, and train.global_batch=48 makes 3",
            "command line",
        ),
        (
            ["parallel.sequence=true", "finetune.seq_length=127"],
            "parallel.tp=2 does not divide finetune.seq_length=127",
            "parallel/tp2_pp2.yaml and command line",
        ),
        (
            ["parallel.cp=2", "cluster.devices_per_node=8", "train.seq_length=126"],
            "parallel.cp=2 x 2 does not divide train.seq_length=126",
            "command line",
        ),
        (["train.steps=0"], "train.steps is 0", "command line"),
        (["train.valid_batches=0"], "train.valid_batches is 0", "command line"),
        (["parallel.tp=-1"], "parallel.tp is -1", "command line"),
        (["score.limit=0"], "score.limit is 0", "command line"),
        (["score.shots=-1"], "score.shots=-1 must be at least 0", "command line"),
        (["score.shots=3", "score.seeds=[432,432]"], "score.seeds has 432 twice", "command line"),
        (["score.seeds=[1,2]"], "nothing is drawn by them", "command line"),
        (["score.train_paths={medqa: x}"], "score.train_paths.medqa: score.benchmarks does not name it", "demo.yaml"),
        (["score.modes=[sc_cot]", "score.temperature=11"], "must be from 0 to 10", "command line"),
        (["data.workers=-1"], "data.workers=-1 must be at least 0", "command line"),
        (
            ["data.reset_attention=true", "data.append_eod=false"],
            "data.reset_attention=true needs data.append_eod=true",
            "command line",
        ),
        (
            ["data.reset_attention=true", "cluster.device=gpu", "parallel.cp=2", "cluster.devices_per_node=8"],
            "data.reset_attention=true does not go with parallel.cp=2",
            "command line",
        ),
        (["train.lr=0"], "train.lr=0.0 must be above 0", "command line"),
        (["train.min_lr=1"], "train.min_lr=1.0 must lie between 0 and train.lr=0.002", "command line and train"),
        (["train.decay_steps=10"], "train.decay_steps=10 is below train.steps=300", "command line and train/demo.yaml"),
        (["train.warmup_steps=300"], "train.warmup_steps=300 must lie between 0 and 299", "command line"),
        (["train.beta2=1"], "train.beta2=1.0 must be at least 0 and below 1", "command line"),
        (["train.eps=0"], "train.eps=0.0 must be above 0", "command line"),
        (["train.keep_every=0"], "train.keep_every is 0", "command line"),
        (["train.keep_every=150"], "train.keep_every=150 is not a multiple of train.save_every=100", "command line"),
        (["guard.bad_steps=-1"], "guard.bad_steps=-1 must be at least 0", "command line"),
        (["guard.rollbacks=-1"], "guard.rollbacks=-1 must be at least 0", "command line"),
        (["guard.straggler_every=-5"], "guard.straggler_every=-5 must be at least 0", "command line"),
        (["guard.window=1"], "guard.window=1 has no median", "command line"),
        (["guard.deviations=0"], "guard.deviations=0.0 must be above 0", "command line"),
        (["guard.floor=0"], "guard.floor=0.0 must be above 0", "command line"),
        (["guard.spike_steps=0"], "guard.spike_steps is 0", "command line"),
        (["guard.straggler_ratio=1"], "guard.straggler_ratio=1.0 must be above 1", "command line"),
        (["train.weight_decay=-1"], "train.weight_decay=-1.0 must be at least 0", "command line"),
        (["train.seed=0"], "train.seed=0 must be 1 or more", "command line"),
        (["finetune.min_lr=1"], "finetune.min_lr=1.0 must lie between 0 and finetune.lr=0.0005", "command line"),
        (["finetune.warmup_fraction=1"], "finetune.warmup_fraction=1.0 must be at least 0 and below 1", "command line"),
        (["corpus.valid_fraction=1"], "corpus.valid_fraction=1.0 must be at least 0 and below 1", "command line"),
        (["model.norm_eps=0"], "model.norm_eps=0.0 must be above 0", "command line"),
        (["stages=[]"], "'stages' is empty", "command line"),
        (["stages=[corpus,corpus]"], "stage 'corpus' stands twice in stages", "command line"),
        (["stages=[corpus,export]"], "export has no training before it", ""),
        (["finetune=null"], "stage finetune needs a 'finetune' section", "command line"),
        (["cluster.device=gpu", "cluster.gpu=a100"], "cluster.gpu: unknown GPU type 'a100'", "command line"),
        (
            ["cluster.device=gpu", "cluster.gpu=v100_32gb_sxm", "train.precision=bf16"],
            "cluster.gpu=v100_32gb_sxm: a V100-32GB SXM2 has no bf16",
            "command line",
        ),
        (["cluster.peak_tflops=0"], "cluster.peak_tflops=0.0 must be above 0", "command line"),
        (["cluster.gpu_tdp_w=-5"], "cluster.gpu_tdp_w=-5.0 must be above 0", "command line"),
        (["cluster.pue=-1"], "cluster.pue=-1.0 must be at least 1", "command line"),
        (["cluster.node_overhead=0.5"], "cluster.node_overhead=0.5 must be at least 1", "command line"),
        (["cluster.kgco2_per_kwh=-0.1"], "cluster.kgco2_per_kwh=-0.1 must be at least 0", "command line"),
        (["model.nominal_parameters=0"], "model.nominal_parameters=0.0 must be above 0", "command line"),
        (["watch.power_every_s=0.5"], "watch.power_every_s=0.5 is below 1", "command line"),
        (["watch.power_every_s=-1"], "watch.power_every_s=-1.0 is below 1", "command line"),
        (["watch.mfu=paper"], "watch.mfu=paper counts FLOPs by model.nominal_parameters, which is not", "command line"),
        (["watch.wandb.project=''"], "watch.wandb.project='' is no name", "command line"),
        (
            ["watch.mlflow.experiment=e", "watch.mlflow.tracking_uri='https://me:pw@host/x'"],
            "watch.mlflow.tracking_uri holds a user or password",
            "command line",
        ),
    ],
)
def test_what_cannot_go_together(overrides: list[str], what: str, where: str) -> None:
    err = refusal("demo", *overrides)
    assert what in err.what, err.what
    assert err.where.startswith(where), err.where


@pytest.mark.parametrize(
    ("recipe", "given", "kept"),
    [
        ("nightly", ["cluster=local", "container=none"], ""),
        ("pretrain_70b", ["cluster.nodes=1"], "score"),
        ("pretrain_70b", ["parallel.cp=2"], "pretrain"),
        ("pretrain_70b", ["parallel.pp=2", "finetune.micro_batch=3"], "pretrain"),
        ("pretrain_70b", ["parallel.pp=2", "train.micro_batch=512"], "finetune"),
    ],
)
def test_what_no_stage_of_the_recipe_needs_is_not_asked(recipe: str, given: list[str], kept: str) -> None:
    """A layout, where nothing trains; of a training that is left out, its batch."""
    assert compose(recipe, [*given, f"stages=[{kept}]"] if kept else given).recipe.stages
    if kept:
        assert "parallel." in refusal(recipe, *given).what or "micro_batch" in refusal(recipe, *given).what


def test_the_nearest_batch_is_offered() -> None:
    assert "nearest: 48" in refusal("demo", "train.global_batch=47").do


def test_an_unknown_recipe(recipes: Path) -> None:
    err = refusal("pretrain_7")
    assert (err.what, err.do) == ("unknown recipe 'pretrain_7'", "did you mean 'pretrain_7b'?")
    assert err.where == str(recipes)
    for name in ("../recipes/demo", "/etc/passwd", "", "model/llama_demo", "demo.yaml"):
        assert refusal(name).what == f"unknown recipe '{name}'"


@pytest.mark.parametrize(
    ("file", "old", "new", "what", "do"),
    [
        ("demo.yaml", "epochs: 3", "epoch: 3", "unknown key 'finetune.epoch'", "did you mean 'finetune.epochs'?"),
        ("demo.yaml", "stages:", "stage:", "unknown key 'stage'", "did you mean 'stages'?"),
        ("train/demo.yaml", "steps: 300", "stpes: 300", "unknown key 'train.stpes'", "did you mean 'train.steps'?"),
        ("train/demo.yaml", "steps: 300", "steps: three", "'train.steps' must be a whole number, not 'three'", ""),
        ("train/demo.yaml", "steps: 300", "steps: yes", "'train.steps' must be a whole number, not True (bool)", ""),
        ("train/demo.yaml", "steps: 300", "steps:", "'train.steps' must be a whole number, not null", ""),
        ("train/demo.yaml", "lr: 2.0e-3", "lr: .nan", "'train.lr' must be a finite number", ""),
        ("model/llama_demo.yaml", "layers: 4", "", "'model.layers' is missing", "add model.layers=1"),
        ("corpus/world.yaml", "kind: world", "kidn: world", "unknown key 'corpus.sources.world.kidn'", ".kind'?"),
        ("cluster/local.yaml", "device: cpu", "device: tpu", "'cluster.device' is 'tpu' (str)", "did you mean 'gpu'?"),
        ("train/demo.yaml", "seed: 1234", "seed: ${oc.env:SEED}", "only references to other keys are read", ""),
        ("demo.yaml", "title: The", "title: ${oc.env:HOME} The", "only references to other keys are read", ""),
    ],
)
def test_the_file_at_fault_is_named(recipes: Path, file: str, old: str, new: str, what: str, do: str) -> None:
    path = recipes / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    err = refusal("demo")
    assert what in err.what and do in err.do
    assert err.where == file


@pytest.mark.parametrize("file", ["demo.yaml", "train/demo.yaml"])
@pytest.mark.parametrize(
    ("content", "what", "line"),
    [
        (b"steps: 3\n\tlr: 1\n", "not valid YAML", ":2"),
        (b"steps: [1\n", "not valid YAML", ":2"),
        (b"title: caf\xe9\n", "not valid YAML", ""),
        (b"title: \x00\n", "not valid YAML", ""),
        (b"- a\n- list\n", "must be a mapping of keys to values", ""),
        (b"42\n", "must be a mapping of keys to values", ""),
        (b"[]\n", "must be a mapping of keys to values", ""),
        (b"x: " + b"[" * 5000 + b"\n", "not valid YAML", ""),
        (b"title: !!python/object/apply:os.system ['touch ran']\n", "not valid YAML", ":1"),
        (b"title: !!python/name:os.system\n", "not valid YAML", ":1"),
    ],
)
def test_damaged_yaml(
    recipes: Path, file: str, content: bytes, what: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (recipes / file).write_bytes(content)
    err = refusal("demo")
    assert what in err.what
    assert err.where == f"{recipes / file}{line}"
    assert not (tmp_path / "ran").exists()


def test_a_key_stated_twice_is_refused(recipes: Path) -> None:
    path = recipes / "train" / "demo.yaml"
    path.write_text(path.read_text() + "steps: 5\n")
    err = refusal("demo")
    assert "duplicate key steps" in err.what and err.where == f"{path}:{len(path.read_text().splitlines())}"


def test_an_empty_recipe_lacks_what_is_required(recipes: Path) -> None:
    (recipes / "empty.yaml").write_text("")
    err = refusal("empty")
    assert "is missing" in err.what and err.where == "empty.yaml"


@pytest.mark.parametrize(
    ("defaults", "what", "do"),
    [
        ("- modle: llama_demo", "unknown group 'modle' in defaults", "did you mean 'model'?"),
        ("- model: llama_dmo", "unknown model 'llama_dmo'", "did you mean 'llama_demo'?"),
        ("- model: ${oc.env:HOME}", "unknown model '${oc.env:HOME}'", ""),
        ("- model: ../../x", "unknown model '../../x'", ""),
        ("- nothing_such", "unknown entry 'nothing_such' in defaults", ""),
        ("- 3", "unknown entry 3 in defaults", ""),
        ("  model: llama_demo", "'defaults' must be a list", ""),
    ],
)
def test_a_bad_defaults_list(recipes: Path, defaults: str, what: str, do: str) -> None:
    (recipes / "new.yaml").write_text(f"title: x\nstages: [corpus]\ndefaults:\n  {defaults}\n")
    err = refusal("new")
    assert what in err.what and do in err.do
    assert err.where == str(recipes / "new.yaml")


def test_hydras_own_settings_are_no_part_of_a_recipe(recipes: Path) -> None:
    path = recipes / "demo.yaml"
    path.write_text(path.read_text() + "\nhydra:\n  searchpath: [/tmp]\n")
    assert refusal("demo").what == "unknown key 'hydra'"


def test_a_recipe_on_top_of_another(recipes: Path) -> None:
    (recipes / "short.yaml").write_text(
        "title: A short demo\ndefaults:\n  - demo\n  - override parallel: tp1_pp1\n  - _self_\n"
        "train: {steps: 30}\ncluster: {devices_per_node: 1}\n"
    )
    composed = compose("short")
    assert composed.recipe.name == "short" and composed.recipe.train.steps == 30
    assert composed.recipe.parallel.tp == 1
    assert composed.where("train.steps") == "short.yaml"
    assert composed.where("train.lr") == "train/demo.yaml"
    assert composed.where("parallel.tp") == "parallel/tp1_pp1.yaml"
    assert ("short", "A short demo") in list_recipes()


def test_a_saved_recipe_is_read_back_whole(tmp_path: Path) -> None:
    for name, _ in list_recipes():
        recipe = compose(name, ["title=' é: \"x\" # ${train.lr}'"]).recipe
        save(recipe, tmp_path / "recipe.yaml")
        assert load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    "content",
    [b"", b"name: demo\n", b"\tx", b"caf\xe9: 1", b"- 1\n", b"x: !!python/object/apply:os.system ['false']\n"],
)
def test_a_damaged_resolved_recipe(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged recipe") as caught:
        load(path)
    assert caught.value.where == str(path) and caught.value.exit_code == 1


def test_a_truncated_resolved_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    save(compose("demo").recipe, path)
    whole = path.read_bytes()
    for cut in range(0, whole.index(b"cluster:"), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(RunError, match="damaged recipe"):
            load(path)


def test_no_resolved_recipe(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no resolved recipe here"):
        load(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").mkdir()
    with pytest.raises(RunError, match="cannot be read"):
        load(tmp_path / "recipe.yaml")


def test_nearest() -> None:
    assert errors.nearest("stpes", ["steps", "seed"]) == "did you mean 'steps'?"
    assert errors.nearest("zzz", ["b", "a"]) == "valid: a, b"
    assert errors.nearest("zzz", []) == ""
