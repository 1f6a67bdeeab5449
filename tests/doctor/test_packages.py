"""Each way in which a package can be another than is meant, told with what to do about it."""

from __future__ import annotations

import pytest

from tests.doctor.conftest import Plant
from toolkit.doctor import packages
from toolkit.doctor.asking import Answer, ask
from toolkit.doctor.finding import Finding
from toolkit.doctor.packages import Wanted


def found(want: Wanted, *, imported: bool = True) -> Finding:
    question = f"import {packages.module_of(want.name)}"
    return packages.finding(want, ask([question], limit_s=60)[question] if imported else None)


def test_what_is_not_there() -> None:
    needed, spare = Wanted(name="no-such-package", version="1.0"), Wanted(name="no-such-package", needed=False)
    assert found(needed).state == "fault" and "not installed" in found(needed).remedy
    assert (found(spare).state, found(spare).remedy) == ("absent", "")


def test_apex_of_pypi_is_not_nvidias(plant: Plant) -> None:
    """PyPI's apex, a toolkit for web pages, is told from NVIDIA's without importing either."""
    plant("apex", "raise SystemExit('imported')", name="apex", version="0.9.10.dev0", summary="Pyramid toolkit")
    said = found(Wanted(name="apex", version="as shipped"), imported=False)
    assert said.state == "fault" and "not NVIDIA's" in said.remedy and "Pyramid toolkit" in said.remedy
    assert "pip uninstall apex" in said.remedy
    assert found(Wanted(name="apex", needed=False), imported=False).state == "fault"  # megatron-core would take it


def test_nvidias_apex_is_itself(plant: Plant) -> None:
    plant("apex.optimizers", "class FusedAdam: ...", name="apex", version="0.1")
    said = found(Wanted(name="apex", version="as shipped"))
    assert (said.state, said.found, said.wanted) == ("ok", "0.1", "as shipped")


def test_the_empty_meta_package_of_transformer_engine(plant: Plant) -> None:
    plant("transformer_engine.common", "")
    plant("transformer_engine", "raise RuntimeError('Found empty meta package')", name="transformer-engine")
    said = found(Wanted(name="transformer-engine", needed=False), imported=False)
    assert said.state == "fault" and "meta package" in said.remedy


def test_transformer_engine_whose_extension_cannot_be_loaded(plant: Plant) -> None:
    """Its own __init__ passes over that: what is imported is the part that must be whole."""
    plant("transformer_engine.pytorch", "raise ImportError('undefined symbol: _ZN2at')")
    path = plant("transformer_engine", "try:\n    from . import pytorch\nexcept ImportError:\n    pass\n",
                 name="transformer-engine", version="2.9.0+abc")  # fmt: skip
    (path.parent / "transformer_engine_torch.so").touch()
    said = found(Wanted(name="transformer-engine", version="2.9", leading=True))
    assert said.state == "fault" and "built against another torch" in said.remedy


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [
        ("raise ImportError('flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda')", "warn", "built against another"),
        ("raise ImportError('libcuda.so.1: cannot open shared object file')", "warn", "--nv"),
        (
            "raise ImportError('libcudart.so.12: cannot open shared object file')",
            "warn",
            "was built against is missing",
        ),
        ("raise ImportError('/lib/libc.so.6: version `GLIBC_2.38 not found')", "warn", "newer system"),
        ("import no_such_part", "warn", "no_such_part is missing beside it"),
        # Nobody passes over these: they end every process that imports it.
        ("raise RuntimeError('no')", "fault", "install it again"),
        ("import os; os.abort()", "fault", "built for another torch, CUDA or CPU"),
        ("import time; time.sleep(600)", "fault", "waits for a file system"),
    ],
)
def test_a_broken_flash_attn_that_nobody_asked_for(plant: Plant, code: str, state: str, words: str) -> None:
    plant("flash_attn", code, name="flash-attn", version="2.8.3")
    answer = ask(["import flash_attn"], limit_s=3)["import flash_attn"]
    spare = packages.finding(Wanted(name="flash-attn", needed=False), answer)
    assert (spare.state, spare.found.split(",")[0]) == (state, "2.8.3") and words in spare.remedy
    assert packages.finding(Wanted(name="flash-attn"), answer).state == "fault"


def test_another_version(plant: Plant) -> None:
    plant("lm_eval", "", name="lm-eval", version="0.4.1")
    strict = found(Wanted(name="lm-eval", version="0.4.9"))
    assert strict.state == "fault" and "0.4.1 instead of 0.4.9" in strict.remedy
    assert found(Wanted(name="lm-eval", version="0.4.9", strict=False)).state == "warn"
    assert found(Wanted(name="lm-eval", version="0.4", leading=True)).state == "ok"


def test_a_folder_without_metadata_tells_its_own_version(plant: Plant) -> None:
    plant("flash_attn", "__version__ = '2.7.0'")
    assert found(Wanted(name="flash-attn", version="2.8")).found == "2.7.0"


def test_metadata_that_is_damaged(plant: Plant) -> None:
    folder = plant("lm_eval", "", name="lm-eval", version="0.4.1").parent
    (folder / "lm_eval-0.4.1.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00")
    assert packages.installed("lm-eval") is None
    assert found(Wanted(name="lm-eval")).state == "ok"


def test_what_was_not_tried_is_not_called_whole() -> None:
    said = packages.finding(Wanted(name="megatron-core"), None)
    if packages.present("megatron-core"):
        assert said.state == "fault" and "not tried" in said.found
    died = Answer(ending="died", kind="SIGKILL", why="ended by SIGKILL")
    assert "memory" in packages.remedy("torch", died)
