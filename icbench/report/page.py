"""The report as one HTML file that needs nothing else: figures, styles and script stand in it."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from icbench import __version__
from icbench.files import write_whole
from icbench.report.drawing import INK
from icbench.report.tables import tests_in_words

if TYPE_CHECKING:
    from icbench.report.document import Document, Report, Shown

_FOLDER = Path(__file__).parent
_CONTENTS = {
    "treatments": "Treatments",
    "contrasts": "Cells against baselines",
    "curves": "Learning curves",
    "along": "By dropout, norm, depth",
    "stability": "Stability",
    "profiles": "Profiles",
    "published": "Published",
    "cells": "Cells",
    "not-as-wanted": "Missing and failed",
    "provenance": "Provenance",
    "methods": "How to read this",
}


def page(report: "Report", drawings: Sequence[Path]) -> str:
    """A sweep's page as HTML, with SVG files in it."""
    names = [file.stem for file in drawings]
    absent = {
        "treatments": not report.comparisons.pooled,
        "contrasts": not report.comparisons.pooled,
        "stability": not report.comparisons.pooled,
        "along": not any(name.startswith("by-") for name in names),
        "profiles": "performance-profiles" not in names,
        "published": not report.beside,
    }
    return render(
        "page.html.j2",
        report,
        drawings,
        {key: title for key, title in _CONTENTS.items() if not absent.get(key)},
        tests=tests_in_words(paired=report.comparisons.pairing.used, pooled=True),
    )


def render(
    template: str, report: "Shown", drawings: Sequence[Path], contents: Mapping[str, str], **more: object
) -> str:
    """A page as HTML. The texts of figures take the page's colour, in light and in dark. contents: id -> title."""
    html: str = _template(template).render(
        report=report,
        figures=[_inline(file, number) for number, file in enumerate(drawings)],
        contents=contents,
        css=_file("page.css"),
        script=_file("page.js"),
        version=__version__,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        **more,
    )
    return html


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _file(name: str) -> Markup:
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))


def _inline(file: Path, number: int) -> dict[str, object]:
    """A figure within a page: its ids made its own, its ink the page's, its background none, its lines to 0.1 pt."""
    svg = file.read_text(encoding="utf-8")
    words = " ".join(re.findall(r"<text[^>]*>([^<]+)</text>", svg))
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace("fill: #ffffff", "fill: none", 1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1f{number}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{file.stem}" ', 1)
    return {"name": file.stem, "svg": Markup(svg), "words": f"{file.stem} {words}"}


def index(folder: Path, reports: "Sequence[Document]") -> Path:
    """Write the page that leads to the pages of several sweeps and searches; return its path."""
    html = _template("index.html.j2").render(reports=reports, css=_file("page.css"))
    target = folder / "index.html"
    write_whole(target, lambda file: file.write(html.encode()), durable=False)
    return target
