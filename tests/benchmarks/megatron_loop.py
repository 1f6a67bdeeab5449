"""Tokenizes JSONL as Megatron-LM's tools/preprocess_data.py does with a SentencePiece tokenizer.

The tool itself is on no package index. A pool of processes encodes 32 lines at a time into Python lists, and one
process writes them with megatron-core's own IndexedDatasetBuilder. It shares no code with the toolkit, so its bytes are
a reference, too. Control names (`<EOD>`) are no special tokens here, or a text that has one would end in its middle.

    python tests/benchmarks/megatron_loop.py INPUT.jsonl PREFIX --tokenizer FOLDER --workers 2 [--append-eod]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path


class Encoder:
    def __init__(self, args):
        self.args = args

    def initializer(self):
        import sentencepiece

        Encoder.processor = sentencepiece.SentencePieceProcessor(
            model_file=str(self.args.tokenizer / "tokenizer.model")
        )
        added = self.args.tokenizer / "added_tokens.json"
        ids = json.loads(added.read_text()) if added.is_file() else {}
        Encoder.eod = ids.get("<EOD>", Encoder.processor.eos_id())
        Encoder.tags = {name: number for name, number in ids.items() if name.startswith("[")}

    def encode(self, line):
        key = self.args.json_key
        ids = self.tokenize(json.loads(line)[key])
        if ids and self.args.append_eod:
            ids.append(Encoder.eod)
        return {key: ids}, {key: [len(ids)]}, len(line)

    def tokenize(self, text):
        """Megatron's way: look for each special token in what is left, and cut at the first that is found."""
        ids, at = [], 0
        while True:
            places = {}
            for tag in Encoder.tags:
                try:
                    places[tag] = text[at:].index(tag)
                except ValueError:
                    continue
            if not places:
                break
            tag = min(places, key=places.get)
            begin = at + places[tag]
            if begin > at:
                ids.extend(Encoder.processor.encode_as_ids(text[at:begin]))
            ids.append(Encoder.tags[tag])
            at = begin + len(tag)
        if text[at:]:
            ids.extend(Encoder.processor.encode_as_ids(text[at:]))
        return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input")
    parser.add_argument("prefix")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--json-key", default="text")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--append-eod", action="store_true")
    args = parser.parse_args()
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    encoder = Encoder(args)
    encoder.initializer()
    size = Encoder.processor.vocab_size() + len(Encoder.tags)
    builder = IndexedDatasetBuilder(f"{args.prefix}.bin", dtype=DType.optimal_dtype(size))
    with (
        open(args.input, encoding="utf-8") as lines,
        multiprocessing.Pool(args.workers, initializer=encoder.initializer) as pool,
    ):
        for document, lengths, _ in pool.imap(encoder.encode, lines, 32):
            if document[args.json_key]:
                builder.add_document(document[args.json_key], lengths[args.json_key])
    builder.finalize(f"{args.prefix}.idx")


if __name__ == "__main__":
    main()
