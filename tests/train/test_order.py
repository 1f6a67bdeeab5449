"""Which sample goes to which step and rank: the pure function, what stands at its positions, what ranks really read."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.conftest import SMALL, Start
from tests.train.forks import Forks
from toolkit import shards
from toolkit.errors import CheckpointError, RunError, ShardError
from toolkit.recipe import compose
from toolkit.runs import Run
from toolkit.train import PretrainJob, ShardFacts, blending, order
from toolkit.train.order import Order, Shard, Skip

HERE = Path(__file__).parent

skips = st.lists(st.builds(Skip, step=st.integers(1, 40), batches=st.integers(1, 5)), max_size=4).map(tuple)


@given(dp=st.integers(1, 8), micro=st.integers(1, 6), count=st.integers(1, 6), step=st.integers(1, 60), left_out=skips)
def test_the_ranks_share_each_batch_and_the_layout_changes_nothing(
    dp: int, micro: int, count: int, step: int, left_out: tuple[Skip, ...]
) -> None:
    size = dp * micro * count
    begin = order.first_sample(step, size, left_out)
    ranks = [
        order.positions(step, rank=r, dp=dp, micro_batch=micro, global_batch=size, skips=left_out) for r in range(dp)
    ]
    assert all(len(batches) == count and all(len(b) == micro for b in batches) for batches in ranks)
    # Micro-batch by micro-batch and rank by rank it is the stream itself: each sample once, in order, at any layout.
    dealt = [at for row in zip(*ranks, strict=True) for batch in row for at in batch]
    assert dealt == list(range(begin, begin + size))


@given(size=st.integers(1, 64), left_out=skips)
def test_exactly_what_is_skipped_is_left_out(size: int, left_out: tuple[Skip, ...]) -> None:
    begins = [order.first_sample(step, size, left_out) for step in range(1, 61)]
    read = [at for begin in begins for at in range(begin, begin + size)]
    lost = sum(skip.batches for skip in left_out)
    assert read == sorted(set(read)) and read[-1] + 1 == order.consumed(60, size, left_out) == (60 + lost) * size
    missing = set(range(read[-1] + 1)) - set(read)
    expected = set()
    for step in {skip.step for skip in left_out}:
        end = order.first_sample(step, size, left_out)
        count = sum(skip.batches for skip in left_out if skip.step == step) * size
        expected |= set(range(end - count, end))
    assert missing == expected


def test_the_start_has_consumed_nothing_whatever_will_be_skipped() -> None:
    assert order.consumed(0, 8, (Skip(step=1, batches=3),)) == 0
    assert order.first_sample(1, 8, (Skip(step=1, batches=3),)) == 24


@pytest.mark.parametrize("place", [{"rank": 2, "dp": 2}, {"rank": -1, "dp": 2}, {"rank": 0, "dp": 3}])
def test_a_rank_that_cannot_be_has_no_positions(place: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        order.positions(1, micro_batch=2, global_batch=8, **place)


def test_skips_are_kept_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    assert order.read_skips(tmp_path) == ()
    order.add_skip(tmp_path, 21, 5)
    order.add_skip(tmp_path, 21, 3)
    order.add_skip(tmp_path, 11, 1)
    found = order.read_skips(tmp_path)
    assert [(s.step, s.batches) for s in found] == [(21, 5), (21, 3), (11, 1)]
    assert order.first_sample(21, 4, found) == (20 + 9) * 4


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "[{}]", '[{"step": 0, "batches": 1}]', '[{"step": 2, "batches": true}]', "\x80", "null", "{}x"],
)
def test_a_damaged_list_of_skips_stops_the_training(tmp_path: Path, text: str) -> None:
    """It must not start as if nothing had been left out."""
    (tmp_path / order.SKIPS).write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"skips\.json: this list of skipped batches cannot be read"):
        order.read_skips(tmp_path)


@pytest.mark.parametrize(("step", "batches"), [(0, 1), (1, 0), (1, -2), (2.0, 1), (True, 1)])
def test_a_skip_of_nothing_is_refused(tmp_path: Path, step: Any, batches: Any) -> None:
    with pytest.raises(ValueError, match="no counts of 1 or more"):
        order.add_skip(tmp_path, step, batches)
    assert not list(tmp_path.iterdir())


def shard(folder: Path, name: str = "train", *, fill: bytes = b"a", size: int = 3 << 20) -> Path:
    (folder / f"{name}.bin").write_bytes(fill * size)
    (folder / f"{name}.idx").write_bytes(b"i" * 4096)
    return folder / name


@pytest.fixture
def job(tmp_path: Path) -> PretrainJob:
    recipe = compose("demo", ["train.global_batch=32", "train.steps=100", "train.decay_steps=1000"]).recipe
    folder = tmp_path / "stage"
    folder.mkdir()
    return PretrainJob(
        folder=folder,
        model=recipe.model,
        parallel=recipe.parallel,
        train=recipe.train,
        data=recipe.data,
        cluster=recipe.cluster,
        vocab_rows=4352,
        tokenizer=folder,
        train_shards=(shard(tmp_path),),
        valid_shards=(),
    )


def saved(job: PretrainJob, *, steps: int = 20) -> PretrainJob:
    """The job as it is after a checkpoint at `steps` was saved and it resumes from that."""
    checkpoint = job.folder / "checkpoints" / f"step={steps - 1}"
    order.write(checkpoint, order.agree(job, write=True), steps=steps)
    return dataclasses.replace(job, resume=checkpoint)


def changed(job: PretrainJob, **values: Any) -> PretrainJob:
    return dataclasses.replace(job, train=dataclasses.replace(job.train, **values))


def test_another_layout_more_steps_and_a_moved_shard_go_on_in_the_same_order(job: PretrainJob, tmp_path: Path) -> None:
    resumed = saved(job)
    begun = order.agree(job, write=False)
    assert begun.samples == 3200
    assert order.agree(resumed, write=False) == begun
    (tmp_path / "elsewhere").mkdir()
    moved = dataclasses.replace(
        changed(resumed, micro_batch=8, steps=500, lr=1e-5, save_every=7, precision="bf16"),
        parallel=dataclasses.replace(job.parallel, tp=1, pp=1),
        train_shards=(shard(tmp_path / "elsewhere", "other"),),
    )
    found = order.agree(moved, write=False)
    assert found.samples == 3200, "the shuffle of several epochs depends on how many samples were asked for at first"
    assert (found.seed, found.seq_length, found.global_batch) == (begun.seed, begun.seq_length, begun.global_batch)
    told = json.loads((resumed.resume / order.FILE).read_text())  # type: ignore[operator]
    assert (told["steps"], told["consumed"]) == (20, 640)


@pytest.mark.parametrize(
    ("key", "value", "before"), [("seed", 7, 1234), ("seq_length", 64, 128), ("global_batch", 64, 32)]
)
def test_another_value_than_the_checkpoints_is_refused_by_name(
    job: PretrainJob, key: str, value: int, before: int
) -> None:
    resumed = saved(job)
    with pytest.raises(CheckpointError) as err:
        order.agree(changed(resumed, **{key: value}), write=True)
    assert err.value.what == f"train.{key} is {value}, and the checkpoint was trained with {before}"
    assert f"give train.{key}={before}" in err.value.do and "new run" in err.value.do
    assert err.value.where == str(resumed.resume)


def test_other_shards_are_refused(job: PretrainJob, tmp_path: Path) -> None:
    """Another size; the same size with other tokens at its begin or its end; one more; the other way round."""
    resumed = saved(job)
    folder = tmp_path / "new"
    folder.mkdir()
    same, longer = shard(folder, "same"), shard(folder, "longer", size=(3 << 20) + 2)
    begin, end = shard(folder, "begin"), shard(folder, "end")
    for prefix, at in ((begin, 0), (end, -1)):
        data = bytearray(Path(f"{prefix}.bin").read_bytes())
        data[at] ^= 1
        Path(f"{prefix}.bin").write_bytes(data)
    order.agree(dataclasses.replace(resumed, train_shards=(same,)), write=False)
    for given_shards in ((longer,), (begin,), (end,), (same, same), ()):
        with pytest.raises(CheckpointError, match="not those that the checkpoint was trained on") as err:
            order.agree(dataclasses.replace(resumed, train_shards=given_shards), write=False)
        assert "train (3,145,728 + 4,096 bytes" in err.value.why
    two = saved(dataclasses.replace(job, train_shards=(same, longer)), steps=30)
    with pytest.raises(CheckpointError, match="shards"):
        order.agree(dataclasses.replace(two, train_shards=(longer, same)), write=False)


def test_a_shard_that_is_not_there_is_told_before_anything_starts(job: PretrainJob, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="No such file"):
        order.agree(dataclasses.replace(job, train_shards=(tmp_path / "none",)), write=False)


def test_a_checkpoint_without_order_is_taken_with_a_word(job: PretrainJob, capsys: pytest.CaptureFixture[str]) -> None:
    old = job.folder / "checkpoints" / "step=9"
    old.mkdir(parents=True)
    resumed = dataclasses.replace(job, resume=old)
    assert order.agree(resumed, write=True) == order.agree(job, write=False)
    assert capsys.readouterr().out.count("step=9 has no order.json") == 1
    order.agree(resumed, write=False)
    assert capsys.readouterr().out == "", "one rank says it"


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: told.pop("seed"),
        lambda told: told.update(seed="1234"),
        lambda told: told.update(samples=-1),
        lambda told: told.update(global_batch=True),
        lambda told: told.update(shards=[{}]),
        lambda told: told.update(shards=None),
        lambda told: told.update(skips=[[1, 2]]),
        None,
    ],
)
def test_a_damaged_order_is_no_traceback(job: PretrainJob, damage: Any) -> None:
    resumed = saved(job)
    path = Path(str(resumed.resume)) / order.FILE
    told = json.loads(path.read_text())
    if damage is None:
        path.write_bytes(path.read_bytes()[:50])
    else:
        damage(told)
        path.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"its order\.json cannot be read"):
        order.agree(resumed, write=False)


def test_skips_go_with_the_checkpoint_and_with_the_folder(job: PretrainJob, tmp_path: Path) -> None:
    order.add_skip(job.folder, 5, 2)
    resumed = saved(job)
    order.add_skip(job.folder, 21, 4)  # rolled back to this checkpoint
    known = (Skip(step=5, batches=2), Skip(step=21, batches=4))
    assert order.agree(resumed, write=False).skips == known

    fresh = dataclasses.replace(resumed, folder=tmp_path / "fresh")  # the checkpoint is gone on with in another run
    assert order.agree(fresh, write=False).skips == known[:1]
    assert order.read_skips(fresh.folder) == ()
    assert order.agree(fresh, write=True).skips == known[:1] == order.read_skips(fresh.folder)
    order.add_skip(fresh.folder, 30, 1)
    assert [s.step for s in order.agree(fresh, write=False).skips] == [5, 30]

    (job.folder / order.SKIPS).write_text('[{"step": 6, "batches": 2}]')
    with pytest.raises(CheckpointError, match=r"does not begin with the skips") as err:
        order.agree(resumed, write=False)
    assert "2 before step 5" in err.value.why and "2 before step 6" in err.value.why


def test_shards_that_a_manifest_knows_are_not_read(job: PretrainJob) -> None:
    """Nor need they be where they were; another content or other weights are another order."""
    (prefix,) = job.train_shards
    facts = {prefix: ShardFacts(subset="a", tokens=9, sha256="1" * 64)}
    resumed = saved(dataclasses.replace(job, shard_facts=facts))
    prefix.with_suffix(".bin").write_bytes(b"other" + prefix.with_suffix(".bin").read_bytes()[5:])
    assert order.agree(resumed, write=False).shards[0].sha256 == "1" * 64
    other = {prefix: dataclasses.replace(facts[prefix], sha256="2" * 64)}
    with pytest.raises(CheckpointError, match="the training shards are not those"):
        order.agree(dataclasses.replace(resumed, shard_facts=other), write=False)
    with pytest.raises(CheckpointError, match=r"data.weights are not those.*given: \[2.0\]"):
        order.agree(dataclasses.replace(resumed, shard_weights=(2.0,)), write=False)
    prefix.with_suffix(".bin").unlink()
    with pytest.raises(ShardError, match="cannot be read"):
        order.agree(resumed, write=False)


@pytest.mark.parametrize(
    ("tokens", "weights", "samples", "expected"),
    [
        ([1000], (), 10**6, "s0"),
        ([1000, 500], (), 9, "s0 s1 of 10"),
        ([1000, 500, 128, 0], (), 10, "s0 s1 of 10"),  # 128 tokens are no row: the last label is the next token
        ([1000, 500], (), 11, "1000.0 s0 500.0 s1 of 2059"),
        ([129, 5], (), 1, "s0 of 1"),
        ([5, 5], (), 1, "5.0 s0 5.0 s1 of 2049"),
        ([1000, 500], (0.25, 0.75), 1, "0.25 s0 0.75 s1 of 2049"),
    ],
)
def test_what_megatrons_datasets_are_given(
    job: PretrainJob, tokens: list[int], weights: tuple[float, ...], samples: int, expected: str
) -> None:
    """Plain prefixes as long as one epoch is enough, else each as often as its tokens or its weight make it."""
    prefixes = tuple(Path(f"s{n}") for n in range(len(tokens)))
    facts = {p: ShardFacts(subset="a", tokens=count, sha256="") for p, count in zip(prefixes, tokens, strict=True)}
    several = dataclasses.replace(job, train_shards=prefixes, shard_weights=weights, shard_facts=facts)
    asked = blending.training(several, samples)
    assert " ".join(asked.paths) + (f" of {asked.samples}" if asked.samples else "") == expected


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    whole = Order(
        seed=1, seq_length=2, global_batch=3, samples=4, skips=(Skip(step=5, batches=6),), stream="abc",
        shards=(Shard(name="é train", bin_bytes=7, idx_bytes=8, sha256="9"),), weights=(0.5,),
    )  # fmt: skip
    order.write(tmp_path / "step=9", whole, steps=10)
    assert order.read(tmp_path / "step=9") == whole


@pytest.fixture(scope="session")
def several(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared corpus as shards of three subsets, one of them in two files and one too short for a row."""
    root = tmp_path_factory.mktemp("several")
    made, texts = prepared.stage("shards") / "shards" / "tokenizer", {}
    for side in ("train", "valid"):
        found = [s for s in shards.corpus(prepared.stage("corpus") / "corpus") if s.split == side]
        texts[side] = [text for source in found for text in shards.texts(source.path)]
    parts = {
        "train/papers-00000": texts["train"][::3], "train/papers-00001": texts["train"][1::3],
        "train/web-00000": texts["train"][2::6], "train/guides-00000": texts["train"][5::6],
        "train/short-00000": ["A word."], "valid/papers-00000": texts["valid"], "valid/web-00000": ["A word."],
    }  # fmt: skip
    for name, rows in parts.items():
        (root / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in rows)
        (root / "corpus" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    shards.build_parts(shards.corpus(root / "corpus"), root / "shards", tokenizer=made)
    return root / "shards"


def composition(forks: Forks, several: Path, folder: Path, batch: Mapping[str, int], *, batches: int) -> dict[str, Any]:
    """`python -m toolkit.train composition --json`, forked."""
    folder.mkdir()
    given = {**dict(word.split("=", 1) for word in SMALL), **{f"train.{name}": value for name, value in batch.items()}}
    words = [sys.executable, "-m", "toolkit.train", "composition", "recipe=demo", f"inputs.shards={several}"]
    words += [*(f"{name}={value}" for name, value in given.items()), "--batches", str(batches), "--json"]
    code = forks.run_ranks(words, processes=1, folder=folder, threads=1)
    said = (folder / "log").read_text(encoding="utf-8", errors="replace")
    assert code == 0, said[-3000:]
    return json.loads(said[said.index('{\n  "recipe"') :])


@pytest.fixture(scope="session")
def probe(
    forks: Forks, prepared: Run, several: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:  # fmt: skip
    folder = tmp_path_factory.mktemp("stream")
    words = [sys.executable, str(HERE / "stream_probe.py"), str(prepared.stage("shards") / "shards"), str(folder)]
    words.append(str(several))
    code = forks.run_ranks(words, processes=1, folder=folder, threads=1)
    assert code == 0, (folder / "log").read_text()[-3000:]
    return json.loads((folder / "probe.json").read_text())


@pytest.mark.slow
def test_positions_are_those_of_nemos_own_sampler(probe: dict[str, Any]) -> None:
    assert len(probe["samplers"]) == 9 and all(probe["samplers"].values()), probe["samplers"]


@pytest.mark.slow
def test_the_stream_goes_on_over_the_border_of_an_epoch(probe: dict[str, Any]) -> None:
    """80 steps of a corpus of 46: resumed before the border, at four sizes of dp, it is the stream without a break."""
    assert probe["size"] > len(probe["flat"]) == 80 * 32
    assert probe["resumed"] == [True] * 4
    assert probe["again"], "the same seed gave another order"
    same = sum(a == b for a, b in zip(probe["flat"], probe["other_seed"], strict=True))
    assert same < 3, "another seed gave the same order"


@pytest.mark.slow
def test_more_steps_than_at_first_keep_the_order(probe: dict[str, Any]) -> None:
    assert probe["longer"]
    assert not probe["replanned"], "Megatron's shuffle no longer depends on the samples asked for: `samples` can go"


@pytest.mark.slow
def test_a_stream_that_came_out_otherwise_is_refused(probe: dict[str, Any]) -> None:
    """The same plan has the same hash in another folder; another seed, or a checkpoint with another hash, has not."""
    own, again, other = probe["streams"]
    assert own == again != other and len(own) == 64
    assert "not the checkpoint's, though seed, sizes and shards are" in probe["refused"]


@pytest.mark.slow
def test_a_checkpoint_without_order_still_tells_its_global_batch(probe: dict[str, Any]) -> None:
    assert probe["begins"][:2] == [10, 10]
    assert "had consumed 160 samples, and with train.global_batch=32 it would be 320" in probe["begins"][2]


@pytest.mark.slow
def test_what_a_skip_leaves_out(probe: dict[str, Any]) -> None:
    """Two batches before step 3, and twenty before step 70; the stream begins again behind its last sample."""
    whole = [probe["flat"][i : i + 32] for i in range(0, 80 * 32, 32)]
    assert probe["skipped"][:2] == whole[:2]
    assert probe["skipped"][2:69] == whole[4:71]
    assert order.first_sample(80, 32, (Skip(step=3, batches=2), Skip(step=70, batches=20))) // 32 == 101
    # 2,970 samples: step 73's batch holds the last 26 and the first 6 of the stream.
    at = probe["size"]
    step = next(s for s in range(70, 81) if (s - 1 + 22) * 32 < at < (s + 22) * 32)
    left = at - (step - 1 + 22) * 32
    assert probe["skipped"][step - 1][left:] == probe["flat"][: 32 - left]


@pytest.mark.slow
def test_a_batch_is_described_by_its_documents(probe: dict[str, Any]) -> None:
    """Every piece of text between two ends of documents is found in one of the documents named."""
    said = probe["said"]
    assert (said["step"], said["samples"]) == (3, [128, 159])
    assert len(said["documents"]) > 32 and len(set(said["documents"])) == len(said["documents"])
    assert probe["missing"] == 0
    assert probe["finetuning"] == {"step": 7}


@pytest.mark.slow
def test_several_shards_are_one_stream_that_begins_again(probe: dict[str, Any]) -> None:
    assert probe["two"]["names"] == ["papers-00000", "papers-00001"]
    flat = [at for step in probe["wrapped"] for batch in step for at in batch]
    size = probe["two"]["size"]
    assert flat == [at % size for at in range(80 * 32)] and size < len(flat)
    assert probe["batches"] == 81 * 8, "Lightning would end the epoch early and begin the stream anew"


@pytest.mark.slow
def test_each_row_of_several_shards_comes_once_an_epoch(probe: dict[str, Any]) -> None:
    """And in between as evenly as whole rows allow; with more steps than one epoch has, each as often as its tokens."""
    found = probe["epoch"]
    assert found["size"] == found["distinct"] == sum(found["rows"]) == len(found["order"])
    assert len(found["rows"]) == 4, "the shard without a whole row is left out"
    for half in (found["order"][: len(found["order"]) // 2], found["order"][len(found["order"]) // 2 :]):
        for number, rows in enumerate(found["rows"]):
            assert abs(half.count(number) - rows / 2) <= 1
    again = probe["epochs"]
    assert again["size"] >= again["asked"] > 2 * found["size"]
    shares = [again["order"].count(number) / again["size"] for number in range(5)]
    assert shares == pytest.approx(again["shares"], abs=0.002) and min(shares) > 0


@pytest.mark.slow
def test_an_index_that_was_cut_short_is_made_again(probe: dict[str, Any]) -> None:
    assert probe["mended"]


@pytest.mark.slow
def test_ranks_read_what_the_function_says(start: Start, forks: Forks, several: Path, tmp_path: Path) -> None:
    """Eight steps in one process; then from the middle at tp=2 and dp=2, with two batches left out before step 7. And
    each batch is of the sources that `composition` told without a training.
    """
    batch = {"steps": 8, "save_every": 4, "warmup_steps": 1, "valid_every": 8, "micro_batch": 4, "global_batch": 16}
    one = start(tmp_path / "one", record=True, train=batch, shards=str(several))
    order.add_skip(tmp_path / "four", 7, 2)
    skipped = order.read_skips(tmp_path / "four")
    four = start(
        tmp_path / "four", tp=2, dp=2, record=True, train=batch, resume=one.checkpoint(4), shards=str(several)
    )  # fmt: skip

    told = composition(forks, several, tmp_path / "told", batch, batches=8)
    names = [line.split()[1] for line in (one.folder / "read-0.txt").read_text().splitlines()]
    subsets = [name.rpartition("-")[0] for name in names]
    assert len(subsets) == 8 * 16 and len(set(subsets)) == 3
    found = [dict(sorted(Counter(subsets[at : at + 16]).items())) for at in range(0, len(subsets), 16)]
    assert [row["rows"] for row in told["batches"]] == found
    assert {name: row["rows"] for name, row in told["sources"].items()} == {"short": 0, **Counter(subsets)}
    for row in told["sources"].values():
        assert abs(row["share"] - row["share_of_shards"]) < 0.02, "a subset comes as often as its tokens make it"

    def read(folder: Path, rank: int) -> list[int]:
        return [int(line.split()[0]) for line in (folder / f"read-{rank}.txt").read_text().splitlines()]

    def stated(steps: range, rank: int, dp: int, skips: tuple[Skip, ...]) -> list[int]:
        place = {"rank": rank, "dp": dp, "micro_batch": 4, "global_batch": 16, "skips": skips}
        return [at for step in steps for micro in order.positions(step, **place) for at in micro]

    assert read(one.folder, 0) == stated(range(1, 9), 0, 1, ())
    for rank in range(4):  # tensor ranks are neighbours, and read the same
        assert read(four.folder, rank) == stated(range(5, 9), rank // 2, 2, skipped), rank
    together = set(read(four.folder, 0)) | set(read(four.folder, 2))
    assert together == set(range(64, 160)) - set(range(96, 128)), "exactly the two batches are left out"

    assert max(abs(one.losses[s] - four.losses[s]) for s in (5, 6)) <= 2e-4
    assert abs(one.losses[7] - four.losses[7]) > 1e-3, "another batch has another loss"
    kept = order.read(four.checkpoint(8))
    first = order.read(one.checkpoint(4))
    assert kept is not None and first is not None and kept.skips == skipped
    assert kept.stream == first.stream != ""
    assert json.loads((four.checkpoint(8) / order.FILE).read_text())["consumed"] == 160
