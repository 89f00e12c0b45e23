"""Tables and pages made from results: Markdown, CSV, JSON, LaTeX and a self-contained HTML page."""

from __future__ import annotations

from harness.leaderboards.files import FORMATS, export

__all__ = ["FORMATS", "export"]
