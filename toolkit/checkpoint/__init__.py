"""Checkpoints both ways: Hugging Face Llama folders <-> Megatron distributed checkpoints, and what is in either.

Decides the conversion and its files; knows neither NeMo nor Megatron as packages, only the format they write.
Importing this is cheap, and no conversion imports torch.
"""

from toolkit.checkpoint.compare import Diff, Difference, diff
from toolkit.checkpoint.complete import incomplete_reason, is_complete, latest, step_of
from toolkit.checkpoint.exporting import Exported, export_hf
from toolkit.checkpoint.hf import HfModel, check_hf
from toolkit.checkpoint.importing import Imported, import_hf
from toolkit.checkpoint.look import Inspection, TensorInfo, inspect
from toolkit.checkpoint.random_hf import make_random_hf
from toolkit.checkpoint.shape import LlamaShape, read_shape
from toolkit.checkpoint.verifying import Verified, verify

__all__ = [
    "Diff",
    "Difference",
    "Exported",
    "HfModel",
    "Imported",
    "Inspection",
    "LlamaShape",
    "TensorInfo",
    "Verified",
    "check_hf",
    "diff",
    "export_hf",
    "import_hf",
    "incomplete_reason",
    "inspect",
    "is_complete",
    "latest",
    "make_random_hf",
    "read_shape",
    "verify",
    "step_of",
]
