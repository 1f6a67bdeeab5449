"""The rows of a finetuning: of benchmarks' own files, mixed, counted; what is wrong with them is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit import files
from toolkit import tokenizer as tokenizers
from toolkit.errors import CheckpointError, DataError
from toolkit.recipe.schema import Finetune
from toolkit.scoring import chat
from toolkit.stages import tuning_rows
from toolkit.stages.finetune import same_rows, steps_of
from toolkit.train import answers

pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [f"Question: which drug {n}? A. one B. two C. three D. four Answer: So the answer is" for n in range(50)]
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizers.train(texts, folder / "base", vocab_size=330)
    tokenizers.extend(folder / "base", folder / "tokenizer")
    return folder / "tokenizer"


@pytest.fixture
def medqa(tmp_path: Path) -> Path:
    """In the form of the original train.jsonl, five options, no explanations."""
    path = tmp_path / "train.jsonl"
    options = {letter: f"drug {letter}" for letter in "ABCDE"}
    row = {"options": options, "answer_idx": "B", "answer": "drug B", "meta_info": "step1"}
    path.write_text("".join(json.dumps({"question": f"Case {n}?", **row}) + "\n" for n in range(60)))
    return path


@pytest.fixture
def medmcqa(tmp_path: Path) -> Path:
    """In the form of the original train.json: `cop` from 1, explanations in two rows of three."""
    path = tmp_path / "train.json"
    rows = [
        {
            "id": f"m{n}", "question": f"Which drug {n}?", "opa": "a", "opb": "b", "opc": "c", "opd": "d",
            "cop": n % 4 + 1, "exp": f"Because of {n}." if n % 3 else None, "subject_name": "Medicine",
        }
        for n in range(30)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Path]]:
    def made(benchmark: str, *, of: str = "1", scored: dict[str, str] | None = None, **asked: Any) -> Any:
        given = Finetune(benchmark=benchmark, **{"seq_length": 512, **asked})
        out = tmp_path / "rows"
        told = tuning_rows.make(
            tuning_rows.Sources(asked=given, scored=scored or {}),
            base=base, out=out, words=tmp_path / "words", seed=1, made_of=of,
        )  # fmt: skip
        return told, out

    return made


Make = Callable[..., tuple[dict[str, Any], Path]]


def test_one_benchmark(make: Make, medqa: Path, tmp_path: Path) -> None:
    told, out = make("medqa", path=str(medqa), format="messages")
    assert (told["training"]["rows"], told["validation"]["rows"], told["new_tokens"]) == (57, 3, 2)
    rows = answers.read(out / "training")
    words = tokenizers.load(tmp_path / "words")
    ids, begin = rows[0]
    assert words.decode(ids[begin:], control=True) == "<|im_start|>answer\nB<|im_end|>\n"
    assert told["training"]["answer_tokens"] == sum(len(rows[n][0]) - rows[n][1] for n in range(57))
    shown = [json.loads(line) for line in (out / "shown.jsonl").read_text().splitlines()]
    assert [line["part"] for line in shown] == ["training"] * 3 + ["validation"] * 3
    assert "E. drug E\nAnswer:<|im_end|>" in shown[0]["before"]
    held = {words.decode(ids) for ids, _ in (answers.read(out / "validation")[n] for n in range(3))}
    assert not held & {words.decode(rows[n][0]) for n in range(57)}, "what is validated on is not trained on"


def test_all_rows_can_be_trained_on(make: Make, medqa: Path) -> None:
    told, out = make("medqa", path=str(medqa), held_out=0)
    assert (told["training"]["rows"], told["validation"]["rows"], told["new_tokens"]) == (60, 0, 0)
    assert len(answers.read(out / "validation")) == 0


def test_a_mixture_has_each_benchmark_as_often_as_its_weight_says(make: Make, medqa: Path, medmcqa: Path) -> None:
    paths = {"medqa": str(medqa), "medmcqa": str(medmcqa)}
    told, out = make("medqa*1.5+medmcqa*2", paths=paths)
    assert told["training"]["benchmarks"] == {"medqa": 57, "medmcqa": 29}
    assert told["training"]["rows"] == 57 + 28 + 2 * 29  # round(28.5) is 28
    assert told["validation"]["rows"] == 3 + 1, "to validate on, each once"
    rows = answers.read(out / "training")
    assert len({int(begin) for begin in rows.table[:, 0]}) == 57 + 29
    sampled, _ = make("medqa*0.1+medmcqa", paths=paths, of="2")
    assert sampled["training"]["rows"] == 6 + 29


def test_rows_without_an_explanation_are_left_out_and_counted(make: Make, medmcqa: Path, tmp_path: Path) -> None:
    told, out = make("medmcqa", path=str(medmcqa), target="cot", held_out=0)
    assert told["training"]["rows"] == 20
    assert told["training"]["why_left_out"] == {"no explanation": 10}
    ids, begin = answers.read(out / "training")[0]
    said = tokenizers.load(tmp_path / "words").decode(ids[begin:])
    assert said == "Because of 1.\n\nSo the answer is B. ###"
    assert "20 rows" in tuning_rows.said(told["training"])
    assert "left out: 10 (no explanation)" in tuning_rows.said(told["training"])


def test_a_benchmark_without_any_explanation_gives_no_rows(make: Make, medqa: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no rows to finetune on.*60 \(no explanation\)"):
        make("medqa", path=str(medqa), target="cot", held_out=0)
    assert not (tmp_path / "rows" / "ready.json").exists()


def test_long_questions_are_cut_and_counted(make: Make, medqa: Path) -> None:
    rows = [json.loads(line) for line in medqa.read_text().splitlines()]
    rows[7]["question"] = "It began long ago. " * 200 + "What now?"
    medqa.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told, out = make("medqa", path=str(medqa), held_out=0)
    assert told["training"]["cut"] == 1 and told["training"]["rows"] == 60
    assert max(len(answers.read(out / "training")[n][0]) for n in range(60)) <= 513


def test_rows_of_the_same_are_not_made_again(make: Make, medqa: Path) -> None:
    told, out = make("medqa", path=str(medqa))
    before = (out / "training.bin").stat().st_mtime_ns
    medqa.unlink()
    assert make("medqa", path=str(medqa)) == (told, out)
    assert (out / "training.bin").stat().st_mtime_ns == before
    with pytest.raises(DataError):
        make("medqa", path=str(medqa), of="another")
    assert not (out / "ready.json").exists(), "other ranks must not take the rows of before"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such"), ("", "is empty"), ("{\n", "not valid JSON"), ('{"question": "Q?"}\n', "is missing")],
    ids=["missing", "empty", "cut", "foreign"],
)
def test_a_training_file_that_cannot_be_used_is_refused(
    make: Make, medqa: Path, content: str | None, says: str
) -> None:
    if content is None:
        medqa.unlink()
    else:
        medqa.write_text(content)
    with pytest.raises(DataError) as found:
        make("medqa", path=str(medqa))
    assert says in str(found.value) and str(medqa) in str(found.value)


def test_what_is_scored_on_is_not_trained_on(make: Make, medqa: Path, tmp_path: Path) -> None:
    link = tmp_path / "test.jsonl"
    link.symlink_to(medqa)
    with pytest.raises(DataError, match="trained on what it is scored on.*score.paths.medqa"):
        make("medqa", path=str(link), scored={"medqa": str(medqa)})
    with pytest.raises(DataError, match=r"no training rows of medmcqa are named"):
        make("medqa+medmcqa", paths={"medqa": str(medqa)})
    with pytest.raises(DataError, match="needs a corpus of kind world"):
        make("demo_letters_trained", path="world")


@pytest.mark.parametrize("held_out", [0, 640])
def test_a_row_that_asks_what_is_scored_is_left_out(make: Make, medqa: Path, tmp_path: Path, held_out: int) -> None:
    """A copy under another name, its options in another order, in capitals; an answer that differs is another row."""
    rows = [json.loads(line) for line in medqa.read_text().splitlines()]
    test = tmp_path / "test"
    test.mkdir()
    known = [{**row, "question": row["question"].upper() + " "} for row in rows[5:9]]
    known[0] |= {"options": {"A": "drug B", "B": "drug A", "C": "c", "D": "d", "E": "e"}, "answer_idx": "A"}
    known[1] |= {"answer_idx": "D"}
    (test / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
    scored = {"medqa": str(test), "mmlu_medical": str(tmp_path / "not here yet"), "demo_letters": "world"}
    told, out = make("medqa", path=str(medqa), scored=scored, held_out=held_out)
    assert told["training"]["why_left_out"] == {tuning_rows.SCORED: 3}
    assert told["training"]["rows"] + told["validation"]["rows"] == 57
    words, found = tokenizers.load(tmp_path / "words"), answers.read(out / "training")
    said = "".join(words.decode(found[n][0]) for n in range(len(found)))
    assert [f"Case {n}?" in said for n in (5, 6, 7, 8)] == [False, True, False, False]


def test_what_is_held_out_is_asked_in_no_other_row(make: Make, medqa: Path) -> None:
    rows = medqa.read_text().splitlines(keepends=True)
    medqa.write_text("".join([*rows, *rows[7:], *rows[:7]]))
    told, out = make("medqa", path=str(medqa))
    assert told["validation"]["rows"] == 6
    assert told["training"]["rows"] + told["training"]["why_left_out"][tuning_rows.HELD_OUT] == 114
    held, trained = (
        {tuple(rows[n][0]) for n in range(len(rows))}
        for rows in (answers.read(out / part) for part in tuning_rows.PARTS[::-1])
    )
    assert held and not held & trained


def test_a_benchmark_that_adds_no_row_to_its_mixture_is_refused(make: Make, medqa: Path, medmcqa: Path) -> None:
    paths = {"medqa": str(medqa), "medmcqa": str(medmcqa)}
    with pytest.raises(DataError, match=r"no rows to finetune on of medqa.*60 \(no explanation\)"):
        make("medqa+medmcqa", paths=paths, target="cot", held_out=0)
    with pytest.raises(DataError, match=r"no rows to finetune on of medmcqa.*30 at a weight of 0.01"):
        make("medqa+medmcqa*0.01", paths=paths, held_out=0)
    told, _ = make("medqa+medmcqa*2", paths=paths, held_out=0)
    assert "120 rows (made of 60 of medqa, 30 of medmcqa)" in tuning_rows.said(told["training"])


def test_a_folder_without_a_template_is_refused(make: Make, medqa: Path, base: Path) -> None:
    with pytest.raises(DataError, match="no chat template"):
        make("medqa", path=str(medqa), format="template", template=str(base))


@pytest.mark.parametrize("where", ["file", "configuration"])
def test_a_plain_finetuning_leaves_no_template_that_it_was_not_asked_in(base: Path, tmp_path: Path, where: str) -> None:
    own = tmp_path / "own"
    shutil.copytree(base, own)
    if where == "file":
        (own / "chat_template.jinja").write_text(chat.MESSAGES)
    else:
        config = files.read_json(own / "tokenizer_config.json")
        files.write_json(own / "tokenizer_config.json", {**config, "chat_template": chat.MESSAGES})
    assert chat.of(own) is not None
    tuning_rows.prepare(Finetune(benchmark="medqa"), own, tmp_path / "words")
    assert chat.of(tmp_path / "words") is None
    way, _ = tuning_rows.prepare(Finetune(benchmark="medqa", format="messages"), own, tmp_path / "words")
    assert way.chat is not None and chat.of(tmp_path / "words") is not None


def test_a_template_brings_its_own_tokens(make: Make, medqa: Path, tmp_path: Path) -> None:
    files.write_json(
        tmp_path / "tokenizer_config.json",
        {
            "chat_template": "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}",
            "additional_special_tokens": ["<|user|>", "<|assistant|>", "<|end|>", "<|unused|>"],
        },
    )
    told, out = make("medqa", path=str(medqa), format="template", template=str(tmp_path / "tokenizer_config.json"))
    assert told["new_tokens"] == 3
    words = tokenizers.load(tmp_path / "words")
    ids, begin = answers.read(out / "training")[0]
    assert words.decode(ids[begin:], control=True) == "<|assistant|>B<|end|>"
    assert list(ids[begin:])[0] == words.id("<|assistant|>") >= 330 + 17


@pytest.mark.parametrize(
    ("rows", "multiple", "steps"),
    [(10_178, 10, 480), (8_204, 10, 390), (159_669, 10, 7_490), (200_000, 10, 9_380), (64, 1, 3), (1, 1, 1)],
)
def test_steps_are_the_paper_s(rows: int, multiple: int, steps: int) -> None:
    """The released code's iterations: ceil(3 N / 64), rounded up to tens."""
    assert steps_of(Finetune(benchmark="medqa", steps_multiple=multiple), rows) == steps


def test_a_training_that_goes_on_must_find_the_same_rows(make: Make, medqa: Path, tmp_path: Path) -> None:
    _, out = make("medqa", path=str(medqa))
    same_rows(tmp_path, out, resumes=False)
    same_rows(tmp_path, out, resumes=True)
    rows = [json.loads(line) for line in medqa.read_text().splitlines()]
    medqa.write_text("".join(json.dumps({**row, "answer_idx": "C"}) + "\n" for row in rows))
    make("medqa", path=str(medqa), of="2")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="not those that the checkpoint was trained on"):
            same_rows(tmp_path, out, resumes=True)
    same_rows(tmp_path, out, resumes=False)


def test_stated_steps_stand() -> None:
    assert steps_of(Finetune(benchmark="medqa", steps=7, steps_multiple=10), 10_000) == 7


@pytest.mark.parametrize(("rows", "most", "count"), [(10_000, 640, 500), (10_000, 64, 64), (19, 640, 0), (100, 0, 0)])
def test_few_rows_are_held_out(rows: int, most: int, count: int) -> None:
    held = tuning_rows.held_out(rows, most)
    assert len(held) == count and all(0 <= n < rows for n in held)
