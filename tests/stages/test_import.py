"""A base that is another model than the recipe's is refused before a weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.checkpoint.shape import shape_of
from toolkit.errors import CheckpointError
from toolkit.recipe import compose
from toolkit.stages.import_ import check_base

# config.json of the published Llama-3-8B, as far as it is about the model's shape.
LLAMA3_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "rope_scaling": None, "vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": False,
}  # fmt: skip
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}  # Llama 3.1


def check(recipe: str, config: dict[str, Any]) -> None:
    check_base(compose(recipe).recipe.model, shape_of(config), Path("base"))


def test_the_recipes_own_base_passes() -> None:
    check("pretrain_8b", LLAMA3_8B)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rope_scaling": SCALED}, "scales its rotary positions"),
        ({"rope_theta": 10000.0}, "rope_theta is 10000, model.rope_base 500000"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-06, model.norm_eps 1e-05"),
        ({"tie_word_embeddings": True}, "ties its output head"),
        ({"num_key_value_heads": 32}, "num_key_value_heads is 32, model.kv_heads 8"),
        ({"num_hidden_layers": 16}, "num_hidden_layers is 16, model.layers 32"),
        ({"intermediate_size": 11008}, "intermediate_size is 11008, model.ffn 14336"),
        ({"head_dim": 64}, "head_dim is 64, model.hidden / model.heads 128"),
    ],
)
def test_another_base_is_one_message(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        check("pretrain_8b", {**LLAMA3_8B, **changed})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_llama_2_is_no_llama_3() -> None:
    with pytest.raises(CheckpointError, match="model.layers 80"):
        check("pretrain_llama3_70b", LLAMA3_8B)
