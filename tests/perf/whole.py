"""Runs `harness compare` up to the scores and verdicts, in its own process: `python whole.py SPEC.json RESULT.json`.

The latency stage is left out, since the peer measures no latency.
"""

import json
import sys
from pathlib import Path
from typing import Any

from harness.comparison.run import RunInProgress
from harness.config.parse import configure
from harness.report.progress import Progress


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs the comparison and returns scores by variant, task and sample."""
    config = configure(
        spec["variants"],
        model=spec["model"],
        tasks=[spec["tasks"]],
        num_fewshot=5,
        output_dir=Path(spec["output"]),
        device="cpu",
        dtype=spec["dtype"],
    )
    scores = []
    with RunInProgress.open(config, Progress(), fresh=True, command="") as comparison:
        comparison.score_all()
        run = comparison.conclude()
        session = comparison.session
        for state in session.states.values():
            for task in sorted(session.prepared.tasks, key=lambda task: task.name):
                rows = sorted(session.log(state, task).rows(), key=lambda row: int(row["id"]))
                scores += [[row["loglikelihoods"], row["is_greedy"], []] for row in rows]
    return {"scores": scores, "seconds": dict(run.seconds)}


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(main(wanted)), encoding="utf-8")
