"""Costs in money: prices as people write them, and amounts that follow from measured seconds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run

from harness.cli import main
from harness.config.parse import configure
from harness.errors import UserError
from harness.leaderboards import export
from harness.report import numbers
from harness.report.costs import measures
from harness.report.footnotes import footnotes
from harness.report.price import price_text, priced, read_price
from harness.report.screen import screen
from harness.results import Price, Run

EUR = Price(per_hour=3.6, currency="EUR")  # a thousandth of a euro for a second


def shown(run: Run) -> str:
    return "\n".join(line.plain for line in screen(run, width=120))


def changed(run: Run, name: str, /, **fields: object) -> Run:
    variants = [v.model_copy(update=fields) if v.name == name else v for v in run.variants]
    return run.model_copy(update={"variants": tuple(variants)})


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [("2.5", 2.5, "$"), ("2.5 EUR", 2.5, "EUR"), ("EUR 2.5", 2.5, "EUR"), ("$2", 2.0, "$"), ("2€", 2.0, "€"),
     (".5", 0.5, "$"), (3, 3.0, "$"), (0.9, 0.9, "$")],
)  # fmt: skip
def test_a_price_is_read_as_people_write_it(text: Any, amount: float, currency: str) -> None:
    price = read_price(text)
    assert price == Price(per_hour=amount, currency=currency) == read_price(price_text(price))


@pytest.mark.parametrize(
    "text", ["cheap", "", "-1", "0", "nan", "inf", "2,5", "$2.5 EUR", "2.5/h", "2.5 EUR/h", "1e400", "true"]
)
def test_a_price_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"price_per_hour.*such as 2.5 or `2.5 EUR`"):
        configure(["base"], price_per_hour=text)


def test_money_follows_from_seconds_and_tokens() -> None:
    run = priced(example_run(tasks=1), EUR)
    base, lora = run.variant("base").money, run.variant("lora").money
    assert base is not None and lora is not None
    assert base.training is None and lora.training == pytest.approx(0.124)  # 124 s
    # 512 tokens of a prompt in 18.2 ms; 640 generated tokens a second, 8 rows at a time
    assert base.million_prompt_tokens == pytest.approx(0.001 * 0.0182 * 1e6 / 512)
    assert base.million_generated_tokens == pytest.approx(0.001 * 1e6 / 640)
    assert base.batch_size == 8
    assert run.price == EUR and priced(run, None) == run


def test_generated_tokens_are_priced_at_a_batch_size_that_all_variants_have() -> None:
    run = example_run(tasks=1)
    alone = run.variant("lora").inference
    assert alone is not None
    found = priced(changed(run, "lora", inference=alone.model_copy(update={"throughput": ()})), EUR)
    base, lora = found.variant("base").money, found.variant("lora").money
    assert base is not None and lora is not None and base.batch_size == lora.batch_size == 1
    assert base.million_generated_tokens == pytest.approx(0.001 * 1e6 * 0.0091)
    assert lora.million_generated_tokens == pytest.approx(0.001 * 1e6 * 0.0091 * 1.23)


def test_the_cost_table_has_the_money_with_its_currency_and_says_what_is_priced() -> None:
    run = priced(example_run(tasks=1), EUR)
    assert {"train, EUR", "EUR/M in", "EUR/M out"} <= {measure.name for measure in measures(run)}
    assert "0.12" in shown(run) and "EUR/M out" in shown(run)
    (note,) = [note for note in footnotes(run) if note.startswith("money")]
    assert "3.6 EUR for an hour" in note and "prompts read 1 at a time, tokens generated for 8 at a time" in note
    assert "money" not in shown(example_run(tasks=1))


def test_money_of_a_busy_machine_is_marked() -> None:
    run = example_run(tasks=1)
    train = run.variant("lora").train
    assert train is not None
    run = priced(changed(run, "lora", train=train.model_copy(update={"waited_share": 0.5})), EUR)
    row = [line for line in shown(run).splitlines() if line.startswith("lora")][1]
    assert "~0.12" in row


def test_exports_have_the_money(tmp_path: Path) -> None:
    run = priced(example_run(tasks=1), EUR)
    assert Run.model_validate_json(run.to_json()) == run
    export([run], ["csv", "html", "md", "tex"], tmp_path)
    (table,) = tmp_path.glob("*.csv")
    lora = next(row for row in csv.DictReader(table.open(encoding="utf-8")) if row["variant"] == "lora")
    assert (lora["currency"], float(lora["price_per_hour"])) == ("EUR", 3.6)
    assert float(lora["cost_training"]) == pytest.approx(0.124)
    for name in ("*.html", "*.md", "*.tex"):
        (page,) = tmp_path.glob(name)
        assert "EUR/M out" in page.read_text(encoding="utf-8")


def test_a_price_changes_no_key_and_is_added_to_a_finished_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure(["base"]).sha256 == configure(["base"], price_per_hour="2.5 EUR").sha256
    written = configure(["base"], price_per_hour=2.5).to_dict()
    assert written["price_per_hour"] == "2.5 $"
    (tmp_path / "run.json").write_text(example_run(tasks=1).to_json(), encoding="utf-8")
    assert main(["show", str(tmp_path), "--price-per-hour", "3.6 EUR", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["price"] == {"per_hour": 3.6, "currency": "EUR"}
    assert main(["show", str(tmp_path), "--price-per-hour", "cheap"]) == 2
    assert "`--price-per-hour cheap`: expected the price of an hour" in capsys.readouterr().err


def test_amounts_keep_two_digits() -> None:
    assert [numbers.money(value) for value in (None, 0.0, 0.12345, 1.005, 250.0)] == ["-", "0", "0.12", "1.00", "250"]
