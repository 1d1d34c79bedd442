"""The engines that this one is compared with, each for one outer gradient of a `Bench`."""

import importlib
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.rates import LearnedRates
from common.engine.weights import Weights
from common.errors import UserError
from scripts.benchmark.engine_groups import EPS, RATE, Case


class Bench(Protocol):
    """What these engines are given, by `scripts.benchmark.engine_case`."""

    case: Case
    network: nn.Module
    start: Weights
    rates: LearnedRates
    facts: Tensor
    questions: Tensor

    def task_loss(self, weights: Weights, ids: Tensor) -> Tensor:
        """Of one task."""
        ...


def next_token_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean over all places; logits [rows, length, vocabulary], ids [rows, length] -> []."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


class PlainLora(nn.Module):
    """A LoRA layer of peft's with the same tensors and the same result, but no more bases than `nn.Module`.

    `higher` makes a class of every module's class and ABC, which Python refuses for those of peft.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        (name,) = layer.lora_A
        self.base_layer, self.scaling = layer.get_base_layer(), layer.scaling[name]
        self.lora_A, self.lora_B = layer.lora_A[name], layer.lora_B[name]

    def forward(self, x: Tensor) -> Tensor:
        plain: Tensor = self.base_layer(x)
        added = self.lora_B(self.lora_A(x.to(self.lora_A.weight.dtype))) * self.scaling
        return (plain + added).to(plain.dtype)


def make_plain(network: nn.Module) -> None:
    """Put a `PlainLora` in place of every LoRA layer; names of weights change, their order does not."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, LoraLayer):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, PlainLora(layer))


def higher(bench: Bench) -> None:
    """The library that the released codes patch; its one Adam has no decoupled decay, and another place for eps."""
    patches = library("higher")
    for facts, question in zip(bench.facts, bench.questions, strict=True):
        groups = [{"params": [w]} for w in bench.start.values()]
        inner: torch.optim.Optimizer = torch.optim.SGD(groups, lr=1.0)
        if bench.case.rule == "adamw":
            inner = torch.optim.Adam(groups, lr=1.0, eps=EPS)
        with patches.innerloop_ctx(bench.network, inner, copy_initial_weights=False) as (fast, steps):
            for step in range(bench.case.steps):
                loss = next_token_loss(fast(input_ids=facts, use_cache=False).logits, facts)
                steps.step(loss, override={"lr": list(bench.rates(step).values())})
            next_token_loss(fast(input_ids=question, use_cache=False).logits, question).backward()


def torch_func(bench: Bench) -> None:
    """Plain torch: functional calls, the graph of all steps, the rule written out in differentiable operations."""
    for facts, question in zip(bench.facts, bench.questions, strict=True):
        weights: Weights = bench.start
        mean: Weights = {name: torch.zeros_like(w) for name, w in weights.items()}
        square = dict(mean)
        for step in range(bench.case.steps):
            loss = bench.task_loss(weights, facts)
            found = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            rates, moved = bench.rates(step), {}
            for (name, w), g in zip(weights.items(), found, strict=True):
                if bench.case.rule == "sgd":
                    moved[name] = w - rates[name] * g
                    continue
                mean[name] = 0.9 * mean[name] + 0.1 * g
                square[name] = 0.999 * square[name] + 0.001 * g * g
                unbiased = square[name] / (1 - 0.999 ** (step + 1))
                zero = unbiased == 0
                scale = torch.where(zero, 0.0, torch.where(zero, 1.0, unbiased).sqrt()) + EPS
                direction = mean[name] / (1 - 0.9 ** (step + 1)) / scale
                moved[name] = w * (1 - 0.01 * rates[name]) - rates[name] * direction
            weights = moved
        bench.task_loss(weights, question).backward()


def torchopt(bench: Bench) -> None:
    """TorchOpt's MetaSGD; one constant rate, as it learns none."""
    functions, network = library("torchopt"), bench.network
    for facts, question in zip(bench.facts, bench.questions, strict=True):
        inner = functions.MetaSGD(network, lr=RATE["sgd"])
        before = functions.extract_state_dict(network, by="reference")
        for _ in range(bench.case.steps):
            inner.step(next_token_loss(network(input_ids=facts, use_cache=False).logits, facts))
            # it takes the two names of the tied embedding for two weights, whose gradient would be another one
            shared = network.get_submodule("transformer.wte")._parameters
            network.get_submodule("lm_head")._parameters["weight"] = shared["weight"]
        next_token_loss(network(input_ids=question, use_cache=False).logits, question).backward()
        functions.recover_state_dict(network, before)


def library(name: str) -> Any:
    """A library that nothing but this benchmark needs.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"engine={name} needs the library {name}: python -m pip install {name}") from error
