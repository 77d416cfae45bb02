"""What newcomers are told is worth something, and one liar cannot spoil it."""

from __future__ import annotations

from extproc.bench.prompts import Prompts
from extproc.bench.rules import Learned, Paper
from extproc.bench.teaching import borrowed, poisoned


def test_beside_an_honest_tenant_a_hostile_one_hardly_moves_a_newcomers_estimates(prompts: Prompts) -> None:
    found = poisoned(Learned, prompts["cl100k"]["english"], prompts["cl100k"]["code"])
    moved = [abs(share) for one in found if one.honest for share in (one.moved, one.moved_others)]
    assert max(moved) < 0.1


def test_an_average_over_all_requests_is_what_a_hostile_tenant_makes_it(prompts: Prompts) -> None:
    found = poisoned(Paper, prompts["cl100k"]["english"], prompts["cl100k"]["code"])
    assert min(abs(one.moved) for one in found) > 0.5


def test_other_kinds_of_text_tell_something_of_one_that_nobody_has_sent(prompts: Prompts) -> None:
    found = borrowed(Learned, prompts["tiny"])
    assert len(found) >= 5
    assert [one.category for one in found if abs(one.told) >= min(abs(one.untold), abs(one.static))] == []
