"""The machine around the programs of these tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    host = Host(tmp_path)
    yield host
    host.assert_unharmed()
    host.server.close()
