"""Cross-entropy of labelled tokens only, computed in pieces: the logits of a whole batch never exist.

A causal model is run up to the end of its backbone. What follows (the head, soft-capping, scaling) is the model's own code, run
again for a few hundred labelled positions at a time. With a vocabulary of 128 000, the logits of a batch would need more memory
than all activations together.

Example:
    >>> loss = label_loss(model, batch) / labels  # doctest: +SKIP
    >>> loss.backward()  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel

from harness.models.reward_head import inner_model
from harness.tokens.training_labels import IGNORED

Head = Callable[[Tensor], Tensor]
"""Maps `[positions, hidden]` to logits `[positions, vocabulary]`."""

LOGITS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 25}
"""Numbers in a piece of logits: a few hundred positions at usual vocabularies, enough to keep the device busy."""
_KEPT = "_harness_tail"
_INPUTS = ("input_ids", "attention_mask", "position_ids")
"""Keys of a batch that are inputs of the model."""


def label_loss(model: Any, batch: Mapping[str, Tensor], *, label_smoothing: float = 0.0) -> Tensor:
    """Sums the cross-entropies of all labelled tokens.

    Args:
        model: A causal language model, or a PEFT model around one.
        batch: `input_ids` and `labels` `[rows, width]`, padded on the right; labels are `IGNORED` where nothing is learned (the
            first label of a row is always ignored); `attention_mask` and `position_ids` if the model needs them.
        label_smoothing: Share of each target's probability that is spread over the vocabulary (arXiv 1512.00567).

    Returns:
        The sum. In training, a mixture whose configuration asks for it adds its router's auxiliary loss, computed over the
        batch, once for every label: the mean over all labels then holds it once, as in transformers.
    """
    labelled = _labelled(model, batch)
    loss = chunked_cross_entropy(
        labelled.head,
        labelled.hidden,
        labelled.targets,
        chunk=labelled.chunk,
        label_smoothing=label_smoothing,
        parameters=labelled.parameters,
    )
    if labelled.router_loss is None or not torch.is_grad_enabled():
        return loss
    return loss + router_coefficient(model) * labelled.router_loss * len(labelled.targets)


def router_coefficient(model: Any) -> float:
    """Factor of the auxiliary loss that keeps a mixture's experts evenly used; 0 where the configuration asks for none."""
    config = getattr(inner_model(model), "config", None)
    if config is None or not routes_evenly(config):
        return 0.0
    return float(getattr(config.get_text_config(), "router_aux_loss_coef", None) or 0.0)


def routes_evenly(config: PretrainedConfig) -> bool:
    """Whether a configuration asks for the auxiliary loss of a mixture's router."""
    return bool(getattr(config.get_text_config(), "output_router_logits", False))


def label_logprobs(model: Any, batch: Mapping[str, Tensor], *, temperature: float = 1.0) -> Tensor:
    """Returns the log-probability of every labelled token, given the tokens before it.

    Args:
        model: A causal language model, or a PEFT model around one.
        batch: As for `label_loss`.
        temperature: Divides the logits.

    Returns:
        `[labels]`, float32, in row-major order; with gradients if they are enabled.
    """
    return _logprobs(_labelled(model, batch), temperature)


def label_logprobs_and_states(
    model: Any, batch: Mapping[str, Tensor], *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns `label_logprobs`, and the `[labels, hidden]` inputs of the output head from which each token is predicted."""
    labelled = _labelled(model, batch)
    assert labelled.states is not None, "a model without a head"
    return _logprobs(labelled, temperature), labelled.states


def _logprobs(labelled: _Labelled, temperature: float) -> Tensor:
    def piece(hidden: Tensor, targets: Tensor) -> Tensor:
        return -functional.cross_entropy(labelled.head(hidden).float() / temperature, targets, reduction="none")

    pieces = _pieces(labelled.hidden, labelled.targets, labelled.chunk)
    if len(pieces) == 1 or not torch.is_grad_enabled():
        return torch.cat([piece(*each) for each in pieces])
    return torch.cat([checkpoint(piece, *each, use_reentrant=False) for each in pieces])


def row_sums(values: Tensor, labels: Tensor) -> Tensor:
    """Sums numbers of labelled tokens row by row.

    Args:
        values: `[labels]`, as `label_logprobs` returns them.
        labels: `[rows, width]`, the batch's.

    Returns:
        `[rows]`; 0 for a row without labels.

    Example:
        >>> row_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[-100, 5, 6], [-100, -100, 7]]))
        tensor([3., 4.])
    """
    rows = (labels[:, 1:] != IGNORED).nonzero()[:, 0]
    return torch.zeros(len(labels), dtype=values.dtype, device=values.device).index_add(0, rows, values)


def whole_logits_note(model: Any) -> str | None:
    """Returns a note for the report if the loss needs the logits of whole batches; None otherwise."""
    tail = _tail(model)
    return f"its loss needs the logits of whole batches: {tail}" if isinstance(tail, str) else None


def chunked_cross_entropy(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    *,
    chunk: int,
    label_smoothing: float = 0.0,
    parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Sums cross-entropies piece by piece; each piece computes its gradients at once, so none is run twice.

    Args:
        head: Computes logits.
        hidden: `[positions, hidden]`.
        targets: `[positions]`.
        chunk: Positions in a piece.
        label_smoothing: As for `label_loss`.
        parameters: Trained parameters of the head.
    """

    def piece(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = head(hidden).float()
        return functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)

    if len(targets) <= chunk:
        return piece(hidden, targets)
    if not torch.is_grad_enabled():
        return torch.stack([piece(*each) for each in _pieces(hidden, targets, chunk)]).sum()
    loss: Tensor = _Pieces.apply(hidden, targets, piece, chunk, *parameters)  # type: ignore[no-untyped-call]
    return loss


def _pieces(hidden: Tensor, targets: Tensor, chunk: int) -> list[tuple[Tensor, Tensor]]:
    starts = range(0, max(1, len(targets)), chunk)
    return [(hidden[start : start + chunk], targets[start : start + chunk]) for start in starts]


class _Pieces(torch.autograd.Function):
    """Sums over pieces and computes their gradients in the forward pass, so that each piece's logits are freed before the next."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, piece: Any, chunk: int, *parameters: Tensor) -> Tensor:
        losses, gradients = [], []
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        for states, wanted in _pieces(hidden, targets, chunk):
            with torch.enable_grad():
                states = states.detach().requires_grad_()
                loss = piece(states, wanted)
            gradient, *others = torch.autograd.grad(loss, [states, *parameters], allow_unused=True)
            for total, other in zip(totals, others, strict=True):
                if other is not None:
                    total += other
            losses.append(loss.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients), *totals)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, *outside: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = outside
        gradients, *totals = ctx.saved_tensors
        return (gradients * factor, None, None, None, *(total * factor for total in totals))


@dataclass(frozen=True)
class _Labelled:
    """The labelled positions of a batch, and the head that computes their logits."""

    hidden: Tensor
    targets: Tensor
    head: Head
    chunk: int
    parameters: Sequence[Tensor]
    states: Tensor | None
    """Inputs of the model's output head; None if the head is not known."""
    router_loss: Tensor | None
    """Auxiliary loss of a mixture's router; None where the configuration asks for none."""


def _labelled(model: Any, batch: Mapping[str, Tensor]) -> _Labelled:
    following = functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
    positions = (following != IGNORED).nonzero()[
        :, 0
    ]  # before the forward pass: on a GPU, `nonzero` waits for all queued work
    targets = following[positions]
    tail = _tail(model)
    if isinstance(tail, str):
        width = batch["labels"].shape[1]
        with _head_inputs(model) as inputs:
            output = model(**_inputs(model, batch))
        logits = output.logits[:, -width:]
        states = _taken(inputs[-1][:, -width:], positions) if inputs else None
        router_loss = _router_loss(model, output)
        return _Labelled(
            _taken(logits, positions), targets, lambda logits: logits, max(1, len(targets)), (), states, router_loss
        )
    whole, output = tail.hidden(model, batch)
    hidden = _taken(whole, positions)
    chunk = max(1, LOGITS_AT_ONCE.get(hidden.device.type, 1 << 23) // tail.vocabulary)
    return _Labelled(hidden, targets, tail, chunk, tail.trained, hidden, _router_loss(model, output))


def _router_loss(model: Any, output: Any) -> Tensor | None:
    """The auxiliary loss in a model's output."""
    found = getattr(output, "aux_loss", None) if router_coefficient(model) else None
    return found if isinstance(found, Tensor) else None


@contextmanager
def _head_inputs(model: Any) -> Iterator[list[Tensor]]:
    """Collects the inputs of the output head within the block."""
    found: list[Tensor] = []
    inner = inner_model(model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    handle = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])) if head is not None else None
    try:
        yield found
    finally:
        if handle is not None:
            handle.remove()


def _taken(values: Tensor, positions: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1]).index_select(0, positions)


def _inputs(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes a model's inputs from a batch.

    Padding on the right needs no mask: no token sees what comes after it, and the fastest kernels of attention take none. A
    mixture's router loss is the exception: it is a mean over real tokens.
    """
    inputs = {key: batch[key] for key in _INPUTS if key in batch}
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2 and not router_coefficient(model):
        del inputs["attention_mask"]
    return inputs


class _Tail:
    """Computes what a causal model does after its backbone, by running the model's own forward on given hidden states.

    Args:
        inner: The causal language model, with its adapters.
        backbone: The part of the model that returns hidden states.
    """

    def __init__(self, inner: Any, backbone: nn.Module) -> None:
        self._inner, self._backbone = inner, backbone
        self._kind: Any = None
        self.vocabulary = 0
        inside = set(map(id, backbone.modules()))
        behind = [module for module in inner.modules() if id(module) not in inside and backbone not in module.modules()]
        parameters = {id(p): p for module in behind for p in module.parameters()}
        self._parameters = tuple(parameters.values())

    @property
    def trained(self) -> tuple[Tensor, ...]:
        """The trained parameters after the backbone."""
        return tuple(parameter for parameter in self._parameters if parameter.requires_grad)

    def hidden(self, model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        """Returns `[rows, width, hidden]`, and the model's output; its head is run on a single position."""
        found: list[Tensor] = []
        forward = self._backbone.forward

        def capture(*arguments: Any, **options: Any) -> Any:
            output = forward(*arguments, **options)
            found.append(output[0])
            self._kind = type(output)
            return self._output(output[0][:1, -1:].detach(), getattr(output, "router_logits", None))

        with _replaced(self._backbone, capture):
            output = model(**_inputs(model, batch))
        (hidden,) = found
        return hidden[:, -batch["input_ids"].shape[1] :], output

    def __call__(self, hidden: Tensor) -> Tensor:
        """Returns logits `[positions, vocabulary]`."""
        nothing = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
        with _replaced(self._backbone, lambda *_, **__: self._output(hidden[None])):
            logits: Tensor = self._inner(input_ids=nothing).logits[0]
        return logits

    def _output(self, hidden: Tensor, router_logits: Any = None) -> Any:
        if self._kind is tuple:
            return (hidden,)
        routed = {} if router_logits is None else {"router_logits": router_logits}
        return self._kind(last_hidden_state=hidden, **routed)


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _tail(model: Any) -> _Tail | str:
    """Returns the model's tail, or the reason why it has none; determined once, and cached on the model."""
    if _KEPT not in vars(model):
        training = model.training
        model.eval()
        try:
            vars(model)[_KEPT] = _try_tails(model)
        finally:
            torch.clear_autocast_cache()  # 16-bit copies cached here carry no gradients
            model.train(training)
    found: _Tail | str = vars(model)[_KEPT]
    return found


@torch.no_grad()
def _try_tails(model: Any) -> _Tail | str:
    """Finds the first candidate for the backbone with which a few tokens get the same logits as from the whole model."""
    inner = inner_model(model)
    named = getattr(inner, getattr(inner, "base_model_prefix", ""), None)
    backbones = [named] if isinstance(named, nn.Module) else []
    if not backbones and isinstance(inner, PreTrainedModel):  # Llama 4 has the prefix of its multimodal parent
        backbones = _parts(inner)
    if not backbones:
        return "its backbone has no name"
    candidates = [*backbones, *(part for backbone in backbones for part in _parts(backbone))]
    ids = torch.arange(1, 9, device=inner.get_input_embeddings().weight.device).view(2, 4)
    wanted = model(input_ids=ids).logits[:, -4:].flatten(0, 1).float()
    exact = inner.dtype == torch.float32 and not torch.is_autocast_enabled(ids.device.type)
    tolerance = 1e-4 if exact else 2e-2
    for candidate in candidates:
        tail = _Tail(inner, candidate)
        try:
            logits = tail(tail.hidden(model, {"input_ids": ids})[0].flatten(0, 1)).float()
        except (ValueError, TypeError, AttributeError, RuntimeError):  # this candidate is not the backbone
            continue
        if logits.shape == wanted.shape and (logits - wanted).abs().max() <= tolerance * (1 + wanted.abs().max()):
            tail.vocabulary = logits.shape[-1]
            return tail
    return "its head could not be separated from its backbone"


def _parts(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.children() if isinstance(module, PreTrainedModel)]
