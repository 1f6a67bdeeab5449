"""NCCL's choice among a port's GIDs, and how far devices are apart."""

from __future__ import annotations

import pytest

from tests.fabric import trees
from toolkit.fabric import Gid, gid, pci

V1, V2 = 1, 2


def table(*rows: tuple[int, str, int | None]) -> list[Gid]:
    return [Gid(index=index, gid=trees.gid(address), version=version) for index, address, version in rows]


LOCAL = [(0, "fe80::1", V1), (1, "fe80::1", V2)]


@pytest.mark.parametrize(
    ("rows", "ipv4", "ipv6"),
    [
        ([], None, None),
        ([*LOCAL], 0, 0),
        ([*LOCAL, (2, "10.0.0.1", V1), (3, "10.0.0.1", V2)], 3, 0),
        ([*LOCAL, (4, "10.0.0.1", V1), (5, "10.0.0.1", V2)], 5, 0),  # empty slots between
        ([(0, "10.0.0.1", V1), (1, "10.0.0.1", V2)], 1, 0),
        ([(0, "10.0.0.1", V2), (1, "10.0.0.2", V2)], 0, 0),  # the first of those that are as good
        ([*LOCAL, (2, "fd00::1", V1), (3, "fd00::1", V2), (4, "10.0.0.1", V1), (5, "10.0.0.1", V2)], 5, 3),
        ([*LOCAL, (2, "10.0.0.1", V2), (3, "10.0.0.1", V1)], 2, 0),  # the order of versions does not matter
        ([*LOCAL, (2, "10.0.0.1", V1)], 2, 0),  # v1 alone
        ([*LOCAL, (2, "10.0.0.1", None), (3, "10.0.0.1", V2)], 3, 0),  # a type that could not be read
        ([(1, "10.0.0.1", V1), (2, "10.0.0.1", V2)], 2, 0),  # slot 0 is empty
        ([(0, "::", None), (3, "10.0.0.1", V2)], 3, 0),
        ([*LOCAL, (2, "2001:db8::1", V1), (3, "2001:db8::1", V2)], 0, 3),
    ],
)
def test_the_choice_of_nccl(rows: list[tuple[int, str, int | None]], ipv4: int | None, ipv6: int | None) -> None:
    assert gid.choice(table(*rows)) == ipv4
    assert gid.choice(list(reversed(table(*rows)))) == ipv4
    assert gid.choice(table(*rows), "ipv6") == ipv6


def test_roce_v1_where_it_is_asked_for() -> None:
    assert gid.choice(table(*LOCAL, (2, "10.0.0.1", V2), (3, "10.0.0.1", V1)), version=1) == 3


@pytest.mark.parametrize(
    ("address", "family", "usable"),
    [("10.0.0.1", "ipv4", True), ("fe80::1", "link-local", False), ("fd00::1", "ipv6", True), ("::", "none", False)],
)
def test_families(address: str, family: str, usable: bool) -> None:
    slot = Gid(index=0, gid=trees.gid(address))
    assert gid.family(slot) == family and gid.usable(slot) is usable
    assert gid.shown(slot) == address


def test_text_that_is_no_gid() -> None:
    slot = Gid(index=0, gid="zz:zz")
    assert gid.family(slot) == "none" and not gid.usable(slot) and gid.shown(slot) == "zz:zz"
    assert gid.choice([slot]) is None


ROOT, PORT, UP = "pci0000:40", "0000:40:01.1", "0000:41:00.0"


@pytest.mark.parametrize(
    ("one", "other", "numa", "far"),
    [
        ((ROOT, PORT, UP, "0000:42:00.0", "0000:43:00.0"),
         (ROOT, PORT, UP, "0000:42:08.0", "0000:48:00.0"), (0, 0), "PIX"),
        ((ROOT, PORT, UP, "0000:42:00.0", "0000:43:00.0", "0000:44:00.0", "0000:45:00.0"),
         (ROOT, PORT, UP, "0000:42:08.0", "0000:48:00.0"), (0, 0), "PXB"),
        ((ROOT, "0000:40:01.1", "0000:41:00.0"), (ROOT, "0000:40:03.1", "0000:44:00.0"), (0, 0), "PHB"),
        ((ROOT, "0000:40:01.1", "0000:41:00.0"), ("pci0000:60", "0000:60:01.1", "0000:61:00.0"), (1, 1), "PHB"),
        ((ROOT, "0000:40:01.1", "0000:41:00.0"), ("pci0000:80", "0000:80:01.1", "0000:81:00.0"), (0, 1), "SYS"),
        ((ROOT, "0000:40:01.1", "0000:41:00.0"), ("pci0000:80", "0000:80:01.1", "0000:81:00.0"), (None, None), "PHB"),
        ((ROOT, "0000:40:01.1", "0000:41:00.0"), (ROOT, "0000:40:01.1", "0000:41:00.1"), (0, 0), "PIX"),
        ((), (ROOT, "0000:40:01.1"), (None, 0), "SYS"),
    ],
)  # fmt: skip
def test_distances(one: tuple[str, ...], other: tuple[str, ...], numa: tuple[int | None, int | None], far: str) -> None:
    assert pci.distance(one, other, numa) == pci.distance(other, one, numa[::-1]) == far
