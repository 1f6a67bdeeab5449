"""vLLM in this process, on GPUs that it runs on: it keeps the beginnings that prompts share by itself.

Decides what vLLM is asked; whatever is not asked for here stays at its defaults.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.errors import MissingPackage
from toolkit.scoring.engines import Ask, How, Told, Words, Work, top, tree
from toolkit.scoring.engines.hf import fingerprint
from toolkit.scoring.engines.server import seed_of
from toolkit.scoring.hf import check_hf, named, tokenizer_of

_AT_ONCE = 512  # prompts of one call, so that what is done is kept while the rest is at work


class Vllm:
    name, device = "vllm", "cuda"

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        check_hf(folder)
        self.folder, self.model, self.work = folder, name or named(folder), Work()

    @cached_property
    def _module(self) -> Any:
        try:
            import vllm
        except ImportError as err:
            do = "install it in the image, or score with --engine transformers"
            raise MissingPackage("engine vllm needs the package vllm", do=do) from err
        return vllm

    @cached_property
    def _engine(self) -> Any:
        import torch

        return self._module.LLM(
            model=str(self.folder),
            tensor_parallel_size=max(1, torch.cuda.device_count()),
            enable_prefix_caching=True,
            max_logprobs=top.COUNT,
            trust_remote_code=False,
        )

    @property
    def version(self) -> str:
        return str(self._module.__version__)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.folder)

    @property
    def window(self) -> int | None:
        return self._engine.llm_engine.model_config.max_model_len

    @cached_property
    def words(self) -> Words:
        encode, decode, bos_id, _ = tokenizer_of(self.folder)
        return Words(encode=encode, decode=decode, bos_id=bos_id)

    @property
    def dtype(self) -> str:
        return str(self._engine.llm_engine.model_config.dtype).removeprefix("torch.")

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def logprobs(self, asks: Sequence[Ask], wanted: Container[int]) -> Iterator[tuple[int, Told]]:
        """Answers of one token each: one token is generated, and its likeliest rivals are told. Others: prompts with
        their answers, whose own log-probabilities are told."""
        whole = any(len(tail) > 1 for ask in asks for tail in ask.tails)
        one = {"max_tokens": 1, "temperature": 0.0}
        params = self._module.SamplingParams(**one, **({"prompt_logprobs": 1} if whole else {"logprobs": top.COUNT}))
        for places in self._parts(asks, wanted):
            some = [asks[place] for place in places]
            if not whole:
                for place, ask, out in zip(places, some, self._run([ask.ids for ask in some], params), strict=True):
                    likeliest = {token: told.logprob for token, told in out.outputs[0].logprobs[0].items()}
                    yield place, top.by_id(ask, likeliest)
                continue
            outs = iter(self._run([[*ask.ids, *tail] for ask in some for tail in ask.tails], params))
            for place, ask in zip(places, some, strict=True):
                forms = [next(outs).prompt_logprobs[len(ask.ids) :] for _ in ask.tails]
                pairs = [list(zip(form, tail, strict=True)) for form, tail in zip(forms, ask.tails, strict=True)]
                yield place, Told(logprobs=tuple(tuple(at[token].logprob for at, token in form) for form in pairs))

    def generate(self, asks: Sequence[Ask], wanted: Container[int], how: How) -> Iterator[tuple[int, tuple[str, ...]]]:
        shared = {"n": how.n, "temperature": how.temperature, "max_tokens": how.max_tokens, "stop": list(how.stop)}
        shared |= {"frequency_penalty": how.penalty} if how.penalty else {}
        for places in self._parts(asks, wanted):
            params = [self._module.SamplingParams(**shared, seed=seed_of(asks[place], how)) for place in places]
            for place, out in zip(places, self._run([asks[place].ids for place in places], params), strict=True):
                yield place, tuple(one.text for one in sorted(out.outputs, key=lambda one: one.index))

    def _parts(self, asks: Sequence[Ask], wanted: Container[int]) -> Iterator[list[int]]:
        order = sorted((i for i in range(len(asks)) if i in wanted), key=lambda i: asks[i].ids)
        self.work.asks += len(order)
        self.work.unique_tokens += tree.unique([asks[i].ids for i in order], [asks[i].tails for i in order])
        for at in range(0, len(order), _AT_ONCE):
            yield order[at : at + _AT_ONCE]

    def _run(self, prompts: Sequence[Sequence[int]], params: Any) -> list[Any]:
        outs = self._engine.generate([{"prompt_token_ids": list(ids)} for ids in prompts], params, use_tqdm=False)
        for out in outs:
            kept = getattr(out, "num_cached_tokens", None) or 0
            self.work.tokens += len(out.prompt_token_ids) - kept + sum(len(one.token_ids) for one in out.outputs)
        return outs
