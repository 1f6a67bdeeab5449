"""How an error reads, and which exit code each cause has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit import cli, errors
from toolkit.errors import DataError, ToolkitError


def every_class() -> list[type[ToolkitError]]:
    return [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, ToolkitError) and cls is not ToolkitError
    ]


def test_exit_codes_are_the_documented_ones() -> None:
    """0 done, 2 bad recipe or usage, 3 refused by the plan or for its image, 4 preflight, 5 gate, 75 asked to stop, 1
    anything else; and of a rank alone, 76: begin before the spike again.
    """
    special = {
        "UsageError": 2,
        "RecipeError": 2,
        "PlanRefused": 3,
        "ImageError": 3,
        "PreflightFailed": 4,
        "GateFailed": 5,
        "Stopped": 75,
        "RolledBack": 76,
    }
    assert {cls.__name__: cls.exit_code for cls in every_class() if cls.exit_code != 1} == special
    assert len(every_class()) > len(special)


def test_a_message_is_one_paragraph() -> None:
    err = DataError("the file ends early", where="a.jsonl:7", why="line 7 is cut", do="copy it again")
    assert str(err) == "a.jsonl:7: the file ends early. Line 7 is cut. Copy it again."
    assert str(DataError("nothing here")) == "nothing here."
    assert str(DataError("is it?", do="did you mean 'x'?")) == "is it? Did you mean 'x'?"


def test_what_is_to_be_typed_keeps_its_case() -> None:
    assert str(DataError("a", do="recipe=NAME starts one")) == "a. recipe=NAME starts one."
    assert str(DataError("a", do="nearest: 48")) == "a. Nearest: 48."


def test_an_error_as_a_record() -> None:
    err = DataError("w", where="x", why="y", do="z")
    told = err.as_dict()
    assert told == {"error": "DataError", "what": "w", "where": "x", "why": "y", "do": "z", "exit_code": 1}
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("cls", every_class())
def test_a_verb_ends_with_one_message_and_the_errors_code(
    cls: type[ToolkitError], capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: object) -> int:
        raise cls("it broke", where="here", do="mend it")

    assert cli.run(main, []) == cls.exit_code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: here: it broke. Mend it.\n")
    assert cli.run(main, ["--json"]) == cls.exit_code
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == cls.__name__ and err == "error: here: it broke. Mend it.\n"


def test_ctrl_c_and_success() -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    assert cli.run(interrupted, []) == 130
    assert cli.run(lambda _: None, []) == 0
    assert cli.run(lambda argv: len(argv), ["a", "b"]) == 2


def test_json_is_json_where_a_figure_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_json({"a": [1.5, float("nan"), (float("-inf"), "nan")]})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [1.5, None, [None, "nan"]]}


def test_a_defect_keeps_its_traceback() -> None:
    def defect(_: object) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(defect, [])


def test_what_the_system_refuses_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    def main(_: object) -> None:
        (tmp_path / "file" / "below").mkdir()

    assert cli.run(main, ["--json"]) == 1
    out, err = capsys.readouterr()
    assert err == f"error: {tmp_path}/file/below: Not a directory.\n" and json.loads(out)["error"] == "FileRefused"


def test_nearest_offers_one_or_a_short_list() -> None:
    assert errors.nearest("layres", ["layers", "heads"]) == "did you mean 'layers'?"
    assert errors.nearest("q", ["layers", "heads"]) == "valid: heads, layers"
    assert errors.nearest("q", [f"name{i}" for i in range(100)]) == ""
    assert errors.nearest("q", []) == ""
