"""Read once, ask often: contexts written into weights that are kept, swapped, continued and saved.

    reader = perk.load("runs/perk/babilong_qa1/scale-cpu")
    memory = reader.read(text)                  # a few gradient steps; the text is not needed any more
    memory.ask("Where is Mary?")                # no context is read
    memory.append(more)                         # experimental: goes on from what is written, and may ruin it
    memory.save("memories/mary")                # a standard peft adapter
    reader.open("memories/mary").ask("Where is Mary?")

A memory is a set of tensors beside one frozen base, so any number of them share a reader; threads may share it, too,
and their forward passes follow one another.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from common.data.textfile import read_text
from common.errors import UserError
from common.language.decode import continuations
from common.run import memory
from common.run.results import finished_hash
from common.run.schema import Device
from perk.config import Target, TrainConfig
from perk.methods import Perk
from perk.segments import segments_of
from perk.templates import token_shares

if TYPE_CHECKING:
    from common.engine.weights import Weights
    from perk.build import Parts

logger = logging.getLogger(__name__)
TEXTS = (".txt", ".md", ".text", ".rst", ".gz", ".xz", ".json", ".jsonl", ".csv", ".tsv", ".html", ".pdf", ".docx")
"""Endings of files that are read, or that one might try to read."""
SCHEMA = 1
"""Of `memory.json`."""
Context = str | Path | Sequence[str]
"""Running text, a file of it (UTF-8, perhaps packed as .gz or .xz), or segments, which are taken as they are."""


def load(run: str | Path, device: Device | str | None = None) -> Reader:
    """The selected model of a trained run, ready to read; of one that has not finished, with a warning.

    `device` is auto, cpu or cuda; None takes the run's own.

    Raises:
        UserError: no such run, no selected checkpoint, a method without memory, or the model is gone.
    """
    from perk.evaluate import restored

    folder = Path(run).expanduser()
    try:
        where = None if device is None else Device(device)
    except ValueError:
        raise UserError(f"device={device}: use one of {', '.join(Device)}") from None
    config, parts = restored(folder, where)
    if finished_hash(folder) is None:
        logger.warning(
            "run=%s has not finished: this is the model selected so far, and training may replace it", folder
        )
    if not isinstance(parts.learner, Perk):
        raise UserError(
            f"run={folder}: method.learner={config.method.learner} writes nothing into weights; give a run of a method "
            "that does, such as method=perk"
        )
    return Reader(folder, config, parts, parts.learner)


def read(
    context: Context, run: str | Path, *, micro_batch: int | None = None, inner_steps: int | None = None
) -> Memory:
    """`load(run).read(context)`, for one context; `memory.reader` reads further ones.

    Raises:
        UserError: as these.
    """
    return load(run).read(context, micro_batch=micro_batch, inner_steps=inner_steps)


class Reader:
    """A trained model that reads contexts into memories; its own weights stay as they are.

    Any number of threads may read and ask at once: contexts are written one after the other, and forward passes take
    turns.
    """

    def __init__(self, folder: Path, config: TrainConfig, parts: Parts, learner: Perk) -> None:
        """`folder` of the run that `config` and `parts` are of, `parts.learner` being `learner`; all of it is the
        reader's from now on.
        """
        self.folder, self.config, self.parts, self.learner = folder, config, parts, learner
        learner.learns.eval()
        learner.writer.stacked = False  # one context at a time
        self._writing = threading.Lock()

    def read(self, context: Context, *, micro_batch: int | None = None, inner_steps: int | None = None) -> Memory:
        """Write a context into a memory of its own.

        Args:
            context: text is cut into segments of at most `data.segment` tokens as the builders cut theirs.
            micro_batch: segments in one graph: less memory, the same memory written; 0 takes all, None the run's own.
            inner_steps: None takes the run's own.

        Raises:
            UserError: nothing to memorise, a segment that does not fit the model, a file that cannot be read, or a
                number out of range.
        """
        weights, count = self._written(context, None, 0, micro_batch, inner_steps)
        return Memory(self, weights, count)

    def open(self, folder: str | Path) -> Memory:
        """A memory that was saved, by this reader or by another of the same base and `model.lora`.

        Raises:
            UserError: there is none, it is damaged, or it belongs to another base or adapter.
        """
        from common.engine.weights import select

        place = Path(folder).expanduser()
        adapter = self.parts.model.adapter
        if adapter is None:
            raise UserError(f"{self.folder}: method.adapter=false, so no saved memory fits; use a run with an adapter")
        found, note = memory.load(place, adapter, _Note, SCHEMA, self.config.model.name)
        slow = select(self.parts.model.network)
        fast = self.learner.writer.slow
        if any(not value.equal(slow[name]) for name, value in found.items() if name not in fast):
            raise UserError(
                f"{place}: matrices that inner.weights={self.config.inner.weights} leaves alone are not those of "
                f"{self.folder}; open it with the run that it was saved from"
            )
        return Memory(self, {name: found[name] for name in fast}, note.segments)

    def _written(
        self,
        context: Context,
        start: Weights | None,
        count: int,
        micro_batch: int | None,
        inner_steps: int | None,
    ) -> tuple[Weights, int]:
        """Weights that hold `context` on top of `start`, which holds `count` segments; and how many they hold then."""
        for name, value, least in (("micro_batch", micro_batch, 0), ("inner_steps", inner_steps, 1)):
            if value is not None and not (isinstance(value, int) and value >= least):
                raise UserError(f"{name}={value}: use a whole number of {least} or more, or None for the run's own")
        segments = self._cut(context)
        numbers = range(count, count + len(segments))
        rows = self.parts.templates.memorised(segments, numbers, "context")
        writer = self.learner.writer
        with self._writing:  # compiled programs and recordings are the writer's, not the thread's
            adapted = writer.write(
                writer.rows([rows], [token_shares(rows)]),
                tasks=1,
                training=False,
                micro_batch=self.learner.micro_batch if micro_batch is None else micro_batch,
                start=start,
                steps=inner_steps,
            )
        return adapted.weights, numbers.stop

    def _cut(self, context: Any) -> list[str]:
        from perk.tokens import load as load_tokens

        if isinstance(context, Path):
            context = read_text(context)
        elif isinstance(context, str):
            _tell_of_path(context)
        if isinstance(context, str):
            data = self.config.data
            segments = segments_of(context, load_tokens(data.tokenizer, data.root), data.segment_tokens)
        elif isinstance(context, (bytes, bytearray, Mapping, Set)) or not isinstance(context, Iterable):
            raise UserError(
                f"a context of type {type(context).__name__}: give running text, a Path to a text file, or a list of "
                f"segments{'; bytes are text after .decode()' if isinstance(context, (bytes, bytearray)) else ''}"
            )
        else:
            segments = list(context)
        if strange := [place for place, text in enumerate(segments) if not isinstance(text, str)]:
            kind = type(segments[strange[0]]).__name__
            raise UserError(f"segment {strange[0]} of {len(segments)} is a {kind}, a text is needed")
        if not segments:
            raise UserError("an empty context: there is nothing to memorise; give some text")
        if blank := [place for place, text in enumerate(segments) if not text.strip()]:
            raise UserError(f"segment {blank[0]} of {len(segments)} is empty; leave it out")
        return segments


def _tell_of_path(text: str) -> None:
    """A text that names a file is read as a text all the same; the log says how a file is given."""
    name = text.strip()
    if "\n" in name or len(os.fsencode(name)) > os.pathconf("/", "PC_PATH_MAX"):
        return
    like = " " not in name and (name.lower().endswith(TEXTS) or name.startswith(("/", "./", "../", "~/")))
    try:
        there = bool(name) and Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # no name of a file
        there = False
    if there or like:
        logger.warning("%r is memorised as it stands; to read a file of that name give Path(%r)", name, name)


class Memory:
    """What was read, in weights."""

    def __init__(self, reader: Reader, weights: Weights, segments: int) -> None:
        """`weights` are the fast ones, `segments` says how many they hold."""
        self.reader, self.weights, self.segments = reader, weights, segments

    @overload
    def ask(self, question: str) -> str: ...
    @overload
    def ask(self, question: list[str]) -> list[str]: ...
    def ask(self, question: str | list[str]) -> str | list[str]:
        """Greedy answers. Where the model says the supporting facts first, what follows them; "" if nothing does, and
        the log has what was said.

        Raises:
            UserError: a question is no text, is blank, or does not fit the model.
        """
        said = self.respond(question)
        return self._answer(said) if isinstance(said, str) else [self._answer(text) for text in said]

    @overload
    def respond(self, question: str) -> str: ...
    @overload
    def respond(self, question: list[str]) -> list[str]: ...
    def respond(self, question: str | list[str]) -> str | list[str]:
        """All that the model says, of at most `evaluation.max_new_tokens` tokens; several questions are one batch.

        Raises:
            UserError: as `ask`.
        """
        parts = self.reader.parts
        templates = parts.templates
        asked = _questions(question)
        if not asked:
            return []
        prompts = [templates.asked(each, self.segments) for each in asked]
        if (longest := max(map(len, prompts))) >= parts.model.window:
            raise UserError(f"a question of {longest} tokens, the model reads {parts.model.window}; ask a shorter one")
        (found,) = continuations(
            parts.model,
            self.weights,
            [prompts],
            eos=templates.eos,
            new_tokens=self.reader.config.evaluation.max_new_tokens,
            stacked=False,
        )
        texts = [templates.tokenizer.decode(ids, skip_special_tokens=True) for ids in found]
        return texts[0] if isinstance(question, str) else texts

    def append(self, context: Context, *, micro_batch: int | None = None, inner_steps: int | None = None) -> None:
        """Experimental: no run is trained to append, and APPENDED_NUMBER

        Writes more into this memory: the inner steps again, on the new segments alone, from the weights that hold the
        earlier ones. The optimiser's state starts fresh and the rates with those of the first step; segments are
        numbered on. What was read before may be forgotten, and reading all at once gives another memory.

        Raises:
            UserError: as `Reader.read`; the memory is as before.
        """
        self.weights, self.segments = self.reader._written(
            context, self.weights, self.segments, micro_batch, inner_steps
        )

    def save(self, folder: str | Path) -> None:
        """Write a standard peft adapter on the base, whole or not at all; an older memory in `folder` is replaced.

        `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(<base>), folder)` answers the same; the base is
        named in adapter_config.json, and memory.json has the prompt.

        Raises:
            UserError: all weights are fast, so that there is no adapter; `folder` holds something else; or it cannot be
                written.
        """
        from common.language.training import MODEL

        reader = self.reader
        adapter = reader.parts.model.adapter
        if adapter is None:
            raise UserError(
                f"{reader.folder}: method.adapter=false writes into all weights, which no adapter holds; keep such "
                "memories in this process, or train with method.adapter=true"
            )
        prompt = reader.parts.templates.prompt("{question}", self.segments)
        files = adapter.adapted(self.weights, reader.folder / MODEL)
        note = _Note(SCHEMA, reader.config.model.name, adapter.fingerprint(), self.segments, prompt)
        memory.save(Path(folder).expanduser(), files, note)

    def _answer(self, said: str) -> str:
        config = self.reader.config
        templates, known = self.reader.parts.templates, config.data.supported
        if config.method.target is Target.answer or known is False:
            return templates.said(said, supported=False)
        answer = templates.said(said, supported=True) or ("" if known else templates.said(said, supported=False))
        if not answer:
            logger.warning(
                "no answer: nothing follows the supporting facts as data.templates.support=%r has it; said was %r, of "
                "at most evaluation.max_new_tokens=%d tokens (`respond` returns it)",
                config.data.templates.support, said.strip(), config.evaluation.max_new_tokens,
            )  # fmt: skip
        return answer


def _questions(question: str | list[str]) -> list[str]:
    """One question or several as a list.

    Raises:
        UserError: one is no text, or blank.
    """
    if not isinstance(question, (str, list, tuple)):
        raise UserError(f"a question of type {type(question).__name__}: give a text, or a list of them")
    asked = [question] if isinstance(question, str) else list(question)
    for place, each in enumerate(asked):
        if not isinstance(each, str):
            raise UserError(f"question {place} of {len(asked)} is a {type(each).__name__}, a text is needed")
        if not each.strip():
            raise UserError(f"question {place} of {len(asked)} is empty; ask something")
    return asked


@dataclass(frozen=True)
class _Note(memory.Note):
    """The content of `memory.json`: besides, how much was read and how to ask."""

    segments: int
    prompt: str
    """What to give the model, with {question} to be replaced."""
