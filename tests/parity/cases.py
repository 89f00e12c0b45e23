"""The cases to compare: our tasks and those of lm-evaluation-harness, with no shots and with the usual number of shots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One task at one number of shots, on both sides."""

    name: str
    """Our task, as typed."""
    theirs: Mapping[str, str]
    """Their task for each of our groups; the key is empty if there are no groups."""
    metrics: Mapping[str, str]
    """Their metric, as `metric,filter`, for each of ours."""
    shots: int = 0
    limit: int = 200
    """Samples, spread evenly over the groups."""
    max_tokens: int | None = None
    """Token limit of generated texts on both sides; None if the task is scored by likelihoods."""
    own_stops: tuple[str, ...] = ()
    """Stop strings that only our side has; their side cuts its texts at them afterwards."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of our task, where its default differs from theirs on purpose."""
    chat: bool = False
    """Whether prompts go through the model's chat template, solved examples as turns."""

    @property
    def twin(self) -> str:
        """Which of a shape's two models scores it."""
        return "chooses" if self.max_tokens is None else "generates"

    @property
    def title(self) -> str:
        """Our task without its groups."""
        return self.name.split(":")[0]

    @property
    def id(self) -> str:
        """Name of the case in tests."""
        return f"{self.title}-{self.shots}" + ("-chat" if self.chat else "")


REAL = ("cais/mmlu", "openai/gsm8k", "openai/openai_humaneval", "EleutherAI/wikitext_document_level")
"""Datasets whose real rows are available."""

ACC = {"acc": "acc,none"}
ACC_NORM = {"acc": "acc,none", "acc_norm": "acc_norm,none"}
GSM8K = {"strict": "exact_match,strict-match", "flexible": "exact_match,flexible-extract"}

PASS = {"pass@1": "pass@1,create_test"}
IFEVAL = {
    f"{level}_{way}": f"{level}_level_{way}_acc,none" for level in ("prompt", "inst") for way in ("strict", "loose")
}

MMLU = ("abstract_algebra", "global_facts", "moral_scenarios", "us_foreign_policy")
CEVAL = ("computer_network", "high_school_chinese", "law")
CMMLU = ("agronomy", "anatomy", "world_religions")
MMLU_PRO = ("math", "law", "computer science")


def _subjects(task: str, prefix: str, subjects: tuple[str, ...], metrics: Mapping[str, str], **options: Any) -> Case:
    return Case(f"{task}:{'+'.join(subjects)}", {each: prefix + each for each in subjects}, metrics, **options)


def _same(name: str, metrics: Mapping[str, str], theirs: str | None = None, **options: Any) -> Case:
    return Case(name, {"": theirs or name}, metrics, **options)


CASES = (
    *(_subjects("mmlu", "mmlu_", MMLU, ACC, shots=shots) for shots in (0, 5)),
    *(_subjects("ceval", "ceval-valid_", CEVAL, ACC_NORM, shots=shots, limit=12) for shots in (0, 5)),
    *(_subjects("cmmlu", "cmmlu_", CMMLU, ACC_NORM, shots=shots, limit=12) for shots in (0, 5)),
    *(
        _same(f"gpqa_{name}", ACC_NORM, f"gpqa_{name}_zeroshot", parameters={"order": "lm-eval"})
        for name in ("diamond", "main", "extended")
    ),
    *(_same("arc_easy", ACC_NORM, shots=shots) for shots in (0, 25)),
    *(_same("arc_challenge", ACC_NORM, shots=shots) for shots in (0, 25)),
    *(_same("hellaswag", ACC_NORM, shots=shots) for shots in (0, 10)),
    _same("truthfulqa_mc1", {"acc": "acc,none"}),
    _same("truthfulqa_mc2", {"mc2": "acc,none"}),
    *(_same("gsm8k", GSM8K, shots=shots, limit=40, max_tokens=64) for shots in (0, 5)),
    _same("gsm8k_cot", GSM8K, shots=8, limit=40, max_tokens=64),
    _same("gsm8k_cot_zeroshot", GSM8K, limit=40, max_tokens=64),
    _same("humaneval", PASS, limit=30, max_tokens=128),
    _same("humaneval_instruct", PASS, limit=30, max_tokens=128, own_stops=("```",)),
    *(_same("mbpp", {"pass@1": "pass_at_1,none"}, shots=shots, max_tokens=128) for shots in (0, 3)),
    _same(
        "wikitext",
        {"word_ppl": "word_perplexity,none", "byte_ppl": "byte_perplexity,none", "bits_per_byte": "bits_per_byte,none"},
        limit=3,
    ),
    *(
        _same(
            "translation",
            {"bleu": "bleu,none", "chrf": "chrf,none", "ter": "ter,none"},
            "wmt16-de-en",
            shots=shots,
            max_tokens=64,
        )
        for shots in (0, 5)
    ),
    *(
        Case(
            "mmlu_pro",
            {category: f"mmlu_pro_{category.replace(' ', '_')}" for category in MMLU_PRO},
            {"exact_match": "exact_match,custom-extract"},
            shots=shots,
            max_tokens=128,
        )
        for shots in (0, 5)
    ),
    *(_same("winogrande", ACC, shots=shots) for shots in (0, 5)),
    *(_same("piqa", ACC_NORM, shots=shots) for shots in (0, 5)),
    *(_same("boolq", ACC, shots=shots) for shots in (0, 3)),
    _same("ifeval", IFEVAL, max_tokens=128),
    *(
        _same("triviaqa", {"exact_match": "exact_match,remove_whitespace"}, shots=shots, max_tokens=64)
        for shots in (0, 5)
    ),
    *(
        _same(
            f"gpqa_{name}_cot",
            {"strict": "exact_match,strict-match", "choice_letter": "exact_match,flexible-extract"},
            f"gpqa_{name}_cot_zeroshot",
            parameters={"order": "lm-eval"},
            max_tokens=96,
        )
        for name in ("diamond", "main", "extended")
    ),
)
