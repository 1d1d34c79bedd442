"""Sentences, haystacks, passages of so many tokens, and facts among them."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.data.splits import SPLITS, belongs
from common.errors import UserError
from perk.babilong import grammar
from perk.babilong.config import HaystackConfig, Index, Order, Placement
from perk.babilong.haystack import Files, Grammar, open_haystack, walk
from perk.babilong.passage import Piece, filled, joined, passage, segmented, split_long
from perk.babilong.placing import allotted, indexed, merged, within
from perk.babilong.sentences import paragraphs_of, sentences_of
from perk.babilong.vocabulary import labels_of
from perk.segments import segments_of
from perk.tokens import Words, load


def test_sentences_end_where_they_end() -> None:
    text = 'Mr. Brown saw Dr. J. Grey. "Go!" she said. It was\n5 p.m. and dark. Was it? _No._ (Yes.) End'
    assert list(sentences_of(text)) == [
        "Mr. Brown saw Dr. J. Grey.",
        '"Go!" she said.',
        "It was 5 p.m. and dark.",
        "Was it?",
        "_No._",
        "(Yes.)",
        "End",
    ]


def test_paragraphs_are_joined_and_headings_left_out() -> None:
    text = "# Title\n\n-------\n\nOne line\nand another.\r\n\r\n## Chapter\n\nMore."
    assert list(paragraphs_of(text)) == ["One line and another.", "More."]


def test_generated_text_is_pure_and_no_two_splits_share_a_sentence() -> None:
    told = {split: [grammar.document(3, split, number) for number in range(12)] for split in SPLITS}
    assert told["dev"][4] == grammar.document(3, "dev", 4) != grammar.document(4, "dev", 4)
    for split, documents in told.items():
        sentences = list(itertools.chain(*documents))
        assert all(belongs(sentence, split) for sentence in sentences)
        assert len(set(sentences)) > 0.95 * len(sentences)
    known, said = set(grammar.words()), set(Words.words(" ".join(itertools.chain(*told["train"]))))
    assert said <= known
    assert not {label.lower() for task in range(1, 6) for label in labels_of(task)} & {word.lower() for word in known}


def test_a_walk_goes_on_into_the_next_document_and_ends(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / f"{name}.txt").write_text(" ".join(f"Sentence {name} {number}." for number in range(3)))
    haystack = Files(sorted(tmp_path.iterdir()), 0)
    assert sum(haystack.size(split) for split in SPLITS) == 8
    seen = {split: [name for name, _ in walk(haystack, split, random.Random(1))] for split in SPLITS}
    assert {name for names in seen.values() for name in names} == {f"{name}.txt#0" for name in "abcdefgh"}
    assert sum(len(set(names)) for names in seen.values()) == 8
    with pytest.raises(UserError, match="the dev split holds only"):
        passage(haystack, "dev", random.Random(0), Words(), 1000, 8)


def test_one_text_is_cut_into_pieces_that_no_two_splits_share(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(" ".join(f"This is sentence {number}." for number in range(400)))
    haystack = open_haystack(HaystackConfig(source=str(path)), None, 0)
    told = {
        split: [s for number in range(haystack.size(split)) for s in haystack.document(split, number)[1]]
        for split in SPLITS
    }
    assert sorted(itertools.chain(*told.values())) == sorted(f"This is sentence {number}." for number in range(400))


@pytest.mark.parametrize("form", ["jsonl", "disk"])
def test_rows_of_a_data_set_are_a_haystack(tmp_path: Path, form: str) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"body": [f"Row {number} says this. And that." for number in range(160)]})
    source = tmp_path / ("rows.jsonl" if form == "jsonl" else "rows")
    rows.to_json(str(source)) if form == "jsonl" else rows.save_to_disk(str(source))
    haystack = open_haystack(HaystackConfig(source=str(source), column="body"), None, 0)
    assert [haystack.size(split) for split in SPLITS] == [120, 20, 20]
    names = {haystack.document(split, number)[1][0] for split in SPLITS for number in range(haystack.size(split))}
    assert len(names) == 160
    with pytest.raises(UserError, match=r"haystack.column=text: .* has the columns \['body'\]"):
        open_haystack(HaystackConfig(source=str(source)), None, 0)


def test_a_haystack_that_is_not_there_is_named(tmp_path: Path) -> None:
    for source in ("no/such-set", "nowhere", str(tmp_path)):
        with pytest.raises(UserError, match="haystack.source|nowhere"):
            open_haystack(HaystackConfig(source=source), str(tmp_path), 0)
    (tmp_path / "empty.txt").write_text("\n\n# Heading\n")
    with pytest.raises(UserError, match="no sentence in it"):
        open_haystack(HaystackConfig(source="empty.txt"), str(tmp_path), 0).document("train", 0)


def test_a_haystack_of_the_hub_is_looked_for_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise ConnectionError

    asked: list[int] = []
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.load.HfApi, "hf_hub_download", refuse)
    with pytest.raises(UserError, match="not in the cache of datasets"):
        open_haystack(HaystackConfig(source="owner/absent"), None, 0)
    assert not asked and datasets.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("budget", [16, 100, 997, 4096])
def test_a_passage_meets_its_budget_and_its_segments_are_about_equal(budget: int) -> None:
    pieces, names = passage(Grammar(0), "train", random.Random(budget), Words(), budget, 16)
    total = sum(piece.tokens for piece in pieces)
    assert budget - 4 <= total <= budget and names
    assert all(piece.tokens == Words().counts([piece.text])[0] <= 16 for piece in pieces)
    segments = segmented(pieces, 64)
    assert list(itertools.chain(*segments)) == pieces
    assert total / 64 <= len(segments) <= max(1, 1.2 * total / 64 + 1)
    sizes = [sum(piece.tokens for piece in segment) for segment in segments]
    assert max(sizes) <= 64 and all(abs(size - total / len(segments)) <= 25 for size in sizes)


def test_a_long_sentence_is_cut_between_words() -> None:
    text = " ".join(f"w{number}" for number in range(50))
    parts = split_long(text, Words(), 8)
    assert " ".join(part.text for part in parts) == text
    assert [part.tokens for part in parts] == [8] * 6 + [2]
    assert [part.ends for part in parts] == [False] * 6 + [True]


def test_facts_are_counted_for_each_character_or_over_the_story() -> None:
    facts = [
        "Mary went to the office.",
        "John left the milk.",
        "Mary got the apple.",
        "The office is north of the hall.",
    ]
    assert indexed(facts, Index.character) == [
        f"Mary Event 0: {facts[0]}",
        f"John Event 0: {facts[1]}",
        f"Mary Event 1: {facts[2]}",
        f"Event 0: {facts[3]}",
    ]
    assert indexed(facts, Index.story) == [f"Event {number}: {fact}" for number, fact in enumerate(facts)]
    assert indexed(facts, Index.none) == facts


SEGMENTS = [[Piece(f"S{place} a.", 2, True), Piece("half", 1, place % 2 == 0)] for place in range(40)]
FACTS = [f"{name} went {number}." for number in range(8) for name in ("Mary", "John")]
COSTS = [4] * len(FACTS)


@pytest.mark.parametrize("placement", [Placement.scattered, Placement.pre, Placement.mid, Placement.post])
@pytest.mark.parametrize("order", list(Order))
def test_facts_stand_where_they_should_and_cut_no_sentence(placement: Placement, order: Order) -> None:
    rng = random.Random(2)
    chosen = allotted(FACTS, COSTS, 40, 32, placement, order, rng)
    assert chosen is not None
    where = within(SEGMENTS, chosen, order, rng)
    zones = {Placement.pre: range(0, 4), Placement.mid: range(18, 22), Placement.post: range(36, 40)}
    assert {segment for segment, _ in where} <= set(zones.get(placement, range(40)))
    if placement is Placement.scattered:
        assert len({segment for segment, _ in where}) > 10
    assert (where == sorted(where)) is (order is Order.story)
    for segment, place in where:
        before = SEGMENTS[segment][place - 1] if place else SEGMENTS[segment - 1][-1] if segment else None
        assert before is None or before.ends
    text = " ".join(merged(SEGMENTS, FACTS, where))
    assert [text.count(fact) for fact in FACTS] == [1] * len(FACTS)
    found = [text.index(fact) for fact in FACTS]
    assert (found == sorted(found)) is (order is Order.story)
    for fact in FACTS:
        text = text.replace(f"{fact} ", "").replace(f" {fact}", "")
    assert text == " ".join(piece.text for segment in SEGMENTS for piece in segment)


@pytest.mark.parametrize("placement", list(Placement))
@pytest.mark.parametrize("order", list(Order))
def test_no_segment_gets_more_facts_than_it_holds(placement: Placement, order: Order) -> None:
    for seed, count in itertools.product(range(20), (4, 6, 10)):
        chosen = allotted(FACTS, COSTS, count, 16, placement, order, random.Random(seed))
        assert chosen is not None and min(chosen) >= 0
        loads = [sum(cost for cost, each in zip(COSTS, chosen, strict=True) if each == n) for n in range(count)]
        assert max(loads) <= 16 and sum(loads) == sum(COSTS)
        if placement is not Placement.grouped and order is Order.story:
            assert chosen == sorted(chosen)
    assert allotted(FACTS, COSTS, 3, 16, placement, order, random.Random(0)) is None, "twelve facts' worth"


def test_grouped_facts_keep_together_in_neighbouring_segments() -> None:
    chosen = allotted(FACTS, COSTS, 40, 32, Placement.grouped, Order.story, random.Random(0))
    assert chosen is not None
    where = within(SEGMENTS, chosen, Order.story, random.Random(0))
    segments = {
        name: {s for fact, s in zip(FACTS, chosen, strict=True) if fact.startswith(name)} for name in ("Mary", "John")
    }
    assert all(len(found) == 1 for found in segments.values())
    (mary,), (john,) = segments.values()
    assert abs(mary - john) == 1
    text = " ".join(merged(SEGMENTS, FACTS, where))
    told = [text.index(fact) for fact in FACTS if fact.startswith("Mary")]
    assert told == sorted(told)


def test_a_word_longer_than_a_segment_is_broken_and_put_together_again() -> None:
    class Letters:
        def counts(self, texts: Sequence[str]) -> list[int]:
            return [len(text.replace(" ", "")) for text in texts]

    word = "".join(chr(0x4E00 + number) for number in range(100))
    texts = segments_of(f"It says {word} and ends.", Letters(), 16)
    assert max(map(len, texts)) <= 20 and "".join(texts).replace(" ", "") == f"Itsays{word}andends."
    assert any(word[number : number + 12] in text for text in texts for number in range(88)), "no blanks inside it"
    glued = [Piece("ab", 2, False), Piece("cd", 2, True, ""), Piece("ef", 2, True, "")]
    assert joined(glued) == "abcdef"
    assert merged([glued], ["Fact."], [(0, 0)]) == ["Fact. abcdef"]
    assert merged([glued], ["Fact."], [(0, 2)]) == ["abcd Fact. ef"]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_rest_is_filled_to_one_level(count: int) -> None:
    taken = [8 * place % 24 for place in range(count)]
    pieces = [Piece("w", 1, True)] * (32 * count - sum(taken) - 4)
    segments = filled(pieces, taken, 32)
    assert segments is not None
    sizes = [each + len(group) for each, group in zip(taken, segments, strict=True)]
    assert max(sizes) <= 32 and max(sizes) - min(sizes) <= 2
    assert filled([*pieces, *[Piece("w", 1, True)] * 5], taken, 32) is None


def test_tokens_are_those_of_the_published_tokenizers(data_root: Path) -> None:
    text = ["Hello world, it's 2024!", " the cat"]
    assert load("words", None).counts(text) == [8, 2]
    # Hello| world|,| it|'s| |2|0|2|4|! and Hello| world|,| it|'s| 2024|! ; the cat is two in both
    assert load("tokenizers/qwen2", str(data_root)).counts(text) == [11, 2]
    assert load("tokenizers/gpt2", str(data_root)).counts(text) == [7, 2]
    with pytest.raises(UserError, match="data.tokenizer=nobody/nothing: neither a folder"):
        load("nobody/nothing", str(data_root))
    with pytest.raises(UserError, match=r"holds neither tokenizer.json nor vocab.json"):
        load("books", str(data_root))
