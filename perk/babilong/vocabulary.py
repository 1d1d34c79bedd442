"""bAbI's words, then more of the same kind; the labels that the official metric knows."""

PERSONS = ("Mary", "John", "Sandra", "Daniel", "Julie", "Fred", "Bill", "Jeff")
GIVERS = ("Bill", "Fred", "Jeff", "Mary", "Julie", "John", "Sandra", "Daniel")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office", "park", "school", "cinema", "cellar")
OBJECTS = ("apple", "football", "milk", "book", "lamp", "basket")
MOVES = ("moved to", "went to", "went back to", "journeyed to", "travelled to")
GETS = ("got", "took", "grabbed", "picked up")
DROPS = ("dropped", "left", "put down", "discarded")
GIVES = ("gave", "handed", "passed")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
BABI_PLACES, BABI_OBJECTS = PLACES[:6], OBJECTS[:3]


def labels_of(task: int) -> tuple[str, ...]:
    """Every answer that bAbI task 1 to 5 has: the labels of the official BABILong metric."""
    return (*GIVERS[:4], *BABI_OBJECTS) if task == 5 else BABI_PLACES


def actor_of(fact: str) -> str | None:
    """Who does something in a fact, None where nobody does (task 4)."""
    first = fact.split(" ", 1)[0]
    return first if first not in ("The", "the") else None
