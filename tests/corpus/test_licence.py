"""Licences as publishers write them, and which of them restrict."""

from __future__ import annotations

import pytest

from toolkit.corpus.licence import groups, short_id


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
        ("https://creativecommons.org/licenses/by-nd-nc/1.0/", "CC-BY-NC-ND-1.0", True),
        ("creativecommons.org/licenses/nc-sa/1.0", "CC-NC-SA-1.0", True),
        ("This is an open access article under the CC BY-NC-ND license.", "CC-BY-NC-ND", True),
        ("Creative Commons Attribution License which permits unrestricted non-commercial use", "non-commercial", True),
        ("CC BY 4.0; commercial use is prohibited", "non-commercial", True),
        ("CC BY, which permits commercial and non-commercial use; no commercial terms", "CC-BY", False),
        ("CCBY", "CC-BY", False),
        ("CCBYNCND", "CC-BY-NC-ND", True),
        ("CC-BY 4.0", "CC-BY-4.0", False),
        ("cc_by_sa_4.0", "CC-BY-SA-4.0", False),
        ("the Creative Commons Attribution‐NonCommercial‐NoDerivs License, which permits use", "CC-BY-NC-ND", True),
        ("the CC Attribution license; see CC\u2011BY\u20114.0", "CC-BY-4.0", False),
        ("http://www.elsevier.com/open-access/userlicense/1.0/", "elsevier-user", True),
        ("https://www.elsevier.com/tdm/userlicense/1.0/", "tdm-only", True),
        ("http://doi.wiley.com/10.1002/tdm_license_1.1", "tdm-only", True),
        ("acs-specific: authorchoice/editors choice usage agreement", "acs-authorchoice", True),
        ("publisher-specific, author manuscript", "publisher-specific", True),
        ("NO-CC CODE", "publisher-specific", True),
        ("for the duration of the World Health Organization (WHO) declaration of COVID-19 as", "pmc-covid", True),
        ("for personal use only", "research-only", True),
        ("This is a work of the U.S. Government and is not subject to copyright", "US-Gov", False),
        ("under the Open Government Licence v3.0", "OGL", False),
        ("Apache License, Version 2.0", "Apache-2.0", False),
        ("apache-2.0", "Apache-2.0", False),
        ("BSD-3-Clause", "BSD-3-Clause", False),
        ("GPL-3.0-or-later", "GPL", False),
        ("GNU Free Documentation License", "GFDL", False),
        ("guideline-open", "guideline-open", False),
        ("guideline-restricted", "guideline-restricted", True),
        ("may not be used for commercial purposes; no commercial use", "non-commercial", True),
        ("pd", "public-domain", False),
        ("a study of emits and permits", "unknown", False),
        ("Massachusetts Institute of Technology (MIT)", "unknown", False),
        ("unspecified-oa", "unknown", False),
        ("All rights reserved.", "unknown", False),
        ("", "unknown", False),
    ],
)
def test_short_ids(text, name, restricted):
    assert short_id([text]) == name
    assert (not groups(name) & {"open", "unknown"}) is restricted


def test_of_several_licences_the_most_restrictive_counts():
    links = ["https://creativecommons.org/licenses/by/4.0/", "https://creativecommons.org/licenses/by-nc/4.0/"]
    assert short_id(links) == short_id(links[::-1]) == "CC-BY-NC-4.0"
    assert short_id(["", "no licence at all"]) == short_id([]) == "unknown"
    data = "under CC BY 2.0 (http://creativecommons.org/licenses/by/2.0); the Public Domain Dedication waiver "
    data += "(http://creativecommons.org/publicdomain/zero/1.0/) applies to the data"
    assert short_id([data]) == "CC-BY-2.0", "an article is under its own licence, not under that of its data"
    assert short_id(["CC BY-SA 4.0", "CC BY 4.0"]) == "CC-BY-SA-4.0"
    assert short_id(["CC BY-NC 4.0", "CC BY-ND 4.0"]) == "CC-BY-NC-4.0"
    assert short_id(["CC BY-NC-ND 4.0", "CC BY-NC 4.0"]) == "CC-BY-NC-ND-4.0"
    assert short_id(["CC BY", "CC BY 4.0"]) == "CC-BY-4.0", "the one that says more"
    assert short_id(["CC BY 4.0", "text and data mining only"]) == "tdm-only"


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("CC-BY-4.0", {"open"}),
        ("CC-BY-NC-ND-4.0", {"noncommercial", "no-derivatives"}),
        ("CC-BY-ND", {"no-derivatives"}),
        ("tdm-only", {"noncommercial", "restricted"}),
        ("guideline-restricted", {"restricted"}),
        ("unknown", {"unknown"}),
        ("", {"unknown"}),
        ("BSD-2-Clause", {"open"}),
    ],
)
def test_each_licence_needs_the_groups_of_its_conditions(name, needs):
    assert groups(name) == needs


def test_long_prose_is_read_in_time():
    assert short_id(["creative commons attribution " * 20_000, "CC BY " * 20_000, "no " * 100_000]) == "CC-BY"
