"""Pre-training the tiny model: the text is what it claims to be, a killed run loses nothing, the kept weights read."""

import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from common.errors import UserError
from common.language.config import ModelConfig
from common.language.model import load
from common.language.sources import digest_of, load_tokenizer
from reckoning.proofwriter import theory as logic
from reckoning.proofwriter.theory import negated
from scripts.embedded import pretrain as command
from scripts.embedded import tiny_english
from scripts.embedded.pretrain import RECORD, SOURCES, WEIGHTS, Recipe, Text, held_out_loss, pretrain

ROOT = Path(__file__).parents[3]
TINY = ROOT / "common" / "language" / "tiny"
SHORT = Recipe(steps=4, rows=2, length=24, drill=2)


# ---- the text


def test_a_passage_depends_on_seed_and_number_alone() -> None:
    assert tiny_english.passage(0, 5) == tiny_english.passage(0, 5)
    assert len({tiny_english.passage(seed, number) for seed in (0, 1) for number in range(20)}) == 40


def test_worlds_are_consistent_and_never_of_dev_or_test() -> None:
    for seed in range(40):
        world = tiny_english._drawn_world(random.Random(seed))
        assert tiny_english.theory_is_ours(world.texts.values())
        assert logic.is_consistent(world.known)


def test_what_is_claimed_of_a_world_holds() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        world = tiny_english._drawn_world(rng)
        literal, derivation = tiny_english._claim(world, rng)
        if derivation is None:
            assert literal not in world.known and negated(literal) not in world.known
        else:
            assert derivation.literal in (literal, negated(literal)) and derivation.literal in world.known


def test_no_passage_holds_a_question_of_the_data_sets() -> None:
    text = " ".join(tiny_english.passage(0, number) for number in range(500)).lower()
    assert "can we conclude" not in text and "based on" not in text and "related to" not in text


def test_every_word_is_a_token_of_its_own() -> None:
    tokenizer = load_tokenizer(ModelConfig(name="tiny"))
    texts = [tiny_english.passage(1, number) for number in range(200)] + [tiny_english.drill(1, 0)]
    texts += ["How is person 3 related to person 20?", "person 3 is person 7's son-in-law", "person 1 has a niece"]
    for text in texts:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode(text))
        assert not any(token == "<unk>" or token.startswith("##") for token in tokens), text
    said = "person 3 is person 7's son-in-law"
    assert tokenizer.decode(tokenizer.encode(said)) == said


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        (("son", "son"), "grandson"),
        (("sister", "son"), "nephew"),
        (("mother", "brother"), "uncle"),
        (("wife", "mother"), "mother-in-law"),
        (("daughter", "husband"), "son-in-law"),
        (("father", "wife"), "mother"),
        (("son", "grandfather"), None),  # a father, or a father-in-law
        (("son", "uncle"), None),
    ],
)
def test_kinship_follows_where_it_must(links: tuple[str, str], expected: str | None) -> None:
    assert tiny_english.compositions().get(links) == expected


# ---- training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shape and tokenizer without weights."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny", ignore=shutil.ignore_patterns(WEIGHTS, RECORD)))


def test_a_killed_run_ends_in_the_same_bits(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = pretrain(SHORT, folder, tmp_path / "straight")
    (folder / WEIGHTS).unlink()
    original, calls = Text.batch, []

    def cut(self: Text, step: int) -> Any:
        calls.append(step)
        if step == 2:
            raise KeyboardInterrupt
        return original(self, step)

    monkeypatch.setattr(Text, "batch", cut)
    with pytest.raises(KeyboardInterrupt):
        pretrain(SHORT, folder, tmp_path / "cut", save_seconds=0.0)
    monkeypatch.setattr(Text, "batch", original)
    continued = pretrain(SHORT, folder, tmp_path / "cut")
    assert calls == [0, 1, 2]
    assert continued["digest"] == straight["digest"] and continued["loss"] == straight["loss"]
    assert json.loads((folder / RECORD).read_text())["recipe"]["steps"] == 4


def test_seed_and_steps_change_the_weights(folder: Path, tmp_path: Path) -> None:
    recipes = [replace(SHORT, steps=1), replace(SHORT, steps=1, seed=1)]
    assert len({pretrain(recipe, folder, tmp_path / str(recipe.seed))["digest"] for recipe in recipes}) == 2


def test_drills_come_first() -> None:
    text = Text(load_tokenizer(ModelConfig(name="tiny")), Recipe(rows=8, length=32, drill=10))
    drills = text.rows(0, 8, tiny_english.drill)
    assert torch.equal(text.batch(0), drills)
    assert (text.batch(100)[0] == text.rows(800, 1, tiny_english.drill)[0]).all()
    assert torch.equal(text.batch(100)[1:], text.rows(801, 7))


# ---- the weights that are kept


def network(*, pretrained: bool) -> Any:
    torch.manual_seed(0)
    config = ModelConfig(name="tiny", pretrained=pretrained)
    return load(config, len(load_tokenizer(config)), device=torch.device("cpu"), dtype=torch.float32).network


def test_the_kept_weights_are_small_fit_their_shape_and_read_what_they_were_not_trained_on() -> None:
    assert (TINY / WEIGHTS).stat().st_size < 1_100_000
    record = json.loads((TINY / RECORD).read_text())
    trained, fresh = network(pretrained=True), network(pretrained=False)
    assert {name: w.shape for name, w in trained.named_parameters()} == {
        name: w.shape for name, w in fresh.named_parameters()
    }
    text = Text(load_tokenizer(ModelConfig(name="tiny")), Recipe(**record["recipe"]))
    loss = held_out_loss(trained, text, rows=8)
    assert loss == pytest.approx(record["loss"], abs=0.2)
    assert loss < 0.4 * held_out_loss(fresh, text, rows=8)


def test_the_digest_in_the_configuration_is_that_of_the_kept_weights() -> None:
    digest = digest_of(TINY / WEIGHTS)
    assert yaml.safe_load((ROOT / "conf" / "language" / "model" / "tiny.yaml").read_text())["digest"] == digest
    assert json.loads((TINY / RECORD).read_text())["digest"] == digest


@pytest.mark.parametrize("name", SOURCES)
def test_the_kept_weights_are_those_of_the_scripts_recipe(name: str) -> None:
    source = SOURCES[name]
    record = json.loads((ROOT / source.folder / RECORD).read_text())
    assert record["recipe"] == asdict(source.recipe)
    assert record["tokens"] == source.recipe.steps * source.recipe.rows * source.recipe.length
    assert record.get("losses", {}).keys() == source.kinds.keys()


def test_other_weights_than_the_digest_says_are_refused() -> None:
    config = ModelConfig(name="tiny", digest="0" * 12)
    with pytest.raises(UserError, match=f"set model.digest={digest_of(TINY / WEIGHTS)} for a run from these weights"):
        load(config, 1, device=torch.device("cpu"), dtype=torch.float32)
    load(replace(config, pretrained=False), 1, device=torch.device("cpu"), dtype=torch.float32)


def test_the_command_line_writes_weights(folder: Path, tmp_path: Path) -> None:
    words = ["--steps", "1", "--rows", "2", "--length", "16", "--folder", str(folder), "--runs", str(tmp_path / "runs")]
    command.main(words)
    assert (folder / WEIGHTS).is_file()
    with pytest.raises(SystemExit, match="no config.json"):
        command.main(["--folder", str(tmp_path)])
