"""The three verbs, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fabric import trees
from toolkit import cli, fabric
from toolkit.fabric.__main__ import main
from toolkit.fabric.model import from_dict

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("NCCL_", "UCX_", "GLOO_", "TORCH_NCCL_"))]:
        monkeypatch.delenv(name)


def roots(tree: trees.Tree) -> list[str]:
    return ["--sysfs", str(tree.sys), "--proc", str(tree.proc), "--node", "node01"]


def test_detect_for_people_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = trees.mixed(tmp_path)
    assert cli.run(main, ["detect", *roots(tree)]) == 0
    text = capsys.readouterr().out
    assert "node node01: fabric RoCE, 8 ports, 400 GB/s each way" in text
    assert "mlx5_10:1  ACTIVE  RoCE  25 " in text and "slower than the 400 Gb/s of others" in text
    assert "mlx5_0:1  3    10.0.0.1                  v2    ens0f0np0  NCCL's own choice" in text
    assert "0000:23:00.0  0     mlx5_0:1 (PIX) mlx5_1:1 (PIX)" in text and "sockets" in text
    assert cli.run(main, ["detect", *roots(tree), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "roce" and told["ceiling_gb_s"] == 400 and told["sockets"] == "eno1"
    assert told["fabric_ports"] == [f"mlx5_{n}:1" for n in range(8)] and set(told["left_out"]) == {
        *("mlx5_8:1", "mlx5_9:1", "mlx5_10:1")
    }
    assert from_dict(told) == fabric.detect(tree.sys, proc=tree.proc, node="node01")
    for make in (trees.empty, trees.bonded):
        assert cli.run(main, ["detect", *roots(make(tmp_path / make.__name__))]) == 0


def test_env_with_a_sites_policy_and_a_callers_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, out = trees.meditron(tmp_path), tmp_path / "deep/nccl.env"
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    assert cli.run(main, ["env", *roots(tree), "--cluster", "a100_roce", "-o", str(out)]) == 0
    assert fabric.parse(out.read_text()) == {
        **{"NCCL_NET": "IB", "NCCL_IB_HCA": "=mlx5_0:1", "NCCL_SOCKET_IFNAME": "=eno1", "GLOO_SOCKET_IFNAME": "eno1"},
        "NCCL_DEBUG": "INFO",
    }
    assert capsys.readouterr().out == "" and [path.name for path in out.parent.iterdir()] == ["nccl.env"]
    assert cli.run(main, ["env", *roots(tree), "--clean"]) == 0
    assert "NCCL_DEBUG" not in capsys.readouterr().out
    assert cli.run(main, ["env", *roots(tree), "--json", "--clean"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert {"name", "value", "why", "source"} == set(values[0])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["env", "--cluster", "h100_ib"], 4, "no active InfiniBand port"),
        (
            ["env", "--kind", "infiniband"],
            4,
            "200 Gb/s): Ethernet, and the fabric is InfiniBand",
        ),
        (["detect", "--cluster", "a100"], 2, "unknown cluster 'a100'"),
        (["env", "-o", "/proc/x/nccl.env"], 2, "cannot be written"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert cli.run(main, [words[0], *roots(trees.meditron(tmp_path)), *words[1:]]) == code
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


def test_a_root_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(main, ["detect", "--sysfs", str(tmp_path / "gone")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """Of a file system that takes no more than a few bytes of a file, as a quota does."""
    tree, out = trees.meditron(tmp_path), tmp_path / "out/nccl.env"
    trees.write(out, "NCCL_NET='IB'")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "from toolkit import cli; from toolkit.fabric.__main__ import main; sys.exit(cli.run(main, sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, "env", *roots(tree), "-o", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "larger than a limit allows" in done.stderr and "Traceback" not in done.stderr
    assert fabric.parse(out.read_text()) == {"NCCL_NET": "IB"} and list(out.parent.iterdir()) == [out]


def test_compare_names_the_odd_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(1, 5):
        node = trees.node(tmp_path / "sys", index, odd="rate" if index == 3 else None)
        words = ["detect", "--sysfs", str(node), "--node", node.name, "-o", f"{tmp_path}/nodes/"]
        assert cli.run(main, words) == 0
    capsys.readouterr()
    files = sorted((tmp_path / "nodes").iterdir())
    assert [path.name for path in files] == [f"node{n:02d}.json" for n in range(1, 5)]
    assert cli.run(main, ["compare", str(tmp_path / "nodes")]) == 4
    assert "fault  node03  the rate of mlx5_0:1  100 Gb/s  200 Gb/s" in capsys.readouterr().out
    assert cli.run(main, ["compare", *map(str, files), "--json", "--cluster", "a100_roce"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert [one["node"] for one in told["differences"]] == ["node03"] and len(told["nodes"]) == 4
    assert cli.run(main, ["compare", str(files[0]), str(files[1])]) == 0
    assert capsys.readouterr().out == "2 nodes, all alike\n"
    # The forms in which a run has them: each node's answer, and all of them.
    plain = {path.stem: json.loads(path.read_text()) for path in files}
    (tmp_path / "a.json").write_text(json.dumps({"node": "node01", "fabric": plain["node01"], "host": {}}))
    (tmp_path / "run.json").write_text(json.dumps({"kind": "roce", "values": [], "nodes": {"node03": plain["node03"]}}))
    assert cli.run(main, ["compare", str(tmp_path / "a.json"), str(tmp_path / "run.json")]) == 4
    (files[2].parent / "node05.json").write_text(json.dumps({"node": "node05", "fabric": None, "error": "silent"}))
    assert cli.run(main, ["compare", str(tmp_path / "nodes")]) == 4
    assert "node05.json tells nothing of a fabric" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON, or cut off"),
        (b'{"node": "a", "ports": [{"device": "mlx5_0"', "no JSON, or cut off"),
        (b"\xff\xfe\x00", "no JSON, or cut off"),
        (b"[1, 2]", "is not what"),
        (b'"text"', "is not what"),
        (b"{}", "is not what"),
        (b'{"node": "a", "ports": "none"}', "is not what"),
        (b'{"nodes": {"a": 1}}', "is not what"),
        (b"[" * 100_000, "no JSON, or cut off"),
    ],
)
def test_a_file_that_is_no_node(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert cli.run(main, ["compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 1
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and "a.json" in err


def test_files_that_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = tmp_path / "a.json"
    assert cli.run(main, ["compare", str(one)]) == 1
    assert "No such file" in capsys.readouterr().err
    one.write_text(json.dumps({"node": "a", "ports": []}))
    assert cli.run(main, ["compare", str(one)]) == 2
    assert cli.run(main, ["compare", str(one), str(one)]) == 1
    assert "is told of twice" in capsys.readouterr().err
