"""The algebra of the 22 kinship words, those of the authors' notebooks.

A relation is a walk through a family: u to a parent, d to a child, b to a sibling, s to a spouse. Two relations compose
by joining their walks and shortening the result. Families are regular: every child has two married parents, siblings
share both, nobody marries a relative; uncles, aunts, nephews and nieces are those by blood.
"""

import re
from functools import cache, lru_cache

GENDERS = ("male", "female")
WALKS = {
    "child": ("d",),
    "parent": ("u",),
    "sibling": ("b",),
    "spouse": ("s",),
    "grandchild": ("dd",),
    "grandparent": ("uu",),
    "nibling": ("bd",),
    "pibling": ("ub",),
    "child_in_law": ("ds",),
    "parent_in_law": ("su",),
    "sibling_in_law": ("sb", "bs"),
}
"""Relation without gender -> its walks, from the person that has the relative to the relative."""
FORMS = {
    "child": ("son", "daughter"),
    "parent": ("father", "mother"),
    "sibling": ("brother", "sister"),
    "spouse": ("husband", "wife"),
    "grandchild": ("grandson", "granddaughter"),
    "grandparent": ("grandfather", "grandmother"),
    "nibling": ("nephew", "niece"),
    "pibling": ("uncle", "aunt"),
    "child_in_law": ("son-in-law", "daughter-in-law"),
    "parent_in_law": ("father-in-law", "mother-in-law"),
    "sibling_in_law": ("brother-in-law", "sister-in-law"),
}
"""Relation -> the words for a male and a female relative."""
WORDS = {FORMS[relation][place]: (relation, gender) for relation in FORMS for place, gender in enumerate(GENDERS)}
"""Word -> relation and the relative's gender."""
INVERSES = {
    "child": "parent",
    "grandchild": "grandparent",
    "nibling": "pibling",
    "child_in_law": "parent_in_law",
    **{each: each for each in ("sibling", "spouse", "sibling_in_law")},
}
INVERSES |= {after: before for before, after in INVERSES.items()}

SHORTER = (("db", "d"), ("sd", "d"), ("bu", "u"), ("us", "u"), ("ss", ""))
"""Always so: a child's sibling is a child, a spouse's child is one's own, a sibling's parent, a parent's spouse."""
DISTINCT = {"ud": "b", "bb": "b", "du": "s"}
"""So because the ends are different persons: a parent's other child is a sibling, a child's other parent a spouse."""
OWN_SIDE = {("child", "grandparent"): "parent", ("child", "pibling"): "sibling"}
"""CLUTRR's convention where both sides of a family are possible: a child's grandparent is one's own parent."""
RULES = frozenset(
    {
        *(("child", after) for after in ("spouse", "child", "sibling", "grandparent", "pibling")),
        *(("sibling", after) for after in ("child", "sibling", "parent", "grandparent")),
        *(("parent", after) for after in ("sibling", "parent", "child")),
        *(("spouse", after) for after in ("child", "grandchild", "parent")),
        ("grandchild", "sibling"),
    }
)
"""The compositions that CLUTRR makes stories of: 62 pairs of words."""

_WORD = re.compile(rf"(?<![\w-])({'|'.join(sorted(WORDS, key=len, reverse=True))})(?![\w-])", re.IGNORECASE)


def words_in(text: str) -> list[str]:
    """The kinship words of a text, in order."""
    return [word.lower() for word in _WORD.findall(text)]


def inverse(word: str, gender: str) -> str:
    """What A is to B, where B is the `word` of A and A is of that gender."""
    return FORMS[INVERSES[WORDS[word][0]]][GENDERS.index(gender)]


@cache
def compose(first: str, second: str) -> str | None:
    """What C is to A, where B is the `first` of A and C the `second` of B, three different persons.

    None where the two facts leave it open, where the 22 words have none for it, and where it cannot be (a man's
    husband). The two pairs in `OWN_SIDE` are left open by the facts too, and are answered as CLUTRR does.
    """
    (relation, gender), (after, end) = WORDS[first], WORDS[second]
    if after == "spouse" and gender == end:
        return None
    found = joined(relation, after)
    return FORMS[found][GENDERS.index(end)] if found else None


def joined(relation: str, after: str) -> str | None:
    """`compose` for relations without gender."""
    if (relation, after) in OWN_SIDE:
        return OWN_SIDE[relation, after]
    ends = {_short(one + two) for one in WALKS[relation] for two in WALKS[after]}
    names = {name for name, walks in WALKS.items() if ends <= set(walks)}
    return names.pop() if names else None


def _short(walk: str) -> str:
    before = ""
    while walk != before:
        before = walk
        for long, short in SHORTER:
            walk = walk.replace(long, short)
    return DISTINCT.get(walk, walk)


@lru_cache(maxsize=20_000)
def readings(chain: tuple[str, ...]) -> frozenset[str]:
    """Every word that composing neighbours of the chain, in any order, can end with; empty where none does.

    More than one only through the convention of `OWN_SIDE`: a wife's son is one's own son, whose uncle is one's own
    brother; but he is the wife's son, too, and her brother is a brother-in-law.
    """
    size = len(chain)
    spans = {(start, start + 1): {word} for start, word in enumerate(chain)}
    for length in range(2, size + 1):
        for start in range(size - length + 1):
            stop = start + length
            spans[start, stop] = {
                word
                for middle in range(start + 1, stop)
                for first in spans[start, middle]
                for second in spans[middle, stop]
                if (word := compose(first, second))
            }
    return frozenset(spans[0, size])
