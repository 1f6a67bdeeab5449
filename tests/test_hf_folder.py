"""Headers against the safetensors package, and what neither a checkpoint's tests nor scoring's see of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit import hf_folder
from toolkit.errors import CheckpointError

safetensors = pytest.importorskip("safetensors")

CODES = [*hf_folder.FLOATS, "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"]
CODES += ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4"]


def put(file: Path, entries: dict[str, object], nbytes: int) -> None:
    text = json.dumps(entries).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(nbytes))


def entry(code: object, dims: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": code, "shape": dims, "data_offsets": [begin, end]}


@pytest.mark.parametrize("code", CODES)
def test_every_type_has_the_size_that_the_package_gives_it(tmp_path: Path, code: str) -> None:
    taken = []
    for nbytes in range(1, 65):  # for eight elements
        file = tmp_path / f"{nbytes}.safetensors"
        put(file, {"a": entry(code, [2, 4], 0, nbytes)}, nbytes)
        try:
            names = safetensors.safe_open(file, framework="np").keys()
        except safetensors.SafetensorError:
            with pytest.raises(CheckpointError, match="damaged safetensors header.* and has"):
                hf_folder.read_header(file)
        else:
            found = hf_folder.read_header(file)
            assert list(found) == list(names) and found["a"].dims == (2, 4) and found["a"].nbytes == nbytes
            taken.append(nbytes)
    assert len(taken) == 1


@pytest.mark.parametrize("code", [[], {}, None, 7])
def test_a_type_that_is_no_name(tmp_path: Path, code: object) -> None:
    put(tmp_path / "a.safetensors", {"a": entry(code, [2], 0, 8)}, 8)
    with pytest.raises(CheckpointError, match="unknown type"):
        hf_folder.read_header(tmp_path / "a.safetensors")


def test_the_one_file_counts_before_an_index(tmp_path: Path) -> None:
    put(tmp_path / hf_folder.WEIGHTS, {"a": entry("F32", [2], 0, 8)}, 8)
    (tmp_path / hf_folder.INDEX).write_text("damaged")
    assert hf_folder.read_index(tmp_path) is None
    assert hf_folder.weight_files(tmp_path) == [tmp_path / hf_folder.WEIGHTS]
    assert list(hf_folder.read_tensors(tmp_path)) == ["a"]


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("1.safetensors", "2.safetensors"):
        put(tmp_path / name, {"a": entry("F32", [2], 0, 8), name: entry("F32", [1], 8, 12)}, 12)
    index = {"metadata": {}, "weight_map": {"a": "1.safetensors", "2.safetensors": "2.safetensors"}}
    (tmp_path / hf_folder.INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="'a' is also in 1.safetensors"):
        hf_folder.read_tensors(tmp_path)
