"""PubMed XML in the structure of the baseline and update files."""

from __future__ import annotations

from collections.abc import Iterable

HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2024//EN" '
    '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_240101.dtd">\n<PubmedArticleSet>\n'
)
TAIL = "</PubmedArticleSet>\n"


def record(
    pmid: int,
    abstract: str = "<Abstract><AbstractText>Iron helps.</AbstractText></Abstract>",
    *,
    title: str = "Iron in anaemia.",
    version: int = 1,
    revised: str = "2022-04-10",
    language: str = "eng",
    types: Iterable[str] = ("Journal Article",),
    mesh: Iterable[str] = ("Humans",),
    ids: str = "",
    more: str = "",
    date: str = "<Year>2018</Year><Month>May</Month><Day>7</Day>",
) -> str:
    year, month, day = revised.split("-")
    kinds = "".join(f'<PublicationType UI="D1">{kind}</PublicationType>' for kind in types)
    names = "".join(f"<MeshHeading><DescriptorName>{name}</DescriptorName></MeshHeading>" for name in mesh)
    return (
        f'<PubmedArticle><MedlineCitation Status="MEDLINE" Owner="NLM"><PMID Version="{version}">{pmid}</PMID>'
        f"<DateRevised><Year>{year}</Year><Month>{month}</Month><Day>{day}</Day></DateRevised>"
        f'<Article PubModel="Print"><Journal><JournalIssue CitedMedium="Internet"><PubDate>{date}</PubDate>'
        f"</JournalIssue><Title>Journal of tests</Title></Journal><ArticleTitle>{title}</ArticleTitle>{abstract}"
        "<AuthorList><Author><LastName>Example</LastName><ForeName>Ada</ForeName><AffiliationInfo><Affiliation>"
        "Department of Tests, Testville. ada@example.org</Affiliation></AffiliationInfo></Author></AuthorList>"
        f"<Language>{language}</Language><PublicationTypeList>{kinds}</PublicationTypeList></Article>"
        f"{more}<MeshHeadingList>{names}</MeshHeadingList></MedlineCitation><PubmedData><ArticleIdList>"
        f'<ArticleId IdType="pubmed">{pmid}</ArticleId>{ids}</ArticleIdList><ReferenceList><Reference><ArticleIdList>'
        '<ArticleId IdType="doi">10.9/cited</ArticleId><ArticleId IdType="pmc">PMC999</ArticleId></ArticleIdList>'
        "</Reference></ReferenceList></PubmedData></PubmedArticle>\n"
    )


def deletion(*pmids: int) -> str:
    return "<DeleteCitation>" + "".join(f'<PMID Version="1">{pmid}</PMID>' for pmid in pmids) + "</DeleteCitation>\n"


def file(*parts: str) -> bytes:
    return (HEAD + "".join(parts) + TAIL).encode()
