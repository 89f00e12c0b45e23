"""`harness bench`: latency and memory of variants, over prompt lengths and batch sizes."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal

from typer import Argument, Option

from harness.cli.options import SPEC, Flags, command_line, print_result, takes
from harness.errors import UserError


@takes(
    "model allow_code file train train_columns price_per_hour device dtype seed trust_remote_code output_dir fresh quiet"
)
def bench(
    flags: Flags,
    variants: Annotated[list[str], Argument(metavar="VARIANT…", help=SPEC)],
    prompt_tokens: Annotated[
        str, Option(metavar="TOKENS{,TOKENS}", help="Lengths of the prompts, each timed at every batch size.")
    ] = "512",
    batch_sizes: Annotated[
        str, Option(metavar="ROWS{,ROWS}", help="Prompts that pass through the model at once.")
    ] = "1,8",
    new_tokens: Annotated[int, Option(min=1, help="Tokens to generate after each prompt.")] = 32,
    form: Annotated[Literal["human", "json", "md"], Option("--format", help="Format on stdout.")] = "human",
) -> None:
    """Measure latency (first token, next tokens, tokens per second) and memory of variants, in turn with the base model."""
    lengths, sizes = _counts("--prompt-tokens", prompt_tokens), _counts("--batch-sizes", batch_sizes)
    with flags.progress() as shown:
        from harness.comparison import run as comparison

        config = flags.configure(variants, tasks_needed=False)
        run = comparison.time_only(
            config,
            progress=shown,
            fresh=flags.fresh,
            command=command_line(),
            grid=tuple(product(lengths, sizes)),
            new_tokens=new_tokens,
        )
    print_result(run, config, form)


def _counts(flag: str, text: str) -> list[int]:
    """Reads `128,1024` as numbers in ascending order, each once.

    Example:
        >>> _counts("--batch-sizes", "8,1,8")
        [1, 8]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 8 and int(part) > 0 for part in parts):
        raise UserError(
            f"`{flag} {text}`: expected numbers above 0, separated by commas", hint=f"for example `{flag} 1,8`"
        )
    return sorted({int(part) for part in parts})
