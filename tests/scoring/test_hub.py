"""Benchmarks from a mirror of the hub: a server on this machine that answers as the hub does for a file."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scoring import original_files as made
from toolkit.errors import UsageError
from toolkit.scoring import hub
from toolkit.scoring.benchmarks import get

pytest.importorskip("huggingface_hub")


class Mirror(http.server.ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def answer(self, body: bool) -> None:
        self.server.asked.append(self.path)
        head, _, rest = self.path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        path = self.server.folder / head.removeprefix("/datasets/") / name
        if not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_GET(self) -> None:
        self.answer(True)

    def do_HEAD(self) -> None:
        self.answer(False)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    server = Mirror(tmp_path / "served")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(mirror: Mirror, tmp_path: Path, name: str, code: str) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads its environment when it is imported, so it runs in a process of its own."""
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{mirror.server_port}", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    env = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | own
    head = "import json, pathlib; from toolkit.scoring import benchmarks, hub; "
    head += f"spec = benchmarks.get({name!r}); cache = pathlib.Path({str(tmp_path / 'cache')!r}); "
    return subprocess.run(
        [sys.executable, "-c", head + code], env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )


@pytest.mark.slow
def test_files_come_from_the_mirror_at_their_revision_and_stay(mirror: Mirror, tmp_path: Path):
    rows = made.medmcqa_rows(made.golds("medmcqa"), 0)
    served = mirror.folder / "openlifescienceai/medmcqa/data"
    made.parquet(served / "validation-00000-of-00001.parquet", rows)
    made.parquet(served / "train-00000-of-00001.parquet", [row | {"question": f"New {row['id']}"} for row in rows[:50]])
    code = (
        "a, b = (hub.fetch(spec, split, cache) for split in ('test', 'train')); assert a == b; "
        "items = benchmarks.load(spec, a); train = benchmarks.load(spec, a, split='train'); "
        "print(json.dumps([len(items), benchmarks.size_notes(spec, items), len(train), str(a)]))"
    )
    done = fetched(mirror, tmp_path, "medmcqa", code)
    n, notes, train, where = json.loads(done.stdout or "[0, 0, 0, 0]")
    assert (n, notes, train) == (4183, [], 50), done.stderr
    assert get("medmcqa").hub.revision in where
    assert all(f"/resolve/{get('medmcqa').hub.revision}/" in path for path in mirror.asked)
    served.rename(tmp_path / "gone")
    assert fetched(mirror, tmp_path, "medmcqa", "print(hub.fetch(spec, 'test', cache))").stdout.strip() == where
    done = fetched(
        mirror,
        tmp_path,
        "truthfulqa_medical",
        "from toolkit import cli, errors\ntry: hub.fetch(spec, 'test', cache)\nexcept errors.DataError as e: print(e)",
    )
    assert (
        "multiple_choice/validation-00000-of-00001.parquet of benchmark 'truthfulqa_medical' cannot be" in done.stdout
    )
    assert "127.0.0.1" in done.stdout and "--path" in done.stdout


def test_every_file_of_every_group_and_what_has_none():
    assert len(hub.files(get("mmlu_medical"))) == 9 and "anatomy/test-00000-of-00001.parquet" in hub.files(
        get("mmlu_medical")
    )
    assert hub.files(get("pubmedqa"), "demonstrations") == hub.files(get("pubmedqa"), "train")
    assert hub.files(get("truthfulqa_medical"), "demonstrations") == hub.files(get("truthfulqa_medical"))
    with pytest.raises(UsageError, match="'medqa' names no copy on the hub.*--path"):
        hub.fetch(get("medqa"))
    with pytest.raises(UsageError, match="has no train files on the hub"):
        hub.files(get("mmlu_medical"), "train")
