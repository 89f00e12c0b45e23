"""Turns Vega-Lite specifications into SVG and PNG, and packs Vega for the page.

Colours in specifications are those of the light scheme. On a page they become CSS variables, so that one drawing serves light,
dark and print. `vl-convert-python` draws without a browser and without network; where it is not installed, pages have no plots.

Example:
    >>> drawing({"data": {"values": [{"x": 1}]}, "mark": "point", "encoding": {}}, "One point")  # doctest: +SKIP
    Markup('<svg class="plot" role="img" aria-label="One point" …')
"""

from __future__ import annotations

import base64
import functools
import gzip
import importlib.util
import json
import re
from typing import Any, Literal

from markupsafe import Markup, escape

from harness.errors import UserError, printable

Spec = dict[str, Any]

PACKAGE = "vl-convert-python"
TOKENS = {
    "ink": ("#1a1d21", "#e8ebef"),
    "muted": ("#59626d", "#9aa5b1"),
    "line": ("#dee2e7", "#333a43"),
    "paper": ("#fffffe", "#14171b"),
    "wash": ("#f5f6f8", "#1c2127"),
    "better": ("#00639b", "#6db9f2"),
    "worse": ("#b24800", "#ff9f5e"),
    "c1": ("#0072b1", "#56b4e9"),
    "c2": ("#c94f00", "#f08a3c"),
    "c3": ("#00805c", "#35c49a"),
    "c4": ("#a04c86", "#d995c2"),
}
"""CSS variables with their light and dark values. Contrast on `paper` is at least 4.5 for text and 3 for marks; blue and orange
are told apart by readers who confuse red and green."""
LIGHT = {name: light for name, (light, _) in TOKENS.items()}
FONT = (
    "Inter, Noto Sans, Helvetica Neue, Segoe UI, Roboto, Noto Sans CJK SC, PingFang SC, Microsoft YaHei, Liberation Sans,"
    " Arial, sans-serif"
)
CONFIG: Spec = {
    "font": FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "domainColor": LIGHT["line"], "tickColor": LIGHT["line"], "gridColor": LIGHT["line"], "gridOpacity": 0.6,
        "labelColor": LIGHT["muted"], "titleColor": LIGHT["muted"], "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal", "titlePadding": 8, "tickSize": 4, "labelPadding": 4,
    },
    "title": {
        "color": LIGHT["ink"], "fontSize": 12, "fontWeight": 600, "anchor": "start", "offset": 8,
        "subtitleColor": LIGHT["muted"], "subtitleFontSize": 11,
    },
}  # fmt: skip

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""A name: nothing is fetched."""
_VARIABLES = {light: f"var(--{name})" for name, light in LIGHT.items()}
_DROPPED = re.compile(
    r' (?:aria-[a-z]+|role|font-family|xmlns:xlink|version)="[^"]*"| class="(?:mark|role|background)[^"]*"'
    r'| pointer-events="none"| stroke-miterlimit="10"'
)
_GEOMETRY = re.compile(r'(?<= )(?:d|transform|x|y|x1|x2|y1|y2|width|height)="[^"]*"')


def can_draw() -> bool:
    """Whether the package that draws is installed."""
    return importlib.util.find_spec("vl_convert") is not None


def compiled(spec: Spec) -> Spec:
    """Compiles a Vega-Lite specification to Vega."""
    import vl_convert

    vega: Spec = vl_convert.vegalite_to_vega({"$schema": _SCHEMA, "config": CONFIG, "padding": 4, **_printable(spec)})
    return vega


def drawing(spec: Spec, title: str, words: str = "", kind: str = "") -> Markup:
    """Draws a specification as SVG for a page.

    Args:
        spec: The specification, with colours of `LIGHT`.
        title: Name of the plot for screen readers.
        words: What it shows, also for screen readers.
        kind: Further CSS class.
    """
    import vl_convert

    svg = re.sub(r"<[^<>]*>", _themed, vl_convert.vega_to_svg(compiled(spec)))
    label = printable(". ".join(filter(None, (title, words))))
    opening = f'<svg class="plot {kind}" role="img" aria-label="{escape(label)}"'.replace('plot "', 'plot"')
    return Markup(svg.replace("<svg", opening, 1))


def picture(spec: Spec, form: Literal["svg", "png"]) -> bytes:
    """Draws a specification as a file of its own, on white.

    Raises:
        UserError: The package that draws is not installed.
    """
    if not can_draw():
        raise UserError(
            f"`{form}` needs the package `{PACKAGE}`, which is not installed", hint=f"`pip install {PACKAGE}`"
        )
    import vl_convert

    vega = compiled(spec) | {"background": "white"}
    if form == "png":
        return bytes(vl_convert.vega_to_png(vega, scale=2))
    return str(vl_convert.vega_to_svg(vega)).encode()


@functools.cache
def packed_vega() -> str:
    """Returns Vega for the browser, gzipped, in base64 (0.4 MB): a function of its own, as its names would clash when loaded twice."""
    import vl_convert

    source = "(()=>{" + vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed") + "})()"
    return base64.b64encode(gzip.compress(source.encode(), 9, mtime=0)).decode()


def script_json(value: Any) -> Markup:
    """JSON that can stand in a `<script>` element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(printable(text).replace("&", "\\u0026").replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _themed(tag: re.Match[str]) -> str:
    """A tag with variables for colours, one decimal in its geometry, and without attributes that repeat the label."""
    text = _DROPPED.sub("", tag[0])
    text = re.sub(
        r'(?<=")#[0-9a-f]{6}(?=")', lambda found: _VARIABLES.get(found[0].lower(), found[0]), text, flags=re.I
    )
    return _GEOMETRY.sub(lambda found: re.sub(r"(\d+\.\d)\d+", r"\1", found[0]), text)


def _printable(value: Any) -> Any:
    """A specification whose texts have no control characters."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value
