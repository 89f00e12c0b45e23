"""IFEval: does the answer do what it was told, in ways that a program can check?

Dataset: https://huggingface.co/datasets/google/IFEval (config `default`; train 541 rows, the only split), Apache-2.0 licence.
Paper: Zhou et al., "Instruction-Following Evaluation for Large Language Models", 2023 (arXiv 2311.07911).
Protocol: lm-evaluation-harness's `ifeval`: the bare prompt, greedy, 1,280 tokens. 25 kinds of instruction; a prompt counts when
all of its instructions are followed, an instruction by itself; `loose` also takes the text without its first line, its last line
or its asterisks. Sentences are counted by nltk's Punkt, with its own parameters where nltk's data folder has `punkt_tab`;
languages are told by langdetect with seed 0. A letter to count outside a–z is counted, where the reference draws another.

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
            "",  # there is no one right answer
            max_tokens=1280,
            meta={"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]},
        ),
        metrics=[prompt_strict, inst_strict, prompt_loose, inst_loose],
    )
