"""Narrative English from a small grammar: a haystack that needs no file.

A document is a pure function of (seed, split, number). Every sentence belongs to the split that its digest falls to, so
no two splits share one. None of the words is a label of the tasks.
"""

import random
import re

from common.data.splits import belongs

WOMEN = ("Agatha", "Beatrix", "Cordelia", "Dorothea", "Eleanor", "Florence", "Harriet", "Josephine", "Matilda",
         "Rosalind")  # fmt: skip
MEN = ("Ambrose", "Barnaby", "Cedric", "Edmund", "Godfrey", "Horace", "Leopold", "Rupert", "Silas", "Walter")
TRADES = ("baker", "captain", "clerk", "doctor", "farmer", "fiddler", "lawyer", "miller", "printer", "sailor",
          "teacher", "weaver")  # fmt: skip
KIN = ("aunt", "brother", "cousin", "father", "grandmother", "mother", "nephew", "sister", "uncle", "neighbour")
SPOTS = ("bridge", "church", "crossroads", "forge", "harbour", "inn", "library", "market", "meadow", "mill",
         "orchard", "quarry", "railway station", "river", "shore", "stable", "theatre", "tower", "valley",
         "village")  # fmt: skip
THINGS = ("anchor", "basket of eggs", "blanket", "bottle of ink", "clock", "coat", "compass", "diary", "fiddle",
          "key", "kettle", "ladder", "lantern", "letter", "map", "mirror", "parcel", "ring", "rope", "saddle",
          "telescope", "umbrella")  # fmt: skip
QUALITIES = ("ancient", "bright", "broken", "crooked", "dusty", "enormous", "faded", "gloomy", "heavy", "narrow",
             "plain", "quiet", "ragged", "shabby", "silent", "splendid", "steep", "strange", "tidy",
             "weathered")  # fmt: skip
MOODS = ("angry", "anxious", "ashamed", "bored", "cheerful", "curious", "delighted", "doubtful", "hopeful", "lonely",
         "proud", "puzzled", "restless", "sleepy", "sorry", "surprised")  # fmt: skip
MANNERS = ("calmly", "carefully", "eagerly", "gently", "hastily", "loudly", "patiently", "quietly", "slowly",
           "solemnly", "suddenly", "warmly")  # fmt: skip
TIMES = ("at dawn", "at midnight", "before breakfast", "by the end of the week", "during the winter",
         "in the evening", "in the spring", "long ago", "on a rainy day", "on Sunday", "that afternoon",
         "the next morning")  # fmt: skip
WEATHERS = ("fog", "frost", "hail", "mist", "rain", "snow", "sunshine", "thunder", "wind")
DEEDS = ("admired", "borrowed", "carved", "cleaned", "counted", "described", "drew", "forgot", "hid", "mended",
         "noticed", "painted", "polished", "remembered", "repaired", "sold", "wrapped")  # fmt: skip
TALES = ("the old war", "the price of bread", "a lost ship", "the coming harvest", "a quarrel about money",
         "the new road", "an unfinished poem", "the wedding", "a stranger from the north",
         "the great storm")  # fmt: skip
SLOTS = {
    "trade": TRADES, "kin": KIN, "spot": SPOTS, "thing": THINGS, "quality": QUALITIES, "mood": MOODS, "manner": MANNERS,
    "time": TIMES, "weather": WEATHERS, "deed": DEEDS, "tale": TALES,
}  # fmt: skip
PATTERNS = (
    "{Time}, {one} walked past the {quality} {spot} and thought about {tale}.",
    "{one} {deed} the {quality} {thing} and said nothing to {other}.",
    "The {trade} from the {spot} {manner} {deed} a {thing} that had belonged to {one}'s {kin}.",
    "There was {weather} over the {spot} {time}, and {one} felt {mood}.",
    "\"I have never seen such a {quality} {thing},\" said {one} {manner}.",
    "{one} and {other} talked {manner} about {tale} until the {trade} came back.",
    "{Time} the {spot} was {quality}, and only the {trade} seemed {mood}.",
    "{He} kept the {thing} beside the {quality} {thing2}, as {his} {kin} had always done.",
    "When the {weather} stopped, {one} {manner} asked the {trade} about {tale}.",
    "{He} was {mood} because {other} had {manner} left without the {thing}.",
    "Nobody at the {spot} believed that {one} once {deed} the {quality} {thing}.",
    "The way from the {spot} to the {spot2} was {quality}, and {one} grew {mood}.",
    "{other} wrote a letter about {tale} and gave it to {his} {kin} {time}.",
    "\"You must tell the {trade} about {tale},\" {other} answered {manner}.",
    "{one}'s {kin}, a {mood} {trade}, {deed} the {thing} {time}.",
    "In the {quality} {spot} stood a {thing}, and beside it {one} waited {manner}.",
    "{He} {deed} one {thing} after another while the {weather} beat against the {spot}.",
    "Every {trade} in the {spot} knew {tale}, yet {one} listened {manner}.",
)  # fmt: skip
_SLOT = re.compile(r"\{(\w+?)2?\}")
LENGTHS = (8, 24)
"""Fewest and most sentences of a document."""


def words() -> list[str]:
    """Every word and sign the grammar can say, sorted; for a tokenizer of its own."""
    said = " ".join([*PATTERNS, *WOMEN, *MEN, "He She his her", *(" ".join(each) for each in SLOTS.values())])
    plain = re.sub(r"\{\w+\}", " ", said)
    capitals = [time.split()[0].capitalize() for time in TIMES]
    return sorted({*re.findall(r"\w+|[^\w\s]", plain), *capitals})


def document(seed: int, split: str, number: int) -> tuple[str, ...]:
    """The sentences of one document: two persons and what they do."""
    rng = random.Random(f"{seed}/{split}/{number}/text")
    woman = rng.random() < 0.5
    one = rng.choice(WOMEN if woman else MEN)
    other = rng.choice([name for name in (*WOMEN, *MEN) if name != one])
    fixed = {"one": one, "other": other, "He": "She" if woman else "He", "his": "her" if woman else "his"}
    told: list[str] = []
    for _ in range(rng.randint(*LENGTHS)):
        while not belongs(sentence := _sentence(fixed, rng), split):
            pass
        told.append(sentence)
    return tuple(told)


def _sentence(fixed: dict[str, str], rng: random.Random) -> str:
    def fill(found: re.Match[str]) -> str:
        name = found[1]
        if name in fixed:
            return fixed[name]
        word = rng.choice(SLOTS[name.lower()])
        return word[0].upper() + word[1:] if name[0].isupper() else word

    text = _SLOT.sub(fill, rng.choice(PATTERNS))
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return text[0].upper() + text[1:]
