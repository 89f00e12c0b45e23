"""Writes `GPU.md` from the figures of `gpu.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

GIB = 2**30


def page(figures: Mapping[str, Any]) -> str:
    """The page in Markdown; steps that failed or were left out are named with the reason."""
    steps: Mapping[str, Any] = figures["steps"]
    about = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    lines = ["# On a GPU", "", f"By `make gpu`: {about}.", "", *_table(("step", "status", "s"), _states(steps))]
    shapes = sorted({name.split("-")[0] for name in steps} - {"correct"})
    for shape in shapes:
        lines += ["", f"## {shape}", "", *_scoring(shape, steps), *_decoding(shape, steps), *_training(shape, steps)]
    return "\n".join(lines) + "\n"


def _states(steps: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, step in steps.items():
        yield f"`{name}`", step["status"], f"{step['seconds']:.0f}"


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    cells = list(rows)
    return [f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *cells)] if cells else []


def _result(steps: Mapping[str, Any], name: str) -> Any:
    return (steps.get(name) or {}).get("result")


def _scoring(shape: str, steps: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in ("mmlu", "hellaswag", "wikitext", "gsm8k-shared", "gsm8k-own"):
        ours, peer = (_result(steps, f"{shape}-{row}-{side}") for side in ("ours", "peer"))
        if not ours:
            continue
        agreed = (steps[f"{shape}-{row}-ours"].get("agreement") or {}) if peer else {}
        rows.append(
            (
                row,
                f"{ours['seconds']:.2f}",
                f"{peer['seconds']:.2f} (batch {peer['batch']})" if peer else "–",
                f"×{peer['seconds'] / ours['seconds']:.1f}" if peer else "–",
                " / ".join(f"{side['over_model_bytes'] / GIB:.1f}" for side in (ours, peer) if side),
                ", ".join(f"{key} {_short(value)}" for key, value in agreed.items()),
            )
        )
    head = ("row", "ours, s", "lm-eval hf, s", "ratio", "GiB over the model, ours / peer", "agreement")
    return [*_table(head, rows), ""]


def _short(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def _decoding(shape: str, steps: Mapping[str, Any]) -> list[str]:
    rows, profiles = [], []
    for name in (f"{shape}-decode", f"{shape}-lora-decode"):
        found = _result(steps, name) or {}
        for count in (key for key in found if key.isdigit()):
            times = (f"{found[count][key]:.2f}" for key in ("ours_ms", "eager_ms", "transformers_ms"))
            rows.append((name, count, *times))
        for key in ("profile", "profile_graph", "profile_transformers"):
            if key in found:
                profiles += _profile(f"{name}, {key}", found[key])
    pack = _result(steps, f"{shape}-pack")
    if pack:
        profiles += _profile(f"one pack of MMLU, {pack['tokens']} tokens", pack)
    return [
        *_table(("step of generation", "rows", "ours, ms", "without graphs, ms", "transformers, ms"), rows),
        "",
        *profiles,
    ]


def _profile(title: str, found: Mapping[str, Any]) -> list[str]:
    about = f"{found['launches']} launches, {found['device_ms']:.2f} ms on the device, {found['host_ms']:.2f} ms on the host"
    both = zip(found["by_device"], found["by_host"], strict=True)
    rows = [(f"`{a[0]}` ×{a[1]}", str(a[2]), f"`{b[0]}` ×{b[1]}", str(b[2])) for a, b in both]
    return [f"{title}: {about}", "", *_table(("device", "ms", "host", "ms"), rows), ""]


def _training(shape: str, steps: Mapping[str, Any]) -> list[str]:
    rows = []
    for method in ("lora", "qlora", "full"):
        for side in ("ours", "peer"):
            found = _result(steps, f"{shape}-train-{method}-{side}")
            if found:
                rows.append(
                    (
                        method,
                        side,
                        f"{found['tokens'] / found['seconds']:,.0f}",
                        f"{found['peak_bytes'] / GIB:.2f}",
                        f"{found['reserved_bytes'] / GIB:.2f}",
                        f"{found['losses'][0]:.4f} … {found['losses'][-1]:.4f}",
                    )
                )
    return _table(("training", "side", "tokens/s", "peak GiB", "reserved GiB", "losses"), rows)
