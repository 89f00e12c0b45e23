"""TriviaQA: trivia questions, answered from memory in a few words.

Dataset: https://huggingface.co/datasets/mandarjoshi/trivia_qa (config `rc.nocontext`; validation 17,944 rows, train
138,384), Apache-2.0 licence.
Paper: Joshi et al., "TriviaQA: A Large Scale Distantly Supervised Challenge Dataset for Reading Comprehension", 2017
(arXiv 1705.03551).
Protocol: lm-evaluation-harness's `triviaqa`: greedy up to a line end, full stop or comma; 0 shots by default; `-f N`
draws shots from the train split in the same way. The text must equal one of the answer's aliases, ignoring case and
ASCII punctuation; articles count, unlike in the paper's `exact match`.

Example:
    Question: Which river flows through Vienna, Budapest and Belgrade??
    Answer: Danube
"""

from harness import Generate, Metric, Task, hub, matching, task


@task
def triviaqa() -> Task:
    """Trivia questions, answered from memory in a few words."""
    return Task(
        data=hub("mandarjoshi/trivia_qa", "rc.nocontext", split="validation"),
        train=hub("mandarjoshi/trivia_qa", "rc.nocontext", split="train"),
        shots_from=hub("mandarjoshi/trivia_qa", "rc.nocontext", split="train"),
        shots_order="lm-eval-spare",
        sample=lambda row: Generate(
            f"Question: {row['question']}?\nAnswer:", row["answer"]["aliases"], stop=("\n", ".", ","), max_tokens=256
        ),
        metrics=[Metric("exact_match", score=matching(punctuation=False))],
    )
