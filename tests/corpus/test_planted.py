"""A corpus of all kinds of sources with faults and duplicates planted in it: each in the right count, and nothing else
lost.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.corpus import made_pubmed, made_s2orc
from toolkit import files
from toolkit.cleaning import Decontamination, Duplicates, Filters, Language, Length, Repetition
from toolkit.corpus import Settings, Source, build, zlines

_NOUNS = (
    *(
        "patient",
        "therapy",
        "infection",
        "lesion",
        "dose",
        "symptom",
        "surgeon",
        "hospital",
        "trial",
        "nurse",
        "kidney",
    ),
    *("liver", "biopsy", "fever", "outcome", "tablet", "diagnosis", "artery", "vaccine", "relapse", "child", "ward"),
    *("clinic", "muscle", "tumour", "placebo", "pregnancy", "anaemia", "stroke", "cohort"),
)
_VERBS = ("reduced", "increased", "caused", "followed", "required", "preceded", "explained", "delayed", "improved")
_WHERE = ("after surgery", "in most adults", "at the second visit", "within six weeks", "without any delay", "at night")
_HOW = ("slowly", "rarely", "clearly", "quickly", "often", "partly", "seldom", "usually")


def prose(seed: int, sentences: int = 40) -> str:
    """English that is unlike that of any other seed."""
    rng = random.Random(seed)

    def noun() -> str:
        return f"{rng.choice(_NOUNS)} of the {rng.choice(_NOUNS)}"

    def one() -> str:
        return (
            f"The {noun()} {rng.choice(_HOW)} {rng.choice(_VERBS)} the {noun()} {rng.choice(_WHERE)}, "
            f"and {rng.randint(2, 99)} mg were given to {rng.randint(3, 999)} of them."
        )

    return " ".join(one() for _ in range(sentences))


def changed(text: str, share: float, seed: int) -> str:
    """The same text with that share of its words, evenly spread, replaced by others."""
    rng, words = random.Random(seed), text.split()
    every = len(words) * share
    for n in range(round(every)):
        words[int(len(words) * n / every)] = "".join(rng.choices("bcdfglmnprst", k=7))
    return " ".join(words)


def jats(number: int, text: str, *, more: str = "", licence: str = "by/4.0") -> bytes:
    return (
        '<?xml version="1.0"?><article xmlns:xlink="http://www.w3.org/1999/xlink" xml:lang="en"><front>'
        f'<article-meta><article-id pub-id-type="pmc">{number}</article-id><article-id pub-id-type="pmid">9{number}'
        f"</article-id><title-group><article-title>Article {number}</article-title></title-group>"
        f"<pub-date><year>2019</year></pub-date><permissions><license "
        f'xlink:href="http://creativecommons.org/licenses/{licence}/"><license-p/></license></permissions>{more}'
        f"</article-meta></front><body><sec><title>Results</title><p>{text}</p></sec></body></article>"
    ).encode()


class Plan:
    """Files of the sources, and what is to become of what they hold."""

    def __init__(self, root: Path) -> None:
        self.root, self.removed, self.kept = root, Counter(), Counter()
        self._seed = 0

    def file(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def text(self, sentences: int = 40) -> str:
        self._seed += 1
        return prose(self._seed, sentences)

    def gone(self, rule: str, count: int = 1) -> None:
        self.removed[rule] += count

    def stays(self, *ids: str) -> None:
        self.kept.update(ids)


def _pmc(plan: Plan) -> None:
    for number in (1, 2):
        plan.file(f"pmc/{number}.xml", jats(number, plan.text()))
        plan.stays(f"PMC{number}")
    plan.file("pmc/3.nxml.gz", gzip.compress(jats(3, plan.text())))
    plan.stays("PMC3")
    plan.file("pmc/noncommercial.xml", jats(4, plan.text(), licence="by-nc/4.0"))
    plan.gone("licence")
    retracted = '<related-article related-article-type="retraction-forward" id="r1"/>'
    plan.file("pmc/retracted.xml", jats(5, plan.text(), more=retracted))
    plan.gone("retracted")
    bad = {
        "cut.xml": jats(6, plan.text())[:-300],
        "cut.xml.gz": gzip.compress(jats(7, plan.text()))[:-40],
        "broken.xml.gz": b"\x1f\x8b\x08\x00" + b"\xff" * 90,
        "nul.xml": jats(8, "of \0 the"),
        "empty.xml": b"",
        "encoding.xml": jats(9, "Größe").decode().encode("latin-1"),
        "other.xml": b"<html><p>No article.</p></html>",
        "bomb.xml": b'<!DOCTYPE article [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
        + jats(10, "&b;")[21:],
        "outside.xml": b'<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + jats(11, "&x;")[21:],
    }
    for name, data in bad.items():
        plan.file(f"pmc/bad-{name}", data)
        plan.gone("bad_row")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, link
            tar.addfile(member, io.BytesIO(data))

        add("PMC12/12.nxml", jats(12, plan.text()))
        add("PMC12/figure.jpg", b"\xff\xd8")
        add("../../outside.xml", jats(13, plan.text()))
        add("/etc/absolute.xml", jats(14, plan.text()))
        add("link.xml", kind=tarfile.SYMTYPE, link="/etc/passwd")
    plan.file("pmc/package.tar.gz", packed.getvalue())
    plan.stays("PMC12")
    plan.gone("bad_row", 3)


def _s2orc(plan: Plan) -> None:
    def record(number: int, **ids: str | None) -> dict:
        made = made_s2orc.Record(number, **ids).add("Results", "sectionheader", after="\n\n")
        return made.add(plan.text(), "paragraph").first()

    rows = [record(21, pubmed="921"), record(22, pubmed="91"), record(23, pubmed=None), record(24, pubmed="924")]
    rows[3]["content"]["annotations"]["paragraph"] = "[{not json"
    plan.stays("s2:21")
    plan.gone("same_id")  # it is PMC1
    plan.gone("not_pubmed")
    plan.gone("bad_row")
    plan.file("s2orc/a.jsonl.gz", gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    paper = {"corpusid": 21, "externalids": {"PubMed": "921"}, "title": "A joined title", "year": 2020}
    plan.file("papers.jsonl", json.dumps(paper).encode())


def _abstracts(plan: Plan) -> None:
    def record(pmid: int, text: str = "", **more: object) -> str:
        body = f"<Abstract><AbstractText>{text or plan.text(8)}</AbstractText></Abstract>"
        return made_pubmed.record(pmid, body, title=f"Of {pmid}.", **more)

    french = (
        "Les patients de cette étude ont été suivis pendant douze mois après une intervention chirurgicale, et la "
        "plupart d'entre eux n'ont présenté aucune complication grave au cours de cette période à l'hôpital. "
    ) * 3
    first = [record(31), record(32), record(33), record(92), record(34, types=("Retracted Publication",)), record(43)]
    first += [record(35, french, language="fre"), record(36, date="<Year>2023</Year><Month>Oct</Month>")]
    first += [
        made_pubmed.record(37, ""),
        record(38),
        made_pubmed.record(39, "").replace("<PMID", "<X").replace("</PMID", "</X"),
    ]
    plan.file("abstracts/pubmed24n0001.xml.gz", gzip.compress(made_pubmed.file(*first)))
    plan.stays("pmid:31")
    plan.gone("withdrawn")  # 33
    plan.gone("same_id", 2)  # 92 is PMC2, 32 comes again
    plan.gone("retracted", 3)  # 34, and both versions of 43
    plan.gone("language")
    plan.gone("after_cutoff")
    plan.gone("no_abstract")
    plan.gone("bad_row")  # without an id
    later = made_pubmed.file(
        record(32, revised="2020-01-01"),
        made_pubmed.deletion(33, 93),
        record(40),
        record(43, types=("Retracted Publication",)),
    )  # 93 is PMC3, which stays
    plan.file("abstracts/pubmed24n0002.xml", later)
    plan.stays("pmid:32", "pmid:38", "pmid:40")
    cut = made_pubmed.file(record(41), record(42))
    plan.file("abstracts/pubmed24n0003.xml.gz", gzip.compress(cut[: cut.index(b"<PMID", cut.index(b"Of 41"))]))
    plan.stays("pmid:41")
    plan.gone("bad_row")
    plan.file("abstracts/pubmed24n0004.xml", b'<!DOCTYPE PubmedArticleSet [<!ENTITY a "b">]><PubmedArticleSet/>')
    plan.gone("bad_row")


# The sentences made here are much alike, so that of these rules only those on whole lines can be asked.
REPETITION = Repetition(
    enabled=True, top_2=1, top_3=1, top_4=1, again_5=1, again_6=1, again_7=1, again_8=1, again_9=1, again_10=1
)
QUESTIONS = [
    "A 45-year-old woman comes to the office because of a burning pain in her left foot that began three weeks ago and "
    "is worse at night. Which of the following nerves is most likely to be compressed behind her medial malleolus?",
    "A previously healthy newborn has bilious vomiting and a distended abdomen on his second day of life. An X-ray "
    "film shows two large bubbles of air. Which congenital anomaly of the duodenum best explains these findings?",
]


def _lines(plan: Plan, line_mib: int) -> None:
    base = plan.text(120)
    rows: list[object] = [
        {"id": "base", "text": base},
        {"id": "same", "text": base},
        {"id": "marks", "text": base.upper().replace(",", " ;").replace(".", " !\n")},
        {"id": "far-0.3%", "text": changed(base, 0.003, 1)},
        {"id": "far-1%", "text": changed(base, 0.01, 2)},
        {"id": "far-6%", "text": changed(base, 0.06, 3)},
        {"id": "far-30%", "text": changed(base, 0.30, 4)},
    ]
    plan.stays("base", "far-6%", "far-30%")
    plan.gone("exact_duplicate", 2)
    plan.gone("near_duplicate", 2)
    item = "of ".join(QUESTIONS[:1])
    marks = re.sub(r"[^\w\s]", " --", QUESTIONS[1]).upper().replace(" ", "\n", 9)
    rows += [
        {"id": "item", "text": f"{plan.text(9)} {item} {plan.text(9)}"},
        {"id": "item-marks", "text": f"{plan.text(9)}\n{marks}\n{plan.text(9)}"},
        {"id": "alone", "text": QUESTIONS[1] + " " + QUESTIONS[0]},
        {"id": "phrase", "text": f"{plan.text(9)} Which of the following is most likely? {plan.text(9)}"},
    ]
    plan.gone("contaminated", 3)
    plan.stays("phrase")
    rows += [{"id": "nothing", "text": " \n "}, {"id": "short", "text": "Iron helps."}]
    plan.gone("empty")
    plan.gone("too_short")
    rows += [{"id": "again", "text": "\n".join(["The patient was seen again and nothing had changed at all."] * 60)}]
    plan.gone("repetition")
    rows += [
        {
            "id": "german",
            "text": "Der Patient wurde nach der Operation auf die Station verlegt und dort behandelt. " * 9,
        }
    ]
    plan.gone("language")
    rows += [b'{"id": "nul", "text": "a\0b"}', b"{", b"[]", b'"text"', b'{"id": 3}', b'{"text": 3}']
    rows += [b'{"text": "Gr\xf6\xdfe"}', '{"text": "utf-16"}'.encode("utf-16"), b'{"text": "\\ud800"}', b"[" * 99_999]
    data = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    bad = sum(isinstance(row, bytes) for row in rows)
    plan.file("lines/a.jsonl", data)
    plan.gone("bad_row", bad)
    with gzip.open(plan.file("lines/b.jsonl.gz", b""), "wb", compresslevel=1) as out:
        out.write(json.dumps({"id": "before", "text": plan.text()}).encode() + b'\n{"text": "')
        for _ in range(line_mib):
            out.write(b"x" * (1 << 20))
        out.write(b'"}\n' + json.dumps({"id": "after", "text": plan.text()}).encode() + b"\n")
    plan.stays("before", "after")
    plan.gone("bad_row")
    whole = "".join(json.dumps({"id": f"cut{n}", "text": plan.text()}) + "\n" for n in range(3)).encode()
    plan.file("lines/c.jsonl.gz", gzip.compress(whole)[:-3])  # the data are whole, what ends the stream is not
    plan.gone("bad_row")
    plan.stays("cut0", "cut1", "cut2")


def _guidelines(plan: Plan) -> None:
    def paragraphs(count: int) -> list[str]:
        return [plan.text(6) for _ in range(count)]

    page = "<html><head><title>Care</title></head><body><main><h1>Care</h1>" + "".join(
        f"<p>{text}</p>" for text in paragraphs(6)
    )
    plan.file("guidelines/who/care.html", (page + "</main></body></html>").encode())
    plan.file("guidelines/nice/plan.md", ("# Plan\n\n" + "\n\n".join(paragraphs(6))).encode())
    plan.file("guidelines/wikidoc/x.md", b"# X\n\nNever opened.")
    plan.gone("excluded_source")
    plan.file("guidelines/who/broken.pdf", b"%PDF-1.4\nnothing of a PDF")
    plan.gone("bad_row")
    plan.kept["guidelines"] = 2


def _replay(plan: Plan) -> None:
    rows = [{"text": plan.text(9), "meta": {"url": f"u{n}"}} for n in range(20)]
    plan.file("replay/a.jsonl", "\n".join(map(json.dumps, rows)).encode())
    plan.gone("not_sampled", 12)
    plan.kept["replay"] = 8


def _planted(root: Path, line_mib: int = 65) -> tuple[Plan, list[Source], Settings]:
    plan = Plan(root / "in")
    _lines(plan, line_mib)
    for fill in (_pmc, _s2orc, _abstracts, _guidelines, _replay):
        fill(plan)
    bench = plan.file(
        "bench.jsonl", "".join(json.dumps({"id": n, "question": q}) + "\n" for n, q in enumerate(QUESTIONS)).encode()
    )
    options = {
        "s2orc": {"papers": str(plan.root / "papers.jsonl")},
        "guidelines": {"exclude": ["wikidoc"]},
        "replay": {"documents": 8},
    }
    kinds = {
        "pmc": "pmc",
        "s2orc": "s2orc",
        "abstracts": "abstracts",
        "lines": "jsonl",
        "guidelines": "guidelines",
        "replay": "replay",
    }
    sources = [
        Source(kind=kind, paths=(str(plan.root / name),), subset=name, options=options.get(name, {}))
        for name, kind in kinds.items()
    ]
    settings = Settings(
        seed=3,
        max_bad_fraction=0.95,
        filters=Filters(
            licences=("open", "unknown", "restricted"),
            cutoff="2023-08-31",
            length=Length(min_words=5),
            repetition=REPETITION,
            language=Language(keep=("en",)),
        ),
        decontamination=Decontamination(mode="remove"),
        benchmarks={"made": str(bench)},
    )
    return plan, sources, settings


def _written(out: Path) -> list[dict]:
    parts = sorted(out.glob("train/*")) + sorted(out.glob("valid/*"))
    return [zlines.loads(line) for part in parts for line in zlines.lines(part)]


def test_every_fault_lands_in_its_count_and_nothing_else_is_lost(tmp_path):
    plan, sources, settings = _planted(tmp_path, line_mib=200)
    report = build(sources=sources, out=tmp_path / "out", settings=settings, workers=2)
    assert dict(report.removed) == dict(plan.removed)
    assert report.documents_in == report.documents_out + sum(report.removed.values())
    docs = _written(tmp_path / "out")
    unnamed = Counter(doc["subset"] for doc in docs if doc["subset"] in ("guidelines", "replay"))
    named = Counter(doc["id"] for doc in docs if doc["subset"] not in ("guidelines", "replay"))
    assert named + unnamed == plan.kept
    assert not any(doc["subset"] == "replay" for part in (tmp_path / "out" / "valid").iterdir() for doc in _one(part))
    told = files.read_json(tmp_path / "out" / "report.json")
    assert told["in"] == told["out"] + sum(told["removed"].values()) == report.documents_in
    for subset in told["subsets"] if isinstance(told["subsets"], list) else told["subsets"].values():
        assert subset["in"] == subset["out"] + sum(subset["removed"].values())
    aside = [zlines.loads(line) for line in zlines.lines(tmp_path / "out" / "set_aside.jsonl.zst")]
    assert len(aside) == plan.removed["bad_row"] and all(row["why"] for row in aside)
    everything = json.dumps([docs, told, aside])
    assert "root:x" not in everything and "ada@example.org" not in everything and "Testville" not in everything
    assert not any((tmp_path / name).exists() for name in ("outside.xml", "in/outside.xml"))
    by_id = {doc["id"]: doc for doc in docs}
    assert by_id["pmid:32"]["meta"]["file"] == "pubmed24n0002.xml"
    assert by_id["s2:21"]["title"] == "A joined title" and by_id["s2:21"]["date"] == "2020"


def _one(part: Path) -> list[dict]:
    return [zlines.loads(line) for line in zlines.lines(part)]


def test_without_duplicates_looked_for_and_with_marks_more_stays(tmp_path):
    """The same input with other rules: what those rules took, and nothing else, stays."""
    plan, sources, settings = _planted(tmp_path)
    none = Duplicates(ids=False, exact=False, near=False)
    settings = replace(settings, duplicates=none, decontamination=Decontamination(mode="mark"))
    report = build(sources=sources, out=tmp_path / "out", settings=settings)
    back = ("same_id", "exact_duplicate", "near_duplicate", "contaminated")
    # A withdrawn record is found by its key, as duplicates are, and so is the older version of one that is retracted.
    expected = {rule: count for rule, count in plan.removed.items() if rule not in (*back, "withdrawn")}
    expected["retracted"] -= 1
    assert dict(report.removed) == expected
    marked = {
        doc["id"]: doc["meta"]["contaminated"] for doc in _written(tmp_path / "out") if "contaminated" in doc["meta"]
    }
    assert marked == {name: ["made"] for name in ("item", "item-marks", "alone")}


@pytest.mark.slow
def test_any_number_of_processes_writes_the_same_bytes(tmp_path):
    """All kinds of sources at once, their prepared tables and their damaged files included."""
    _, sources, settings = _planted(tmp_path)
    found = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        build(sources=sources, out=out, settings=settings, workers=workers)
        found.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
    assert found[0] == found[1] and len(found[0]) > 8


@pytest.mark.parametrize("share", [0.0, 0.003, 0.01, 0.06, 0.30])
def test_the_planted_distances_are_what_they_are_taken_for(share):
    """Jaccard similarity of sets of five words: the threshold of 0.8 lies between the third and the fourth."""
    base = prose(7, 120)

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}

    one, other = shingles(base), shingles(changed(base, share, 1))
    alike = len(one & other) / len(one | other)
    assert (alike >= 0.85) if share <= 0.01 else (alike <= 0.7)
