"""bAbI's words, then more of the same kind; the labels that the official metric knows."""

from typing import Protocol

PERSONS = ("Mary", "John", "Sandra", "Daniel", "Julie", "Fred", "Bill", "Jeff")
GIVERS = ("Bill", "Fred", "Jeff", "Mary", "Julie", "John", "Sandra", "Daniel")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office", "park", "school", "cinema", "cellar")
OBJECTS = ("apple", "football", "milk", "book", "lamp", "basket")
MOVES = ("moved to", "went to", "went back to", "journeyed to", "travelled to")
GETS = ("got", "took", "grabbed", "picked up")
DROPS = ("dropped", "left", "put down", "discarded")
GIVES = ("gave", "handed", "passed")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


class World(Protocol):
    """How many of each a generated world has: `perk.babilong.config.WorldConfig`."""

    persons: int
    places: int
    objects: int


def labels_of(task: int, world: World | None = None) -> tuple[str, ...]:
    """Every answer that bAbI task 1 to 5 has, the labels of the official BABILong metric; or that the task has in a
    generated `world`."""
    persons, places, objects = (4, 6, 3) if world is None else (world.persons, world.places, world.objects)
    return (*GIVERS[:persons], *OBJECTS[:objects]) if task == 5 else PLACES[:places]


def actor_of(fact: str) -> str | None:
    """Who does something in a fact, None where nobody does (task 4)."""
    first = fact.split(" ", 1)[0]
    return first if first not in ("The", "the") else None
