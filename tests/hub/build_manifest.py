"""Writes manifest.json from the README headers in datasets/. Run it after adding or changing rows."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


def header(readme: Path) -> dict[str, Any]:
    """The YAML block at the top of a dataset's README.

    Raises:
        SystemExit: The README has no such block, or the block lists no configurations.
    """
    match = re.match(r"---\n(.*?)\n---\n", readme.read_text(encoding="utf-8") + "\n", re.DOTALL)
    found = yaml.safe_load(match[1]) if match else None
    if not isinstance(found, dict) or not found.get("configs"):
        raise SystemExit(f"{readme} has no YAML header with `configs:`")
    return found


def files_of(folder: Path, path: str | list[str]) -> list[Path]:
    """The files that match the `path` of a split, in order.

    Raises:
        SystemExit: No file matches.
    """
    patterns = [path] if isinstance(path, str) else path
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    if not found:
        raise SystemExit(f"{folder / 'README.md'} names {path}, which matches no file")
    return found


def count(file: Path) -> int:
    """Number of rows of a .jsonl file.

    Raises:
        SystemExit: A line is not a JSON object.
    """
    lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            if not isinstance(json.loads(line), dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise SystemExit(f"{file} row {number}: {error}") from error
    return len(lines)


def manifest(root: Path = HERE) -> list[dict[str, Any]]:
    """One entry for each file of each configuration and split, in a fixed order."""
    return [
        {
            "repo": readme.parent.relative_to(root / "datasets").as_posix(),
            "config": None if config["config_name"] == "default" else config["config_name"],
            "split": part["split"],
            "file": file.relative_to(root).as_posix(),
            "rows": count(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "revision": None,
        }
        for readme in sorted((root / "datasets").glob("*/*/README.md"))
        for config in header(readme)["configs"]
        for part in config["data_files"]
        for file in files_of(readme.parent, part["path"])
    ]


if __name__ == "__main__":
    entries = manifest()
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    (HERE / "manifest.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(entries)} files, {sum(entry['rows'] for entry in entries)} rows")
