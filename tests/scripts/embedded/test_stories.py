"""Pre-training tiny_stories: its text is of no data set, its tokenizer spells no word, the kept weights read."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from common.data.splits import PRETRAIN, SPLITS, belongs
from common.language.config import ModelConfig
from common.language.model import load
from common.language.sources import digest_of, load_tokenizer
from perk.apis import generator as apis
from perk.babilong import grammar
from perk.babilong.config import WorldConfig
from perk.babilong.simulator import tell
from perk.students.config import StudentsConfig
from perk.students.generator import generate
from perk.students.records import NAME, line_of
from perk.tokens import Words
from scripts.embedded import stories_english
from scripts.embedded.pretrain import RECORD, SOURCES, WEIGHTS, Recipe, Text, held_out_loss

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "common" / "language" / "tiny_stories"
MODEL = ModelConfig(name="tiny_stories")


def test_a_passage_depends_on_seed_and_number_alone() -> None:
    for write in stories_english.KINDS.values():
        assert write(0, 5) == write(0, 5)
        assert len({write(seed, number) for seed in (0, 1) for number in range(5)}) == 10


def test_its_sentences_stories_and_students_are_of_no_split() -> None:
    texts = [*grammar.document(0, PRETRAIN, 3), "\n".join(tell(WorldConfig(), 1, 0, PRETRAIN, 3).facts)]
    records = generate(StudentsConfig(), Words(), 256, 0, PRETRAIN, 3).records
    texts += [f"name {record[NAME]}" for record in records]
    for text in texts:
        assert belongs(text, PRETRAIN) and not any(belongs(text, split) for split in SPLITS)


def test_no_passage_holds_a_question_of_the_data_sets() -> None:
    assert not any("?" in stories_english.passage(0, number) for number in range(200))


def test_every_fact_is_stated_once_the_story_tells_it() -> None:
    story = tell(WorldConfig(), 1, 0, PRETRAIN, 0, questions=0)
    assert {asked.text for asked in story.asked} == {f"Where is {fact.split()[0]}?" for fact in story.facts}


def test_stories_and_records_are_made_of_whole_words() -> None:
    tokenizer = load_tokenizer(MODEL)
    texts = [stories_english.KINDS[kind](1, number) for kind in ("stories", "text") for number in range(40)]
    for split in SPLITS:
        texts += [*grammar.document(5, split, 0), *tell(WorldConfig(8, 10, 6), 5, 5, split, 0).facts]
        texts += [asked.text for asked in tell(WorldConfig(8, 10, 6), 3, 5, split, 1).asked]
    for text in texts:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode(text))
        assert not any(token == "<unk>" or token.startswith("##") for token in tokens), text


def test_answers_come_back_as_they_were_but_for_capitals() -> None:
    tokenizer = load_tokenizer(MODEL)
    records = generate(StudentsConfig(), Words(), 512, 0, "dev", 0).records
    calls = [api.call for index in range(5) for api in apis.generate(0, "dev", index, 2)[1]]
    for text in [*map(line_of, records), *calls, "87.3", "football", "Yes"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text.lower()


def network(*, pretrained: bool) -> Any:
    torch.manual_seed(0)
    config = ModelConfig(name="tiny_stories", pretrained=pretrained)
    return load(config, len(load_tokenizer(config)), device=torch.device("cpu"), dtype=torch.float32).network


def test_the_kept_weights_are_small_and_read_what_they_were_not_trained_on() -> None:
    assert (FOLDER / WEIGHTS).stat().st_size < 3_000_000
    record = json.loads((FOLDER / RECORD).read_text())
    trained, fresh = network(pretrained=True), network(pretrained=False)
    text = Text(load_tokenizer(MODEL), Recipe(**record["recipe"]), SOURCES["stories"])
    assert record["losses"].keys() == stories_english.KINDS.keys()
    for kind, write in islice(stories_english.KINDS.items(), 2):
        loss = held_out_loss(trained, text, 4, write)
        assert loss == pytest.approx(record["losses"][kind], abs=0.4)
        assert loss < 0.5 * held_out_loss(fresh, text, 4, write)


def test_the_digest_in_the_configuration_is_that_of_the_kept_weights() -> None:
    digest = digest_of(FOLDER / WEIGHTS)
    config = ROOT / "conf" / "language" / "model" / "tiny_stories.yaml"
    assert yaml.safe_load(config.read_text())["digest"] == digest
    assert json.loads((FOLDER / RECORD).read_text())["digest"] == digest
