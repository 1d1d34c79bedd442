"""An encyclopaedia made to order: towns, rivers and persons with invented names, and questions about them.

`generate` is a pure function of its arguments. Every name belongs to the split that its digest falls to, so no two
splits share a passage.
"""

import random

from common.data.splits import belongs
from perk.documents.config import Kind
from perk.documents.items import Item, Passage

STARTS = ("Al", "Bel", "Cor", "Dra", "El", "Fen", "Gal", "Hol", "Is", "Jor", "Kel", "Lor", "Mar", "Nor", "Or", "Pel",
          "Quin", "Ros", "Sel", "Tor", "Ul", "Vel", "Wen", "Yar", "Zan")  # fmt: skip
MIDDLES = ("a", "ba", "de", "do", "fi", "ga", "ka", "li", "lo", "ma", "mi", "na", "no", "ra", "ri", "sa", "so", "ta",
           "ti", "va")  # fmt: skip
ENDS = {"town": ("bridge", "burg", "field", "ford", "haven", "stead", "ton", "wick"),
        "river": ("beck", "da", "er", "na", "ra", "se", "we"),
        "person": ("bert", "da", "dric", "la", "mir", "na", "ric", "wen")}  # fmt: skip
TRADES = ("a botanist", "a composer", "a historian", "a painter", "a poet", "a sculptor", "an architect",
          "an astronomer", "an engineer", "an explorer")  # fmt: skip
WARES = ("blue pottery", "canal boats", "church bells", "clockwork toys", "glass beads", "paper mills", "salt mines",
         "silk weaving", "stone quarries", "wooden flutes")  # fmt: skip
FEATS = ("a history of the northern roads", "a map of the southern stars", "a treatise on bees",
         "the first steam ferry", "the great aqueduct", "the oldest botanical collection",
         "three celebrated symphonies")  # fmt: skip


def generate(kind: Kind, seed: int, split: str, index: int, passages: int) -> Item:
    """Question number `index` of a split with about so many passages of its own world.

    HotpotQA's kind goes from a person to a town to a river, or compares two persons; TriviaQA's asks for a town's river
    and accepts several names of it.
    """
    rng = random.Random(f"{seed}/{split}/{index}/documents")
    world = _World(rng, split)
    pairs = [world.town_and_person() for _ in range(max(2, (passages + 1) // 2))]
    (town, river, its), (person, year, his) = pairs[0]
    other, then, hers = pairs[1][1]
    sort = "bridge"
    gold: tuple[Passage, ...] = (his, its)
    answers: tuple[str, ...] = (river,)
    question = f"On which river does the town lie in which {person} was born?"
    if kind is Kind.triviaqa:
        sort, gold = "triviaqa", (its,)
        question, answers = f"On which river does the town of {town} lie?", (river, f"River {river}", f"the {river}")
    elif year != then and rng.random() < 0.5:
        sort, gold = "comparison", (his, hers)
        question, answers = f"Who was born first, {person} or {other}?", (person if year < then else other,)
    everything = [passage for (_, _, of_town), (_, _, of_person) in pairs for passage in (of_town, of_person)]
    others = [passage for passage in everything if passage not in gold]
    rng.shuffle(others)
    support = tuple(f"{passage.text.split('. ')[0]}." for passage in gold)
    return Item(f"{kind.value}-{seed}-{split}-{index}", question, answers, sort, gold, tuple(others), support)


class _World:
    """Names that were given, so that none is given twice."""

    def __init__(self, rng: random.Random, split: str) -> None:
        self.rng, self.split, self.names = rng, split, set[str]()

    def name(self, kind: str) -> str:
        rng = self.rng
        while True:
            found = rng.choice(STARTS) + "".join(rng.choices(MIDDLES, k=2)) + rng.choice(ENDS[kind])
            if found not in self.names and belongs(found, self.split):
                self.names.add(found)
                return found

    def town_and_person(self) -> tuple[tuple[str, str, Passage], tuple[str, int, Passage]]:
        """A town with its river, and a person born there with the year."""
        rng = self.rng
        town, river, person = self.name("town"), self.name("river"), f"{self.name('person')} {self.name('person')}"
        year = rng.randint(1500, 1989)
        about_town = (
            f"{town} is a town on the river {river}. It has {rng.randint(2, 90)} thousand inhabitants and is known for "
            f"its {rng.choice(WARES)}. The first record of it is from the year {rng.randint(900, 1450)}."
        )
        about_person = (
            f"{person} was {rng.choice(TRADES)} born in {town} in {year}. The best known work is "
            f"{rng.choice(FEATS)}, finished at the age of {rng.randint(20, 80)}."
        )
        return (town, river, Passage(town, about_town)), (person, year, Passage(person, about_person))
