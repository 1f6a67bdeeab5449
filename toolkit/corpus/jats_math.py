"""One line of text for a formula: MathML read as it is spoken, TeX without the document around it.

Decides how fractions, scripts and operators are written; leaves where a formula stands in the text to `jats_flow.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml.etree import _Element

MATHML = "{http://www.w3.org/1998/Math/MathML}"
_SPACED = frozenset((*"=<>≤≥≪≫≈≃≅≠∼~≡∝→←↔⇒⇔↦∈∉⊂⊆∪∩±∓×÷∧∨≔⟶⟵⇌", ":="))
_SIGNS = frozenset("+-−–")
_INVISIBLE = frozenset("\u2061\u2062\u2063\u2064\u200b\ufeff")
_ACCENTS = {"¯": "\u0304", "‾": "\u0304", "_": "\u0304", "̄": "\u0304", "^": "\u0302", "ˆ": "\u0302", "˜": "\u0303",
            "~": "\u0303", "→": "\u20d7", "⃗": "\u20d7", "˙": "\u0307", ".": "\u0307", "¨": "\u0308"}  # fmt: skip
_BIG = frozenset("∑∏∫∮⋃⋂⋁⋀") | {"lim", "max", "min", "sup", "inf", "arg max", "arg min", "argmax", "argmin"}
_UNREAD = frozenset(("annotation", "annotation-xml", "mphantom", "maligngroup", "malignmark", "none", "mprescripts"))
_FRAME = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.S)


def settle(root: _Element) -> None:
    """Put one line of text in place of every `math` and `tex-math` below `root`; of two forms MathML is taken."""
    for math in list(root.iter(MATHML + "math", "{*}math")):
        text = " ".join(_text(math).split())
        math.clear(keep_tail=True)
        math.text = text
    for tex in list(root.iter("{*}tex-math")):
        parent = tex.getparent()
        twin = parent is not None and any(e.text for e in parent.iter(MATHML + "math", "{*}math"))
        text = "" if twin else tex_text("".join(tex.itertext()))
        tex.clear(keep_tail=True)
        tex.text = text


def tex_text(tex: str) -> str:
    """The formula inside a whole TeX document, or inside dollars, on one line."""
    if frame := _FRAME.search(tex):
        tex = frame[1]
    tex = tex.strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)")):
        if tex.startswith(opening) and tex.endswith(closing) and len(tex) >= len(opening) + len(closing):
            tex = tex[len(opening) : -len(closing)]
            break
    return " ".join(tex.split())


def _name(element: _Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _row(elements: list[_Element]) -> str:
    out = ""
    for element in elements:
        name = _name(element)
        if name != "mo":
            piece = _text(element)
            # Two words side by side would read as one.
            out += f" {piece}" if piece[:2].isalpha() and len(piece) > 1 and out[-2:].isalpha() else piece
            continue
        sign = "".join(element.itertext()).strip()
        if sign in _INVISIBLE:
            continue
        if sign in _SPACED or (sign in _SIGNS and out.rstrip() and out.rstrip()[-1] not in "([{|,;=<>≤≥≈±×→"):
            out += f" {sign} "
        else:
            out += f"{sign} " if sign in (",", ";") else sign
    return out


def _group(text: str) -> str:
    """`text` with brackets when it is more than one number or word, so that a fraction or script stays one."""
    text = text.strip()
    if re.fullmatch(r"[−+-]?[\w.\u0300-\u036f′']*|\([^()]*\)|\[[^\[\]]*\]", text):
        return text
    return f"({text})"


def _text(element: _Element) -> str:
    name = _name(element)
    if not name or name in _UNREAD:
        return ""
    children = [child for child in element if _name(child) and _name(child) not in _UNREAD]
    if name in ("mi", "mn", "mo", "ms"):
        text = "".join(element.itertext()).strip()
        return "" if text in _INVISIBLE else text
    if name == "mtext":
        return "".join(element.itertext())
    if name == "mspace":
        return " "
    if name == "semantics":
        return _text(children[0]) if children else ""
    two, three = len(children) == 2, len(children) == 3
    if name == "mfrac" and two:
        return f"{_group(_text(children[0]))}/{_group(_text(children[1]))}"
    if name == "msqrt":
        return f"√{_group(_row(children))}"
    if name == "mroot" and two:
        return f"{_group(_text(children[0]))}^(1/{_text(children[1])})"
    if name == "mfenced":
        inner = (element.get("separators", ",").strip()[:1] + " ").lstrip().join(_text(child) for child in children)
        return f"{element.get('open', '(')}{inner}{element.get('close', ')')}"
    if name == "mtable":
        rows = ([_text(cell) for cell in row if _name(cell)] for row in children)
        return "; ".join(", ".join(cell.strip() for cell in cells if cell.strip()) for cells in rows)
    if (name in ("msub", "msup", "munder", "mover") and two) or (name in ("msubsup", "munderover") and three):
        return _scripts(name, *(_text(child).strip() for child in children))
    return (element.text or "").strip() + _row(children) if children else "".join(element.itertext())


def _scripts(name: str, base: str, first: str, second: str = "") -> str:
    base = base if base in _BIG else _group(base)
    if name in ("msup", "mover"):
        if name == "mover" and base not in _BIG:
            return base + _ACCENTS.get(first, "") if len(base) == 1 or first in _ACCENTS else f"{base}^{_group(first)}"
        return f"{base}^{_group(first)}" if first not in ("′", "'", "″", "*") else base + first
    lower = f"{base}_{_group(first)}" if first else base
    after = " " if base in _BIG else ""
    return lower + (f"^{_group(second)}" if second else "") + after
