"""From a recipe's section `corpus` to sources and settings, and what is refused before a run is made."""

from __future__ import annotations

import os

import pytest

from toolkit import cli, launch
from toolkit.errors import RecipeError
from toolkit.plan import missing_inputs
from toolkit.recipe import absolute, compose
from toolkit.recipe.paths import outside
from toolkit.stages.context import _external
from toolkit.stages.corpus import check_sources, settings_of, sources_of

PATHS = {name: f"corpus.sources.{name}.path={name}" for name in ("guidelines", "abstracts", "papers", "replay")}


def test_the_papers_corpus_is_as_the_paper_says():
    recipe = compose("gap_replay", list(PATHS.values())).recipe
    sources, settings = sources_of(recipe), settings_of(recipe)
    assert [source.name for source in sources] == ["guidelines", "abstracts", "papers", "replay"]
    assert [settings.share(source) for source in sources] == [0.05, 0.03, 0.03, 0.0]
    assert settings.markup == "tags" and settings.filters.cutoff == "2023-08-31"
    assert settings.filters.language.keep == ("en",) and settings.filters.repetition.enabled
    assert settings.decontamination.mode == "remove" and settings.seed == recipe.train.seed
    assert (
        "corpus.decontaminate.benchmarks",
        "the files of the benchmarks that it is kept clear of",
    ) in missing_inputs(recipe)


def test_the_open_corpus_keeps_nothing_that_forbids_commercial_use():
    recipe = compose("gap_replay", ["corpus=gap_replay_open"]).recipe
    assert recipe.corpus.filters.licences == ("open",) and "abstracts" not in recipe.corpus.sources
    assert recipe.corpus.sources["guidelines"].options == {"exclude": ["wikidoc"]}


def test_benchmarks_are_those_that_are_scored_unless_others_are_named():
    given = ["corpus.decontaminate.mode=mark", "score.paths={medqa4: m.jsonl, demo_cloze: world}"]
    assert settings_of(compose("demo", given).recipe).benchmarks == {"medqa4": "m.jsonl"}
    named = [*given, "corpus.decontaminate.benchmarks={mine: mine.jsonl}"]
    assert settings_of(compose("demo", named).recipe).benchmarks == {"mine": "mine.jsonl"}


def test_every_file_that_a_corpus_reads_is_known_and_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        *PATHS.values(),
        "corpus.sources.papers.paths=[more]",
        "corpus.sources.papers.kind=s2orc",
        "+corpus.sources.papers.options={papers: [meta1, meta2], require: any}",
        "corpus.decontaminate.benchmarks={mine: mine.jsonl}",
    ]
    recipe = absolute(compose("gap_replay", words).recipe)
    names = ["guidelines", "abstracts", "papers", "more", "meta1", "meta2", "replay", "mine.jsonl"]
    expected = [str(tmp_path / name) for name in names]
    assert [path for path in outside(recipe) if path.startswith(str(tmp_path))] == expected
    assert set(_external(recipe, "corpus").values()) == set(expected)
    assert recipe.corpus.sources["papers"].options["require"] == "any"
    assert all(os.path.isabs(path) for source in sources_of(recipe) for path in source.paths)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["corpus.sources.papers.options={markups: tags}"], "corpus.sources.papers: unknown option 'markups'"),
        (["corpus.sources.replay.options={fraction: 2}"], "corpus.sources.replay"),
        (["corpus.sources.papers.kind=world"], "takes no path"),
    ],
)
def test_options_that_a_reader_does_not_take_are_refused(words, said):
    recipe = compose("gap_replay", [*PATHS.values(), *(f"+{word}" if "options" in word else word for word in words)])
    with pytest.raises(RecipeError) as caught:
        check_sources(recipe.recipe)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("corpus.filters.cutoff=soon", "'corpus.filters': cutoff 'soon' is no date"),
        ("corpus.filters.licences=[opne]", "Did you mean 'open'"),
        ("corpus.duplicates.near_threshold=3", "near_threshold"),
        ("corpus.decontaminate.mode=drop", "valid: mark, off, remove"),
        ("corpus.decontaminate.ngram=1", "ngram is 1"),
        ("corpus.tasks=0", "corpus.tasks is 0"),
        ("corpus.sources.papers.valid_fraction=1", "valid_fraction"),
        ("corpus.sources.papers.kind=pmv", "Did you mean 'pmc'"),
        ("+corpus.sources.a/b={kind: jsonl, path: x}", "a/b"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_written(word, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(launch.main, ["recipe=gap_replay", *PATHS.values(), word]) == 2
    told = capsys.readouterr().err
    assert said.lower() in told.lower() and len(told.splitlines()) == 1 and list(tmp_path.iterdir()) == []
