"""Which letters the glyphs of old fonts stand for: Adobe's Symbol in the private use area, and Latin ligatures.

Decides the tables alone; `mend` uses them.
"""

from __future__ import annotations

# Adobe's Symbol encoding (Unicode's mapping table ADOBE/symbol.txt), 0x20 to 0x7E, then 0xA0 to 0xF2; a middle dot
# where the font has nothing, or but the piece of a large bracket. Word and PDF writers put the codes at U+F000.
_LOW = " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼"
_HIGH = "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…··↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊⟨®©™∑···········⟩∫"
SYMBOL = {
    **{0xF020 + offset: letter for offset, letter in enumerate(_LOW)},
    **{0xF0A0 + offset: letter for offset, letter in enumerate(_HIGH) if letter != "·"},
    0xF0A7: "•",  # Wingdings' square bullet is far more common in text than Symbol's suit of clubs
    0xF0D8: "•",  # as is its arrowhead than Symbol's not
    0xF0FC: "✓",
}
LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
