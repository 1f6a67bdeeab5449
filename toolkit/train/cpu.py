"""Everything that a CPU over gloo needs differently from the GPU recipe. One small override; the rest of the recipe
stays as it is.
"""

from __future__ import annotations

import nemo_run as run


def override(recipe: run.Partial) -> None:
    """No fused kernels, no overlap of gradients and computation, no asynchronous saving."""
    config, trainer = recipe.model.config, recipe.trainer
    config.use_cpu_initialization = True
    for fusion in (
        "persist_layer_norm",
        "masked_softmax_fusion",
        "apply_rope_fusion",
        "bias_activation_fusion",
        "bias_dropout_fusion",
        "cross_entropy_loss_fusion",
        "gradient_accumulation_fusion",
    ):
        setattr(config, fusion, False)
    # A late send on gloo would read freed memory, and train wrongly without a word.
    config.deallocate_pipeline_outputs = False
    trainer.accelerator = "cpu"
    ddp = trainer.strategy.ddp
    ddp.overlap_grad_reduce = ddp.overlap_param_gather = ddp.average_in_collective = ddp.check_for_nan_in_grad = False
    trainer.strategy.ckpt_async_save = False
