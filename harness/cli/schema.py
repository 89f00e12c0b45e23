"""`harness schema`: the JSON Schema of `run.json`."""

from __future__ import annotations

import json

from harness.cli.output import echo


def schema() -> None:
    """Print the JSON Schema of run.json, with a description of every field."""
    from harness.results import SCHEMA, Run

    found = Run.model_json_schema(by_alias=True)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"run.json of harness, schema {SCHEMA}"}
    echo(
        json.dumps(head | {key: value for key, value in found.items() if key != "title"}, indent=1, ensure_ascii=False)
    )
