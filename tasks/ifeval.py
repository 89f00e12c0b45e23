"""IFEval: instructions whose following a program can check.

Dataset: https://huggingface.co/datasets/google/IFEval (config `default`; train 541 rows, the only split), Apache-2.0
licence.
Paper: Zhou et al., "Instruction-Following Evaluation for Large Language Models", 2023 (arXiv 2311.07911).
Protocol: lm-evaluation-harness's `ifeval`: the prompt alone, greedy, 1,280 tokens. There are 25 kinds of instruction.
The `prompt_` metrics count prompts with all instructions followed, the `inst_` metrics count instructions; `loose` also
accepts the text without its first line, its last line or its asterisks. nltk's Punkt counts sentences, with its trained
parameters if nltk's data folder has `punkt_tab`; langdetect with seed 0 detects languages. If an instruction counts a
letter outside a–z, that letter is counted; the reference draws another one.

Example:
    Write a limerick about a customer. Your entire response should be in English, and in all lowercase letters. …
    there once was a man in a queue …
"""

from harness import Generate, Task, hub, inst_loose, inst_strict, prompt_loose, prompt_strict, task


@task
def ifeval() -> Task:
    """Instructions whose following a program can check."""
    return Task(
        data=hub("google/IFEval", split="train"),
        sample=lambda row: Generate(
            row["prompt"],
            "",  # there is no single right answer
            max_tokens=1280,
            meta={"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]},
        ),
        metrics=[prompt_strict, inst_strict, prompt_loose, inst_loose],
    )
