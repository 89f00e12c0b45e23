"""The first line of a report: the model and what the numbers depend on."""

from __future__ import annotations

from pathlib import Path

from harness.jobs import SERVED_PREFIX
from harness.report import numbers
from harness.results import Run


def header(run: Run) -> str:
    """Joins the model's name and `facts` in one line."""
    return " · ".join([model_name(run), *facts(run)])


def model_name(run: Run) -> str:
    """Returns the model's name as it was requested; of a path, only the folder's name."""
    name = numbers.one_line(str((run.environment.get("model") or {}).get("name") or "unnamed model"))
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def device_name(run: Run) -> str | None:
    """Returns the most specific name of the device that is known."""
    environment = run.environment
    return environment.get("device_name") or environment.get("cpu") or environment.get("device")


def facts(run: Run) -> list[str]:
    """Lists sample counts, seed, device and versions."""
    environment = run.environment
    sizes = sorted({task.n for task in run.tasks} - {0})
    samples = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}" if sizes else "no"
    torch = str((environment.get("packages") or {}).get("torch", "")).partition("+")[0]
    dtype = numbers.dtype(str(environment.get("dtype") or ""))
    versions = " ".join(word for word in (f"torch {torch}" if torch else "", dtype) if word) + _trained_in(run, dtype)
    here = (
        [] if model_name(run).startswith(SERVED_PREFIX) else [device_name(run), versions]
    )  # else nothing was computed here
    seed = "" if run.seed is None else f"seed {run.seed}"
    known = [f"{samples} samples per task", seed, *here, f"harness {run.harness}"]
    return [numbers.one_line(str(fact)) for fact in known if fact]


def _trained_in(run: Run, dtype: str) -> str:
    """Says in which precision the matrix products of training were computed, if it is not that of scoring.

    Example:
        >>> _trained_in(run, "fp32")  # doctest: +SKIP
        ', trained in bf16'
    """
    names: dict[str, list[str]] = {}
    for variant in run.variants:
        if variant.train and variant.train.precision:
            names.setdefault(variant.train.precision, []).append(variant.name)
    if set(names) <= {dtype}:
        return ""
    if len(names) == 1:
        return f", trained in {next(iter(names))}"
    return ", trained in " + numbers.listing(f"{each} ({', '.join(who)})" for each, who in names.items())
