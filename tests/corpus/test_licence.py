"""Licences as publishers write them, and which of them restrict."""

from __future__ import annotations

import pytest

from toolkit.corpus.licence import is_restricted, short_id


@pytest.mark.parametrize(
    ("text", "name", "restricted"),
    [
        ("http://creativecommons.org/licenses/by/2.0", "CC-BY-2.0", False),
        ("https://creativecommons.org/licenses/by/4.0/legalcode", "CC-BY-4.0", False),
        ("https://creativecommons.org/licenses/by-sa/3.0/igo/", "CC-BY-SA-3.0", False),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC-BY-NC-ND-4.0", True),
        ("http://creativecommons.org/licenses/by-nd/3.0", "CC-BY-ND-3.0", True),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", False),
        ("CC0", "CC0-1.0", False),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0", True),
        ("CC BY-NC-SA 3.0", "CC-BY-NC-SA-3.0", True),
        ("CC BY", "CC-BY", False),
        ("under the Creative Commons Attribution License (CC-BY), which permits use", "CC-BY", False),
        ("the terms of the Creative Commons Attribution License, which permits unrestricted use", "CC-BY", False),
        ("Creative Commons Attribution-NonCommercial-NoDerivs License", "CC-BY-NC-ND", True),
        ("Creative Commons Attribution Non-Commercial License, which permits non-commercial use", "CC-BY-NC", True),
        ("Creative Commons Attribution 4.0 International License", "CC-BY-4.0", False),
        ("Creative Commons Attribution Share Alike 3.0", "CC-BY-SA-3.0", False),
        ("This article is in the public domain.", "public-domain", False),
        ("May be used for non-commercial purposes only.", "non-commercial", True),
        ("MIT", "MIT", False),
        ("All rights reserved.", "unknown", False),
        ("", "unknown", False),
    ],
)
def test_short_ids(text, name, restricted):
    assert short_id([text]) == name
    assert is_restricted(name) is restricted


def test_of_several_licences_the_most_restrictive_counts():
    links = ["https://creativecommons.org/licenses/by/4.0/", "https://creativecommons.org/licenses/by-nc/4.0/"]
    assert short_id(links) == short_id(links[::-1]) == "CC-BY-NC-4.0"
    assert short_id(["", "no licence at all"]) == short_id([]) == "unknown"
