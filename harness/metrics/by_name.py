"""Metrics of the `evaluate` library, by name or from a local script: `evaluate:NAME[:KEY]`.

The library is imported only here. A module is loaded, and tried on two invented samples, when its name is looked up, so what
is missing or does not fit is said before any model is loaded. A module scores all samples at once.

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
from harness.errors import UserError, did_you_mean

PREFIX = "evaluate:"

_LOWER_IS_BETTER = frozenset(
    "brier_score cer character mae mape mase mse perplexity poseval rmse smape ter wer".split()  # noqa: SIM905
)
"""Modules whose numbers are errors: the library does not say."""


def from_evaluate(name: str, folder: Path | None = None) -> Metric:
    """A metric of the `evaluate` library: `evaluate:NAME[:KEY]`, NAME a module's or the path of a script or its folder.

    A Generate sample gives its first text and its target (all targets to a module that takes several references, else the
    first); where a module wants numbers, the texts must be numbers, and one that is none counts as NaN, or as −1 among whole
    numbers. A Choose sample gives the index of the likeliest choice, or its text, and that of the right one.

    Args:
        name: As a task names it.
        folder: Where relative paths start; the working folder when not given.

    Raises:
        UserError: There is no such module at hand, it does not load, wants other inputs, or gives no number by that key.

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
        raise UserError(f"metric `{name}`: there is no `{key}` in what the module gives", hint=did_you_mean(key, keys))
    if key is None:
        key = _headline(name, shown, keys)

    def whole(gathered: Sequence[Any]) -> float:
        result = module.compute(
            predictions=[prediction for prediction, _ in gathered], references=[reference for _, reference in gathered]
        )
        if not isinstance(result, Mapping) or key not in result:
            raise UserError(f"metric `{name}` gave no `{key}`", hint=did_you_mean(str(key), result or ()))
        return float(result[key])

    return Metric(
        shown if key == shown or len(keys) == 1 else f"{shown}.{key}",
        gather=lambda output, sample: wants.of_sample(name, output, sample),
        whole=whole,
        higher_is_better=not {shown, key} & _LOWER_IS_BETTER,
    )


def split_name(name: str) -> tuple[str, str | None]:
    """The module and the key of `evaluate:NAME[:KEY]`.

    Raises:
        UserError: There is no name in it.
    """
    rest = name.removeprefix(PREFIX)
    source, colon, key = rest.rpartition(":")
    if not colon or "/" in key:
        source, key = rest, ""
    if not source or (colon and not key and source != rest):
        raise UserError(f"malformed metric `{name}`", hint="write `evaluate:NAME` or `evaluate:NAME:KEY`")
    return source, key or None


def _load(name: str, source: str, path: Path) -> Any:
    script = path.expanduser()
    if script.suffix != ".py":
        script = script / f"{script.resolve().name}.py"
    local = source.startswith((".", "/", "~")) or source.endswith(".py") or script.is_file()
    if local and not script.is_file():
        raise UserError(
            f"metric `{name}`: there is no file `{script}`",
            hint="give the path of the module's script, or of a folder that holds a script of the folder's name",
        )
    import evaluate

    try:
        return evaluate.load(str(script) if local else source, keep_in_memory=True)
    except ImportError as error:
        raise UserError(f"metric `{name}` needs a library: {_first_line(error)}", hint="install it with pip") from error
    except (
        Exception
    ) as error:  # the script is anybody's code, and the library raises a dozen kinds for a missing module
        if local:
            raise UserError(f"metric `{name}`: `{script}` does not load: {_first_line(error)}") from error
        space = source if "/" in source else f"evaluate-metric/{source}"
        raise UserError(
            f"metric `{name}`: the `evaluate` library finds no module `{source}`: {_first_line(error)}",
            hint=f"offline, copy the folder of https://huggingface.co/spaces/{space} (it holds {path.name}.py) here and "
            f"write `evaluate:./{path.name}`",
        ) from error


class _Inputs:
    """What a module takes: texts or numbers, one reference a sample or several."""

    def __init__(self, kind: type, several: bool) -> None:
        self.kind, self.several = kind, several

    @classmethod
    def of(cls, name: str, module: Any) -> _Inputs:
        offered = module.features if isinstance(module.features, list) else [module.features]
        fitting = [each for each in offered if set(each) == {"predictions", "references"}]
        fitting = [each for each in fitting if hasattr(each["predictions"], "dtype")]  # one value a sample
        if not fitting:
            wanted = " or ".join(", ".join(f"{column}: {kind}" for column, kind in each.items()) for each in offered)
            raise UserError(
                f"metric `{name}` wants other inputs than one prediction and its references: {wanted}",
                hint="write a Metric of your own around it: `gather` for the inputs, `whole` for the call",
            )
        chosen = next((each for each in fitting if not hasattr(each["references"], "dtype")), fitting[0])
        dtype = chosen["predictions"].dtype
        kind = str if "string" in dtype else float if "float" in dtype else int
        return cls(kind, not hasattr(chosen["references"], "dtype"))

    def of_sample(self, name: str, output: Output, sample: Any) -> list[Any]:
        """The prediction and the reference, or list of references, of a sample."""
        if isinstance(sample, Text):
            raise UserError(f"metric `{name}` needs predictions, and a Text sample has none", hint="use `token_ppl`")
        if isinstance(sample, Generate):
            prediction: Any = output.texts[0]
            references: list[Any] = [sample.target] if isinstance(sample.target, str) else list(sample.target)
        else:
            assert isinstance(sample, Choose)
            scores = output.loglikelihoods
            likeliest = max(range(len(scores)), key=lambda index: scores[index])
            right = [sample.answer] if isinstance(sample.answer, int) else list(sample.answer)
            as_text = self.kind is str
            prediction = sample.choices[likeliest] if as_text else likeliest
            references = [sample.choices[index] if as_text else index for index in right]
        wanted = [self._read(reference) for reference in references]
        if None in wanted:
            raise UserError(
                f"metric `{name}` wants numbers, and the target {references[wanted.index(None)]!r} is none",
                hint="use it with Choose samples, whose answers are numbers, or another metric",
            )
        written = self._read(prediction)
        if written is None:
            written = math.nan if self.kind is float else -1
        return [written, wanted if self.several else wanted[0]]

    def invented(self) -> tuple[list[Any], list[Any]]:
        """Two samples, right ones."""
        values: list[Any] = ["the cat sat on the mat", "a dog ran in the park"] if self.kind is str else [0, 1]
        return values, [[value] for value in values] if self.several else values

    def _read(self, value: Any) -> Any:
        """The value as the module takes it; None where a text is no such number."""
        if self.kind is str:
            return value
        try:
            return self.kind(value)
        except ValueError:
            return None


def _keys(name: str, module: Any, wants: _Inputs) -> list[str]:
    """Names of the numbers that the module gives."""
    predictions, references = wants.invented()
    try:
        result = module.compute(predictions=predictions, references=references)
    except Exception as error:  # anybody's code
        raise UserError(
            f"metric `{name}` failed on two invented samples: {type(error).__name__}: {_first_line(error)}",
            hint="if it needs options, write a Metric of your own around it: `gather` and `whole`",
        ) from error
    keys = [key for key, value in (result or {}).items() if isinstance(value, Real) or getattr(value, "shape", 0) == ()]
    if not keys:
        raise UserError(f"metric `{name}` gives no number: {_first_line(result)}", hint="name another metric")
    return keys


def _headline(name: str, shown: str, keys: Sequence[str]) -> str:
    """The key that is meant when none is named: the only one, the module's own name, or `score`."""
    for key in (*keys[: len(keys) == 1], shown, "score"):
        if key in keys:
            return key
    raise UserError(f"metric `{name}` gives several numbers: {', '.join(keys)}", hint=f"name one: `{name}:{keys[0]}`")


def _first_line(said: object) -> str:
    return next(iter(str(said).strip().splitlines()), type(said).__name__)[:300]
