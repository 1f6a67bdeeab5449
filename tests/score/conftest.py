"""The models of the scoring tests, also for those of its command line."""

from tests.scoring.conftest import llama, llama_copy, tokenizer_folder

__all__ = ["llama", "llama_copy", "tokenizer_folder"]
