"""The engine of OpenAI-compatible servers against a server of its own, whose answers come from a real model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scoring.conftest import CLOZE, LETTERS, make_items
from tests.scoring.serving import Served
from toolkit.errors import CheckpointError, ServerError, UsageError
from toolkit.scoring import Score, Store, load_model, score
from toolkit.scoring.engines import Ask, server, top
from toolkit.scoring.engines.server import Server

pytest.importorskip("transformers")


@pytest.fixture
def served(llama: Path) -> Iterator[Served]:
    made = Served(load_model(llama))
    yield made
    made.close()


def asked(served: Served, tokenizer: Path | None, **options: object) -> Score:
    engine = Server(url=served.url, model="tiny", tokenizer=tokenizer, pause_s=0.001)
    return score(model=engine, **{"items": make_items(12), "benchmark": LETTERS} | options)


def compare(want: Score, got: Score) -> int:
    """How many forms are known; those that are not must be bounded from above."""
    known = 0
    for ours, theirs in zip(want.predictions, got.predictions, strict=True):
        for i, (a, b) in enumerate(zip(ours.forms, theirs.forms, strict=True)):
            for x, y in zip(a, b, strict=True):
                known += math.isclose(x, y, abs_tol=1e-5)
                assert x <= y + 1e-5
            if i not in theirs.bounded:
                assert theirs.logprobs[i] <= ours.logprobs[i] + 1e-5
    return known


def test_letters_with_token_ids(llama: Path, served: Served):
    want, got = score(model=llama, items=make_items(12), benchmark=LETTERS), asked(served, llama)
    assert compare(want, got) > 4
    for body in served.asked:
        assert isinstance(body["prompt"], list) and (body["max_tokens"], body["temperature"]) == (1, 0)
        assert body["logprobs"] == 20 and body["return_tokens_as_token_ids"]
    assert len(served.asked) == got.model_calls == 12 and got.tokens > got.unique_tokens / 2
    assert (got.engine, got.engine_version, got.device) == ("server", "9.9", "server")
    bounded = sum(bool(p.bounded) for p in got.predictions)
    assert bounded and f"items of which some answers are only bounded: {bounded}" in got.notes
    none = [p for p in got.predictions if len(p.bounded) == 4]
    assert all(p.prediction is None and not p.valid and not p.correct for p in none) and got.invalid == len(none)


def test_letters_with_text(llama: Path, served: Served):
    """Without the tokenizer: what the server writes for a token is all there is to go by."""
    got = asked(served, None)
    want = score(model=llama, items=make_items(12), benchmark=LETTERS)
    assert all(isinstance(body["prompt"], str) for body in served.asked)
    known = 0
    for ours, theirs in zip(want.predictions, got.predictions, strict=True):
        for i in set(range(4)) - set(theirs.bounded):
            known += any(math.isclose(theirs.logprobs[i], x, abs_tol=1e-5) for x in ours.forms[i])
    assert known > 4
    with pytest.raises(UsageError, match="mode cloze needs"):
        asked(served, None, benchmark=CLOZE)


def test_a_server_that_tells_five(llama: Path, served: Served):
    served.most = 5
    got = asked(served, llama)
    assert {body["logprobs"] for body in served.asked} == {20, 5}
    assert any("5 likeliest" in note for note in got.notes)


def test_cloze_through_an_echo(llama: Path, served: Served):
    items = make_items(4)
    want, got = score(model=llama, items=items, benchmark=CLOZE), asked(served, llama, items=items, benchmark=CLOZE)
    for ours, theirs in zip(want.predictions, got.predictions, strict=True):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-5)


def test_samples_in_one_request(llama: Path, served: Served):
    got = asked(served, llama, mode="sc_cot", samples=20, seed=3, items=make_items(5))
    assert [body["n"] for body in served.asked] == [20] * 5 and got.model_calls == 5
    assert served.asked[0]["temperature"] == 0.8 and "###" in served.asked[0]["stop"]
    assert len({body["seed"] for body in served.asked}) == 5
    for p in got.predictions:
        assert len(p.texts) == 20 and set(p.answers) <= {"B", "C", None} and 0 <= p.agreement <= 1
    again = asked(served, llama, mode="sc_cot", samples=20, seed=3, items=make_items(5))
    assert [p.texts for p in again.predictions] == [p.texts for p in got.predictions]


def test_likeliest_tokens_as_text():
    ask = Ask(key="1", text="", ids=[], forms=(" A", "A", " B", "B"))
    told = top.by_text(ask, {" A": -0.5, "A": -2.0, "x": -3.0})
    assert told.logprobs[:2] == ((-0.5,), (-2.0,)) and told.bounded == (2, 3)
    assert told.logprobs[2][0] == pytest.approx(min(-3.0, math.log(1 - sum(map(math.exp, (-0.5, -2.0, -3.0))))))
    bare = top.by_text(ask, {"\u2581B": -0.1, "\u0120A": -3.0})
    assert bare.bounded == (1, 3) and bare.logprobs[2] == (-0.1,)


# --- servers that fail


def test_a_busy_server_is_asked_again(llama: Path, served: Served):
    served.fault, served.after = "busy twice", 3
    got = asked(served, llama)
    assert got.n == 12 and served.refused >= 2 and served.answered == 12


@pytest.mark.parametrize("fault", ["500", "hangs up"])
def test_a_server_that_dies_half_way(llama: Path, served: Served, tmp_path: Path, fault: str):
    served.fault, served.after = fault, 5
    with pytest.raises(ServerError, match="does not answer, after 5 tries") as caught:
        asked(served, llama, store=Store(tmp_path))
    assert "what came is kept" in str(caught.value) and served.url in str(caught.value)
    if fault == "500":
        assert "HTTP 500: <html><h1>Internal</h1> error</html>" in str(caught.value)
    served.fault = ""
    again = asked(served, llama, store=Store(tmp_path))
    assert (again.model_calls, again.kept) == (7, 5) and again.n == 12
    assert asked(served, llama, store=Store(tmp_path)).model_calls == 0
    assert served.answered == 12


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("html", "what is not JSON.*Sign in first"), ("null", "no completion"), ("no choices", "no completion"),
        ("a list", "no completion"), ("no logprobs", "without logprobs"), ("words", "without logprobs"),
        ("nothing", "no likeliest token"), ("elsewhere", "refuses: HTTP 302"),
    ],
)  # fmt: skip
def test_nonsense_is_one_message(llama: Path, served: Served, fault: str, message: str):
    served.fault = fault
    with pytest.raises(ServerError, match=message):
        asked(served, llama)


def test_log_probabilities_that_are_no_numbers(served: Served):
    served.fault = "nan"
    with pytest.raises(CheckpointError, match="not finite numbers at item 'q"):
        asked(served, None)


def test_too_few_samples(llama: Path, served: Served):
    served.fault = "no logprobs"
    with pytest.raises(ServerError, match="1 texts, where 5 were asked for"):
        asked(served, llama, mode="sc_cot")


def test_a_key_comes_from_the_environment_alone(
    llama: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    served.key = "sk-very-secret"
    monkeypatch.delenv(server.KEY, raising=False)
    with pytest.raises(ServerError, match="HTTP 401.*Set OPENAI_API_KEY in the environment"):
        asked(served, llama)
    monkeypatch.setenv(server.KEY, served.key)
    got = asked(served, llama, store=Store(tmp_path))
    assert got.n == 12 and served.key not in str(got)
    assert not any(served.key in file.read_text() for file in tmp_path.rglob("*.jsonl"))


def test_addresses(served: Served, llama: Path):
    for url in ("localhost:80", "ftp://x", "http://", "file:///etc/passwd"):
        with pytest.raises(UsageError, match="no address of a server"):
            Server(url=url, model="tiny")
    with pytest.raises(UsageError, match="no name and password"):
        Server(url="http://me:secret@host", model="tiny")
    with pytest.raises(UsageError, match="no model 'tini'.*Did you mean 'tiny'"):
        score(model=Server(url=served.url + "/v1/", model="tini"), items=make_items(2), benchmark=LETTERS)
    served.close()
    with pytest.raises(ServerError, match="does not answer"):
        score(model=Server(url=served.url, model="tiny", pause_s=0.001), items=make_items(2), benchmark=LETTERS)
