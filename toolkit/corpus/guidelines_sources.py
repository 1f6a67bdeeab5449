"""The sixteen sources of clinical guidelines that the paper gathered, and what each of them lets a corpus do.

Decides a source's tag, its audience and country, and under which licence id its pages stand; leaves reading and
cleaning them to `guidelines`.
"""

from __future__ import annotations

from dataclasses import dataclass

OPEN = "guideline-open"
RESTRICTED = "guideline-restricted"


@dataclass(frozen=True, kw_only=True)
class GuidelineSource:
    """`articles` as in the paper's table; `redistributable`: whether its authors published what they took."""

    tag: str
    name: str
    articles: int
    audience: str  # Doctor, Patient or Both
    country: str
    redistributable: bool
    aliases: tuple[str, ...] = ()

    @property
    def license(self) -> str:
        return OPEN if self.redistributable else RESTRICTED


def _row(
    tag: str, name: str, articles: int, audience: str, country: str, open_: bool, *aliases: str
) -> GuidelineSource:
    return GuidelineSource(
        tag=tag,
        name=name,
        articles=articles,
        audience=audience,
        country=country,
        redistributable=open_,
        aliases=aliases,
    )


# MEDITRON paper (arXiv 2311.16079), Table 9; its rows sum to 45,606 articles, its text says 46,469. The aliases are
# names of folders and of web sites under which people keep these pages.
SOURCES: dict[str, GuidelineSource] = {
    source.tag: source
    for source in (
        _row("aafp", "American Academy of Family Physicians", 50, "Doctor", "USA", False),
        _row("cco", "Cancer Care Ontario", 87, "Doctor", "Canada", True, "cancercareontario"),
        _row("cdc", "Centers for Disease Control and Prevention", 621, "Both", "USA", True, "cdcdiseases"),
        _row("cma", "Canadian Medical Association", 431, "Doctor", "Canada", True, "joulecma"),
        _row("cps", "Canadian Paediatric Society", 54, "Doctor", "Canada", False),
        _row("drugs", "Drugs.com", 6548, "Both", "International", False, "drugscom"),
        _row("gc", "GuidelineCentral", 1029, "Doctor", "Mix", False, "guidelinecentral"),
        _row("icrc", "International Committee of the Red Cross", 49, "Doctor", "International", True),
        _row("idsa", "Infectious Diseases Society of America", 47, "Doctor", "USA", False, "idsociety"),
        _row("magic", "Making GRADE the Irresistible Choice", 52, "Doctor", "Mix", False, "magicapp"),
        _row("mayo", "Mayo Clinic", 1100, "Patient", "USA", False, "mayoclinic"),
        _row("nice", "National Institute for Health and Care Excellence", 1656, "Doctor", "UK", True),
        _row("rch", "Royal Children's Hospital Melbourne", 384, "Doctor", "Australia", False),
        _row("spor", "SPOR Evidence Alliance", 217, "Doctor", "Canada", True, "sporevidencealliance"),
        _row("who", "World Health Organization", 223, "Both", "International", True),
        _row("wikidoc", "WikiDoc", 33058, "Both", "International", True),
    )
}
_NAMES = {name: source for source in SOURCES.values() for name in (source.tag, *source.aliases)}


def find(name: str) -> GuidelineSource | None:
    """The source that a folder, a row or an option names ("WHO", "drugs.com", "Mayo Clinic"), or None."""
    key = "".join(c for c in name.lower().removeprefix("www.") if c.isalnum())
    for suffix in ("", "org", "com", "gov", "int", "ca", "orguk", "orgau"):
        if suffix and not key.endswith(suffix):
            continue
        if source := _NAMES.get(key.removesuffix(suffix)):
            return source
    return next((s for s in SOURCES.values() if "".join(c for c in s.name.lower() if c.isalnum()) == key), None)
