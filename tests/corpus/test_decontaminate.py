"""Benchmarks' questions in texts: found whole, altered and cut; phrases that many texts hold are no finding."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest

from toolkit.cleaning import Decontamination
from toolkit.corpus import questions, words
from toolkit.corpus.decontaminate import Benchmarks, Hit
from toolkit.corpus.questions import Question
from toolkit.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
RULES = Decontamination(mode="remove")
FILES = {
    "medqa": "medqa/us_4_options_first150.jsonl",
    "medmcqa": "medmcqa/dev_first150.json",
    "pubmedqa": "pubmedqa/ori_pqal.json",
    "anatomy": "mmlu/anatomy_test.csv",
    "medicine": "mmlu/college_medicine_test.csv",
}
VIGNETTE = (
    "A 47-year-old baker comes to the clinic with three weeks of burning pain below his sternum after meals. He has "
    "lost 4 kg (8.8 lb), his haemoglobin is 10.2 g/dL, and he takes ibuprofen for his knees. Endoscopy shows a clean "
    "ulcer of the antrum. Which of the following is the most appropriate next step in management?"
)
OPTIONS = ("Test for the bacterium and stop ibuprofen", "Partial removal of the stomach", "Observation", "Iron alone")
ARTICLE = " ".join(
    f"In ward {i} the nurses wrote down every {word} and compared it with last year's mean of {i * 7} per week."
    for i, word in enumerate(["fall", "fever", "transfer", "wound", "late dose", "missed meal"] * 40)
)


def made(*items: Question, rules: Decontamination = RULES, **more: list[Question]) -> Benchmarks:
    return Benchmarks.of({"bench": list(items), **more}, rules)


def found(benchmarks: Benchmarks, text: str, title: str = "") -> list[Hit]:
    return benchmarks.find(text, words.hashes(text), title)


def test_a_long_question_whole_altered_cut_and_inside_an_article():
    bench = made(Question(id="q1", text=VIGNETTE, options=OPTIONS))
    shouted = re.sub(r"[.,?()-]", " ; ", VIGNETTE.upper())
    tokens = VIGNETTE.split()
    half = " ".join(tokens[: len(tokens) * 6 // 10])
    middle = " ".join(tokens[len(tokens) // 5 : len(tokens) * 4 // 5])
    reworded = VIGNETTE.replace("three weeks", "several weeks").replace("baker", "cook").replace("shows", "reveals")
    for text in (VIGNETTE, shouted, half, middle, reworded, VIGNETTE.replace(" ", "\n")):
        (hit,) = found(bench, text)
        assert (hit.benchmark, hit.item) == ("bench", "q1") and hit.share >= 0.5
    at = len(ARTICLE) // 2
    (hit,) = found(bench, ARTICLE[:at] + " " + VIGNETTE + " " + ARTICLE[at:])
    assert hit.share == 1 and hit.sample == VIGNETTE.rstrip("?")
    assert found(bench, ARTICLE) == []
    quarter = " ".join(tokens[: len(tokens) // 4])
    assert found(bench, quarter) == []
    # Nothing but the same words in another order, or eight of them by chance in an article.
    assert found(bench, " ".join(sorted(tokens))) == []
    assert found(bench, "He comes to the clinic with three weeks of burning pain in his foot. " + ARTICLE) == []


def test_the_title_counts_and_a_question_of_two_benchmarks_counts_for_both():
    text = "Does early walking after repair of a broken hip shorten the stay in hospital?"
    bench = made(Question(id="1", text=text), other=[Question(id="9", text=text.lower().rstrip("?"))])
    assert found(bench, ARTICLE) == []
    hits = found(bench, ARTICLE, text)
    assert [(hit.benchmark, hit.item) for hit in hits] == [("bench", "1"), ("other", "9")]
    # Of a short question nearly all must stand there: eight of its words are soon a phrase.
    phrase = "We asked whether early walking after repair of a broken hip is liked by patients."
    assert found(bench, phrase + " " + ARTICLE) == []


def test_examiners_phrases_are_no_finding():
    asked = ["liver", "spleen", "kidney", "lung", "heart", "tongue"]
    alone = made(Question(id="1", text="Which of the following statements is not true about the mitral valve?"))
    other = "Which of the following statements is not true about the appendix? A. It is long. B. It is hollow."
    assert found(alone, other) == []
    many = made(
        *(
            Question(id=name, text=f"Which of the following is the most likely diagnosis of pain around the {name}?")
            for name in asked
        ),
        Question(id="bare", text="Which of the following is the most likely diagnosis?", options=("Gout", "Sepsis")),
    )
    text = "Which of the following is the most likely diagnosis of pain around the navel? Discuss."
    assert found(many, text) == []
    assert {hit.item for hit in found(many, text.replace("navel", "spleen"))} == {"spleen"}
    assert {hit.item for hit in found(many, "Which of the following is the most likely diagnosis? A. Gout")} == {"bare"}
    assert found(many, "Which of the following is the most likely diagnosis? A. Measles B. Mumps C. Flu") == []


def test_short_questions_need_an_option():
    bench = made(Question(id="s", text="Drug of choice for cholera is:", options=("Doxycycline", "Penicillin G")))
    for text in (
        "drug of choice for cholera is doxycycline",
        "Drug of choice for cholera is?\nAnswer: B) Penicillin G",
        "12. DRUG OF CHOICE FOR CHOLERA IS -- a) Streptomycin b) Penicillin G c) Doxycycline",
    ):
        assert [hit.item for hit in found(bench, ARTICLE + " " + text + " " + ARTICLE)] == ["s"], text
    for text in (
        "The drug of choice for cholera is still debated, and much of what is written of it is old.",
        "Drug of choice for cholera is, in towns far from any clinic and in camps of refugees, doxycycline.",
        "Doxycycline and penicillin G are drugs.",
    ):
        assert found(bench, text) == [], text
    assert made(Question(id="w", text="Tachycardia")).skipped == {"bench": 1}


def test_equal_hashes_are_not_enough(monkeypatch):
    """Were all words of one hash, what is found is still compared as it stands there."""
    import numpy as np

    monkeypatch.setattr(words, "hashes", lambda text: np.ones(len(words.spans(text)), np.uint64))
    bench = made(Question(id="q1", text=VIGNETTE), Question(id="s", text="Dose in mg?", options=("5", "6")))
    assert found(bench, ARTICLE) == []
    assert found(bench, VIGNETTE) and found(bench, "Dose in mg? 5")


def test_benchmarks_travel_to_other_processes():
    bench = pickle.loads(pickle.dumps(made(Question(id="q1", text=VIGNETTE))))
    assert found(bench, VIGNETTE)


def test_other_settings():
    rules = Decontamination(mode="mark", ngram=20, alignment=0.9)
    bench = made(Question(id="q1", text=VIGNETTE), rules=rules)
    assert found(bench, VIGNETTE)
    assert found(bench, " ".join(VIGNETTE.split()[:45])) == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_real_benchmarks_and_real_articles():
    bench = Benchmarks.load({name: SHARED / path for name, path in FILES.items()}, RULES)
    from lxml import etree

    articles = [
        " ".join(" ".join(etree.parse(str(path)).getroot().itertext()).split())
        for path in sorted((SHARED / "pmc_jats").glob("*.nxml"))
    ]
    assert [found(bench, text) for text in articles] == [[], [], [], []]
    wrong: Counter[str] = Counter()
    for name, path in FILES.items():
        items = questions.read(SHARED / path)
        for number, item in enumerate(items[:150]):
            if len(words.hashes(item.text)) < 2:
                continue
            article = articles[number % 4]
            at = article.index(" ", number * 37 % 20000)
            listed = "\n".join(f"({letter}) {option}" for letter, option in zip("ABCDE", item.options, strict=False))
            altered = re.sub(r"[.,;:?]", " -- ", item.text.upper())
            for text in (
                f"{item.text}\n{listed}",
                f"{altered}\n{listed}",
                f"{article[:at]} {item.text}\n{listed} {article[at:]}",
            ):
                hits = found(bench, text)
                assert (name, item.id) in {(hit.benchmark, hit.item) for hit in hits}, (name, item)
                wrong[name] += sum((hit.benchmark, hit.item) != (name, item.id) for hit in hits)
    # Two questions of one vignette, and near ones of an exam, are each other's.
    assert wrong.total() <= 40


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_pubmedqa_contexts_only_when_asked():
    path = SHARED / FILES["pubmedqa"]
    row = next(iter(json.loads(path.read_text()).values()))
    text = " ".join(row["CONTEXTS"])
    assert not found(Benchmarks.load({"pubmedqa": path}, RULES), text)
    assert found(Benchmarks.load({"pubmedqa": path}, Decontamination(contexts=True)), text)


def test_formats(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    rows = {
        "by_letter.jsonl": '{"id": "a", "question": "Q?", "options": {"A": "x", "B": "y"}}\n\n',
        "list.jsonl": '{"id": "a", "question": "Q?", "options": ["x", "y"]}',
        "pairs.json": '[{"id": "a", "question": "Q?", "options": [{"key": "A", "value": "x"}, {"value": "y"}]}]',
        "labels.jsonl": '{"id": "a", "question": "Q?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}',
        "medmcqa.json": '{"id": "a", "question": "Q?", "opa": "x", "opb": "y", "opc": null, "cop": 1}\n',
        "by_id.json": '{"a": {"QUESTION": "Q?", "options": ["x", "y"]}}',
        "bom.jsonl": '\ufeff{"id": "a", "question": "Q?", "options": ["x", "y"]}\r\n',
    }
    for name, text in rows.items():
        assert questions.read(write(name, text)) == [Question(id="a", text="Q?", options=("x", "y"))], name
    mmlu = write("mmlu/x_test.csv", '"What, ""now""?",1,2,3,4,C\n"Second\nline",a,b,c,d,A\n')
    assert [item.options for item in questions.read(mmlu)] == [("1", "2", "3", "4"), ("a", "b", "c", "d")]
    assert [item.id for item in questions.read(mmlu.parent)] == ["x_test.csv:1", "x_test.csv:2"]
    truthful = write(
        "TruthfulQA.csv", "Type,Question,Best Answer,Correct Answers,Incorrect Answers\nA,What?,No,No; Never,Yes\n"
    )
    assert questions.read(truthful) == [Question(id="1", text="What?", options=("No", "No", "Never", "Yes"))]


@pytest.mark.parametrize(
    ("name", "raw", "match"),
    [
        ("absent.jsonl", None, "cannot be read"),
        ("empty.jsonl", b" \n", "empty"),
        ("latin.jsonl", '{"question": "é"}'.encode("latin-1"), "UTF-8"),
        ("cut.jsonl", b'{"question": "a b"}\n{"question": "a', "cut.jsonl:2.*JSON"),
        ("cut.json", b'{"1": {"QUESTION": "a', "JSON"),
        ("array.jsonl", b"[1, 2]", "object"),
        ("number.json", b"7", "must hold rows"),
        ("other.jsonl", b'{"text": "a b"}', "must be an object|no question"),
        ("typed.jsonl", b'{"question": 7}', "no question"),
        ("option.jsonl", b'{"question": "a b", "options": [["x"]]}', "option"),
        ("deep.jsonl", b'{"question": "a b", "options": ' + b"[" * 200_000, "JSON|deep"),
        ("short.csv", b"Question only,A\n", "letter of its answer"),
        ("header.csv", b"question,subject,answer,more\na,b,c\n", "cells"),
        ("quote.csv", b'"open,1,2,3,4,A\n', "CSV"),
    ],
)
def test_damaged_benchmarks_are_refused(tmp_path, name, raw, match):
    path = tmp_path / name
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(DataError, match=match) as caught:
        Benchmarks.load({"x": path}, RULES)
    assert name in str(caught.value)
    empty = tmp_path / "folder"
    empty.mkdir()
    with pytest.raises(DataError, match="no benchmark file"):
        Benchmarks.load({"x": empty}, RULES)
