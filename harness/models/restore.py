"""Restores a base to the state in which it was loaded, whatever a variant did to it.

Wrapped or replaced modules, hooks, flags and replaced tensors are restored by putting the old objects back: no weight is
copied. A weight that was overwritten in place cannot be restored; checksums over the bits of all weights detect that.

Example:
    >>> layer = torch.nn.Linear(2, 2)
    >>> original = OriginalState(layer)
    >>> layer.extra = torch.nn.Linear(2, 2)
    >>> original.restore(), hasattr(layer, "extra")
    (True, False)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class OriginalState:
    """Remembers the modules, tensors and settings of a model, to restore them later.

    Args:
        model: In the state to restore.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = [(module, type(module), _contents(module)) for module in model.modules()]
        self._parameters = [(parameter, parameter.data, parameter.requires_grad) for parameter in model.parameters()]
        config = getattr(model, "config", None)
        self._config = dict(vars(config)) if config is not None else {}
        self._sums = _checksums(model)

    def restore(self) -> bool:
        """Restores the model.

        Returns:
            Whether the model is bit-equal to its original state: False if a weight was overwritten in place.
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
        return torch.equal(_checksums(self._model), self._sums)


_Contents = dict[str, tuple[Any, Any]]
"""Attributes of a module by name: the object, and a copy of its items if it is a container."""


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


def _checksums(model: nn.Module) -> Tensor:
    """`[tensors]`, int64: one checksum for each weight and buffer, its bits added up as integers."""
    sums = [part for tensor in _tensors(model) for part in _words(tensor)]
    return torch.stack([part.sum(dtype=torch.int64).cpu() for part in sums]) if sums else torch.empty(0)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain((parameter.data for parameter in model.parameters()), model.buffers())


def _words(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor's bits as 64-bit integers, which add up without conversion, and the remaining bytes (7 at most)."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = len(flat) // 8 * 8
    if flat.storage_offset() % 8:
        flat = flat.clone()
    return flat[:whole].view(torch.int64), flat[whole:]
