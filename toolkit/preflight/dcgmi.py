"""What `dcgmi diag -r LEVEL -j` found, in the words of DCGM 2 and 3 ("DCGM GPU Diagnostic") and of 4 ("DCGM
Diagnostic"). Decides what of it is a failure and what a setting of the host; runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_ROOTS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")
_SETTING = 5  # DCGM_ERROR_CONFIG of dcgm_errors.h, such as a persistence mode that is off
_LONGEST = 16 << 20
_MOST = 200


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A test that did not pass; `grade` is fail, setting (of the host) or warn. `gpu` as DCGM numbers them, or ''."""

    test: str
    grade: str
    gpu: str = ""
    said: str = ""

    def __str__(self) -> str:
        who = f" of GPU {self.gpu}" if self.gpu else ""
        return f"{self.test}{who}: {self.said or self.grade}"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    version: str = ""
    tests: int = 0
    skipped: int = 0
    findings: tuple[Finding, ...] = ()


def read(text: str) -> Diagnosis:
    """Raises `ValueError`, in words for people, for what is no diagnosis: empty, cut off, an error instead, no test."""
    start = text.find("{")
    if start < 0 or len(text) > _LONGEST:
        said = " ".join(text.split())[:200]
        raise ValueError(f"dcgmi made no diagnosis: {said}" if said else "dcgmi said nothing")
    try:
        whole, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        raise ValueError("dcgmi's diagnosis is cut off or damaged") from None
    root = next((whole[name] for name in _ROOTS if isinstance(whole.get(name), dict)), None)
    if root is None:
        raise ValueError("dcgmi's JSON holds no diagnosis: a version that is not known here")
    if isinstance(root.get("runtime_error"), str):
        raise ValueError(f"dcgmi: {_words(root['runtime_error'])}")
    tests, skipped, found = 0, 0, []
    for test in _tests(root):
        states = [str(result.get("status", "")).lower() for result in _dicts(test.get("results"))]
        summary = test.get("test_summary")
        states += [str(summary.get("status", "")).lower()] if isinstance(summary, dict) else []
        tests += 1
        skipped += bool(states) and all(state in ("skip", "skipped", "not run", "notrun") for state in states)
        found += list(_findings(test))
    if not tests:
        raise ValueError("dcgmi's diagnosis holds no test")
    meta = whole.get("metadata")
    version = (meta.get("version") if isinstance(meta, dict) else None) or root.get("version") or ""
    return Diagnosis(version=_words(version)[:40], tests=tests, skipped=skipped, findings=tuple(found[:_MOST]))


def _tests(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for category in _dicts(root.get("test_categories")):
        yield from _dicts(category.get("tests"))


def _findings(test: dict[str, Any]) -> Iterator[Finding]:
    name = _words(test.get("name") or "a test without a name")[:60]
    results = list(_dicts(test.get("results")))
    bad = [one for one in results if _state(one) in ("fail", "warn")]
    summary = test.get("test_summary")
    if not bad and isinstance(summary, dict) and _state(summary) in ("fail", "warn"):
        bad = [summary]
    for result in bad:
        gpu = result.get("entity_id", result.get("gpu_id", result.get("gpu_ids", "")))
        texts, settings = [], []
        raw = result.get("warnings")
        for warning in raw if isinstance(raw, list) else [raw] if raw else []:
            told = warning.get("warning") if isinstance(warning, dict) else warning
            texts.append(_words(told))
            settings.append(isinstance(warning, dict) and warning.get("error_severity") == _SETTING)
        grade = "setting" if settings and all(settings) else _state(result)
        yield Finding(test=name, grade=grade, gpu=_words(gpu)[:40], said="; ".join(filter(None, texts))[:300])


def _state(result: dict[str, Any]) -> str:
    """A word that is not known is no pass."""
    said = str(result.get("status", "")).lower()
    if said in ("pass", "passed", "skip", "skipped", "not run", "notrun", ""):
        return ""
    return "warn" if said.startswith("warn") else "fail"


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """DCGM writes null between tests."""
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())


def _words(value: Any) -> str:
    return " ".join(str(value).split())[:300] if isinstance(value, (str, int)) else ""
