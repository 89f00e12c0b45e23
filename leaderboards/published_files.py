"""Files of a repository on the Hub that shows a run: a dataset with its results, or a static Space with its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError
from harness.leaderboards import files, markdown, page
from harness.leaderboards.private_text import names_of_machine, secret_in, shortened_document
from harness.results import Run
from harness.storage import refuse_links_out

RepoKind = Literal["dataset", "space"]


def files_of(run: Run, folder: Path, kind: RepoKind, *, samples: bool = False) -> dict[str, bytes]:
    """Returns the files of a repository by their path in it.

    Args:
        run: A finished run.
        folder: Its folder, from which samples are read.
        kind: `dataset`: tables, `run.json` and a card; `space`: the page.
        samples: Whether to include prompts and outputs.

    Raises:
        UserError: The run is unfinished or has no scores, or a file has text that looks like a secret.
    """
    refuse_unfinished(run)
    shown = public_run(run, samples=samples)
    if kind == "space":
        made = {"README.md": _space_card(shown), "index.html": _bytes(page.render([shown]))}
    else:
        made = {
            "README.md": _dataset_card(shown),
            "run.json": _bytes(files.FORMATS["json"]([shown])),
            "results.csv": _bytes(files.FORMATS["csv"]([shown])),
        }
        if samples:
            made |= _samples(folder)
    refuse_secrets(made)
    return made


def refuse_unfinished(run: Run) -> None:
    """Raises an error for a run with unfinished variants or without scores.

    Raises:
        UserError: The run is not finished, or no variant has a score.
    """
    unfinished = [each.name for each in run.variants if each.status not in ("done", "failed")]
    if unfinished:
        raise UserError(
            f"the run is not finished: {', '.join(unfinished)}",
            hint="run the same command again; it continues where it stopped",
        )
    if not any(score.value is not None for each in run.variants for score in each.scores):
        raise UserError("the run has no scores to publish", hint="`harness show RUN` says why variants failed")


def public_run(run: Run, *, samples: bool) -> Run:
    """Returns the run without local paths, names and addresses, and without texts of samples unless they are wanted."""
    document: dict[str, Any] = json.loads(run.to_json())
    if not samples:
        document["samples_shown"] = []
        for overlap in document.get("overlaps", ()):
            overlap["examples"] = []
    document["config"].pop("output_dir", None)
    document["notes"] = [*limits(run), *document["notes"]]
    try:
        return Run.model_validate(shortened_document(document, names_of_machine()))
    except ValueError as error:
        raise UserError(
            "two names of the run are the same without their folders",
            hint="give the variants names of their own: `one=/path/a two=/other/a`",
        ) from error


def limits(run: Run) -> list[str]:
    """Returns what the run left out of its tasks, one sentence each; empty for a run on all samples."""
    found = []
    limit = run.config.get("limit")
    if limit is not None:
        found.append(f"Limited run: at most {limit} samples per task, so these are not scores of the full tasks.")
    if run.config.get("until_decided") or any(task.until_decided for task in run.tasks):
        found.append("Scoring stopped where a difference was decided, so variants have scores of fewer samples.")
    return found


def refuse_secrets(made: dict[str, bytes]) -> None:
    """Raises an error for the first file with text that looks like a secret.

    Raises:
        UserError: With the file, the line and the kind of the text, and never the text itself.
    """
    from huggingface_hub import get_token

    token = get_token()
    for path, content in made.items():
        found = secret_in(content.decode(errors="replace"), token)
        if found:
            raise UserError(
                f"`{path}` has what looks like {found}; nothing was sent",
                hint="remove it from the data and run again, or publish without `--samples`",
            )


def _samples(folder: Path) -> dict[str, bytes]:
    root = folder / "samples"
    refuse_links_out(root)
    paths = sorted(root.rglob("*.jsonl"))
    if not paths:
        raise UserError(f"`{folder}` has no samples", hint="publish without `--samples`")
    folders = [str(each) for each in (Path.home(), Path.cwd()) if len(each.parts) > 2]
    found = {}
    for path in paths:
        content = path.read_bytes()
        if any(each.encode() in content for each in folders):
            raise UserError(f"`{path.name}` names a folder of yours; nothing was sent", hint="leave out `--samples`")
        found[f"samples/{path.relative_to(root).as_posix()}"] = content
    return found


def _title(run: Run) -> str:
    model = str(run.environment.get("model", {}).get("name") or run.config.get("model", "a model"))
    limited = " (limited run)" if limits(run) else ""
    return f"{', '.join(each.name for each in run.variants[:6])} on {model}{limited}"


def _front_matter(values: dict[str, Any]) -> str:
    import yaml

    return f"---\n{yaml.safe_dump(values, allow_unicode=True, sort_keys=False)}---\n"


def _tags(run: Run) -> list[str]:
    return ["finetune-harness", "evaluation-results", *(["limited-run"] if limits(run) else [])]


def _dataset_card(run: Run) -> bytes:
    head = _front_matter(
        {
            "tags": _tags(run),
            "configs": [{"config_name": "results", "data_files": "results.csv"}],
        }
    )
    parts = [
        f"# {markdown.escaped(_title(run))}",
        *limits(run),
        "Results of one run of `harness compare`. `run.json` has every number, interval, test and setting;"
        " `results.csv` has one row for each variant, task and metric. Local paths are cut to their last part.",
        markdown.render([run]),
    ]
    return _bytes(head + "\n" + "\n\n".join(parts) + "\n")


def _space_card(run: Run) -> bytes:
    head = _front_matter({"title": _title(run)[:80], "sdk": "static", "app_file": "index.html", "tags": _tags(run)})
    return _bytes(head + "\n" + "\n\n".join((f"# {markdown.escaped(_title(run))}", *limits(run))) + "\n")


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
