"""Token losses over a large vocabulary that never hold [tokens, vocabulary] and can be differentiated twice.

With logits z = hidden head^T + bias and p = softmax(z), the loss of a token is logsumexp(z) - z[target]. Only the
log-sum-exp is kept; the gradient and the Hessian-vector product build z again, one chunk of tokens at a time:

    D = cotangent (p - onehot)                 gradients: hidden D head, head D^T hidden, bias sum of D
    Q = u head^T + hidden U^T + s              for cotangents u, U, s of those three gradients
    E = cotangent p (Q - sum_v p Q)            second derivatives: E head + D U, E^T hidden + D^T u, sum of E,
                                               and (p - onehot) . Q for the cotangent of the losses
"""

import logging
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from common.engine.lora import over_tasks
from common.engine.twice.linear import Linear
from common.engine.twice.policy import Need, needed, refuse_third_derivative
from common.engine.weights import Weights, call

logger = logging.getLogger(__name__)

CHUNK = 128
"""Tokens at a time: a block of 128 x 50,000 in float32 is 25 MiB."""
SMALL_VOCABULARY = 4096
"""Below this the logits are small beside the activations, and the composite is used."""


def token_losses(
    hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None = None, chunk: int = CHUNK
) -> Tensor:
    """Cross-entropy of every token; shape [tokens], float32 or wider.

    Differentiable twice in `hidden`, `head` and `bias`; a third derivative raises. What asks for no gradient costs
    none. A small vocabulary, `Need.plain` and the transforms of `torch.func` take torch's own operators.

    Args:
        hidden: what the head is applied to; float [tokens, width].
        head: weight of the head; float [vocabulary, width].
        targets: int64 [tokens], each in 0 .. vocabulary - 1.
        bias: float [vocabulary], or None.
        chunk: tokens whose logits exist at the same time.

    Raises:
        ValueError: `targets` does not fit `hidden`, or `chunk` is below 1.
    """
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets of shape {list(targets.shape)} for hidden of shape {list(hidden.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: at least one token at a time")
    transformed = torch._C._functorch.maybe_current_level() is not None  # vmap, grad, jvp, ... of torch.func
    if transformed or needed() is Need.plain or len(head) < SMALL_VOCABULARY:
        return _composite(F.linear(hidden, head, bias), targets)
    losses: Tensor = _Losses.apply(hidden, head, bias, targets, chunk)  # type: ignore[no-untyped-call]
    return losses


class TokenLosses(nn.Module):
    """Next-token losses of a causal language model of `transformers` (or of `peft` around one).

    Whether the model's logits are its linear head on its last hidden states and nothing else (no scale, no soft cap)
    is found out here by one forward pass; a model that does more keeps its own logits, which are then held in full.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        head = _causal(network).get_output_embeddings()
        large = len(head.weight) >= SMALL_VOCABULARY
        self.chunked = large and _ends_in(network, head)
        if large and not self.chunked:
            logger.warning("%s does more than apply a linear head: all its logits are held", type(network).__name__)

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` int64 [rows, length >= 2] -> losses of tokens 1, 2, ...; float [rows, length - 1].

        Raises:
            ValueError: the rows have one token.
        """
        if ids.shape[1] < 2:
            raise ValueError("rows of one token have nothing to predict")
        given, targets = ids[:, :-1], ids[:, 1:]
        if self.chunked:
            causal = _causal(self.network)
            head = causal.get_output_embeddings()
            hidden = causal.base_model(input_ids=given, use_cache=False).last_hidden_state
            losses = token_losses(hidden.flatten(0, 1), head.weight, targets.flatten(), head.bias)
        else:
            logits = self.network(input_ids=given, use_cache=False).logits
            losses = _composite(logits.flatten(0, 1), targets.flatten())
        return losses.view_as(targets)

    def with_states(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The same losses, and what they were calculated from: the last hidden states of all tokens.

        `ids` int64 [rows, length >= 2] -> float [rows, length - 1] and float [rows, length, width].
        """
        if ids.shape[1] < 2:
            raise ValueError("rows of one token have nothing to predict")
        targets = ids[:, 1:]
        if self.chunked:
            causal = _causal(self.network)
            head = causal.get_output_embeddings()
            states = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
            losses = token_losses(states[:, :-1].flatten(0, 1), head.weight, targets.flatten(), head.bias)
        else:
            output = self.network(input_ids=ids, use_cache=False, output_hidden_states=True)
            states = output.hidden_states[-1]
            losses = _composite(output.logits[:, :-1].flatten(0, 1), targets.flatten())
        return losses.view_as(targets), states

    def under(self, weights: Weights, ids: Tensor) -> Tensor:
        """The same with `weights`, named as in the network, in place of its own.

        `ids` int64 [rows, length] -> [rows, length - 1]; with stacked weights [tasks, rows, length] ->
        [tasks, rows, length - 1], task t under slice t of the weights.
        """

        def one_task(task_weights: Weights, task_ids: Tensor) -> Tensor:
            losses: Tensor = call(self, {f"network.{name}": w for name, w in task_weights.items()}, task_ids)
            return losses

        return over_tasks(self.network, one_task, weights, ids)


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, chunk: int) -> Tensor:
        total = hidden.new_empty(len(hidden), dtype=_wide(hidden))
        losses = torch.empty_like(total)
        for part in _parts(len(hidden), chunk):
            logits = _logits(hidden[part], head, bias)
            total[part] = logits.logsumexp(1)
            losses[part] = total[part] - logits.gather(1, targets[part, None])[:, 0]
        ctx.save_for_backward(hidden, head, bias, targets, total)
        ctx.chunk = chunk
        return losses

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:3]
        found = _Gradients.apply(cotangent, *ctx.saved_tensors, ctx.chunk, wanted)  # type: ignore[no-untyped-call]
        return *found, None, None


class _Gradients(torch.autograd.Function):
    """Gradients of hidden, head and bias, each None when it is not wanted."""

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, *kept: Any) -> tuple[Tensor | None, ...]:
        hidden, head, bias, targets, total, chunk, wanted = kept
        for_hidden, for_head, for_bias = _sums((hidden, head, bias), wanted)
        for part in _parts(len(hidden), chunk):
            error = _probabilities(hidden[part], head, bias, total[part])
            _subtract_onehot(error, targets[part]).mul_(cotangent[part, None])
            if for_hidden is not None:
                for_hidden[part] = _product(error, head)
            if for_head is not None:
                _accumulate(for_head, error.T, hidden[part])
            if for_bias is not None:
                for_bias += error.sum(0)
        ctx.save_for_backward(cotangent, hidden, head, bias, targets, total)
        ctx.chunk = chunk
        ctx.set_materialize_grads(False)  # no zeros of the head's size where nothing follows its gradient
        return _narrow((for_hidden, for_head, for_bias), (hidden, head, bias))

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, U: Tensor | None, s: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_third_derivative()
        cotangent, hidden, head, bias, targets, total = ctx.saved_tensors
        sums = _sums((cotangent, hidden, head, bias), ctx.needs_input_grad[:4])
        for_cotangent, for_hidden, for_head, for_bias = sums
        for part in _parts(len(hidden), ctx.chunk):
            u_part = None if u is None else u[part]
            change = _logit_change(hidden[part], head, u_part, U, s)
            probability = _probabilities(hidden[part], head, bias, total[part])
            mean_change = torch.linalg.vecdot(probability, change)
            if for_cotangent is not None:
                for_cotangent[part] = mean_change - change.gather(1, targets[part, None])[:, 0]
            second = change.sub_(mean_change[:, None]).mul_(probability).mul_(cotangent[part, None])
            error = _subtract_onehot(probability, targets[part]).mul_(cotangent[part, None])
            if for_hidden is not None:
                for_hidden[part] = _product(second, head)
                if U is not None:
                    _accumulate(for_hidden[part], error, U)
            if for_head is not None:
                _accumulate(for_head, second.T, hidden[part])
                if u_part is not None:
                    _accumulate(for_head, error.T, u_part)
            if for_bias is not None:
                for_bias += second.sum(0)
        return *_narrow(sums, (cotangent, hidden, head, bias)), None, None, None, None


def _parts(tokens: int, chunk: int) -> Iterator[slice]:
    return (slice(begin, begin + chunk) for begin in range(0, tokens, chunk))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _sums(of: tuple[Tensor | None, ...], wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Zeros in float32 or wider to add gradients up in, None where none is wanted."""
    return tuple(
        torch.zeros_like(tensor, dtype=_wide(tensor), memory_format=torch.contiguous_format)
        if want and tensor is not None
        else None
        for tensor, want in zip(of, wanted, strict=True)
    )


def _narrow(sums: tuple[Tensor | None, ...], of: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Each sum in the dtype of the tensor it is the gradient of."""
    return tuple(
        None if total is None or tensor is None else total.to(tensor.dtype)
        for total, tensor in zip(sums, of, strict=True)
    )


def _logits(hidden: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    """[tokens, vocabulary], new."""
    logits = _product(hidden, head.T)
    return logits if bias is None else logits.add_(bias)


def _probabilities(hidden: Tensor, head: Tensor, bias: Tensor | None, total: Tensor) -> Tensor:
    """Softmax from the kept log-sum-exp; [tokens, vocabulary], new."""
    return _logits(hidden, head, bias).sub_(total[:, None]).exp_()


def _subtract_onehot(probability: Tensor, targets: Tensor) -> Tensor:
    """Probability minus one at the target, in place."""
    return probability.scatter_add_(1, targets[:, None], probability.new_full((len(targets), 1), -1))


def _logit_change(hidden: Tensor, head: Tensor, u: Tensor | None, U: Tensor | None, s: Tensor | None) -> Tensor:
    """Q: by how much the logits change along the cotangents; [tokens, vocabulary], new."""
    change = hidden.new_zeros(len(hidden), len(head), dtype=_wide(hidden)) if u is None else _product(u, head.T)
    if U is not None:
        _accumulate(change, hidden, U.T)
    return change if s is None else change.add_(s)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product summed and returned in float32 or wider, whatever autocast says.

    Autocast would round here, and differently in the pass that builds the logits again.
    """
    wide = _wide(right)
    with torch.autocast(right.device.type, enabled=False):
        if right.is_cuda and right.dtype != wide:  # the tensor cores' own way; CPU has no such kernel
            return torch.mm(left.to(right.dtype), right, out_dtype=wide)
        return left.to(wide) @ right.to(wide)


def _accumulate(into: Tensor, left: Tensor, right: Tensor) -> None:
    """`into += left @ right`, without a temporary of that size where the dtypes allow."""
    if into.dtype == left.dtype == right.dtype:
        into.addmm_(left, right)
    else:
        into += _product(left, right)


def _composite(logits: Tensor, targets: Tensor) -> Tensor:
    """Losses [tokens] of logits [tokens, vocabulary]."""
    return F.cross_entropy(logits.to(_wide(logits)), targets, reduction="none")


def _causal(network: Any) -> Any:
    """The model of `transformers`: what `peft` wrapped, or the network itself."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


@torch.no_grad()
def _ends_in(network: nn.Module, head: Any) -> bool:
    """Whether the logits are exactly a linear `head` on the last hidden states.

    The head's output is replaced by numbers up to 1000, which must come out of the network as they are: a soft cap is
    all but the identity on the logits of fresh weights.
    """
    if isinstance(head.weight, FakeTensor):  # sizes without numbers: nothing can be found out
        return True
    if type(head) not in (nn.Linear, Linear):  # a LoRA head starts as the linear one and does not stay it
        return False
    ids = torch.arange(3, device=head.weight.device)[None]
    given: list[Tensor] = []
    marks = torch.linspace(-1000, 1000, ids.numel() * head.out_features, device=ids.device, dtype=head.weight.dtype)

    def replace(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        given.append(inputs[0])
        return marks.view_as(output)

    modes = {module: module.training for module in network.modules()}
    network.eval()  # the two passes must not differ by dropout
    handle = head.register_forward_hook(replace)
    try:
        hidden = _causal(network).base_model(input_ids=ids, use_cache=False).last_hidden_state
        logits = network(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return torch.equal(given[0], hidden) and torch.equal(logits.flatten().to(marks.dtype), marks)
