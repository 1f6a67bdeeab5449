"""`python -m toolkit.tokenizer`: extend, show and check, and what a finetuned model's folder needs of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shards.conftest import base  # noqa: F401
from toolkit import cli
from toolkit import tokenizer as tokenizers
from toolkit.tokenizer.__main__ import main

TOKENS = (*tokenizers.MEDITRON_TOKENS, *tokenizers.CHAT_TOKENS)


def told(capsys, *argv: object) -> dict:
    assert cli.run(main, [*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_extend_show_and_check(base, tmp_path, capsys):  # noqa: F811
    made = told(capsys, "extend", base / "tokenizer.model", tmp_path / "t")  # the file stands for its folder
    assert (made["vocab_size"], made["base_size"], made["file"], made["eod_id"]) == (617, 600, "tokenizer.model", 602)
    assert [entry["id"] for entry in made["added"].values()] == list(range(600, 617))
    assert tuple(made["added"]) == tokenizers.MEDITRON_TOKENS
    assert [name for name, entry in made["added"].items() if entry["kind"] == "tag"] == [
        *tokenizers.MEDITRON_TOKENS[5:]
    ]
    shown = told(capsys, "show", tmp_path / "t", "--text", "a[table]<EOD>")
    assert shown["ids"][shown["pieces"].index("[table]")] == 613
    assert shown["sha256"] == made["sha256"] == tokenizers.ids_sha256(tmp_path / "t") and 602 not in shown["ids"]
    assert told(capsys, "check", tmp_path / "t")["vocab_size"] == 617
    assert cli.run(main, ["show", str(tmp_path / "t")]) == 0
    assert "617 ids, 600 of tokenizer.model and 17 added" in capsys.readouterr().out


def test_the_finetuned_tokenizer_has_32019_in_transformers_too(base, tmp_path, capsys):  # noqa: F811
    """Here 600 pieces stand for 32,000: the paper's tokens, then finetuning's two, and the base's chat template."""
    from transformers import AutoTokenizer

    plain = tmp_path / "plain"
    tokenizers.extend(base, plain, ())
    (plain / "chat_template.jinja").write_text("<|im_start|>{{ messages[0].content }}<|im_end|>\n")
    made = told(capsys, "extend", plain, tmp_path / "t", "--tokens", "meditron", "chat", "--max-length", 2048)
    assert {name: entry["id"] for name, entry in made["added"].items()} == dict(
        zip(TOKENS, range(600, 619), strict=True)
    )
    theirs = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert len(theirs) == 619 and theirs.model_max_length == 2048
    assert theirs.convert_tokens_to_ids(list(TOKENS)) == list(range(600, 619))
    ids = theirs.apply_chat_template([{"role": "user", "content": "a"}])
    assert ids[0] == 617 and ids.count(618) == 1
    older = tmp_path / "older"
    tokenizers.extend(base, older, ())
    config = json.loads((older / "tokenizer_config.json").read_text())
    (older / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ 1 }}"}))
    again = tokenizers.extend(older, tmp_path / "again", ())
    assert (again.folder / "chat_template.jinja").read_text() == "{{ 1 }}"


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokenizer_config.json", lambda t: t["added_tokens_decoder"]["605"].update(content="[x]"), "id 605 is '[x]'"),
        ("tokenizer_config.json", lambda t: t.update(eos_token="<EOD>"), "eos_token is '<EOD>'"),
        ("tokenizer.json", lambda t: t["added_tokens"].pop(), "size is 616, expected 617"),
        ("tokenizer.json", lambda t: t["model"]["merges"].clear(), "ids of "),
        ("tokenizer.json", lambda t: t["model"].update(type="WordPiece"), "cannot be read"),
    ],
)
def test_files_that_contradict_each_other_are_found(base, tmp_path, capsys, file, change, said):  # noqa: F811
    folder = tokenizers.extend(base, tmp_path / "t").folder
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    assert cli.run(main, ["check", str(folder)]) != 0
    assert said in capsys.readouterr().err


def test_wrong_use_is_one_message(base, tmp_path, capsys):  # noqa: F811
    for argv, said in (
        (["extend", str(tmp_path / "no"), str(tmp_path / "t")], "no such tokenizer folder"),
        (["extend", str(base), str(tmp_path / "t"), "--tokens", "</s>"], "has it already"),
        (["extend", str(base), str(tmp_path / "t"), "--tokens", "meditron", "meditron"], "given twice"),
        (["show", str(tmp_path)], "no tokenizer.model"),
    ):
        assert cli.run(main, argv) != 0
        assert said in capsys.readouterr().err and not (tmp_path / "t").exists()


def test_the_module_runs_and_its_help_has_an_example(base):  # noqa: F811
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "toolkit.tokenizer"]
    helped = subprocess.run([*command, "extend", "--help"], cwd=root, check=True, capture_output=True, text=True)
    assert "python -m toolkit.tokenizer extend Llama-2-7b-hf tokenizer" in helped.stdout
    shown = subprocess.run([*command, "show", str(base)], cwd=root, check=True, capture_output=True, text=True)
    assert "600 ids" in shown.stdout and not shown.stderr
