"""The seam to vLLM: what is asked of its published API, answered by a module that stands in for it."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.scoring.conftest import CLOZE, LETTERS, make_items
from toolkit.errors import MissingPackage
from toolkit.scoring import engines, load_model, score

pytest.importorskip("transformers")


@pytest.fixture
def stand_in(llama: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """vllm.LLM and vllm.SamplingParams over the tiny model; keywords that vLLM does not have are refused."""
    import torch

    loaded = load_model(llama)
    module: Any = types.ModuleType("vllm")
    module.__version__, module.asked, module.made = "0.11.0", [], []

    class SamplingParams:
        def __init__(self, *, n=1, temperature=1.0, max_tokens=16, stop=None, seed=None, logprobs=None,
                     prompt_logprobs=None, frequency_penalty=0.0):  # fmt: skip
            self.__dict__.update({k: v for k, v in locals().items() if k != "self"})

    def told(logits: Any, count: int, token: int) -> dict[int, Any]:
        values = logits.log_softmax(-1)
        places = dict.fromkeys([*values.topk(count).indices.tolist(), token])
        return {place: types.SimpleNamespace(logprob=values[place].item()) for place in places}

    class LLM:
        def __init__(self, model, *, tensor_parallel_size, enable_prefix_caching, max_logprobs, trust_remote_code):  # noqa: ANN001
            assert Path(model) == llama and enable_prefix_caching and not trust_remote_code
            module.made.append(max_logprobs)
            config = types.SimpleNamespace(max_model_len=256, dtype=torch.float32)
            self.llm_engine = types.SimpleNamespace(model_config=config)

        def generate(self, prompts, params, use_tqdm=True):  # noqa: ANN001
            several = params if isinstance(params, list) else [params] * len(prompts)
            module.asked += several
            return [self.one(prompt["prompt_token_ids"], how) for prompt, how in zip(prompts, several, strict=True)]

        def one(self, ids, how):  # noqa: ANN001
            with torch.no_grad():
                logits = loaded.model(torch.tensor([ids])).logits[0]
            out = types.SimpleNamespace(prompt_token_ids=ids, num_cached_tokens=0, prompt_logprobs=None)
            if how.prompt_logprobs is not None:
                after = [told(logits[i - 1], how.prompt_logprobs, ids[i]) for i in range(1, len(ids))]
                out.prompt_logprobs = [None, *after]
            made = [(how.seed or 0) % 97 + 3 + i for i in range(how.n)]
            first = told(logits[-1], how.logprobs, int(logits[-1].argmax())) if how.logprobs else None
            out.outputs = [
                types.SimpleNamespace(index=i, text=f"{loaded.decode([token])} The answer is B.", token_ids=[token],
                                      logprobs=[first])
                for i, token in reversed(list(enumerate(made)))
            ]  # fmt: skip
            return out

    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def test_letters_are_one_token_with_its_rivals(llama: Path, stand_in: Any):
    items = make_items(10)
    want = score(model=llama, items=items, benchmark=LETTERS)
    got = score(model=engines.load(llama, engine="vllm"), items=items, benchmark=LETTERS)
    assert {(how.max_tokens, how.temperature, how.logprobs, how.prompt_logprobs) for how in stand_in.asked} == {
        (1, 0.0, 20, None)
    }
    assert stand_in.made == [20]
    assert (got.engine, got.engine_version, got.model_sha256) == ("vllm", "0.11.0", want.model_sha256)
    known = 0
    for ours, theirs in zip(want.predictions, got.predictions, strict=True):
        for i, (a, b) in enumerate(zip(ours.forms, theirs.forms, strict=True)):
            for x, y in zip(a, b, strict=True):
                known += math.isclose(x, y, abs_tol=1e-5)
                assert x <= y + 1e-5, "what is not among the likeliest is bounded from above"
            if i in theirs.bounded:
                assert max(theirs.logprobs) >= ours.logprobs[i] - math.log(2)
    assert known > 5


def test_cloze_asks_for_the_prompts_own(llama: Path, stand_in: Any):
    items = make_items(6)
    want = score(model=llama, items=items, benchmark=CLOZE)
    got = score(model=engines.load(llama, engine="vllm"), items=items, benchmark=CLOZE)
    assert {how.prompt_logprobs for how in stand_in.asked} == {1}
    for ours, theirs in zip(want.predictions, got.predictions, strict=True):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-5)


def test_samples_are_one_request(llama: Path, stand_in: Any):
    items = make_items(4)
    engine = engines.load(llama, engine="vllm")
    got = score(model=engine, items=items, benchmark=LETTERS, mode="sc_cot", samples=20, seed=7)
    assert [(how.n, how.temperature, how.max_tokens) for how in stand_in.asked] == [(20, 0.8, 1024)] * 4
    assert len({how.seed for how in stand_in.asked}) == 4 and "###" in stand_in.asked[0].stop
    assert [(p.prediction, p.agreement, len(p.texts)) for p in got.predictions] == [("B", 1.0, 20)] * 4


def test_without_vllm(llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingPackage, match="needs the package vllm"):
        score(model=engines.load(llama, engine="vllm"), items=make_items(2), benchmark=LETTERS)
