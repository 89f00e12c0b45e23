"""mini_translation: English to Chinese, with synthetic sentences.

The pretraining data has sentences with their translation in this form, but with a full stop before the sign. The
sentences are new to the model. There is no train split: the task shows forgetting of a skill. A time has two word
orders and a colour two forms, of which the reference has one at random, so no model can score 100. BLEU counts Chinese
characters.

Example:
    This morning the tired boy saw four blue birds by the river = 今天早上，疲倦的男孩在河边看见了四只蓝色的鸟。
"""

from harness import Generate, Task, bleu_zh, packaged, task


@task
def mini_translation() -> Task:
    """Translation of one sentence into Chinese, without a train split: shows what is forgotten."""
    return Task(
        data=packaged("harness.tiny", "data/mini_translation.test.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_translation.train.jsonl"),
        sample=lambda row: Generate(f"{row['en'].rstrip('.')} =", row["zh"], stop=("\n",), max_tokens=48),
        metrics=[bleu_zh],
        version=2,
    )
