"""A small world of files and settings that decide results, and single changes of it, each with the keys that it must change.

`World.keys` prepares a run and returns its identity (`run`) and, for each variant, its `train`, `sample` and `cost` key. No
model is loaded: what a training run would leave is a file that holds its train key.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from harness.comparison import keys, recipes
from harness.comparison.state import Session
from harness.config.parse import configure
from harness.jobs import REVISIONS, TRAINED_FILE
from harness.prepare import prepare as preparation
from harness.prepare.prepare import prepare
from harness.registry.sources import recorded
from harness.runs.folder import RunFolder
from harness.tiny import MODEL

LARGE = (1 << 20) + 10
"""Bytes from which digests of files are remembered, and a few more."""

Place = tuple[str, ...]
"""Where a setting, a file or a version of a world is."""

TASK = """
from harness import Generate, Metric, Task, task
import words

@task
def sums(*, notes: str = "notes.txt") -> Task:
    row = lambda number: {"q": f"{number} + 1 =", "a": f" {number + 1}"}
    return Task(
        data=[row(number) for number in range(4)],
        sample=lambda row: Generate(words.INTRO + row["q"], row["a"], stop=("\\n",), max_tokens=4),
        metrics=[Metric("near", score=words.near), "./metric.py@far"],
        shots_from=[row(number) for number in range(20, 24)],
        train=[row(number) for number in range(10, 14)],
    )
"""
WORDS = """
INTRO = "Add: "
def near(prediction, target):
    return float(prediction.strip() == target.strip()) * 1.0
"""
METRIC = """
from harness import Metric
from scales import SCALE

far = Metric("far", score=lambda prediction, target: SCALE * 1 * float(prediction == target))
"""
METHOD = """
from harness import method
import sizes

@method(lr=2e-4)
def mine(model, *, width: int = 4):
    model.size = sizes.RANK * width
    return model
"""
REWARD = (
    "from tastes import BEST\\ndef short(prompts, completions, references):\\n    return [BEST for _ in prompts]\\n"
)
FILES = {
    "sums.py": TASK,
    "words.py": WORDS,
    "metric.py": METRIC,
    "scales.py": "SCALE = 1.0\n",
    "method.py": METHOD,
    "sizes.py": "RANK = 2\n",
    "reward.py": REWARD.replace("\\n", "\n"),
    "tastes.py": "BEST = 1.0\n",
    "notes.txt": "a",
    "model/code/layers.py": "DEPTH = 1\n",
    "model/README.md": "A card.",
    "given/adapter_config.json": json.dumps({"peft_type": "LORA", "r": 1, "base_model_name_or_path": "somewhere"}),
    "given/README.md": "A card.",
    "given/trained.json": "{}",
    "unrelated.py": "x = 1\n",
}
DEFAULTS = {"schedule": "cosine", "optimizer": "adamw", "clip": 1}
VERSIONS = {"torch": "2.9.0", "transformers": "5.0.0", "peft": "0.18.0", "bitsandbytes": "0.48.0"}


@dataclass
class World:
    """Files in a folder, settings of a comparison, and the machine."""

    folder: Path
    patch: pytest.MonkeyPatch
    settings: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    """Names of variants, where they differ from our own."""

    @classmethod
    def make(cls, folder: Path, patch: pytest.MonkeyPatch, chance: random.Random) -> World:
        """Makes a world with random settings."""
        for name, text in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(MODEL / name, folder / "model" / name)
        (folder / "model" / "model.safetensors").write_bytes(b"w" * LARGE)
        (folder / "given" / "adapter_model.safetensors").write_bytes(b"a" * LARGE)
        rows = [{"prompt": f"{number} =", "completion": f" {number}"} for number in range(6)]
        (folder / "rows.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
            + json.dumps({"prompt": "x" * LARGE, "completion": "y"})
            + "\n"
        )
        patch.chdir(folder)
        return cls(
            folder,
            patch,
            settings={
                "model": "model",
                "tasks": ["./sums.py"],
                "seed": chance.randrange(3),
                "limit": chance.choice([None, 2, 3]),
                "numerics": chance.choice(["fp32", "lm-eval"]),
                "engine": chance.choice(["auto", "plain"]),
                "batch_size": chance.choice([None, 4]),
                "num_fewshot": 0,
                "dtype": chance.choice(["float32", "bfloat16"]),
                "device": "cpu",
            },
            train={"steps": chance.randrange(5, 50), "warmup": 0.1, "batch_size": chance.choice([8, 16]), **DEFAULTS},
            variants={
                "base": {"": "base"},
                "own": {
                    "": "lora",
                    "target_modules": "q_proj+",
                    "rank": chance.choice([2, 4]),
                    "lr": chance.choice([1e-4, 2e-4]),
                },
                "file": {"": "lora", "data": "rows.jsonl", "alpha": 16},
                "mine": {"": "./method.py@mine", "width": chance.choice([2, 3])},
                "given": {"": "./given", "shots": 1},
                "rl": {"": "lora", "stage": "grpo", "reward": "reward.py@short", "generations": chance.choice([2, 4])},
            },
            machine={
                "device": "cpu",
                "device_name": "a processor",
                "driver": None,
                "threads": 2,
                "mixed_precision": False,
                "packages": dict(VERSIONS),
            },
        )

    def spec(self, name: str) -> str:
        """A variant as typed."""
        given = dict(self.variants[name])
        source, transforms = given.pop(""), given.pop("@", "")
        options = ",".join(f"{key}={value}" for key, value in given.items())
        return f"{self.shown.get(name, name)}={source}{':' * bool(options)}{options}{transforms}"

    def keys(self) -> dict[str, str]:
        """The identity of the run, and the keys of each variant."""
        settings = {name: value for name, value in self.settings.items() if value is not None}
        config = configure([self.spec(name) for name in self.variants], train=self.train, **settings)
        prepared = prepare(config)
        for path in prepared.user_files:  # as a child imports them; the files of this world import nothing unseen
            with recorded(path):
                pass
        runs = self.folder / "made"
        shutil.rmtree(runs, ignore_errors=True)
        session = Session(prepared, RunFolder(runs, 0), "", {**self.machine, "dtype": config.dtype})
        found = {"run": prepared.identity}
        for name, state in zip(self.variants, session.states.values(), strict=True):
            training = state.variant.training
            if training is not None:
                job = recipes.train_job(session, training)
                job.output.mkdir(parents=True, exist_ok=True)
                (job.output / "delta.safetensors").write_text(job.train_key)
                (job.output / TRAINED_FILE).write_text(str(random.random()))
                state.artifact = job.output
                found[f"train {name}"] = job.train_key
            recipe = recipes.recipe(session, state)
            for task in prepared.tasks:
                found[f"sample {name}"] = keys.sample_keys(session, recipe, state.variant.items[task.name])[0]
            found[f"cost {name}"] = keys.cost_key(session, recipe, recipes.bench_job(session, state))
        return found

    def state(self) -> dict[Place, Any]:
        """All that changes of this world can alter, by place; two states tell what a change did."""
        found: dict[Place, Any] = {("revision", name): value for name, value in REVISIONS.items()}
        for holder in ("settings", "train", "machine", "shown"):
            found |= {(holder, name): value for name, value in getattr(self, holder).items() if name != "packages"}
        found |= {("packages", name): value for name, value in self.machine["packages"].items()}
        for variant, given in self.variants.items():
            found |= {("variants", variant, name): value for name, value in given.items()}
        for path in self.folder.rglob("*"):
            if path.is_file() and "made" not in path.relative_to(self.folder).parts:
                found["file", str(path.relative_to(self.folder))] = path.read_bytes()
        return found

    def put(self, place: Place, value: Any) -> None:
        """Restores what `state` found in one place; None removes it. A file keeps its modification time."""
        if place[0] == "file":
            path = self.folder / place[1]
            if value is None:
                path.unlink()
            elif path.is_file() and path.stat().st_size == len(value):
                status = path.stat()
                with path.open("r+b") as file:
                    file.write(value)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(value)
            return
        if place[0] == "revision":
            self.patch.setitem(REVISIONS, place[1], value)  # type: ignore[arg-type]
            return
        holder: dict[str, Any] = self.variants[place[1]] if place[0] == "variants" else self.machine["packages"]
        if place[0] in ("settings", "train", "machine", "shown"):
            holder = getattr(self, place[0])
        if value is None:
            del holder[place[-1]]
        else:
            holder[place[-1]] = value

    def change_in_place(self, name: str, chance: random.Random) -> None:
        """Writes another letter or digit over one in a file, keeping inode, size and modification time."""
        path = self.folder / name
        status, content = path.stat(), bytearray(path.read_bytes())
        places = [place for place in _PLACES.get(name, [-1])]
        place = chance.choice(places) % len(content)
        content[place] = content[place] % 9 + 49 if chr(content[place]).isdigit() else (content[place] - 96) % 26 + 97
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _digit(name: str) -> list[int]:
    """The place of the last digit in a file, whose change keeps it valid Python."""
    text = FILES[name]
    return [max(place for place, letter in enumerate(text) if letter.isdigit() and letter != "0")]


_PLACES = {
    "sizes.py": _digit("sizes.py"),
    "tastes.py": _digit("tastes.py"),
    "scales.py": _digit("scales.py"),
    "metric.py": [METRIC.index("* 1 *") + 2],
    "words.py": [WORDS.index("1.0")],
    "method.py": [METHOD.index("= 4") + 2],
    "reward.py": [FILES["reward.py"].index("for _ in") - 2],
    "model/code/layers.py": _digit("model/code/layers.py"),
    "model/model.safetensors": [0, 5, LARGE // 2, -1],
    "given/adapter_model.safetensors": [0, 5, LARGE // 2, -1],
    "rows.jsonl": [30 + LARGE // 2, -60],
    "unrelated.py": _digit("unrelated.py"),
    "given/adapter_config.json": [FILES["given/adapter_config.json"].index('"r": 1') + 5],
    "notes.txt": [0],
    "model/README.md": [0],
    "given/README.md": [0],
    "sums.py": [TASK.index("max_tokens=4") + 11],
}

TRAINED = ("own", "file", "mine", "rl")
ALL = ("*",)


def of(*names: str) -> tuple[str, ...]:
    """Patterns of all keys of variants, and of the run."""
    return ("run", *(f"* {name}" for name in names))


@dataclass(frozen=True)
class Change:
    """One change, and patterns of the keys that it must change; all others must stay as they are."""

    name: str
    apply: Callable[[World, random.Random], None]
    changes: tuple[str, ...] = ()

    def expected(self, names: set[str]) -> set[str]:
        """The keys that must change."""
        return {name for name in names if any(fnmatch(name, pattern) for pattern in self.changes)}


def _file(name: str, *changes: str) -> Change:
    return Change(f"{name} in place", lambda world, chance: world.change_in_place(name, chance), changes)


def _other(chance: random.Random, before: Any, choices: list[Any]) -> Any:
    return chance.choice([each for each in choices if each != before])


def _setting(name: str, choices: list[Any], *changes: str, of: str = "settings") -> Change:
    def apply(world: World, chance: random.Random) -> None:
        holder: dict[str, Any] = getattr(world, of)
        holder[name] = _other(chance, holder.get(name), choices)

    return Change(f"{of}.{name}", apply, changes)


def _key(variant: str, name: str, choices: list[Any], *changes: str) -> Change:
    def apply(world: World, chance: random.Random) -> None:
        given = world.variants[variant]
        given[name] = _other(chance, given.get(name), choices)

    return Change(f"{variant}:{name}", apply, changes)


def _version(name: str) -> Change:
    def apply(world: World, chance: random.Random) -> None:
        world.machine["packages"][name] += ".post1"

    return Change(f"version of {name}", apply, ("train *", "sample *", "cost *"))


def _revision(name: str, *changes: str) -> Change:
    def apply(world: World, chance: random.Random) -> None:
        world.patch.setitem(REVISIONS, name, REVISIONS[name] + 1)  # type: ignore[arg-type]

    return Change(f"revision of the {name}", apply, changes)


def _touch(world: World, chance: random.Random) -> None:
    for path in (world.folder, *world.folder.rglob("*")):
        os.utime(path, (1, 1))


def _rename(world: World, chance: random.Random) -> None:
    world.shown = {} if world.shown else {"own": "own.2"}


def _reorder(world: World, chance: random.Random) -> None:
    names = list(world.variants)
    turned = names[1:] + names[:1]
    world.variants = {name: world.variants[name] for name in turned}


def _add(name: str, *changes: str) -> Change:
    return Change(f"new {name}", lambda world, chance: _write(world.folder / name, f"x = {chance.random()}\n"), changes)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _installed(world: World, chance: random.Random) -> None:
    name = chance.choice(["torch", "transformers", "peft", "bitsandbytes", "sacrebleu", "scipy"])
    before = preparation._version
    world.patch.setattr(preparation, "_version", lambda asked: "9.9" if asked == name else before(asked))


_PROMPTED = tuple(f"sample {name}" for name in ("base", *TRAINED, "given"))
CHANGES = [
    # files, in place, with size and modification time kept
    _file("model/model.safetensors", *ALL),
    _file("model/code/layers.py", *ALL),
    _add("model/code/more.py", *ALL),
    _file("given/adapter_model.safetensors", *of("given")),
    _file("given/adapter_config.json", *of("given")),
    _file("rows.jsonl", *of("file")),
    _file("sums.py", "run", "sample *"),
    _file("words.py", "run"),
    _file("metric.py", "run"),
    _file("scales.py", "run"),
    _file("method.py", *of("mine")),
    _file("sizes.py", *of("mine")),
    _file("reward.py", *of("rl")),
    _file("tastes.py", *of("rl")),
    _file("notes.txt", "run"),
    # settings that decide results
    _setting("seed", [0, 1, 2, 3], *of(*TRAINED), *_PROMPTED, "cost *"),
    _setting("numerics", ["fp32", "lm-eval"], "run", "sample *"),
    _setting("engine", ["auto", "plain"], "run", "sample *"),
    _setting("dtype", ["float32", "bfloat16"], *ALL),
    _setting("num_fewshot", [0, 1, 2], "run", *(f"sample {name}" for name in ("base", *TRAINED))),
    _setting("limit", [None, 1, 2, 3], "run"),
    _setting("batch_size", [None, 2, 4, 8], "run"),
    _setting("baseline", [None, "file", "mine"], "run"),
    _setting("steps", list(range(3, 60)), *of(*TRAINED), of="train"),
    _setting("warmup", [0, 0.05, 0.1, 3], *of(*TRAINED), of="train"),
    _setting("batch_size", [2, 4, 8, 16], *of(*TRAINED), of="train"),
    _setting("schedule", ["cosine", "linear", "constant", "wsd"], *of(*TRAINED), of="train"),
    _setting("optimizer", ["adamw", "sgd", "lion"], *of(*TRAINED), of="train"),
    _setting("clip", [0.5, 1, 2], *of(*TRAINED), of="train"),
    # one variant's own keys
    _key("own", "rank", [1, 2, 4, 8], *of("own")),
    _key("own", "lr", [1e-4, 2e-4, 1e-3], *of("own")),
    _key("own", "target_modules", ["all-linear", "q_proj+", "q_proj+v_proj"], *of("own")),
    _key("file", "alpha", [8, 16, 32], *of("file")),
    _key("file", "samples", [2, 3, 4], *of("file")),
    _key("mine", "width", [1, 2, 3, 5], *of("mine")),
    _key("rl", "generations", [2, 4, 8], *of("rl")),
    _key("rl", "temperature", [0.5, 0.7, 0.9], *of("rl")),
    _key("own", "@", ["@4bit", "@merged", "@8bit"], "run", "sample own", "cost own"),
    _key("base", "@", ["@4bit", "@8bit"], "run", "sample base", "cost base"),
    _key("given", "shots", [1, 2, 3], "run", "sample given"),
    _key("own", "system", ["Add", "Sum"], *of("own")),
    # the machine, versions and our own code
    *map(_version, VERSIONS),
    _setting("device_name", ["another processor", "a third"], "cost *", of="machine"),
    _setting("threads", [1, 4, 8], "cost *", of="machine"),
    Change("an installed version", _installed, ("run",)),
    _revision("trainer", *of(*TRAINED)),
    _revision("engine", "run", "sample *", "cost *", "train rl"),
    _revision("metrics", "run"),
    # what decides no value, but makes another table
    Change("rename a variant", _rename, ("run",)),
    Change("reorder the variants", _reorder, ("run",)),
    # what decides nothing
    Change("set all times back", _touch),
    _file("model/README.md"),
    _file("given/README.md"),
    _file("unrelated.py"),
    _add("another.py"),
    _add("model/checkpoint-5/model.safetensors"),
    _add("model/.git/HEAD"),
    _add("model/runs/events.1"),
    _add("given/trained.json"),
    _setting("output_dir", ["runs", "elsewhere"]),
    _setting("report_to", [(), ("tensorboard",)]),
    _setting("fail_if", [(), ("1 > 2",)]),
    _setting("allow_cut", [None, True]),
    _setting("confirm_run_unsafe_code", [None, True]),
]
"""Every change, with the keys that must follow it."""
NOT_UNDONE = frozenset({"an installed version", "reorder the variants", "set all times back"})
"""Changes that `World.state` does not see."""
