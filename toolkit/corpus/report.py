"""What became of every document of a build, as `report.json` for programs and `report.html` for people.

Decides what is said about the counts of a `Tally` and how; counts nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import __version__, files
from toolkit.cleaning import NO_BENCHMARKS
from toolkit.corpus import licence, mend
from toolkit.corpus.tally import Tally

# Measured with the Llama-2 tokenizer on 200 MB of biomedical and technical text; prose alone gives more, tables less.
BYTES_PER_TOKEN = 3.35

# What removes documents, in the order in which a document meets it.
RULES = {
    "bad_row": "could not be read: damaged file or archive, not XML, not JSON, wrong encoding, no text",
    "not_sampled": "not among the rows that were drawn",
    "no_text": "pictures of pages without text",
    "excluded_source": "from a source that the recipe leaves out",
    "not_a_guideline": "no guideline: navigation, an overview or a notice",
    "overview_kept_instead": "part of an overview that is in the corpus whole",
    "only_endorses_others": "says no more than that another body's guideline is endorsed",
    "same_beginning": "begins as another text of its source does",
    "not_pubmed": "no paper of PubMed or PMC",
    "no_abstract": "its record has no abstract",
    "no_full_text": "its record has no text",
    "no_english_abstract": "has no abstract in English",
    "empty": "holds no text",
    "licence": "its licence does not allow the use that the corpus is for",
    "retracted": "a source says that it is retracted, or it is the notice",
    "after_cutoff": "published after the cutoff date",
    "too_short": "shorter than the recipe accepts",
    "too_long": "longer than the recipe accepts",
    "repetition": "repeats its own lines or phrases",
    "language": "in another language than those asked for",
    "contaminated": "holds items of a benchmark",
    "withdrawn": "the source has withdrawn it",
    "same_id": "the same paper by its ids, of which a better or newer version stays",
    "exact_duplicate": "the same text stands in the corpus already",
    "near_duplicate": "nearly the same text stands in the corpus already",
    "upsample_dropped": "left out by the trial of upsampling",
}


def summary(tally: Tally, *, settings: Mapping[str, Any] | None = None, extra: Mapping[str, Any] | None = None) -> dict:
    """All that the report says, as JSON takes it; the same for the same counts, and nothing of the machine in it.

    `in` = `out` + the sum of `removed`, over all and for each subset. `tokens_estimated` divides the bytes of what is
    written by `BYTES_PER_TOKEN`.
    """
    removed, changed, marked = (tally.counted(name) for name in ("removed", "changed", "marked"))
    contaminated, asked = tally.details.get("contaminated", {}), dict(settings or {})
    looked = asked.get("decontamination", {}).get("mode", "off") != "off"
    return {
        "format": 1,
        "toolkit": __version__,
        **_numbers(tally),
        "bytes_per_token": BYTES_PER_TOKEN,
        "removed": {rule: removed[rule] for rule in _order(removed)},
        "unknown_licence": tally.counted("licences")[licence.UNKNOWN],
        "rules": [
            {
                "rule": rule,
                "meaning": RULES.get(rule, rule.replace("_", " ")),
                "removed": removed[rule],
                "details": _most(tally.details.get(rule, Counter())),
                "examples": _shown(tally.examples.get(rule, [])),
            }
            for rule in _order(removed)
        ],
        "changed": [
            {"rule": rule, "meaning": why, "documents": changed[rule], "examples": _shown(tally.examples.get(rule, []))}
            for rule, why in mend.RULES.items()
            if changed[rule]
        ],
        "decontamination": {
            name: {"removed": contaminated.get(name, 0), "marked": marked[name]}
            for name in sorted({*contaminated, *marked, *(asked.get("benchmarks", {}) if looked else ())})
        },
        "marked_examples": _shown(tally.examples.get("marked", [])),
        "bad_rows": {"rows": removed["bad_row"], "reasons": _most(tally.details.get("bad_row", Counter()))},
        **{name: _sorted(name, tally.counted(name)) for name in ("licences", "years", "lengths")},
        "subsets": {
            name: {
                "in": each.inn, "out": each.out, "train": each.train, "valid": each.valid, "copies": each.copies,
                "withdrawals": each.withdrawals, "characters": each.characters, "bytes": each.bytes,
                "tokens_estimated": _tokens(each.bytes),
                "removed": {rule: each.removed[rule] for rule in _order(each.removed)},
                "changed": {rule: each.changed[rule] for rule in mend.RULES if each.changed[rule]},
                "marked": dict(sorted(each.marked.items())),
                **{kind: _sorted(kind, getattr(each, kind)) for kind in ("licences", "years", "lengths")},
            }
            for name, each in sorted(tally.subsets.items())
        },
        "warnings": [NO_BENCHMARKS] if looked and not asked.get("benchmarks") else [],
        "settings": asked,
        **(extra or {}),
    }  # fmt: skip


def page(found: Mapping[str, Any]) -> str:
    """`summary` as one page of HTML that loads nothing."""
    from toolkit.corpus import report_page

    return report_page.render(found)


def write(folder: str | Path, found: Mapping[str, Any]) -> None:
    """Write `report.json` and `report.html` into `folder`. Raises `DiskFull` for a full disk."""
    files.write_json(Path(folder) / "report.json", found)
    files.write_text(Path(folder) / "report.html", page(found))


def _numbers(tally: Tally) -> dict[str, int]:
    names = {"in": "inn", **{name: name for name in ("out", "train", "valid", "copies", "withdrawals")}}
    sizes = {name: tally.total(name) for name in ("characters", "bytes")}
    return {
        **{name: tally.total(field) for name, field in names.items()},
        **sizes,
        "tokens_estimated": _tokens(sizes["bytes"]),
    }


def _tokens(size: int) -> int:
    return round(size / BYTES_PER_TOKEN)


def _order(removed: Mapping[str, int]) -> list[str]:
    """The rules that removed something, in the order of `RULES`; those that only a reader knows after the first."""
    own = sorted(set(removed) - set(RULES))
    names = [*list(RULES)[:1], *own, *list(RULES)[1:]]
    return [rule for rule in names if removed.get(rule)]


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _sorted(kind: str, counts: Mapping[str, int]) -> dict[str, int]:
    if kind == "licences":
        return _most(counts)
    if kind == "lengths":  # powers of two: as text, 10 would come before 9
        return {str(1 << int(power)): counts[power] for power in sorted(counts, key=int)}
    return {year or "unknown": counts[year] for year in sorted(counts, key=lambda year: (not year, year))}


def _shown(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in example.items() if name != "key" and value} for example in examples]
