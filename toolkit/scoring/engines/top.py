"""What the few likeliest tokens say of the answers' forms: servers tell those alone.

A form that is not among them is not likelier than the last of them, nor than all the rest together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from toolkit.scoring.engines import Ask, Told

COUNT = 20  # of the likeliest tokens; vLLM's own limit where a site has not set another
_MARKS = "\u2581\u0120 "  # how vocabularies write the space before a word


def by_id(ask: Ask, top: Mapping[int, float]) -> Told:
    """From tokens by their ids: a form is the token that it is."""
    return _told([top.get(tail[0]) for tail in ask.tails], top.values())


def by_text(ask: Ask, top: Mapping[str, float]) -> Told:
    """From tokens as text: a form is the token that is written like it. Where no form of the ask is, the space before
    a word does not count, as many servers leave it away."""
    found = [top.get(form) for form in ask.forms]
    if all(value is None for value in found):
        bare: dict[str, float] = {}
        for text, value in top.items():
            bare.setdefault(text.strip(_MARKS), value)  # the likeliest comes first
        taken: set[str] = set()
        for place, form in enumerate(ask.forms):
            if form.strip() in bare and form.strip() not in taken:
                taken.add(form.strip())
                found[place] = bare[form.strip()]
    return _told(found, top.values())


def _told(found: Sequence[float | None], top: object) -> Told:
    values = list(top)  # type: ignore[call-overload]
    rest = 1 - math.fsum(math.exp(min(value, 0.0)) for value in values)
    bound = min([*values, math.log(rest) if rest > 0 else 0.0], default=0.0)
    return Told(
        logprobs=tuple((bound if value is None else value,) for value in found),
        bounded=tuple(place for place, value in enumerate(found) if value is None),
    )
