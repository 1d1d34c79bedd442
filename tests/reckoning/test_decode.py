"""Greedy decoding equals transformers' own, row by row, however rows are put together."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from common.engine.weights import Weights, select
from common.language.decode import continuations, greedy
from common.language.model import LanguageModel
from common.language.readers import CachedReader
from tests.reckoning.miniature import make_network

CPU = torch.device("cpu")
EOS, VOCABULARY, WINDOW = 0, 7, 24


@pytest.fixture(scope="module")
def networks() -> list[Any]:
    """Two random models; loud output weights make them end some rows early and others never."""
    found = [make_network(VOCABULARY, window=WINDOW, seed=seed).double().eval() for seed in (1, 2)]
    for network in found:
        with torch.no_grad():
            network.transformer.wte.weight.mul_(40)
            network.transformer.wpe.weight.mul_(20)
    return found


def alone(network: Any, prompt: list[int], new_tokens: int) -> list[int]:
    """transformers' `generate` on one row, cut before its end-of-text token."""
    room = min(new_tokens, WINDOW - len(prompt))
    if room < 1:
        return []
    ids = torch.tensor([prompt])
    made = network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=room,
        pad_token_id=EOS,
        eos_token_id=EOS,
    )
    new = made[0, len(prompt) :].tolist()
    return new[: new.index(EOS)] if EOS in new else new


def rows(seed: int, count: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 12))] for _ in range(count)]


def decode(network: Any, weights: Weights, prompts: list[list[list[int]]], new_tokens: int) -> list[list[list[int]]]:
    reader = CachedReader(network, weights, WINDOW, stacked=len(prompts) > 1)
    return greedy(reader, prompts, eos=EOS, new_tokens=new_tokens, window=WINDOW, device=CPU)


def mamba(seed: int) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(seed)
    ends = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": EOS}
    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=2, state_size=4, initializer_range=0.8, **ends
    )
    return MambaForCausalLM(config).double().eval()


@pytest.mark.parametrize("new_tokens", [1, 9])
def test_a_network_with_a_state_gets_what_generate_gives_each_row_alone(new_tokens: int) -> None:
    """One task, and a stack of two with weights of their own and different numbers of rows."""
    networks = [mamba(1), mamba(2)]
    prompts = [rows(0, 5), rows(1, 3)]
    expected = [
        [alone(network, prompt, new_tokens) for prompt in own] for network, own in zip(networks, prompts, strict=True)
    ]
    assert len({tuple(row) for own in expected for row in own}) > 2
    model = LanguageModel(networks[0], WINDOW)
    weights = [select(network) for network in networks]
    both = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    how: dict[str, Any] = {"eos": EOS, "new_tokens": new_tokens}
    assert continuations(model, weights[0], prompts[:1], stacked=False, **how) == expected[:1]
    assert continuations(model, both, prompts, stacked=True, **how) == expected


@pytest.mark.parametrize("new_tokens", [1, 5, 40])
def test_ragged_rows_get_what_generate_gives_each_alone(networks: list[Any], new_tokens: int) -> None:
    prompts = rows(0, 12)
    (found,) = decode(networks[0], select(networks[0]), [prompts], new_tokens)
    assert found == [alone(networks[0], prompt, new_tokens) for prompt in prompts]
    if new_tokens == 40:
        assert len({len(row) for row in found}) > 2, "rows should end at different places"


def test_stacked_tasks_get_what_each_gets_under_its_own_weights(networks: list[Any]) -> None:
    tasks = [rows(1, 5), rows(2, 2)]
    a, b = (select(network) for network in networks)
    weights = {name: torch.stack([a[name], b[name]]).detach() for name in a}
    found = decode(networks[0], weights, tasks, 30)
    assert found == [[alone(network, row, 30) for row in task] for network, task in zip(networks, tasks, strict=True)]


def test_no_row_grows_beyond_the_window(networks: list[Any]) -> None:
    prompts = [[1] * WINDOW, [1] * (WINDOW - 1), [1, 2]]
    (found,) = decode(networks[0], select(networks[0]), [prompts], 100)
    assert found[0] == [] and len(found[1]) <= 1 and len(found[2]) <= WINDOW - 2
    assert found == [alone(networks[0], prompt, 100) for prompt in prompts]


class Script:
    """Says after the prompt [n] what line n - 1 says, whatever it reads."""

    def __init__(self, *lines: list[int]) -> None:
        self.lines, self.read = lines, 0

    def start(self, ids: Tensor, ends: Tensor) -> Tensor:
        self.rows = (ids[0, :, 0] - 1).tolist()
        return self.scores(0)

    def grow(self, tokens: Tensor) -> Tensor:
        self.read += 1
        return self.scores(self.read)

    def scores(self, turn: int) -> Tensor:
        said = [self.lines[row][min(turn, len(self.lines[row]) - 1)] for row in self.rows]
        return torch.eye(VOCABULARY)[torch.tensor(said)][None]


def test_decoding_stops_when_all_rows_have_ended() -> None:
    script = Script([5, EOS], [5, 5, EOS], [EOS])
    found = greedy(script, [[[1], [2], [3]]], eos=EOS, new_tokens=9, window=WINDOW, device=CPU)
    assert found == [[[5], [5, 5], []]]
    assert script.read == 2


def test_the_last_token_is_not_read() -> None:
    script = Script([5])
    assert greedy(script, [[[1]]], eos=EOS, new_tokens=3, window=WINDOW, device=CPU) == [[[5, 5, 5]]]
    assert script.read == 2
