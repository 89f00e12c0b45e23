"""Public names of a package, loaded at first use.

The package lists them once, as imports under `if TYPE_CHECKING:`: type checkers and editors follow them, and at run time
`exports` reads them from the source. Python 3.15 has this in the language: `lazy from … import …` (PEP 810).

Example:
    >>> import harness
    >>> exports(harness.__file__)["UserError"]
    'harness.errors'
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def exports(file: str) -> dict[str, str]:
    """Reads the imports under `if TYPE_CHECKING:` of a file: each name, and the module that defines it."""
    body = ast.parse(Path(file).read_bytes()).body
    block = next(node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def loader(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a package.

    Args:
        package: Name of the package.
        homes: Modules of its public names, from `exports`.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
