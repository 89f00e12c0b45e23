"""Training data that `datasets` saved to disk, by the name of its folder."""

from pathlib import Path

import pytest

from harness.config.parse import configure
from harness.prepare.prepare import prepare
from harness.prepare.train_data import TrainData


def trained_on(name: str) -> TrainData:
    config = configure(["lora"], tasks=["mini_mmlu"], limit=1, train={"data": name})
    training = prepare(config).variants[0].training
    assert training is not None
    return training.data


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_list([{"prompt": "1+1 =", "completion": "2"}])
    for name in ("saved", "mini_mmlu"):
        rows.save_to_disk(name)


@pytest.mark.parametrize("name", ["saved", "./saved", "saved/", "saved/data-00000-of-00001.arrow", "./mini_mmlu"])
def test_a_saved_dataset_is_training_data_by_its_name(saved: None, name: str) -> None:
    (example,) = trained_on(name).examples
    assert (example.prompt, example.completion) == ("1+1 =", " 2")


def test_a_folder_named_like_a_task_is_the_task(saved: None) -> None:
    assert trained_on("mini_mmlu").tasks == ("mini_mmlu",)
