"""The toy paper against loops and torch's own optimisers, and its runs through tables, report and tracker."""

import base64
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.adapter import Adapter, layers
from common.engine.inner import adapt
from common.engine.lora import make_stackable
from common.engine.rules import AdamW, RuleState
from common.engine.settings import Unroll
from common.engine.twice.processor import make_attention_twice
from common.engine.weights import Weights, stack, unstack
from common.run.results import Results
from common.run.schema import LoopConfig, TrackerConfig, TrackerMode, TrackerName
from common.tables import published
from common.tables.cells import Overrides, Role
from common.tables.join import Joined, Verdict, join
from common.tables.kept import digest_of
from common.tables.runs import read_runs
from scripts.report import media as report_media
from scripts.report import tables as report_tables
from scripts.report.page import Page, Section, render
from scripts.tables.grids import render as as_text
from scripts.tables.published_tables import grid_of
from tests import wandb_log
from tests.common.engine.unet import TEMPORAL, clip, video_rows, video_unet
from tests.toy.paper import CLIENTS, EPS, MethodConfig, ToyConfig, attacked, federated_round, network, pictures, train

SEEDS = (0, 1, 2)
METHODS = {"clean": 0.0, "fat": EPS}


def clients(count: int) -> tuple[Tensor, Tensor]:
    """Pictures [clients, count, 1, side, side] and their labels, one after the other."""
    x, y = pictures(0, "train", 0, CLIENTS * count)
    return x.unflatten(0, (CLIENTS, count)), y.unflatten(0, (CLIENTS, count))


# ---- clients


def test_four_clients_with_batch_norm_stacked_equal_a_loop_over_them() -> None:
    net, (x, y) = network(), clients(6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found, loss = federated_round(net, x, y)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "nothing is written to"

    ends, losses = [], []
    for own, labels in zip(x, y, strict=True):
        net.load_state_dict(before)
        optimizer = torch.optim.SGD(net.train().parameters(), lr=0.2)
        for _ in range(4):
            last = F.cross_entropy(net(own), labels)
            optimizer.zero_grad()
            last.backward()
            optimizer.step()
        ends.append({name: value.clone() for name, value in net.state_dict().items()})
        losses.append(last.item())
    assert found.keys() == before.keys() and loss == pytest.approx(sum(losses) / CLIENTS, rel=1e-12)
    for name in before:
        values = torch.stack([end[name] for end in ends])
        expected = values.mean(0) if values.is_floating_point() else values.amax(0)
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-14)
    assert not torch.equal(ends[0]["1.running_mean"], ends[1]["1.running_mean"]), "every client has its own"


def test_pgd_by_the_inner_loop_is_the_one_written_out() -> None:
    net, (x, y) = network().eval(), pictures(0, "test", 0, 8)
    at = x.clone()
    for _ in range(5):
        at.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(at), y, reduction="sum"), at)
        at = at.detach() + EPS / 4 * gradient.sign()
        at = torch.minimum(torch.maximum(at, x - EPS), x + EPS).clamp(0, 1)
    assert torch.equal(attacked(net, {}, x, y, EPS, steps=5), at)
    assert (at - x).abs().max() == pytest.approx(EPS)


# ---- videos


def remembered(net: nn.Module, start: Weights, chunks: Tensor) -> Weights:
    """An adapter a chunk after the other by one Adam step each, whose moments go on.

    `chunks` [chunks, (episodes,) rows, channels, frames, height, width].
    """
    tasks = (len(next(iter(start.values()))),) if chunks.dim() == 7 else ()

    def loss(weights: Weights, rows: Tensor) -> Tensor:
        return video_rows(net, weights, rows.flatten(0, len(tasks))).view(*tasks, -1).mean(-1)

    state: RuleState | None = None
    for chunk in chunks:
        rule = AdamW(weight_decay=0.0)
        done = adapt(loss, start, [chunk], steps=1, rule=rule, rates=0.01, state=state, unroll=Unroll.none)
        start, state = done.weights, done.state
    return start


def test_stacked_episodes_remember_chunks_as_one_by_one_and_as_torchs_adam() -> None:
    episodes, unet = 2, video_unet()
    make_attention_twice(unet)
    adapter = Adapter(unet, target_modules=layers(unet, TEMPORAL), r=2, init_lora_weights=False)
    make_stackable(unet)
    start, chunks = {name: w.detach().clone() for name, w in adapter.matrices().items()}, clip(3, episodes, 1)
    together = remembered(unet, stack(start, episodes), chunks)
    for episode in range(episodes):
        alone = remembered(unet, start, chunks[:, episode])
        for name, value in unstack(together, episode).items():
            torch.testing.assert_close(value, alone[name], rtol=1e-9, atol=1e-11)
        with torch.no_grad():
            for name, weight in adapter.matrices().items():
                weight.copy_(start[name])
        optimizer = torch.optim.Adam(adapter.matrices().values(), lr=0.01)
        for chunk in chunks[:, episode]:
            optimizer.zero_grad()
            video_rows(unet, {}, chunk).mean().backward()
            optimizer.step()
        for name, weight in adapter.matrices().items():
            torch.testing.assert_close(alone[name], weight.detach(), rtol=1e-9, atol=1e-11)


# ---- runs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, three seeds; one run with W&B offline."""
    root = tmp_path_factory.mktemp("toy")
    for name, eps in METHODS.items():
        for seed in SEEDS:
            trained(root / "toy" / "shapes" / f"{name}-{seed}", name, eps, seed)
    return root


def trained(folder: Path, name: str, eps: float, seed: int) -> Results:
    kind = TrackerName.wandb if (name, seed) == ("fat", 0) else TrackerName.none
    tracker = TrackerConfig(kind, TrackerMode.offline if kind is TrackerName.wandb else TrackerMode.auto)
    loop, method = LoopConfig(evaluate_every=10), MethodConfig(name, eps)
    return train(ToyConfig(scale="cpu", seed=seed, method=method, loop=loop, tracker=tracker), folder)


@pytest.fixture(scope="module")
def joined(root: Path) -> Joined:
    table = published.parse("toy", (Path(__file__).parent / published.FILE).read_text()).table("shapes")
    runs = read_runs(root, "toy", None)[0]

    def settings(words: Overrides) -> str:
        method = next(word.partition("=")[2] for word in words if word.startswith("method="))
        return next(digest_of(run.keys) for run in runs if run.keys["method.name"] == method)

    return join(table, runs, settings, "cpu")


def test_a_column_goes_up_and_one_goes_down_with_verdicts_in_pairs(joined: Joined) -> None:
    cells = {(cell.cell.row, cell.cell.column): cell for cell in joined.cells}
    assert [joined.table.role(row) for row in joined.table.rows] == [Role.baseline, Role.method]
    robust, shift = cells["FAT", "PGD-20"], cells["FAT", "Shift"]
    assert robust.seeds == shift.seeds == len(SEEDS)
    assert robust.apart is not None and robust.apart[1] > 0 and robust.verdict is Verdict.holds
    assert shift.apart is not None and shift.apart[2] < 0 and shift.verdict is Verdict.holds, "less is better"
    assert cells["FAT", "Natural"].verdict is Verdict.open
    assert 0 <= cells["FAT", "Class 2"].low <= cells["FAT", "Class 2"].value <= cells["FAT", "Class 2"].high <= 100
    text = as_text(grid_of(joined), "md")
    assert "PGD-20 % \u2191" in text and "Shift \u2193" in text and "ordering holds" in text


def test_the_report_shows_table_and_gif_on_one_page(root: Path, joined: Joined) -> None:
    sections = [
        Section("Tables", "tables", [report_tables.block(joined, root)]),
        Section("Media", "media", report_media.blocks(joined.runs)),
    ]
    page = render(Page("toy", [], sections, "python"))
    gif = root / "toy" / "shapes" / "fat-0" / "media" / "attack.gif"
    assert gif.read_bytes()[:6] == b"GIF89a"
    assert f"data:image/gif;base64,{base64.b64encode(gif.read_bytes()).decode()}" in page and "Shift" in page


def test_the_tracker_has_the_records_and_the_video(root: Path) -> None:
    folder = root / "toy" / "shapes" / "fat-0"
    (log,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    found = wandb_log.read(log)
    assert found.exit_code == 0 and found.group == "toy/shapes"
    assert [row["dev/pgd20"] for row in found.history if "dev/pgd20" in row] and "test/shift" in found.summary
    (row,) = (each for each in found.history if "media/attack/path" in each)
    video = wandb_log.file_of(folder, row, "media/attack")
    assert video.read_bytes() == (folder / "media" / "attack.gif").read_bytes()


def test_a_finished_run_is_skipped(root: Path) -> None:
    folder = root / "toy" / "shapes" / "clean-1"
    before = (folder / "metrics.jsonl").read_bytes()
    assert trained(folder, "clean", 0.0, 1).test["pgd20"].count == 120
    assert (folder / "metrics.jsonl").read_bytes() == before
