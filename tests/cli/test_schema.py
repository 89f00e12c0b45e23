"""`harness schema`: what a run.json holds, for programs that read it."""

import json

import pytest
from example_run import example_run

from harness.cli import main


def test_the_schema_names_every_field_that_a_run_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    document = json.loads(example_run("base", "lora").to_json())
    assert set(document) <= set(schema["properties"]) and schema["additionalProperties"] is False
    named = {
        "Variant": document["variants"][1],
        "Score": document["variants"][1]["scores"][0],
        "TaskInfo": document["tasks"][0],
    }
    for name, value in named.items():
        assert set(value) <= set(schema["$defs"][name]["properties"])
    assert "schema" in schema["properties"] and "tasks" in schema["required"]
    assert schema["$defs"]["Score"]["properties"]["macro"]["description"] == "Unweighted mean over groups."
