"""Records in the structure of Semantic Scholar's bulk data, with spans that fit the text they are made with."""

from __future__ import annotations

import json
from typing import Any


class Record:
    """A text that grows piece by piece; `add` marks the piece as one or more kinds of span."""

    def __init__(self, corpus_id: int = 7, **ids: str | None) -> None:
        self.corpus_id, self.ids = corpus_id, {"pubmed": "111", "pubmedcentral": None, "doi": None, **ids}
        self.text, self.spans = "", {}

    def add(self, piece: str, *kinds: str, after: str = "", **attributes: Any) -> Record:
        for kind in kinds:
            self.mark(kind, len(self.text), len(self.text) + len(piece), **attributes)
        self.text += piece + after
        return self

    def mark(self, kind: str, start: int, end: int, **attributes: Any) -> Record:
        span = {"end": end, "start": start}
        if attributes:
            span["attributes"] = attributes
        self.spans.setdefault(kind, []).append(span)
        return self

    def over(self, kind: str, words: str, **attributes: Any) -> Record:
        """Mark the last occurrence of `words`."""
        start = self.text.rindex(words)
        return self.mark(kind, start, start + len(words), **attributes)

    def annotations(self) -> dict[str, str | None]:
        return {"publisher": None, **{kind: json.dumps(spans) for kind, spans in self.spans.items()}}

    def first(self, licence: str | None = "CCBY") -> dict[str, Any]:
        """In the layout of the dataset `s2orc`."""
        info = {"license": licence, "openaccessurl": "https://example.org/1.pdf", "status": "GOLD"} if licence else None
        source = {"pdfurls": None, "pdfsha": "0" * 40, "oainfo": info}
        content = {"source": source, "text": self.text, "annotations": self.annotations()}
        ids = {"arxiv": None, "mag": None, "acl": None, "dblp": None, **self.ids}
        return {"corpusid": self.corpus_id, "externalids": ids, "content": content, "updated": "2023-06-02T05:22:08Z"}

    def second(self, bibliography: Record, title: str = "", licence: str | None = "CCBY") -> dict[str, Any]:
        """In the layout of the dataset `s2orc_v2`, whose names are written with underscores."""
        names = {
            "sectionheader": "section_header",
            "bibref": "bib_ref",
            "bibentry": "bib_entry",
            "bibtitle": "bib_title",
            "bibauthorlastname": "bib_author_last_name",
        }

        def part(record: Record) -> dict[str, Any]:
            spans = {names.get(kind, kind): value for kind, value in record.annotations().items()}
            return {"text": record.text, "annotations": spans}

        ids = {"MAG": None, "PubMedCentral": self.ids["pubmedcentral"], "DOI": self.ids["doi"]}
        return {
            "corpusid": self.corpus_id,
            "title": title,
            "openaccessinfo": {"externalids": ids, "license": licence, "url": None, "status": "GOLD"},
            "body": part(self),
            "bibliography": part(bibliography),
        }


def reference(record: Record, id: str, title: str, last: str) -> Record:
    """One entry of a bibliography, as GROBID writes them: parsed parts first, then the raw reference."""
    start = len(record.text)
    record.add(title, "bibtitle").add(". J ").add(last, "bibauthorlastname").add(
        f", 10.1/{id}J Test. 55{last} J. {title}."
    )
    record.mark("bibentry", start, len(record.text), id=id, matched_paper_id=5)
    record.text += "\n\n"
    return record


def article(corpus_id: int = 7, **ids: str | None) -> Record:
    """A whole article with what real ones hold: front matter, false headings, captions at the end, figures in between,
    formulas, back matter, everything in the order of GROBID's output.
    """
    r = Record(corpus_id, **ids)
    r.add("\n").add("JOURNAL OF TESTS VOL 61 CASE", "title", after="\n2023\n\n")
    r.add("Ada Example ada@example.org", "author", after=" \n").add(
        "Department of Tests, Testville", "authoraffiliation"
    )
    r.add("\n\n").add("JOURNAL OF TESTS", "venue", after="\n\nReceived 1 May; accepted 3 May\n\n")
    r.add("Serum ferritin <18 ng/ml was treated. Dose was 5 mg/kg.", "abstract", after="\n\n")
    r.add("INTRODUCTION", "sectionheader", n="1.", after="\n\n")
    r.add(
        "Anaemia is common in children. 1 HIV infection [2,3] worsens it (Smith et al., 2010), "
        "with a prevalence of 40% [95% CI 36-44].",
        "paragraph",
        after="\n\n\n",
    )
    at = r.text.index("children. 1") + len("children. ")
    r.mark("bibref", at, at + 1, ref_id="b0")
    r.over("bibref", "[2,", ref_id="b1").over("bibref", "3]", ref_id="b9").over(
        "bibref", "(Smith et al., 2010)", ref_id="b2"
    )
    r.add("METHODS AND HIV TESTS", "sectionheader", n="2.", after="\n\n")
    r.add("2.1 kept out of the text", "venue", after="\n\n")
    r.add("Statistics", "sectionheader", n="2.1.", after="\n\n")
    r.add("We computed the rate as a ratio of counts (Figure 1 and Table 1). ", "paragraph", after="\n")
    r.over("figureref", "Figure 1", ref_id="fig_0").over("tableref", "Table 1", ref_id="tab_0")
    r.add("r = a / b,", "formula", id="formula_0", after="(1)\n\n")
    r.add("of which p<0.05 was taken as significant.", "paragraph", after="\n\n")
    r.add(
        "Figure 2. Fascicles of spindle shaped cells are seen (left) beside ovoid cells.", "sectionheader", after="\n\n"
    )
    r.add("Mitotic figures were 5/10 high-power fields.", "paragraph", after="\n\n\n")
    start = len(r.text)
    r.add("\n").add("Figure 1 .", "sectionheader", after="\n1")
    r.add("Gross section of the kidney; the tumour is grey. Scale bar 1 cm.", "figurecaption")
    r.mark("figure", start, len(r.text), id="fig_0")
    r.add("\n\n").add("DISCUSSION", "sectionheader", n="3", after="\n\n")
    r.add("What follows the first figure is kept.", "paragraph", after="\n\n")
    r.add("Acknowledgements", "sectionheader", after="\n").add("We thank everyone.", "paragraph", after="\n\n")
    r.add("Conflict of Interest", "sectionheader", after="\n").add("None to declare at all.", "paragraph", after="\n\n")
    start = len(r.text)
    r.add("Table 1 .\n").add("Rates by age group", "figurecaption", after="\n").add(
        "Age Rate\n<5 0.2\n5-9 0.3", "table"
    )
    r.mark("figure", start, len(r.text), id="tab_0", type="table")
    r.add("\nFree full text at www.example.org\n")
    reference(
        r, "b0", "Iron deficiency in children of low income countries and what is known of its causes today", "Kimani"
    )
    reference(r, "b1", "HIV and anaemia", "Glick")
    reference(r, "b2", "A third work", "Smith")
    return r
