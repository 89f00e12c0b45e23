"""Rounds a checkpoint to few bits with llmcompressor; run by the interpreter of an environment that has it.

    python llmcompressor_program.py SETTINGS.json

It imports nothing of the harness. The last line that it writes is a JSON object: `group`, the weights that share a scale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

GROUPS = (128, 64, 32, 16)
"""Weights of a row that share a scale: the first that divides all rows."""


def main(settings_file: str) -> None:
    """Quantizes as the settings say."""
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = json.loads(Path(settings_file).read_text(encoding="utf-8"))
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(settings["threads"])
    model = AutoModelForCausalLM.from_pretrained(
        settings["checkpoint"], dtype=getattr(torch, settings["dtype"]), device_map=settings["device"]
    )
    rows = settings["rows"]
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    head = model.get_output_embeddings()
    ignored = [name for name, module in model.named_modules() if module is head]
    widths = {
        module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in ignored
    }
    group = next((size for size in GROUPS if all(width % size == 0 for width in widths)), None)
    weights: dict[str, Any] = {
        "num_bits": settings["bits"],
        "type": "int",
        "symmetric": settings["symmetric"],
        "strategy": "group" if group else "channel",
        **({"group_size": group} if group else {}),
    }
    options = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ignored}
    modifiers: list[Any] = [GPTQModifier(**options)]
    if settings["tool"] == "awq":
        from llmcompressor.modifiers.transform.awq import AWQModifier

        modifiers = [AWQModifier(), QuantizationModifier(**options)]
    oneshot(
        model=model,
        dataset=data,
        recipe=modifiers,
        max_seq_length=max(map(len, rows)),
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(settings["output"], save_compressed=True)
    sys.stdout.write("\n" + json.dumps({"group": group}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
