"""The invented pharmacopoeia: the same everywhere, balanced, and silent about what is asked later."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from toolkit.corpus import world
from toolkit.corpus import world_words as words
from toolkit.errors import RecipeError

FILES = ("cloze", "letters_heldout", "letters_trained", "finetune_train", "finetune_valid")


@pytest.fixture(scope="module")
def made() -> world.World:
    return world.make()


@pytest.fixture(scope="module")
def texts(made) -> list[str]:
    return [doc.text for doc in made.documents()]


@pytest.fixture(scope="module")
def tasks(made, tmp_path_factory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("tasks")
    made.write_tasks(folder)
    return {name: [json.loads(line) for line in (folder / f"{name}.jsonl").open(encoding="utf-8")] for name in FILES}


def test_the_same_options_give_the_same_world_and_another_seed_another(made, texts, tmp_path):
    again = world.make({"seed": 0})
    assert again.facts == made.facts
    assert [doc.text for doc in again.documents()] == texts
    assert set(world.make({"seed": 1}).facts) != set(made.facts)
    made.write_tasks(tmp_path / "a")
    again.write_tasks(tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / f"{name}.jsonl").read_bytes() == (tmp_path / "b" / f"{name}.jsonl").read_bytes()


def test_a_document_depends_on_its_own_number_alone(made):
    fewer = world.make({"documents_per_entity": 3, "general_documents": 2})
    by_id = {doc.id: doc for doc in made.documents()}
    assert all(by_id[doc.id] == doc for doc in fewer.documents())


def test_ids_and_names_are_unique_and_no_name_begins_another(made):
    ids = [doc.id for doc in made.documents()]
    assert len(ids) == len(set(ids))
    assert len(made.trained) + len(made.held_out) == made.options.entities
    assert len(made.held_out) == made.options.held_out
    names = [*made.trained, *made.held_out, *made.pools["treats"]]
    assert not [(a, b) for a in names for b in names if a != b and b.lower().startswith(a.lower())]


def test_no_value_is_likelier_than_another_in_either_group(made):
    for group in (made.trained, made.held_out):
        for attribute, pool in made.pools.items():
            counts = Counter(made.facts[drug][attribute] for drug in group)
            assert set(counts) == set(pool)
            assert max(counts.values()) == min(counts.values()) == len(group) // len(pool)


def test_documents_state_each_fact_of_their_drug_and_none_of_another(made):
    any_value = re.compile("|".join(rf"\b{v}\b" for pool in made.pools.values() for v in pool), re.I)
    for doc in made.documents():
        found = {value.lower() for value in any_value.findall(doc.text)}
        drug = doc.meta["entity"]
        if not drug:
            assert not found
            continue
        assert found == set(made.facts[drug].values()), doc.text
        assert doc.title in doc.text and drug in doc.title


def test_every_known_phrasing_is_used(made, texts):
    corpus = "\n".join(texts).lower()
    for attribute, phrasings in words.PHRASINGS.items():
        assert len(phrasings) == len(set(phrasings)) == 14
        for phrasing in phrasings[words.HELD_OUT :]:
            assert any(
                world.sentence(phrasing, drug, facts[attribute]).lower() in corpus for drug, facts in made.facts.items()
            ), phrasing


def test_no_held_out_phrasing_occurs_in_the_corpus(made, texts):
    corpus = "\n".join(texts).lower()
    for phrasings in words.PHRASINGS.values():
        for phrasing in phrasings[: words.HELD_OUT]:
            assert phrasing.endswith("{v}")
            skeleton = re.escape(phrasing.format(d="DRUG", v="").strip()).replace("DRUG", "[a-z]+").lower()
            assert not re.search(skeleton, corpus), phrasing
            # Nor do its words before or after the drug, as far as they are more than a common turn of phrase.
            pieces = [piece.strip(" ,").lower() for piece in phrasing.replace("{v}", "").split("{d}")]
            telling = [piece for piece in pieces if len(piece.split()) >= 3]
            assert telling, phrasing
            assert [piece for piece in telling if piece in corpus] == []


def test_no_question_occurs_in_the_corpus_and_tests_ask_otherwise_than_finetuning(made, texts, tasks):
    corpus = "\n".join(texts)
    assert "?" not in corpus and "Answer" not in corpus

    def forms(name):
        return {row["question"].replace(row["entity"], "{d}") for row in tasks[name]}

    tested = forms("letters_heldout") | forms("letters_trained")
    tuned = forms("finetune_train") | forms("finetune_valid")
    assert tested and tuned and not tested & tuned


def test_task_rows_are_right_and_their_gold_positions_balanced(made, tasks):
    sizes = {name: len(rows) for name, rows in tasks.items()}
    assert sizes == {
        "cloze": 240, "letters_heldout": 240, "letters_trained": 240, "finetune_train": 960, "finetune_valid": 200
    }  # fmt: skip
    for name, rows in tasks.items():
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert len(set(row["options"])) == 4
            assert set(row["options"]) <= set(made.pools[row["group"]])
            assert row["options"][row["answer"]] == made.facts[row["entity"]][row["group"]]
            assert row["entity"] in row["prompt" if name == "cloze" else "question"]
        for attribute in words.ATTRIBUTES:
            counts = Counter(row["answer"] for row in rows if row["group"] == attribute)
            assert max(counts.values()) - min(counts.get(i, 0) for i in range(4)) <= 1


def test_tests_are_about_held_out_drugs_and_finetuning_about_trained_ones(made, tasks):
    held_out, trained = set(made.held_out), set(made.trained)
    for name, group in zip(FILES, (held_out, held_out, trained, trained, trained), strict=True):
        assert {row["entity"] for row in tasks[name]} <= group


def test_a_cloze_prompt_and_its_option_form_a_held_out_sentence(made, tasks):
    for row in tasks["cloze"]:
        whole = f"{row['prompt']} {row['options'][row['answer']]}."
        held_out = words.PHRASINGS[row["group"]][: words.HELD_OUT]
        value = made.facts[row["entity"]][row["group"]]
        assert whole in {world.sentence(phrasing, row["entity"], value) for phrasing in held_out}


def test_the_control_says_nothing_of_held_out_drugs_and_asks_the_same(made, texts, tasks, tmp_path):
    control = world.make({"omit_held_out": True})
    documents = list(control.documents())
    assert len(documents) == len(texts)
    values = re.compile("|".join(rf"\b{v}\b" for pool in control.pools.values() for v in pool), re.I)
    about = [doc for doc in documents if doc.meta["held_out"]]
    assert len(about) == 60 * control.options.documents_per_entity
    assert [doc.text for doc in about if values.search(doc.text)] == []
    names = re.compile("|".join(control.held_out))
    others = [doc for doc in documents if not doc.meta["held_out"]]
    assert [doc.text for doc in others if names.search(doc.text)] == []
    assert {m for doc in about for m in names.findall(doc.text)} == set(control.held_out)
    control.write_tasks(tmp_path)
    assert [json.loads(line) for line in (tmp_path / "cloze.jsonl").open(encoding="utf-8")] == tasks["cloze"]


def test_filler_gives_no_value_away():
    values = [*words.DOSES, *words.EFFECTS, *words.STATES]
    for line in (*words.GENERAL, *words.NEUTRAL, *words.TITLES, *words.CLOSINGS):
        assert not [v for v in values if re.search(rf"\b{v}\b", line, re.I)], line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"entites": 10}, "Did you mean 'entities'"),
        ({"entities": "10"}, "whole number"),
        ({"entities": 1}, "between 2"),
        ({"entities": 10**9}, "between 2"),
        ({"held_out": 120}, "less than entities"),
        ({"held_out": 0}, "at least 1"),
        ({"documents_per_entity": 0}, "at least 1"),
        ({"general_documents": -1}, "negative"),
        ({"omit_held_out": 1}, "true or false"),
        ({"seed": True}, "whole number"),
    ],
)
def test_impossible_options_are_refused_in_one_sentence(options, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        world.make(options)


def test_small_and_large_worlds_can_be_made(tmp_path):
    for entities, held_out in ((2, 1), (7, 3), (1000, 60)):
        made = world.make({"entities": entities, "held_out": held_out, "documents_per_entity": 1})
        assert sum(1 for doc in made.documents() if doc.meta["entity"]) == entities
        assert made.write_tasks(tmp_path / str(entities))["cloze.jsonl"] == held_out * 4


def test_a_tokenizer_of_4096_pieces_can_be_trained_and_knows_every_drug_in_two(made, texts, tmp_path):
    spm = pytest.importorskip("sentencepiece")
    spm.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n") if line),
        model_prefix=str(tmp_path / "spm"), model_type="bpe", vocab_size=4096, byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", character_coverage=1.0, minloglevel=2, num_threads=1,
    )  # fmt: skip
    model = spm.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    assert model.vocab_size() == 4096
    for name in (*made.trained, *made.held_out):
        assert len(model.encode(f"of {name}")) - len(model.encode("of")) <= 2
