"""A base as it was loaded, kept so that whatever a variant did to it can be taken back.

Modules that were wrapped or swapped, hooks, flags and tensors that were given other values come back by putting the old
objects in their places: no weight is copied. A weight that was overwritten where it lies cannot come back; sums over the bits
of all of them tell.

Example:
    >>> layer = torch.nn.Linear(2, 2)
    >>> pristine = Pristine(layer)
    >>> layer.extra = torch.nn.Linear(2, 2)
    >>> pristine.restore(), hasattr(layer, "extra")
    (True, False)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class Pristine:
    """What a model is made of.

    Args:
        model: As it is to be put back.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = [(module, type(module), _contents(module)) for module in model.modules()]
        self._parameters = [(parameter, parameter.data, parameter.requires_grad) for parameter in model.parameters()]
        config = getattr(model, "config", None)
        self._config = dict(vars(config)) if config is not None else {}
        self._sums = _sums(model)

    def restore(self) -> bool:
        """Puts everything back.

        Returns:
            Whether the model is bit-equal to what it was: False when a weight was overwritten in place.
        """
        for module, kind, contents in self._modules:
            module.__class__ = kind
            _put_back(module, contents)
        for parameter, data, trainable in self._parameters:
            if parameter.data.data_ptr() != data.data_ptr() or parameter.dtype != data.dtype:
                parameter.data = data
            parameter.requires_grad_(trainable)
            parameter.grad = None
        if self._config:
            vars(self._model.config).update(self._config)
        return torch.equal(_sums(self._model), self._sums)


_Contents = dict[str, tuple[Any, Any]]
"""Attributes of a module by name: the object, and what it held, if it is a container."""


def _contents(module: nn.Module) -> _Contents:
    return {
        name: (value, value.copy() if isinstance(value, dict | set | list) else None)
        for name, value in vars(module).items()
    }


def _put_back(module: nn.Module, contents: _Contents) -> None:
    attributes = vars(module)
    for name in attributes.keys() - contents.keys():
        del attributes[name]
    for name, (value, held) in contents.items():
        if isinstance(value, list):
            value[:] = held
        elif held is not None:
            value.clear()
            value.update(held)
        attributes[name] = value


def _sums(model: nn.Module) -> Tensor:
    """`[tensors]`, int64: the bits of each weight and buffer, added up as whole numbers."""
    sums = [part for tensor in _tensors(model) for part in _words(tensor)]
    return torch.stack([part.sum(dtype=torch.int64).cpu() for part in sums]) if sums else torch.empty(0)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain((parameter.data for parameter in model.parameters()), model.buffers())


def _words(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor's bits as 64-bit words, which add up without being converted, and the few bytes left over."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = len(flat) // 8 * 8
    if flat.storage_offset() % 8:
        flat = flat.clone()
    return flat[:whole].view(torch.int64), flat[whole:]
