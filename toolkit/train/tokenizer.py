"""The toolkit's tokenizer as NeMo and Megatron's datasets want to see it."""

from __future__ import annotations

from collections import OrderedDict

from nemo.collections.common.tokenizers.tokenizer_spec import TokenizerSpec
from nemo.lightning.io import IOMixin

from toolkit import files, tokenizer


class NemoTokenizer(TokenizerSpec, IOMixin):
    """A tokenizer folder. `eos_id` is the end-of-document token that pretraining put between documents."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._tokenizer = tokenizer.load(folder)
        self.vocab_size = self._tokenizer.vocab_size
        self.eos_id = self.eod_id = self._tokenizer.eod_id
        self.bos_id = self._tokenizer.bos_id
        self.pad_id = self._tokenizer.pad_id

    @property
    def eod(self) -> int:
        return self.eod_id

    @property
    def pad(self) -> int:
        return self.pad_id

    @property
    def unique_identifiers(self) -> OrderedDict[str, str]:
        """Part of the key under which Megatron keeps its sample indices: the content, not the place."""
        return OrderedDict({"class": "toolkit.tokenizer", "sha256": files.fingerprint(self.folder)})

    def text_to_ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def ids_to_text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids)

    def text_to_tokens(self, text: str) -> list[str]:
        return self.ids_to_tokens(self.text_to_ids(text))

    def tokens_to_text(self, tokens: list[str]) -> str:
        return self.ids_to_text(self.tokens_to_ids(tokens))

    def ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self._tokenizer.piece(i) for i in ids]

    def tokens_to_ids(self, tokens: list[str]) -> list[int]:
        known = {self._tokenizer.piece(i): i for i in range(self.vocab_size)}
        return [known[token] for token in tokens]
