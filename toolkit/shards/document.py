"""What makes a row a document, and why another is none.

Decides what is replaced in a text; leaves the quick reading of sound rows to `encode`.
"""

from __future__ import annotations

import json
import re

from toolkit.shards import rows

_SURROGATE = re.compile("[\ud800-\udfff]")


def document(row: bytes | None, text_field: str) -> tuple[str, str, bool]:
    """(text, "", whether something in it was replaced) of a good row, ("", why, False) of a bad one.

    None stands for a row over `rows.MAX_ROW_BYTES`.
    """
    if row is None or len(row) > rows.MAX_ROW_BYTES:
        return "", f"longer than {rows.MAX_ROW_BYTES >> 20} MiB", False
    try:
        told, mended = row.decode("utf-8"), False
    except UnicodeDecodeError:
        told, mended = row.decode("utf-8", "replace"), True
    try:
        value = json.loads(told)
    except (ValueError, RecursionError) as err:
        return "", f"not JSON: {err}", False
    if not isinstance(value, dict):
        return "", f"not a JSON object but a {type(value).__name__}", False
    if text_field not in value:
        return "", f"no field '{text_field}' among {', '.join(sorted(value)[:12]) or 'none'}", False
    text = value[text_field]
    if not isinstance(text, str):
        return "", f"field '{text_field}' is not a string but a {type(text).__name__}", False
    text, surrogates = _SURROGATE.subn("\ufffd", text)
    return text, "", mended or surrogates > 0
