"""Cross-entropy of the labelled tokens alone, in pieces: logits of a whole batch never exist.

A causal model is run up to the end of its backbone; what comes behind (the head, soft-capping, scaling) is the model's own
code, run again for a few hundred positions at a time and only for those that have a label. With a vocabulary of 128 000,
the logits of a batch would take more memory than all activations together.

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
from transformers import PreTrainedModel

from harness.models.reward_head import inner_model
from harness.tokens.training_labels import IGNORED

Head = Callable[[Tensor], Tensor]
"""`[positions, hidden]` to logits `[positions, vocabulary]`."""

LOGITS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 25}
"""Numbers in a piece of logits: a few hundred positions at usual vocabularies, which is what keeps a processor busy."""
_KEPT = "_harness_tail"
_INPUTS = ("input_ids", "attention_mask", "position_ids")
"""What of a batch is the model's."""


def label_loss(model: Any, batch: Mapping[str, Tensor], *, label_smoothing: float = 0.0) -> Tensor:
    """Sum of the cross-entropies of all labelled tokens.

    Args:
        model: A causal language model, or a PEFT model around one.
        batch: `input_ids` and `labels` `[rows, width]`, labels `IGNORED` where nothing is learned (the first of a row never
            is), rows padded on the right; `attention_mask` and `position_ids` where the model needs them.
        label_smoothing: Share of each target's probability that is spread over the vocabulary (arXiv 1512.00567).
    """
    part = _labelled(model, batch)
    return chunked_cross_entropy(
        part.head,
        part.hidden,
        part.targets,
        chunk=part.chunk,
        label_smoothing=label_smoothing,
        parameters=part.parameters,
    )


def label_logprobs(model: Any, batch: Mapping[str, Tensor], *, temperature: float = 1.0) -> Tensor:
    """Log-probability of every labelled token, given what comes before it.

    Args:
        model: A causal language model, or a PEFT model around one.
        batch: As for `label_loss`.
        temperature: Logits are divided by it.

    Returns:
        `[labels]`, float32, in row-major order; with gradients where they are enabled.
    """
    return _logprobs(_labelled(model, batch), temperature)


def label_logprobs_and_states(
    model: Any, batch: Mapping[str, Tensor], *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """As `label_logprobs`, and `[labels, hidden]` that the model's head was given for each, before the token came."""
    part = _labelled(model, batch)
    assert part.states is not None, "a model without a head"
    return _logprobs(part, temperature), part.states


def _logprobs(part: _Labelled, temperature: float) -> Tensor:
    def piece(hidden: Tensor, targets: Tensor) -> Tensor:
        return -functional.cross_entropy(part.head(hidden).float() / temperature, targets, reduction="none")

    pieces = _pieces(part.hidden, part.targets, part.chunk)
    if len(pieces) == 1 or not torch.is_grad_enabled():
        return torch.cat([piece(*each) for each in pieces])
    return torch.cat([checkpoint(piece, *each, use_reentrant=False) for each in pieces])


def row_sums(values: Tensor, labels: Tensor) -> Tensor:
    """Sums numbers of labelled tokens row by row.

    Args:
        values: `[labels]`, as `label_logprobs` gives them.
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
    """What is to be known where a model's logits have to be made whole; None where they are not."""
    tail = _tail(model)
    return f"its loss takes the logits of whole batches: {tail}" if isinstance(tail, str) else None


def chunked_cross_entropy(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    *,
    chunk: int,
    label_smoothing: float = 0.0,
    parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Sum of cross-entropies, a piece of the positions at a time; gradients are made with each piece, so none is run twice.

    Args:
        head: Makes logits.
        hidden: `[positions, hidden]`.
        targets: `[positions]`.
        chunk: Positions of a piece.
        label_smoothing: As for `label_loss`.
        parameters: What of the head is trained.
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
    """A sum over pieces whose gradients are made in the forward pass, so that a piece's logits are gone before the next."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, piece: Any, chunk: int, *parameters: Tensor) -> Tensor:
        losses, slopes = [], []
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        for part, wanted in _pieces(hidden, targets, chunk):
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                loss = piece(part, wanted)
            slope, *more = torch.autograd.grad(loss, [part, *parameters], allow_unused=True)
            for total, each in zip(totals, more, strict=True):
                if each is not None:
                    total += each
            losses.append(loss.detach())
            slopes.append(slope)
        ctx.save_for_backward(torch.cat(slopes), *totals)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, *outside: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = outside
        slopes, *totals = ctx.saved_tensors
        return (slopes * factor, None, None, None, *(total * factor for total in totals))


@dataclass(frozen=True)
class _Labelled:
    """The labelled positions of a batch, and what makes their logits."""

    hidden: Tensor
    targets: Tensor
    head: Head
    chunk: int
    parameters: Sequence[Tensor]
    states: Tensor | None
    """What the model's own head is given; None where it has none that is known."""


def _labelled(model: Any, batch: Mapping[str, Tensor]) -> _Labelled:
    following = functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
    places = (following != IGNORED).nonzero()[:, 0]  # before the model is run: on a GPU this waits for what is queued
    targets = following[places]
    tail = _tail(model)
    if isinstance(tail, str):
        width = batch["labels"].shape[1]
        with _given_to_head(model) as given:
            logits = model(**_inputs(batch)).logits[:, -width:]
        states = _taken(given[-1][:, -width:], places) if given else None
        return _Labelled(_taken(logits, places), targets, lambda logits: logits, max(1, len(targets)), (), states)
    hidden = _taken(tail.hidden(model, batch), places)
    chunk = max(1, LOGITS_AT_ONCE.get(hidden.device.type, 1 << 23) // tail.vocabulary)
    return _Labelled(hidden, targets, tail, chunk, tail.trained, hidden)


@contextmanager
def _given_to_head(model: Any) -> Iterator[list[Tensor]]:
    """What the output head is given while entered."""
    given: list[Tensor] = []
    inner = inner_model(model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    handle = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) if head is not None else None
    try:
        yield given
    finally:
        if handle is not None:
            handle.remove()


def _taken(values: Tensor, places: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1]).index_select(0, places)


def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: batch[key] for key in _INPUTS if key in batch}


class _Tail:
    """What a causal model does behind its backbone, by running its own forward on given hidden states.

    Args:
        inner: The causal language model itself, adapters in place.
        backbone: The part of it that ends in hidden states.
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
        """Parameters behind the backbone that gradients are wanted of."""
        return tuple(parameter for parameter in self._parameters if parameter.requires_grad)

    def hidden(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """`[rows, width, hidden]`; the head is run on a single position, whose logits are thrown away."""
        found: list[Tensor] = []
        forward = self._backbone.forward

        def capture(*arguments: Any, **options: Any) -> Any:
            output = forward(*arguments, **options)
            found.append(output[0])
            self._kind = type(output)
            return self._output(output[0][:1, -1:].detach())

        with _replaced(self._backbone, capture):
            model(**_inputs(batch))
        (hidden,) = found
        return hidden[:, -batch["input_ids"].shape[1] :]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits `[positions, vocabulary]`."""
        nothing = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
        with _replaced(self._backbone, lambda *_, **__: self._output(hidden[None])):
            logits: Tensor = self._inner(input_ids=nothing).logits[0]
        return logits

    def _output(self, hidden: Tensor) -> Any:
        return (hidden,) if self._kind is tuple else self._kind(last_hidden_state=hidden)


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
    """A model's tail, or why it has none; tried once, and kept with the model."""
    if _KEPT not in vars(model):
        training = model.training
        model.eval()
        try:
            vars(model)[_KEPT] = _try_tails(model)
        finally:
            torch.clear_autocast_cache()  # copies made here know no gradients
            model.train(training)
    found: _Tail | str = vars(model)[_KEPT]
    return found


@torch.no_grad()
def _try_tails(model: Any) -> _Tail | str:
    """The first candidate for a backbone with which a few tokens get the logits that the model itself gives them."""
    inner = inner_model(model)
    named = getattr(inner, getattr(inner, "base_model_prefix", ""), None)
    backbones = [named] if isinstance(named, nn.Module) else []
    if not backbones and isinstance(inner, PreTrainedModel):  # Llama 4 has the prefix of the larger model it is part of
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
            logits = tail(tail.hidden(model, {"input_ids": ids}).flatten(0, 1)).float()
        except (ValueError, TypeError, AttributeError, RuntimeError):  # not what this model's forward is made of
            continue
        if logits.shape == wanted.shape and (logits - wanted).abs().max() <= tolerance * (1 + wanted.abs().max()):
            tail.vocabulary = logits.shape[-1]
            return tail
    return "its head could not be told from its backbone"


def _parts(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.children() if isinstance(module, PreTrainedModel)]
