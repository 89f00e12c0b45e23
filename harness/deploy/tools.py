"""Tools of each deployed form on this machine, and the versions that decide what they make and how it is read."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec

from harness.deploy.llama_cpp import find_llama_cpp
from harness.deploy.llmcompressor import llmcompressor_version
from harness.errors import UserError
from harness.jobs import DeployedForm

_REVISION = 1
"""Raise it when a change of our own code gives other converted weights: earlier ones are then not reused."""
CALIBRATED = ("gptq", "awq")
"""Tools that round weights on training rows."""
_UNPACKED = ("gguf", "gptq", "awq")
"""Tools whose weights run unpacked here: a latency would be that of the unpacked weights."""
_READERS = {"gguf": ("gguf",), "torchao": ("torchao",), "gptq": ("compressed-tensors",), "awq": ("compressed-tensors",)}
"""Packages with which transformers reads what a tool made."""


def maker_version(form: DeployedForm) -> str:
    """The versions of what converts the weights; they are part of the key of the result.

    Raises:
        UserError: A program or package is missing; the hint says how to get it.
    """
    if form.tool == "gguf":
        _need("gguf", "gguf", form)
        return find_llama_cpp(form.type).version
    if form.tool == "torchao":
        _need("torchao", "quantized", form)
        return f"torchao {version('torchao')}"
    return llmcompressor_version(form.tool)


def reader_version(form: DeployedForm) -> str:
    """The versions of what reads the weights.

    Raises:
        UserError: A package is missing.
    """
    if form.reader == "llamacpp":
        _need("llama_cpp", "llamacpp", form)
        return f"llama-cpp-python {version('llama-cpp-python')}"
    return ", ".join(f"{name} {version(name)}" for name in ("transformers", *_READERS[form.tool]))


def form_versions(form: DeployedForm) -> list[str]:
    """Everything but the model that decides the weights of a form, and how transformers reads them.

    Raises:
        UserError: See `maker_version` and `reader_version`.
    """
    return [str(_REVISION), maker_version(form), reader_version(replace(form, reader="transformers"))]


def refuse_missing(where: str, form: DeployedForm, device: str) -> None:
    """Refuses a form that cannot be made or read here.

    Args:
        where: The variant, for messages.
        form: The form.
        device: `cpu`, `cuda:0` … or `auto`.

    Raises:
        UserError: A program or package is missing, or the form needs a GPU.
    """
    if form.tool == "awq" and not device.startswith(("cuda", "auto")):
        raise UserError(
            f"{where}: `@awq` needs a GPU: its package refuses to work on `{device}`",
            hint="on a CPU use `@gptq` or `@gguf:Q4_K_M`",
        )
    try:
        maker_version(form)
        reader_version(form)
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from error


def _need(module: str, extra: str, form: DeployedForm) -> None:
    if find_spec(module) is None:
        raise UserError(
            f"`@{form.text}` needs the package `{module.replace('_', '-')}`, which is not installed",
            hint=f"pip install 'finetune-harness[{extra}]'",
        )


def why_untimed(form: DeployedForm | None) -> str | None:
    """Says why a form's latency is not measured; None: it is, because the weights run here as a server runs them.

    Example:
        >>> why_untimed(None), why_untimed(DeployedForm("torchao", "int8wo"))
        (None, None)
    """
    if form is None or form.tool not in _UNPACKED:
        return None
    if form.reader == "llamacpp":
        return "its whole texts are run by llama.cpp here, as a check of scores"
    return "its weights run unpacked here, and packed where they are served"
