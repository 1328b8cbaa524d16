"""The report as one HTML file that needs nothing else: figures, styles and script stand in it."""

import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from icbench import __version__
from icbench.files import write_whole
from icbench.report.figures import INK

if TYPE_CHECKING:
    from icbench.report.document import Report

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


def page(report: "Report", figures: dict[str, Figure]) -> str:
    """The page as HTML. The texts of figures take the page's colour, in light and in dark."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_FOLDER / "page.html.j2").read_text(encoding="utf-8"))
    drawn = [_inline(name, figure, number) for number, (name, figure) in enumerate(figures.items())]
    absent = {
        "treatments": not report.comparisons.pooled,
        "contrasts": not report.comparisons.pooled,
        "stability": not report.comparisons.pooled,
        "along": not any(name.startswith("by-") for name in figures),
        "profiles": "performance-profiles" not in figures,
        "published": not report.beside,
    }
    html: str = template.render(
        report=report,
        figures=drawn,
        along=not absent["along"],
        has_profiles=not absent["profiles"],
        contents=[(key, title) for key, title in _CONTENTS.items() if not absent.get(key)],
        css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
        version=__version__,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    return html


def _inline(name: str, figure: Figure, number: int) -> dict[str, object]:
    """A figure as SVG within a page: its ids made its own, its ink the page's, its background none."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    words = " ".join(re.findall(r"<text[^>]*>([^<]+)</text>", svg))
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1f{number}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
    return {"name": name, "svg": Markup(svg), "words": f"{name} {words}"}


def index(folder: Path, reports: "Sequence[Report]") -> Path:
    """Write the page that leads to the pages of several sweeps; return its path."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string((_FOLDER / "index.html.j2").read_text(encoding="utf-8"))
    html: str = template.render(reports=reports, css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")))
    target = folder / "index.html"
    write_whole(target, lambda file: file.write(html.encode()), durable=False)
    return target
