"""Invented articles in the structure of PubMed Central's JATS, for tests and benchmarks: same seed, same bytes.

Decides nothing about the reader; a third to a half of an article is its reference list and its tables, and there are
about a thousand citations and mentions to the MB, as in real ones.
"""

# ruff: noqa: E501 - markup is easier to read unbroken
from __future__ import annotations

import random

_SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "ki",
    "lo",
    "mu",
    "ne",
    "pra",
    "ri",
    "sto",
    "tu",
    "ve",
    "xi",
    "zo",
    "lan",
    "mer",
    "tin",
)
_COMMON = (
    "the", "of", "and", "in", "to", "a", "with", "was", "for", "were", "by", "at", "from", "patients",
    "treatment", "that", "study", "group", "not", "this", "as", "or", "be", "on", "than", "between", "dose",
    "results", "after", "cells", "both", "response", "outcome", "clinical", "higher", "significantly", "however",
    "observed", "mean",
)  # fmt: skip
_TITLES = ("Background", "Methods", "Patients and samples", "Statistical analysis", "Results", "Discussion")


def _vocabulary(rng: random.Random) -> list[str]:
    return ["".join(rng.choices(_SYLLABLES, k=rng.randint(2, 4))) for _ in range(400)]


def _words(rng: random.Random, vocabulary: list[str], count: int) -> str:
    """Two in five are function words; the rest belongs to this article alone, so that no two articles are alike."""
    picked = rng.choices(_COMMON, k=2 * count // 5) + rng.choices(vocabulary, k=count - 2 * count // 5)
    rng.shuffle(picked)
    return " ".join(picked)


def _paragraph(rng: random.Random, vocabulary: list[str], refs: int, tables: int) -> str:
    sentences = []
    for _ in range(rng.randint(4, 9)):
        text = _words(rng, vocabulary, rng.randint(12, 26)).capitalize()
        kind = rng.randrange(9)
        first, second = sorted(rng.choices(range(1, refs + 1), k=2))
        if kind == 0:
            text += f' [<xref ref-type="bibr" rid="B{first}">{first}</xref>,<xref ref-type="bibr" rid="B{second}">{second}</xref>]'
        elif kind == 1:
            text += f' [<xref ref-type="bibr" rid="B{first}">{first}</xref>]'
        elif kind == 3:
            text += f" in <italic>{rng.choice(vocabulary).capitalize()} {rng.choice(vocabulary)}</italic>"
        elif kind == 4:
            text += f" (OR {rng.random():.2f} [95% CI 0.{rng.randint(10, 99)}&#x02013;1.{rng.randint(10, 99)}], <italic>p</italic> &lt; 0.05)"
        elif kind == 5:
            text += (
                f' as in Table <xref ref-type="table" rid="T{rng.randint(1, tables)}">{rng.randint(1, tables)}</xref>'
            )
        elif kind == 6:
            text += f" of {rng.randint(2, 90)} &#x003bc;g/m<sup>2</sup> CO<sub>2</sub>"
        sentences.append(text + ".")
    return f"<p>{' '.join(sentences)}</p>"


def _table(rng: random.Random, vocabulary: list[str], number: int) -> str:
    rows = "".join(
        f"<tr><td align='left'>{rng.choice(vocabulary)}</td>"
        + "".join(
            f"<td align='center'>{rng.random() * 100:.1f} <italic>({rng.randint(1, 99)}%)</italic></td>"
            for _ in range(5)
        )
        + "</tr>"
        for _ in range(rng.randint(8, 16))
    )
    head = "".join(f"<th>{rng.choice(vocabulary)}</th>" for _ in range(6))
    return (
        f'<table-wrap id="T{number}" position="float"><label>Table {number}</label><caption><p>'
        f"{_words(rng, vocabulary, 10).capitalize()}.</p></caption><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table><table-wrap-foot><fn><p>{_words(rng, vocabulary, 8)}.</p></fn></table-wrap-foot>"
        "</table-wrap>"
    )


def _figure(rng: random.Random, vocabulary: list[str], number: int) -> str:
    return (
        f'<fig id="F{number}" position="float"><label>Figure {number}</label><caption><title>'
        f"{_words(rng, vocabulary, 6).capitalize()}</title><p>{_words(rng, vocabulary, 30).capitalize()}.</p></caption>"
        f'<graphic xlink:href="f{number}"/></fig>'
    )


def _reference(rng: random.Random, vocabulary: list[str], number: int) -> str:
    names = "".join(
        f"<name><surname>{rng.choice(vocabulary).capitalize()}</surname><given-names>{rng.choice('ABCDEFGHJ')}</given-names></name>"
        for _ in range(rng.randint(2, 5))
    )
    return (
        f'<ref id="B{number}"><label>{number}</label><element-citation publication-type="journal">'
        f'<person-group person-group-type="author">{names}</person-group><article-title>'
        f"{_words(rng, vocabulary, rng.randint(8, 14)).capitalize()}</article-title><source>{rng.choice(vocabulary)} Med</source>"
        f"<year>{rng.randint(1980, 2020)}</year><volume>{rng.randint(1, 90)}</volume><fpage>{rng.randint(1, 900)}</fpage>"
        f"<lpage>{rng.randint(901, 1900)}</lpage><pub-id pub-id-type='pmid'>{rng.randint(10**6, 10**7)}</pub-id>"
        "</element-citation></ref>"
    )


def article(seed: int, size: int = 90_000) -> bytes:
    """A whole article of roughly `size` bytes (10,000 at least) whose ids, words and numbers follow from `seed`."""
    rng = random.Random(f"article {seed}")
    vocabulary = _vocabulary(rng)
    refs, tables, figures = max(3, size // 2300), max(1, size // 40_000), max(1, size // 50_000)
    back = "".join(_reference(rng, vocabulary, n) for n in range(1, refs + 1))
    floats = [_table(rng, vocabulary, n) for n in range(1, tables + 1)]
    floats += [_figure(rng, vocabulary, n) for n in range(1, figures + 1)]
    budget, paragraphs = size - len(back) - sum(map(len, floats)) - 2500, []
    while budget > 0 or not paragraphs:
        paragraphs.append(_paragraph(rng, vocabulary, refs, tables))
        budget -= len(paragraphs[-1])
    for float_ in floats:
        paragraphs.insert(rng.randint(1, len(paragraphs)), float_)
    per = -(-len(paragraphs) // len(_TITLES))
    sections = "".join(
        f'<sec id="S{n}"><title>{title}</title>{"".join(paragraphs[n * per : (n + 1) * per])}</sec>'
        for n, title in enumerate(_TITLES)
        if paragraphs[n * per : (n + 1) * per]
    )
    authors = "".join(
        f'<contrib contrib-type="author"><name><surname>{rng.choice(vocabulary).capitalize()}</surname><given-names>A'
        f'</given-names></name><xref ref-type="aff" rid="A1">1</xref><email>author{n}@example.org</email></contrib>'
        for n in range(1, 5)
    )
    year, month, day = rng.randint(2001, 2022), rng.randint(1, 12), rng.randint(1, 28)
    number = 10_000_000 + seed
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving '
        'and Interchange DTD v1.0 20120330//EN" "JATS-archivearticle1.dtd">\n'
        '<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML" '
        'article-type="research-article" xml:lang="en"><front><journal-meta><journal-id journal-id-type="nlm-ta">J Made'
        "</journal-id><journal-title-group><journal-title>Journal of Made Articles</journal-title></journal-title-group>"
        f'</journal-meta><article-meta><article-id pub-id-type="pmid">{seed + 30_000_000}</article-id><article-id '
        f'pub-id-type="pmc">{number}</article-id><article-id pub-id-type="doi">10.5555/made.{number}</article-id>'
        f"<title-group><article-title>{_words(rng, vocabulary, 12).capitalize()}</article-title></title-group>"
        f'<contrib-group>{authors}</contrib-group><aff id="A1"><label>1</label>Department of {rng.choice(vocabulary)}</aff>'
        f'<pub-date pub-type="epub"><day>{day}</day><month>{month}</month><year>{year}</year></pub-date>'
        f'<pub-date pub-type="collection"><year>{year}</year></pub-date><permissions>'
        '<license license-type="open-access" xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>This is '
        "an open access article under the Creative Commons Attribution License.</license-p></license></permissions>"
        f"<abstract><sec><title>Background</title><p>{_words(rng, vocabulary, 60).capitalize()}.</p></sec><sec><title>Results"
        f"</title><p>{_words(rng, vocabulary, 60).capitalize()}.</p></sec></abstract></article-meta></front>"
        f"<body>{sections}</body><back><ack><p>{_words(rng, vocabulary, 20).capitalize()}.</p></ack><ref-list>{back}"
        "</ref-list></back></article>\n"
    ).encode()
