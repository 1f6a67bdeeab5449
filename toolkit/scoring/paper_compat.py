"""What the code released with the MEDITRON paper does otherwise than this toolkit, and how to have it that way.

Decides nothing: it says, choice by choice, what that code does (epfLLM/meditron, evaluation/; paper sections 4.3 and
5), what is done here by default, and whether `--paper-compat` changes it. The wording of instructions is never the
paper's. The released extraction and vote are in `released`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from toolkit.errors import MissingPackage
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.prompts import STOP

BRANCHES = 5
"""Samples of self-consistency: 5 in the paper (section 4.3), 10 as the released code's own default."""

TEMPERATURE = 0.8
FREQUENCY_PENALTY = 1.0
MAX_TOKENS = {"cot": 1024, "sc_cot": 1024}

MMLU = (
    "anatomy",
    "college_biology",
    "college_medicine",
    "professional_medicine",
    "medical_genetics",
    "virology",
    "clinical_knowledge",
    "high_school_biology",
    "high_school_chemistry",
    "nutrition",
    "college_chemistry",
)
"""The subjects in the released loader's order: demonstrations come from all eleven, scores from the nine without
chemistry."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One point where the two differ. `compat`: what `--paper-compat` does about it, empty when it changes nothing."""

    name: str
    released: str
    ours: str
    compat: str = ""


CHOICES = (
    Choice(
        name="prompt",
        released="options announced and listed after a blank line, a question mark put where no sentence ends, the "
        'cue "The answer is:", a new line after it without demonstrations; a study\'s abstract and question bare',
        ours='context, question and options each under its name, the cue "Answer:", nothing after it',
        compat="the released structure, around the project's own words",
    ),
    Choice(
        name="options of MedQA-4",
        released="the instruction of the 5-option set, which speaks of A to E",
        ours="A to D",
        compat="A to E",
    ),
    Choice(
        name="draw of demonstrations",
        released="the first rows of the training split as datasets.Dataset.shuffle(seed) orders it, for seeds 1234, "
        "432 and 32",
        ours="the first as Python's random.Random(seed) orders it, never a question that is scored",
        compat="the released order (NumPy's PCG64), never a question that is scored",
    ),
    Choice(
        name="demonstrations of MMLU",
        released="one draw over the pooled demonstrations of eleven subjects, two of them chemistry",
        ours="each subject's own",
        compat="one draw over all subjects whose file is there, in the released order",
    ),
    Choice(
        name="questions of MMLU",
        released="a copy that lacks the first row of every subject's files: 1,862 questions",
        ours="all 1,871",
        compat="the first row of every file is left out, of the demonstrations' as well",
    ),
    Choice(
        name="options of TruthfulQA",
        released="three wrong answers drawn with replacement and without a seed; no training split, so its one-shot "
        "setting cannot run",
        ours="drawn without replacement, always alike; demonstrations from the other categories",
        compat="drawn with replacement, always alike; demonstrations as here",
    ),
    Choice(
        name="top token",
        released="the greedy text of one to nine tokens, never limited to the options (the paper: the likeliest next "
        "token)",
        ours="the likeliest of the options' letters or words, over their surface forms",
        compat="",
    ),
    Choice(
        name="sampling",
        released="frequency penalty 1.0 in every mode; self-consistency with 10 samples unless told otherwise, 5 in "
        "the paper",
        ours="no penalty; as many samples as asked for",
        compat="that penalty where texts are generated; 5 samples where none is asked for",
    ),
    Choice(
        name="extraction",
        released='the first letter of the text, or the word after the last "answer is" where it reasons',
        ours="the final answer, whatever its form; several or none are invalid",
        compat="the released rule",
    ),
    Choice(
        name='PubMedQA\'s "maybe"',
        released="not a valid answer: every question whose answer it is counts as wrong, so 89 % is the most",
        ours="an answer like the others",
        compat="not valid",
    ),
    Choice(
        name="self-consistency",
        released="the first seen of equally many; what cannot be read takes part and may win; samples are joined to "
        "their question by its text, so equal questions overwrite each other",
        ours="the majority of what can be read, by item",
        compat="what cannot be read takes part; samples stay with their item",
    ),
)


def apply(spec: Benchmark) -> Benchmark:
    """`spec` with what the released code makes of it, so far as a benchmark's file can say it."""
    changed = dataclasses.replace(spec, demonstrate="pooled", instruction=instruction(spec))
    if spec.name == "mmlu_medical" and spec.size is not None:
        groups = {name: size - 1 for name, size in spec.groups.items()}
        changed = dataclasses.replace(changed, groups=groups, size=sum(groups.values()))
    return changed


def instruction(spec: Benchmark) -> str:
    """The instruction of MedQA-4 speaks of five options, as it does in the paper's numbers."""
    return spec.instruction.replace("A to D", "A to E") if spec.name == "medqa4" else spec.instruction


def groups(spec: Benchmark) -> tuple[str, ...]:
    """The groups whose demonstrations are pooled, in the released order."""
    return MMLU if spec.name == "mmlu_medical" else tuple(spec.groups)


def order(n: int, seed: int) -> list[int]:
    """The order of n rows after `datasets.Dataset.shuffle(seed)`: NumPy's default generator permutes them."""
    try:
        import numpy
    except ImportError as err:
        raise MissingPackage("the paper's draw of demonstrations needs numpy", do="install the extra 'score'") from err
    return [int(i) for i in numpy.random.default_rng(seed).permutation(n)]


def max_tokens(mode: str, answer_tokens: int, shots: int) -> int:
    """Tokens that the released code lets a model write: an answer's own, eight more behind demonstrations."""
    return MAX_TOKENS.get(mode, answer_tokens + (8 if shots else 0))


STOPS = STOP[:1]
