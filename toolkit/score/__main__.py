"""`python -m toolkit.score`: models on benchmarks. Thin; the work is in `toolkit.scoring`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from toolkit import cli
from toolkit.score import compare, export_lm_eval, listing, rescore, run

_EXAMPLES = """examples:
  python -m toolkit.score list
  python -m toolkit.score run --model models/pretrained --benchmark medqa4 --path test.jsonl -o scores/medqa4
  python -m toolkit.score run --model models/pretrained --benchmark pubmedqa,mmlu_medical \\
      --path pubmedqa=pubmedqa/data --path mmlu_medical=mmlu/data -o scores/two
  python -m toolkit.score run --model checkpoints/step=22999 --tokenizer llama2 --benchmark medqa --path medqa \
      --shots 5 --seeds 1234,432,32 --paper-compat -o scores/five_shot
  python -m toolkit.score run --url http://node7:8000 --model meditron-70b --tokenizer models/meditron-70b \
      --benchmark medqa4 --path medqa --mode sc_cot --samples 20 -o scores/sc_cot
  python -m toolkit.score rescore generations.jsonl --benchmark medqa4 --items answers.jsonl
  python -m toolkit.score compare scores/before scores/after
  python -m toolkit.score gate scores/before scores/after --min-drop 0.01
  python -m toolkit.score export-lm-eval --benchmark medqa4 --path medqa --shots 5 -o tasks"""

_VERBS = (run, rescore, compare, listing, export_lm_eval)


def main(argv: Sequence[str]) -> int | None:
    parser, verb = cli.verbs("python -m toolkit.score", description=__doc__, examples=_EXAMPLES)
    for module in _VERBS:
        module.add(verb)
    args = parser.parse_args(argv)
    return args.call(args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
