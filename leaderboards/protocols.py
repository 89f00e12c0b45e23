"""How a score was measured, in words, and where that is not how others in the column were."""

from __future__ import annotations

from harness.report import numbers
from harness.results import Score


def described(score: Score) -> str:
    """Describes the protocol of a score.

    Example:
        >>> described(score)  # doctest: +SKIP
        '200 samples, 5 shots, log-likelihood, version 1, fp32, bf16 weights, prompts 46b8c06d'
    """
    protocol = score.protocol
    parts = [
        numbers.counted(score.n, "sample"),
        *([_shots(score)] if protocol.shots is not None else []),
        *([_mode(score)] if protocol.mode != "unknown" else []),
        *([f"version {protocol.version}"] if protocol.version is not None else []),
        f"{protocol.numerics} numerics",
        f"{numbers.dtype(protocol.dtype)} weights",
        *(["chat template"] if protocol.chat_template else []),
        *(["system prompt"] if protocol.system else []),
        *([f"thinking {protocol.think}"] if protocol.think else []),
        *([f"{protocol.form} read by {protocol.reader}"] if protocol.form else []),
        *([f"prompts {protocol.prompt_sha256[:8]}"] if protocol.prompt_sha256 else []),
    ]
    return ", ".join(parts)


def _shots(score: Score) -> str:
    """Counts the solved examples: `8 shots`, or `8 shared shots` where all samples have the same ones."""
    if score.protocol.shots is None:
        return "shots not known"
    return numbers.counted(score.protocol.shots, "shared shot" if score.protocol.shared_shots else "shot")


def _mode(score: Score) -> str:
    modes = {"loglikelihood": "log-likelihood", "generate": "generated", "unknown": "mode not known"}
    return modes[score.protocol.mode]


def differences(score: Score, reference: Score) -> list[str]:
    """Lists what differs between two scores' protocols, shortest first; such scores are not compared.

    Example:
        >>> differences(five_shots, no_shots)  # doctest: +SKIP
        ['5 shots']
    """
    mine, theirs = score.protocol, reference.protocol
    found = []
    if (mine.shots, mine.shared_shots) != (theirs.shots, theirs.shared_shots):
        found.append(_shots(score))
    if score.n != reference.n:
        found.append(numbers.counted(score.n, "sample"))
    if mine.version != theirs.version:
        found.append("version not known" if mine.version is None else f"version {mine.version}")
    if mine.mode != theirs.mode:
        found.append(_mode(score))
    if mine.numerics != theirs.numerics:
        found.append(f"{mine.numerics} numerics")
    if mine.dtype != theirs.dtype:
        found.append(f"{numbers.dtype(mine.dtype)} weights")
    if mine.chat_template != theirs.chat_template:
        same = bool(mine.chat_template) == bool(theirs.chat_template)
        found.append("another chat template" if same else "chat template" if mine.chat_template else "plain text")
    if mine.system != theirs.system:
        found.append("another system prompt" if mine.system else "no system prompt")
    if mine.think != theirs.think:
        found.append(f"thinking {mine.think or 'off'}")
    if mine.template_options != theirs.template_options:
        found.append("other template options")
    if not found and mine.prompt_sha256 != theirs.prompt_sha256:
        found.append("other prompts")
    return [numbers.one_line(each) for each in found]
