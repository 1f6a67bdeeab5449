"""What a reader sees of an article: golden excerpts of XML written here in the structure of PubMed Central's."""

# ruff: noqa: E501 - markup is easier to read unbroken
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.corpus import jats, jats_flow
from toolkit.corpus.jats_headings import heading

pytest.importorskip("lxml")

GOLDEN = """<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving and Interchange DTD v1.2 20190208//EN" "x.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML" xml:lang="en"
 article-type="research-article"><?properties open_access?>
<front><journal-meta><journal-title>Annals of Nowhere</journal-title></journal-meta><article-meta>
<article-id pub-id-type="pmcid">PMC42</article-id><article-id pub-id-type="pmid">7</article-id>
<article-id pub-id-type="doi">10.1/ABC</article-id>
<title-group><article-title>Fever in <italic>Testus</italic> patients given &#x03b1;<sub>1</sub>-blockers<xref ref-type="fn" rid="n">*</xref></article-title>
<trans-title-group xml:lang="fr"><trans-title>Fi\u00e8vre</trans-title></trans-title-group></title-group>
<contrib-group><contrib><name><surname>Secret</surname></name><email>secret@example.org</email></contrib></contrib-group>
<aff id="a">Secret Institute</aff><author-notes><corresp>Mail secret@example.org</corresp></author-notes>
<pub-date pub-type="ppub"><year>2020</year></pub-date><pub-date pub-type="epub"><month>Feb</month><day>3</day><year>2020</year></pub-date>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Free.</license-p></license>
<license xlink:href="https://creativecommons.org/licenses/by-nc/4.0/"><license-p>Figures for non-commercial use.</license-p></license></permissions>
<abstract><sec><title>Background</title><p>Fever &lt;38.5&#xa0;&#xb0;C is common.</p></sec>
<sec><title>Results:</title><p>HR 0.71 [95% CI 0.55, 0.92]; <italic>p</italic>&lt;0.05.</p></sec></abstract>
<abstract abstract-type="graphical"><p>Picture</p></abstract><abstract xml:lang="es"><p>Corto.</p></abstract>
<abstract abstract-type="plain-language-summary"><p>Short words.</p></abstract>
<trans-abstract xml:lang="fr"><p>Court.</p></trans-abstract><kwd-group><kwd>fever</kwd></kwd-group>
</article-meta></front>
<body>
<p>An editorial may begin without a heading.</p>
<sec id="s1"><label>1.</label><title>INTRODUCTION</title>
 <p>Known for long [<xref ref-type="bibr" rid="B1">1</xref>-<xref ref-type="bibr" rid="B3">3</xref>], see
 <xref ref-type="fig" rid="F1">Fig. 1B</xref> and Table <xref ref-type="table" rid="T1">1</xref>.<fn id="n1"><p>NOTE</p></fn>
 <fig id="F1"><label>Figure 1.</label><caption><title>Course of fever (all arms)</title><p>Means &#xb1; SD<xref ref-type="bibr" rid="B2"><sup>2</sup></xref>.</p></caption><graphic xlink:href="f1"/><attrib>Photo: Secret</attrib></fig>
 The sentence after a figure stays.</p></sec>
<sec><title>Methods</title><p>We looked.</p>
 <sec><title>patients</title><p>Ten:<list list-type="order"><list-item><p>five men</p><list list-type="bullet"><list-item><p>old</p></list-item><list-item><label>&#x2022;</label><p>young</p></list-item></list></list-item><list-item><p>five women</p><p>of whom one left</p></list-item></list>in all.</p>
  <sec><title>Dose</title><p>10<sup>-3</sup> kg/m<sup>2</sup>, CO<sub>2</sub>, Ca<sup>2+</sup>, <sup>14</sup>C, 2<sup>n-1</sup>, the 1<sup>st</sup>.</p></sec></sec>
 <sec><title>Statistics</title><p>With <inline-formula><mml:math><mml:mi>x</mml:mi><mml:mo>&#x2265;</mml:mo><mml:mn>0</mml:mn></mml:math></inline-formula>,
 <disp-formula id="e1"><label>(1)</label><alternatives><mml:math><mml:mi>y</mml:mi><mml:mo>=</mml:mo><mml:mfrac><mml:mrow><mml:mi>a</mml:mi><mml:mo>+</mml:mo><mml:mi>b</mml:mi></mml:mrow><mml:mi>c</mml:mi></mml:mfrac></mml:math><tex-math>\\frac{a+b}{c}</tex-math></alternatives></disp-formula>
 where <inline-formula><tex-math>\\documentclass{m}\\begin{document}$$b &lt; 1$$\\end{document}</tex-math></inline-formula> holds.</p></sec></sec>
<sec><title>Results</title>
 <table-wrap id="T1"><label>Table 1</label><caption><p>Doses in mg<xref ref-type="table-fn" rid="t1a">a</xref></p></caption>
 <table><thead><tr><th rowspan="2">Drug</th><th colspan="2">Dose</th></tr><tr><th>min</th><th>max</th></tr></thead>
 <tbody><tr><td>A<sup>*</sup></td><td>&lt;1</td><td><bold>2</bold><break/>(3)</td></tr><tr><td/><td/><td/></tr></tbody></table>
 <table-wrap-foot><fn id="t1a"><label>a</label><p>By mouth.</p></fn></table-wrap-foot></table-wrap>
 <boxed-text><label>Box 1</label><caption><title>Key points</title></caption><p>Rest.</p><sec><title>More</title><p>Drink.</p></sec></boxed-text>
 <disp-quote><p>It hurt.</p></disp-quote>
 <supplementary-material><caption><p>SUPPLEMENT</p></caption><media xlink:href="s1"/></supplementary-material>
 <p>In <xref ref-type="supplementary-material" rid="S1">Table S1</xref>, as Smith (<xref ref-type="bibr" rid="B2">2001</xref>) and
 <xref ref-type="bibr" rid="B1">Jones et al. (2002)</xref> say (<xref ref-type="bibr" rid="B3">Lee 2003</xref>; n = 3).</p></sec>
<sec><title>5. Competing interests</title><p>None of it</p></sec>
<sec sec-type="supplementary-material"><title>Files</title><p>Table S1</p></sec>
<sec><title>Empty</title><fig><graphic/></fig></sec>
</body>
<back><ack><p>Thanks</p></ack><sec><title>Declarations</title><sec><title>Ethics approval</title><p>Given</p></sec></sec>
<app-group><app><label>Appendix A</label><title>Questions</title><p>How hot?</p></app></app-group>
<glossary><title>Abbreviations</title><def-list><def-item><term>MI</term><def><p>myocardial infarction</p></def></def-item></def-list></glossary>
<fn-group><fn><p>Competing interests: none</p></fn></fn-group>
<ref-list><title>References</title>
<ref id="B1"><element-citation><person-group><name><surname>Jones</surname></name><name><surname>Other</surname></name></person-group><article-title>A title of <italic>more</italic> than twelve words that goes on and on until it ends</article-title><source>J</source></element-citation></ref>
<ref id="B2"><mixed-citation><collab>Fever Group</collab>. <source>The Book</source>, 2001.</mixed-citation></ref>
<ref id="B3"><mixed-citation>Lee K. Words without structure. J 2003;1:2.</mixed-citation></ref></ref-list></back>
<sub-article article-type="translation" xml:lang="fr"><body><p>Fran\u00e7ais</p></body></sub-article>
</article>"""

PLAIN = """Fever in Testus patients given α1-blockers

# Abstract

## Background

Fever <38.5 °C is common.

## Results

HR 0.71 [95% CI 0.55, 0.92]; p<0.05.

# Plain language summary

Short words.

An editorial may begin without a heading.

# Introduction

Known for long, see Fig. 1B and Table 1. The sentence after a figure stays.

Figure 1. Course of fever (all arms). Means ± SD.

# Methods

We looked.

## Patients

Ten:

1. five men
  - old
  - young
2. five women
  of whom one left

in all.

### Dose

10^-3 kg/m^2, CO2, Ca2+, 14C, 2^(n-1), the 1st.

## Statistics

With x ≥ 0,
y = (a + b)/c (1)
where b < 1 holds.

# Results

Table 1. Doses in mg

Box 1. Key points

Rest.

## More

Drink.

It hurt.

In Table S1, as Smith and Jones et al. (2002) say (n = 3).

# Appendix A. Questions

How hot?

# Abbreviations

- MI: myocardial infarction"""

CELLS = """Table 1. Doses in mg^a
Drug | Dose
| min | max
A* | <1 | 2 (3)
a By mouth."""

# What the twelve tokens change in PLAIN: each line, or part of one, and what stands there instead.
TAGGED = {
    "Known for long, see Fig. 1B and Table 1. The": (
        "Known for long [bib_ref] A title of more than twelve words that goes on and on, Jones [/bib_ref] "
        "[bib_ref] Lee K. Words without structure. J 2003;1:2 [/bib_ref], see "
        "[fig_ref] Figure 1B: Course of fever (all arms) [/fig_ref] and [fig_ref] Table 1: Doses in mg [/fig_ref]. The"
    ),
    "Figure 1. Course of fever (all arms). Means ± SD.": (
        "[fig] Figure 1: Course of fever (all arms). Means ± SD [bib_ref] The Book, Fever Group [/bib_ref]. [/fig]"
    ),
    "y = (a + b)/c (1)": "[formula] y = (a + b)/c (1) [/formula]",
    "Table 1. Doses in mg": "[table] Table 1: Doses in mg [/table]",
    "Box 1. Key": "Box 1: Key",
    "as Smith and Jones et al. (2002) say (n = 3).": (
        "as Smith [bib_ref] The Book, Fever Group [/bib_ref] and Jones et al. (2002) [bib_ref] A title of more than "
        "twelve words that goes on and on, Jones [/bib_ref] say "
        "[bib_ref] Lee K. Words without structure. J 2003;1:2 [/bib_ref] (n = 3)."
    ),
}


def one(folder: Path, xml: str, **options: str):
    (folder / "a.nxml").write_text(xml, encoding="utf-8")
    (item,) = jats.read(folder / "a.nxml", "pmc", options)
    return item


def body(folder: Path, xml: str, **options: str) -> str:
    head = '<article xmlns:mml="http://www.w3.org/1998/Math/MathML"><body><sec><title>S</title>'
    refs = "".join(
        f'<ref id="b{n}"><citation><name><surname>Au{n}</surname></name><article-title>T{n}</article-title></citation></ref>'
        for n in (1, 2, 3)
    )
    item = one(folder, f"{head}{xml}</sec></body><back><ref-list>{refs}</ref-list></back></article>", **options)
    assert isinstance(item, jats.Document), item
    return item.text.removeprefix("# S\n\n")


def test_a_whole_article_reads_as_a_reader_would_wish(tmp_path):
    doc = one(tmp_path, GOLDEN)
    assert doc.text == PLAIN
    assert doc.title == "Fever in Testus patients given α1-blockers"
    assert (doc.id, doc.license, doc.date, doc.language) == ("PMC42", "CC-BY-NC-4.0", "2020-02-03", "en")
    assert doc.keys == ("pmc:pmc42", "pmid:7", "doi:10.1/abc") and not doc.retracted and doc.rank == 0
    assert doc.meta["journal"] == "Annals of Nowhere" and doc.url.endswith("/PMC42/")


def test_the_papers_tokens_stand_where_it_put_them(tmp_path):
    expected = PLAIN
    for plain, tagged in TAGGED.items():
        assert expected.count(plain) == 1, plain
        expected = expected.replace(plain, tagged)
    assert one(tmp_path, GOLDEN, markup="tags").text == expected


def test_cells_are_lines_when_asked_for(tmp_path):
    assert one(tmp_path, GOLDEN, tables="text").text == PLAIN.replace("Table 1. Doses in mg", CELLS)
    tagged = one(tmp_path, GOLDEN, tables="text", markup="tags").text
    assert f"[table] {CELLS.replace('Table 1.', 'Table 1:')} [/table]\n\n" in tagged


CITE = '<xref ref-type="bibr" rid="b1">1</xref>'
TAG = "[bib_ref] T1, Au1 [/bib_ref]"
NAME = '<xref ref-type="bibr" rid="b1">Ames et al. 1999</xref>'


@pytest.mark.parametrize(
    ("inside", "plain", "tagged"),
    [
        (f"Known [{CITE},{CITE}], new.", "Known, new.", f"Known {TAG} {TAG}, new."),
        (f"Known [{CITE}], [{CITE}].", "Known.", f"Known {TAG} {TAG}."),
        (f"Known <sup>{CITE},{CITE}</sup>.", "Known.", f"Known {TAG} {TAG}."),
        (f"Known.<sup>{CITE}</sup> Next", "Known. Next", f"Known. {TAG} Next"),
        (f"Known ({CITE}; {CITE}).", "Known.", f"Known {TAG} {TAG}."),
        (f"Known (see {CITE}) it", "Known it", f"Known {TAG} it"),
        (f"Smith et al. [{CITE}] examined", "Smith et al. examined", f"Smith et al. {TAG} examined"),
        (f"a range [95% CI 1.2–3.4] {CITE}.", "a range [95% CI 1.2–3.4].", f"a range [95% CI 1.2–3.4] {TAG}."),
        (f"rate (12%, n = 3) [{CITE}]", "rate (12%, n = 3)", f"rate (12%, n = 3) {TAG}"),
        (f"rate (12%; {CITE})", "rate (12%)", f"rate (12% {TAG})"),
        (f"rate (12%; [{CITE},{CITE}]) is", "rate (12%) is", f"rate (12% {TAG} {TAG}) is"),
        (f"As shown in [{CITE}], it is that of [{CITE}].", "As shown, it is that.", f"As shown in {TAG}, it is that of {TAG}."),
        (f"shape [{CITE}, their figure five].", "shape [their figure five].", f"shape {TAG} [their figure five]."),
        (f"rose ({NAME}).", "rose.", f"rose {TAG}."),
        (f"rose (reviewed in {NAME}; {NAME}).", "rose.", f"rose {TAG} {TAG}."),
        (f"as {NAME} showed", "as Ames et al. 1999 showed", f"as Ames et al. 1999 {TAG} showed"),
        (f"rose (but see {NAME} for more)", "rose (but see Ames et al. 1999 for more)",
         f"rose (but see Ames et al. 1999 {TAG} for more)"),
        ('gone [<xref ref-type="bibr" rid="zz">9</xref>].', "gone.", "gone."),
        (f"{NAME.replace('b1', 'zz')} is gone", "Ames et al. 1999 is gone", "Ames et al. 1999 is gone"),
        (f'no words <xref ref-type="bibr" rid="b2"/>here [{CITE}] <xref>are</xref> lost', "no words here are lost",
         f"no words here {TAG} are lost"),
        ('two [<xref ref-type="bibr" rid="b1 b2">1,2</xref>]', "two", f"two {TAG} [bib_ref] T2, Au2 [/bib_ref]"),
        ('as in Table <xref ref-type="table" rid="no">1</xref>', "as in Table 1", "as in Table 1"),
        ("dose &lt; [18] mg &gt; 3 &amp; more; p&lt;.05", "dose < [18] mg > 3 & more; p<.05", None),
        (f"p &lt;{CITE}", "p <", f"p < {TAG}"),
    ],
)  # fmt: skip
def test_citations_and_mentions(tmp_path, inside, plain, tagged):
    assert body(tmp_path, f"<p>{inside}</p>") == plain
    assert body(tmp_path, f"<p>{inside}</p>", markup="tags") == (plain if tagged is None else tagged)


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("10<sup>-3</sup> to 10<sup>9</sup>/L, s<sup>−1</sup>", "10^-3 to 10^9/L, s^−1"),
        ("R<sup>2 </sup>= 0.3, χ<sup>2</sup>, x<sub>i</sub><sup>2</sup>", "R^2 = 0.3, χ^2, xi^2"),
        ("H<sub>2</sub>O, IC<sub>50</sub>, HbA<sub>1c</sub>, K<sub>2</sub>HPO<sub>4</sub>", "H2O, IC50, HbA1c, K2HPO4"),
        ("Na<sup>+</sup>, Mg<sup>2+</sup>, HCO<sub>3</sub><sup>−</sup>, CD4<sup>+</sup>", "Na+, Mg2+, HCO3−, CD4+"),
        (
            "<italic>Trp53</italic><sup>−/−</sup> and <sup>99m</sup>Tc, [<sup>18</sup>F]FDG",
            "Trp53−/− and 99mTc, [18F]FDG",
        ),
        ("12.3<sup>a</sup>, 5<sup>*</sup>, the 2<sup>nd</sup>, Drug<sup>®</sup>", "12.3^a, 5*, the 2nd, Drug®"),
        ("a<sup toggle='yes'><italic>n</italic></sup> e<sup>−(a+b)</sup>", "a^n e^(−(a+b))"),
        ("e<sup>x<sub>1</sub></sup>", "e^x1"),
        ("a<!-- hidden --> b<?pi x?> c<break/>d \t\n e", "a b c d e"),
        ("thin\u2009space 5\u00a0mg 88\u202f657", "thin space 5 mg 88 657"),
        ("mail <email>x@y.z</email> us at <ext-link>the site</ext-link>", "mail us at the site"),
        ("by J. Doe (e-mail: <email>x@y.z</email>, <email>z@y.z</email>).", "by J. Doe."),
        ("<![CDATA[a < b & c]]> <named-content content-type='x'>gene</named-content>", "a < b & c gene"),
        ("<preformat>a  b\n  c</preformat>", "a  b\n  c"),
        ("<verse-group><verse-line>one</verse-line><verse-line>two</verse-line></verse-group>", "one\ntwo"),
        ("<speech><speaker>Dr A</speaker><p>How?</p></speech>", "Dr A: How?"),
        ("<statement><label>Theorem 1</label><p>True.</p></statement>", "Theorem 1. True."),
        ("so:<disp-formula><graphic/></disp-formula>where", "so:\nwhere"),
        ("<disp-formula>E = mc<sup>2</sup></disp-formula>", "E = mc^2"),
    ],
)
def test_inline_markup(tmp_path, inside, text):
    assert body(tmp_path, f"<p>{inside}</p>") == text


def mi(*names: str) -> str:
    return "".join(f"<mml:mi>{name}</mml:mi>" for name in names)


@pytest.mark.parametrize(
    ("math", "text"),
    [
        (f"<mml:msqrt>{mi('x')}<mml:mo>+</mml:mo>{mi('y')}</mml:msqrt>", "√(x + y)"),
        (f"<mml:msubsup>{mi('x', 'i', '2')}</mml:msubsup>", "x_i^2"),
        (f"<mml:msup>{mi('e')}<mml:mrow><mml:mo>−</mml:mo>{mi('k', 't')}</mml:mrow></mml:msup>", "e^−kt"),
        ("<mml:munderover><mml:mo>∑</mml:mo><mml:mrow><mml:mi>i</mml:mi><mml:mo>=</mml:mo><mml:mn>1</mml:mn></mml:mrow>"
         f"{mi('n')}</mml:munderover>{mi('x')}", "∑_(i = 1)^n x"),
        (f"<mml:mover>{mi('x')}<mml:mo>¯</mml:mo></mml:mover><mml:mo>&lt;</mml:mo><mml:mn>5</mml:mn>", "x\u0304 < 5"),
        (f"<mml:mfenced open='[' close=']'>{mi('a', 'b')}</mml:mfenced>", "[a, b]"),
        (f"<mml:semantics><mml:mrow>{mi('a')}</mml:mrow><mml:annotation>TWICE</mml:annotation></mml:semantics>", "a"),
        (f"<mml:mtable><mml:mtr><mml:mtd>{mi('a')}</mml:mtd><mml:mtd>{mi('b')}</mml:mtd></mml:mtr></mml:mtable>", "a, b"),
        ("<mml:mtext>dose in </mml:mtext><mml:mi>mg</mml:mi><mml:mo>&#x2061;</mml:mo>", "dose in mg"),
    ],
)  # fmt: skip
def test_mathml_is_one_line(tmp_path, math, text):
    assert body(tmp_path, f"<p><inline-formula><mml:math>{math}</mml:math></inline-formula></p>") == text


def test_floats_of_an_article_stand_at_its_end_and_twice_told_captions_once(tmp_path):
    fig = '<fig id="f"><label>Figure 3</label><caption><p>Late.</p></caption></fig>'
    text = one(
        tmp_path,
        f"<article><body><p>Words.</p>{fig}<table-wrap><label>Table 2</label><caption><p>(continued)</p></caption>"
        f"</table-wrap></body><floats-group>{fig}<fig-group><caption><title>Pair</title></caption>"
        "<fig><label>A</label><caption><p>One.</p></caption></fig></fig-group></floats-group></article>",
        markup="tags",
    ).text
    assert text.split("\n\n") == ["Words.", "[fig] Figure 3: Late. [/fig]", "Pair.", "[fig] A: One. [/fig]"]


def test_a_subtitle_belongs_to_the_title(tmp_path):
    for first, whole in (("Fever", "Fever: a trial"), ("Fever?", "Fever? a trial"), ("", "a trial")):
        titles = f"<article-title>{first}</article-title><subtitle>a<break/>trial</subtitle>"
        front = f"<front><article-meta><title-group>{titles}</title-group></article-meta></front>"
        doc = one(tmp_path, f"<article>{front}<body><p>Words.</p></body></article>")
        assert (doc.title, doc.text) == (whole, f"{whole}\n\nWords.")


@pytest.mark.parametrize("wrap", ['<{0} xmlns="http://jats.nlm.nih.gov/ns/archiving/1.3/">', '<j:{0} xmlns:j="u:j">'])
def test_namespaces_of_harvested_articles_change_nothing(tmp_path, wrap):
    prefix = "j:" if wrap.startswith("<j") else ""
    inner = (
        "<body><sec><title>S</title><p>a <italic>b</italic><sup>2</sup> [<xref ref-type='bibr' rid='r'>1</xref>].</p>"
        "</sec></body><back><ref-list><ref id='r'><source>Src</source></ref></ref-list></back></article>"
    )
    inner = inner.replace("</", "\0").replace("<", f"<{prefix}").replace("\0", f"</{prefix}")
    assert one(tmp_path, wrap.format("article") + inner, markup="tags").text == "# S\n\na b^2 [bib_ref] Src [/bib_ref]."


def test_real_articles_read_as_they_should(pmc):
    docs = {doc.id: doc for file in sorted(pmc.iterdir()) for doc in jats.read(file, "pmc", {})}
    assert set(docs) == {"PMC3166277", "PMC2329613", "PMC3574550", "PMC1790863"}
    for doc in docs.values():
        assert doc.text.startswith(f"{doc.title}\n\n# Abstract\n\n") and len(doc.text) > 20_000
        assert not [bit for bit in ("[]", "()", "[,", "  ", " .", " ,", "[-") if bit in doc.text.replace("...", "")]
        assert "\n# " in doc.text and "\n## " in doc.text
        assert "@" not in doc.text and not [c for c in doc.text if c < " " and c != "\n"]
        assert "cknowledg" not in doc.text and "Competing interests" not in doc.text
    text = docs["PMC3166277"].text
    assert "bacteriophage (phage) λ, Escherichia coli, Bacillus subtilis and Saccharomyces cerevisiae." in text
    assert "(7 g K2HPO4, 2 g KH2PO4, 1 g (NH4)2SO4," in text and "(F[1,12] = 8.42, p = 0.0133)" in text
    assert "Reisine et al. examined" in docs["PMC2329613"].text and docs["PMC2329613"].date == "2008-04-11"
    assert "Ω(n)x^(n−1), where Ω(n) is" in docs["PMC1790863"].text
    assert "88 657 of 98 942 tumours (89.6%)" in docs["PMC3574550"].text


def test_real_articles_cite_and_mention_by_name(pmc):
    (doc,) = jats.read(pmc / "1471-2180-11-174.nxml", "pmc", {"markup": "tags", "tables": "text"})
    assert (
        "\n[fig_ref] Figure 3A: Factors influencing λ lysis time stochasticity [/fig_ref] revealed a significant positive"
        in doc.text
    )
    assert (
        "Amir et al. [bib_ref] Noise in timing and precision of gene activities in a genetic cascade, Amir" in doc.text
    )
    assert "\nIN56 (WT) | 230 | 65.1 | 3.24\n" in doc.text
    for name in ("bib_ref", "fig_ref", "fig", "table", "formula"):
        assert doc.text.count(f"[{name}]") == doc.text.count(f"[/{name}]")


NAMES = sorted(
    {name.strip("/") for name in jats_flow._HANDLERS}
    | {"xref", "sup", "sub", "italic", "tr", "ref", "ref-list", "email", "alternatives", "inline-formula", "unheard-of"}
)


@st.composite
def _markup(draw: st.DrawFn, depth: int = 5) -> str:
    words = draw(st.text(st.sampled_from("ab1 \n[](),;.–\u2009é"), max_size=6))
    if depth == 0:
        return words
    name = draw(st.sampled_from(NAMES))
    extra = draw(st.sampled_from(["", ' id="r"', ' rid="r"', ' ref-type="bibr" rid="r"', ' ref-type="fig" rid="r"', ' colspan="3"', ' rowspan="2"', ' list-type="order"']))  # fmt: skip
    inner = "".join(draw(st.lists(_markup(depth - 1), max_size=3)))
    return f"{words}<{name}{extra}>{inner}</{name}>" if inner else f"{words}<{name}{extra}/>"


@settings(max_examples=50, deadline=None)
@given(_markup(), st.sampled_from(["plain", "tags"]), st.sampled_from(["caption", "text"]))
def test_whatever_stands_in_whatever_it_is_read(tmp_path_factory, inner, markup, tables):
    xml = f"<article><front><article-meta><title-group><article-title>{inner}</article-title></title-group><abstract>{inner}</abstract></article-meta></front><body>{inner}</body><back><app>{inner}</app></back></article>"
    doc = one(tmp_path_factory.getbasetemp(), xml, markup=markup, tables=tables)
    assert isinstance(doc, jats.Document), doc
    assert not [c for c in doc.text + doc.title if c < " " and c != "\n"] and "<" not in doc.text
    assert doc.text == doc.text.strip() and "\n\n\n" not in doc.text


@pytest.mark.parametrize(
    ("title", "body", "back"),
    [
        ("Funding", False, False), ("4. Funding for this study", False, False), ("Funding and support", False, False),
        ("Funding of hospitals", True, True), ("Peer-review history", False, False), ("Peer review of grants", True, True),
        ("Supplements", True, False), ("Supplementary data", False, False), ("Ethics", True, False),
    ],
)  # fmt: skip
def test_sections_that_say_nothing_of_the_subject(title, body, back):
    assert (heading(title, behind=False)[1], heading(title, behind=True)[1]) == (not body, not back)
