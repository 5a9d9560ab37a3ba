"""Words for what was found: which way a cost goes, and what that says of a claim, from the numbers of a notebook.

A page states no direction by itself. It asks for the words of a number, so that it says the opposite when the records do:

    >>> numbers = Estimate(0.031, 0.012, 0.05, 40, 0.009, 12).numbers("rise")
    >>> said(numbers, "rise", "rise"), said(numbers, "rise", "fall")
    ('rises by 3.1 points (1.2 to 5.0)', 'falls by 3.1 points (1.2 to 5.0)')
    >>> said(Estimate(0.001, -0.02, 0.022, 40, 0.01, 12).numbers("rise"), "rise", "fall")
    'changes by \N{MINUS SIGN}0.1 points (\N{MINUS SIGN}2.2 to 2.0)'

A direction is told when the whole interval lies on one side of what is printed as zero (`verdicts.PRINTED_ZERO`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vpcore.report.verdicts import INCONCLUSIVE, PRINTED_ZERO, Estimate

__all__ = ["STUDIES", "WORDS", "Estimate", "across", "direction", "listed", "said", "study_of", "tidy"]

STUDIES = {
    "mini": "letters", "methods": "letters", "small": "Tiny-ImageNet", "medium": "Tiny-ImageNet", "imagenet": "ImageNet",
    "real": "the pre-stated study", "paper": "the paper's networks",
}  # fmt: skip


class Words(NamedTuple):
    """What is said of a number that is above zero, below, or of which the interval holds zero; the sign of the last."""

    above: str
    below: str
    either: str
    sign: int


WORDS = {
    "rise": Words("rises by", "falls by", "changes by", 1),
    "fall": Words("falls by", "rises by", "changes by", -1),
    "loses": Words("loses", "gains", "changes its accuracy by", -1),
    "more": Words("is larger by", "is smaller by", "differs by", 1),
}


def direction(numbers: Mapping[str, object], key: str) -> int:
    """1 when the interval of a cost lies above zero, -1 when it lies below, 0 otherwise."""
    low, high, margin = (float(str(numbers[f"{key}_{part}"])) for part in ("low", "high", "margin"))
    return int(low > PRINTED_ZERO * margin) - int(high < -PRINTED_ZERO * margin)


def said(numbers: Mapping[str, object], key: str, words: str) -> str:
    """What a cost comes to, in words that fit its sign.

    Args:
        numbers: of a notebook, with KEY, KEY_low, KEY_high and KEY_margin (`Estimate.numbers`).
        key: of the cost.
        words: what a cost above zero does: a name in `WORDS`.
    """
    if numbers[key] is None:
        return "is not measured here"
    way, form = direction(numbers, key), WORDS[words]
    verb = {1: form.above, -1: form.below, 0: form.either}[way]
    ends = [(way or form.sign) * 100 * float(str(numbers[name])) for name in (key, f"{key}_low", f"{key}_high")]
    mean, low, high = ends[0], min(ends[1:]), max(ends[1:])
    return f"{verb} {tidy(f'{mean:.1f}')} points ({tidy(f'{low:.1f}')} to {tidy(f'{high:.1f}')})"


def tidy(text: str) -> str:
    """A formatted number as we print it: a minus sign for a hyphen, and none before a zero.

    >>> tidy("-0.0"), tidy("-1.5%")
    ('0.0', '\N{MINUS SIGN}1.5%')
    """
    bare = text.lstrip("-")
    return bare if not bare.strip("0.%") else text.replace("-", "\N{MINUS SIGN}")


def study_of(profile: str) -> str:
    """The plain name of the study that a profile is: what pages call it.

    >>> study_of("mini"), study_of("small-toy"), study_of("mine")
    ('letters', 'Tiny-ImageNet, toy', 'mine')
    """
    name, toy = profile.removesuffix("-toy"), profile.endswith("-toy")
    return STUDIES.get(name, name) + ", toy" * toy


def across(verdicts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Verdicts of several studies, put together: (verdict, the studies that have it).

    Args:
        verdicts: (study, verdict).

    >>> across([("letters", "supported"), ("Tiny-ImageNet", "supported")])
    [('supported', 'on letters and Tiny-ImageNet')]
    >>> across([("letters", "supported"), ("Tiny-ImageNet", "contradicted")])
    [('supported', 'on letters'), ('contradicted', 'on Tiny-ImageNet')]
    """
    studies: dict[str, list[str]] = {}
    for study, verdict in verdicts:
        studies.setdefault(verdict or INCONCLUSIVE, []).append(study)
    return [(verdict, "on " + listed(mine)) for verdict, mine in studies.items()]


def listed(names: Sequence[str]) -> str:
    """Names as a list in a sentence.

    >>> listed(["a", "b", "c"]), listed([])
    ('a, b and c', 'none')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "none"
