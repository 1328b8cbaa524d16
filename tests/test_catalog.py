"""What docstrings say of variants, as the catalogue, `icbench list --markdown` and docs/methods.md tell it."""

import re

import costs
import methods
import pytest
import torch
from conftest import Icbench
from markdown_it import MarkdownIt
from operations import Operations
from torch import nn
from torch.nn.functional import conv2d

from icbench import catalog, markdown

DOCUMENTED = ("norms", "weights", "activations", "procedures")
VARIANTS = [(kind, name) for kind in DOCUMENTED for name in catalog.names(kind)]


@pytest.mark.parametrize(("kind", "name"), VARIANTS)
def test_a_docstring_has_source_formula_and_needs(kind: str, name: str) -> None:
    summary = catalog.summary(kind, name)
    assert len(summary) <= 120
    assert re.search(r"\(.*\b(19|20)\d\d\b.*\)\.$", summary)
    labels = [label for label, _ in catalog.paragraphs(kind, name) if label]
    assert {"Formula", "Needs"} <= set(labels)
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("kind", [kind for kind in catalog.KINDS if kind != "recipes"])
def test_nothing_of_a_docstring_is_lost(kind: str) -> None:
    for name in catalog.names(kind):
        said = [catalog.summary(kind, name)]
        said += [f"{label}: {text}" if label else text for label, text in catalog.paragraphs(kind, name)]
        assert " ".join(said).split() == (catalog.load(kind, name).__doc__ or "").split()


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_markdown_shows_docstrings_as_they_are(kind: str) -> None:
    """No star or stroke of a formula is taken for markup."""
    for name, section in zip(catalog.names(kind), markdown.sections(kind), strict=True):
        heading, shown = 2, rendered(section)
        said = (catalog.load(kind, name).__doc__ or "").replace("`", "").split()
        assert shown[heading : heading + len(said)] == said
        for option, what in catalog.options(kind, name).items():
            assert f"{option}: {what.type.expects}; default" in " ".join(shown)


def test_nothing_of_a_formula_is_markup() -> None:
    text = "y = a*b*c, _x_ = x_1 x_2, |x|<b>, 1 \\* 2; `epsilon_*` stays"
    assert rendered(markdown.escaped(text)) == text.replace("`", "").split()
    assert markdown.escaped("mean_g") == "mean_g"


def rendered(text: str) -> list[str]:
    """The words that a reader of the page sees."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    return " ".join("".join(child.content for child in token.children or ()) for token in inline).split()


def test_a_table_has_as_many_cells_in_each_row() -> None:
    html = MarkdownIt("commonmark").enable("table").render(methods.DOCUMENT.read_text(encoding="utf-8"))
    for table in re.findall("<table>.*?</table>", html, flags=re.DOTALL):
        rows = [len(re.findall("<t[hd][ >]", row)) for row in re.findall("<tr>.*?</tr>", table, flags=re.DOTALL)]
        assert len(set(rows)) == 1
    assert "|x - mean|^p" in html


def test_options_stand_with_their_defaults_as_in_yaml(icbench_here: Icbench) -> None:
    listed = icbench_here("list", "norms", "--markdown").out
    assert "- `streaming`: true or false; default `false`" in listed
    assert "- `epsilon`: a number above 0; default `1e-5`" in listed
    assert (
        "Options: `beta1: 0.9`, `beta2: 0.999`, `epsilon: 1e-8`" in icbench_here("list", "optimizers", "--markdown").out
    )


def test_list_prints_every_kind_as_markdown(icbench_here: Icbench) -> None:
    done = icbench_here("list", "--markdown")
    assert done.code == 0
    assert re.findall(r"^## (\w+)$", done.out, flags=re.MULTILINE) == [kind.capitalize() for kind in catalog.KINDS]
    for kind in catalog.KINDS:
        for name in catalog.names(kind):
            assert f"| `{name}` |" in done.out or f"| [`{name}`](#" in done.out
    assert icbench_here("list", "--markdown", "--json").code == 2


def test_the_document_is_what_make_methods_writes() -> None:
    assert methods.DOCUMENT.read_text(encoding="utf-8") == methods.document(methods.read()), "run `make methods`"


def test_links_within_the_document_lead_to_its_headings() -> None:
    text = methods.DOCUMENT.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert len(set(anchors)) == len(anchors)
    linked = re.findall(r"\]\(#([^)]*)\)", text)
    assert len(linked) > 30
    assert set(linked) <= set(anchors)


@pytest.mark.parametrize(("kind", "name"), VARIANTS)
def test_every_variant_was_measured(kind: str, name: str) -> None:
    """Mend with `python tests/methods.py measure`, then `make methods`."""
    found = methods.read()
    parts = [part for part, value in found["cpu"][kind].items() if name in value["ratios"]]
    if kind == "procedures":
        assert parts == (["epoch"] if costs.has_a_cost(name) else [])
        return
    functions = catalog.functions(kind, name)
    expected = ["step", "evaluation"] if "build" in functions else []
    if kind == "norms":
        expected += ["net"] * ("build" in functions) + ["lstm"] * ("recurrent" in functions)
    assert parts == expected
    assert (name in found["operations"][kind]) == ("build" in functions)


def test_a_second_device_gets_columns_of_its_own() -> None:
    found = methods.read()
    assert "Not measured on a GPU" in methods.remark(found, "norms", "ghost")
    found["cuda"] = found["cpu"]
    assert list(methods.columns(found, "weights")) == [
        "operations",
        "step",
        "evaluation",
        "step, GPU",
        "evaluation, GPU",
    ]
    assert "Not measured" not in methods.remark(found, "norms", "ghost")
    assert "Times on the GPU are of: " in methods.circumstances(found, "cuda")


def test_ratios_are_to_the_control_just_before() -> None:
    """The control is twice as slow after the first time, and so is what is compared with it."""
    control, treated = iter([0.1, 0.2, 0.2]), iter([0.1, 0.4, 0.6])
    found = costs.compared(lambda: next(control), {"it": lambda: lambda: next(treated)}, 3)
    assert found == {"control_milliseconds": 200, "ratios": {"it": [2, 1, 3]}}


def counted(action: costs.Action) -> int:
    with Operations() as counter:
        action()
    return counter.count


def test_operations_of_closed_forms() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert counted(lambda: a @ b) == 2 * 3 * 5 * 7
    assert counted(lambda: a + a) == 15
    assert counted(lambda: a.sum()) == 15
    assert counted(lambda: a.mean(1)) == 15
    assert counted(lambda: a + b[:, 0]) == 15
    assert counted(lambda: a.t().reshape(-1).clone()) == 0
    assert counted(lambda: torch.var_mean(a)) == 4 * 15
    image, kernel = torch.ones(2, 4, 8, 8, requires_grad=True), torch.ones(6, 4, 3, 3, requires_grad=True)
    once = 2 * (2 * 6 * 6 * 6) * (4 * 3 * 3)  # a product and an addition of each tap of each of the 6x6 outputs
    assert counted(lambda: conv2d(image, kernel)) == once
    # Backward: the gradients of image and kernel; and the sum, which the counter sees too.
    assert counted(lambda: conv2d(image, kernel).sum().backward()) == 3 * once + 2 * 6 * 6 * 6


def test_operations_of_normalisations() -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    for norm in (nn.BatchNorm2d(4), nn.GroupNorm(2, 4)):
        forward = counted(lambda norm=norm: norm(x)) - isinstance(norm, nn.BatchNorm2d)  # the batches' counter
        assert forward == 6 * x.numel()
    assert costs.operations("norms", "batch") == pytest.approx(6 + 8, abs=1e-5)
    assert costs.operations("weights", "plain") == 3 * 2 * 9 * 16
    assert costs.operations("activations", "relu") == 2


def test_an_unknown_operator_is_not_counted_as_nothing() -> None:
    with pytest.raises(NotImplementedError, match="sort"):
        counted(lambda: torch.ones(3).sort())
