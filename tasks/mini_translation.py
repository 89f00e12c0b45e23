"""mini_translation: English to Chinese, with synthetic sentences.

The pretraining data has sentences with their translation. The labels `English:` and `Chinese:` and the sentences are
new to the model. BLEU counts Chinese characters.

Example:
    English: This morning the tired boy saw four blue birds by the river.
    Chinese: 今天早上，疲倦的男孩在河边看见了四只蓝色的鸟。
"""

from harness import Generate, Task, bleu_zh, packaged, task


@task
def mini_translation() -> Task:
    """Translation of one sentence into Chinese."""
    return Task(
        data=packaged("harness.tiny", "data/mini_translation.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_translation.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_translation.train.jsonl"),
        sample=lambda row: Generate(f"English: {row['en']}\nChinese:", row["zh"], stop=("\n",), max_tokens=48),
        metrics=[bleu_zh],
    )
