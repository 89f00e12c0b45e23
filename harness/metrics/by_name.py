"""Metrics of the `evaluate` library, by name or from a local script: `evaluate:NAME[:KEY]`.

Only this module imports the library. When the name is looked up, the library's module is loaded and tried on two
synthetic samples, so that a missing or unsuitable module raises an error before a model is loaded. A module scores all
samples at once.

    >>> split_name("evaluate:./my_metrics/overlap.py:share")
    ('./my_metrics/overlap.py', 'share')
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from harness.api import Choose, Generate, Metric, Output, Text
from harness.data.files import expand
from harness.errors import UserError, did_you_mean
from harness.metrics.choice import likeliest
from harness.metrics.kinds import targets_of

PREFIX = "evaluate:"

_LOWER_IS_BETTER = frozenset(
    "brier_score cer character mae mape mase mse perplexity poseval rmse smape ter wer".split()  # noqa: SIM905
)
"""Modules with values where lower is better; the library does not provide this."""


def from_evaluate(name: str, folder: Path | None = None) -> Metric:
    """A metric of the `evaluate` library: `evaluate:NAME[:KEY]`; NAME is a module, or the path of a script or its folder.

    From a Generate sample, the module receives the first text and the target (all targets if it takes several
    references, else the first). If the module takes numbers, the texts must be numbers; any other text counts as NaN,
    or as −1 for integers. From a Choose sample, it receives the index or text of the likeliest choice and of the right
    choice.

    Args:
        name: Name of the metric, as in a task.
        folder: Folder to which a path is relative; default: the working folder.

    Raises:
        UserError: There is no such module, it does not load, takes other inputs, or returns no number for that key.

    Example:
        >>> from_evaluate("evaluate:./overlap.py").name  # doctest: +SKIP
        'overlap'
    """
    source, key = split_name(name)
    path = folder / source if folder and (folder / source).exists() else Path(source)
    module = _load(name, source, path)
    wants = _Inputs.of(name, module)
    shown = Path(source).stem
    keys = _keys(name, module, wants)
    if key is not None and keys and key not in keys:
        raise UserError(f"metric `{name}`: the module returns no `{key}`", hint=did_you_mean(key, keys))
    if key is None:
        key = _headline(name, shown, keys)

    def whole(gathered: Sequence[Any]) -> float:
        result = module.compute(
            predictions=[prediction for prediction, _ in gathered], references=[reference for _, reference in gathered]
        )
        if not isinstance(result, Mapping) or key not in result:
            raise UserError(f"metric `{name}` returned no `{key}`", hint=did_you_mean(str(key), result or ()))
        return float(result[key])

    return Metric(
        shown if key == shown or len(keys) == 1 else f"{shown}.{key}",
        gather=lambda output, sample: wants.of_sample(name, output, sample),
        whole=whole,
        higher_is_better=not {shown, key} & _LOWER_IS_BETTER,
    )


def split_name(name: str) -> tuple[str, str | None]:
    """Splits `evaluate:NAME[:KEY]` into module and key.

    Raises:
        UserError: The name is empty.
    """
    rest = name.removeprefix(PREFIX)
    source, colon, key = rest.rpartition(":")
    if not colon or "/" in key:
        source, key = rest, ""
    if not source or (colon and not key and source != rest):
        raise UserError(f"malformed metric `{name}`", hint="write `evaluate:NAME` or `evaluate:NAME:KEY`")
    return source, key or None


def _load(name: str, source: str, path: Path) -> Any:
    script = expand(path)
    if script.suffix != ".py":
        script = script / f"{script.resolve().name}.py"
    local = source.startswith((".", "/", "~")) or source.endswith(".py") or script.is_file()
    if local and not script.is_file():
        raise UserError(
            f"metric `{name}`: there is no file `{script}`",
            hint="give the path of the module's script, or of a folder with a script of the same name",
        )
    import evaluate

    try:
        return evaluate.load(str(script) if local else source, keep_in_memory=True)
    except ImportError as error:
        raise UserError(f"metric `{name}` needs a library: {_first_line(error)}", hint="install it with pip") from error
    except Exception as error:  # the script is third-party code, and the library raises many types for a missing module
        if local:
            raise UserError(f"metric `{name}`: `{script}` does not load: {_first_line(error)}") from error
        space = source if "/" in source else f"evaluate-metric/{source}"
        raise UserError(
            f"metric `{name}`: the `evaluate` library finds no module `{source}`: {_first_line(error)}",
            hint=f"offline, copy the folder of https://huggingface.co/spaces/{space} (with {path.name}.py) here and "
            f"write `evaluate:./{path.name}`",
        ) from error


class _Inputs:
    """The inputs of a module: texts or numbers, one or several references per sample."""

    def __init__(self, kind: type, several: bool) -> None:
        self.kind, self.several = kind, several

    @classmethod
    def of(cls, name: str, module: Any) -> _Inputs:
        offered = module.features if isinstance(module.features, list) else [module.features]
        fitting = [each for each in offered if set(each) == {"predictions", "references"}]
        fitting = [each for each in fitting if hasattr(each["predictions"], "dtype")]  # one value per sample
        if not fitting:
            wanted = " or ".join(", ".join(f"{column}: {kind}" for column, kind in each.items()) for each in offered)
            raise UserError(
                f"metric `{name}` takes other inputs than one prediction and its references: {wanted}",
                hint="write your own Metric that calls it: `gather` for the inputs, `whole` for the call",
            )
        chosen = next((each for each in fitting if not hasattr(each["references"], "dtype")), fitting[0])
        dtype = chosen["predictions"].dtype
        kind = str if "string" in dtype else float if "float" in dtype else int
        return cls(kind, not hasattr(chosen["references"], "dtype"))

    def of_sample(self, name: str, output: Output, sample: Any) -> list[Any]:
        """Returns the prediction and the reference, or list of references, of a sample."""
        if isinstance(sample, Text):
            raise UserError(f"metric `{name}` needs predictions, and a Text sample has none", hint="use `token_ppl`")
        if isinstance(sample, Generate):
            prediction: Any = output.texts[0]
            references: list[Any] = targets_of(sample)
        else:
            assert isinstance(sample, Choose)
            chosen = likeliest(output.loglikelihoods)
            right = [sample.answer] if isinstance(sample.answer, int) else list(sample.answer)
            as_text = self.kind is str
            prediction = sample.choices[chosen] if as_text else chosen
            references = [sample.choices[index] if as_text else index for index in right]
        wanted = [self._read(reference) for reference in references]
        if None in wanted:
            raise UserError(
                f"metric `{name}` takes numbers, and the target {references[wanted.index(None)]!r} is not a number",
                hint="use it with Choose samples, which have numbers as answers, or use another metric",
            )
        written = self._read(prediction)
        if written is None:
            written = math.nan if self.kind is float else -1
        return [written, wanted if self.several else wanted[0]]

    def synthetic(self) -> tuple[list[Any], list[Any]]:
        """Returns predictions and references of two samples, all right."""
        values: list[Any] = ["the cat sat on the mat", "a dog ran in the park"] if self.kind is str else [0, 1]
        return values, [[value] for value in values] if self.several else values

    def _read(self, value: Any) -> Any:
        """Converts a value to the type of the module; None if a text is not such a number."""
        if self.kind is str:
            return value
        try:
            return self.kind(value)
        except ValueError:
            return None


def _keys(name: str, module: Any, wants: _Inputs) -> list[str]:
    """Returns the names of the numbers that the module returns."""
    predictions, references = wants.synthetic()
    try:
        result = module.compute(predictions=predictions, references=references)
    except Exception as error:  # third-party code
        raise UserError(
            f"metric `{name}` failed on two synthetic samples: {type(error).__name__}: {_first_line(error)}",
            hint="if it needs options, write your own Metric that calls it, with `gather` and `whole`",
        ) from error
    keys = [key for key, value in (result or {}).items() if isinstance(value, Real) or getattr(value, "shape", 0) == ()]
    if not keys:
        raise UserError(f"metric `{name}` returns no number: {_first_line(result)}", hint="name another metric")
    return keys


def _headline(name: str, shown: str, keys: Sequence[str]) -> str:
    """Returns the default key: the only one, the module's name, or `score`."""
    for key in (*keys[: len(keys) == 1], shown, "score"):
        if key in keys:
            return key
    raise UserError(f"metric `{name}` returns several numbers: {', '.join(keys)}", hint=f"name one: `{name}:{keys[0]}`")


def _first_line(message: object) -> str:
    return next(iter(str(message).strip().splitlines()), type(message).__name__)[:300]
