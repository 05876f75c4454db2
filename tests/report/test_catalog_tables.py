"""What `rodiu describe` prints: complete, as wide as asked, and safe against names that look like markup."""

import pytest

from rodiu_jax.catalog import Distribution, catalog_names, load_catalog
from rodiu_jax.report.text.catalog_tables import (
    describe_catalog,
    tabulate_columns,
    write_distribution,
    write_range,
    write_rule,
)
from tests.terminal import printed


def own_catalog(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(f'[catalog]\nname = "own"\nextends = "seed"\n{text}', encoding="utf-8")
    return load_catalog(path)


@pytest.mark.parametrize("width", [140, 80])
@pytest.mark.parametrize("name", catalog_names())
def test_everything_in_the_catalogue_is_printed_within_the_width(name, width):
    catalog = load_catalog(name)
    text = printed(describe_catalog(catalog), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for q in catalog.quantities.values():
        assert f" {q.name} " in text
        assert q.unit in text
    for names in catalog.sets.values():
        assert all(n in text for n in names)
    assert catalog.description in " ".join(text.split())


def test_values_stand_beside_their_name():
    lines = printed(describe_catalog(load_catalog("seed"))).splitlines()
    row = next(line for line in lines if line.startswith("│ Summarization"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:7] == [
        "Summarization",
        "U(80, 120)",
        "512",
        "256",
        "768",
        "U(0.3, 0.7)",
        "U(0.0008, 0.0012)",
    ]
    price = next(line for line in lines if line.startswith("│ A6000_INT4"))
    assert "2 to 3" in price  # the base price of 2.50 with 20 % either way
    assert any("market_factor" in line and "U(0.8, 1.2)" in line and "per gpu" in line for line in lines)


@pytest.mark.parametrize(
    ("kind", "numbers", "expected"),
    [
        ("fixed", (512.0,), "512"),
        ("fixed", (0.0014,), "0.0014"),
        ("uniform", (80.0, 120.0), "U(80, 120)"),
        ("log_uniform", (0.5, 2.0), "LogU(0.5, 2)"),
        ("normal", (1.0, 0.1, 0.8, 1.2), "N(1, 0.1) in [0.8, 1.2]"),
        ("choice", (2.0, 4.0, 8.0), "one of 2, 4, 8"),
        ("choice", (5.0, 1.0, 2.0, 4.0, 8.0), "one of 5: 1 to 8"),
    ],
)
def test_short_form_of_a_distribution(kind, numbers, expected):
    assert write_distribution(Distribution(kind, numbers)) == expected


def test_span_of_one_number_is_that_number():
    assert (write_range(2.0, 2.0), write_range(0.28, 3.0)) == ("2", "0.28 to 3")


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("delay_nominal", "base_delay x model_multiplier x gpu_speed_factor"),
        ("error_nominal", "base_error x precision_factor / model_capacity"),
        ("delay_score", "gpu_power_level - model_level"),
        ("error_score", "(2 x model_level + precision_level) / 3"),
        ("precision_level", "gpu_power_level + precision_step, cut to 0 to 3"),
        ("gpu_power_level", "how many of 150, 400, 900 gpu_compute reaches"),
    ],
)
def test_rules_in_words(quantity, expected):
    assert write_rule(load_catalog("seed").quantities[quantity]) == expected


def test_rule_of_classes_says_bounds_and_draws():
    words = write_rule(load_catalog("seed").quantities["delay_impact"])
    assert words.startswith("by delay_score: U(0.2, 0.25) below 0 (")
    assert words.index("U(0.6, 0.65) below 2") < words.index("U(0.8, 0.85) otherwise")


def test_provenance_tells_source_stars_note_and_catalogue():
    text = printed(describe_catalog(load_catalog("corrected")))
    lines = text[text.index("Provenance") :].splitlines()
    start = next(n for n, line in enumerate(lines) if "weight_memory" in line)
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines[start : start + 3]]
    assert cells[0] == [
        "weight_memory",
        "GB",
        "*****",
        "corrected",
        "Fixed Parameters 3; Meta AI model cards",
    ]
    assert cells[1][0] == "Llama-3.2-31B"
    assert cells[2] == ["Llama-3.1-70B", "", "*****", "corrected", "was 810: parameters x 2 bytes"]


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path):
    catalog = own_catalog(
        tmp_path,
        """
[quantity."[red]heat[/red]"]
over = ["gpu"]
unit = "[b]W[/b]"
source = "[/nonsense] by a stranger"
each = 1
values = { A6000_FP16 = { fixed = 2, note = "[link=x]note" } }
""",
    )
    text = printed(describe_catalog(catalog))
    for literal in ("[red]heat[/red]", "[b]W[/b]", "[/nonsense] by a stranger", "[link=x]note"):
        assert literal in text
    assert text.count("[red]heat[/red]") == 2  # heading of a column, and provenance


def test_a_quantity_given_per_pair_is_a_block(tmp_path):
    catalog = own_catalog(
        tmp_path,
        """
[quantity.delay_impact]
each = 0.5
values = { "Llama-3.1-8B" = { A100_INT8 = 0.125 } }
""",
    )
    text = printed(describe_catalog(catalog), width=200)
    block = text[text.index("delay_impact, -") :]
    row = next(line for line in block.splitlines() if line.startswith("│ Llama-3.1-8B"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[1:] == ["0.125" if gpu == "A100_INT8" else "0.5" for gpu in catalog.sets["gpu"]]


def test_a_split_table_loses_no_column():
    columns = [(f"column{c}", [f"cell{c}"]) for c in range(12)]
    wide, narrow = (printed([tabulate_columns("t", "name", ["row"], columns)], width) for width in (200, 40))
    assert (wide.count("(continued)"), narrow.count("(continued)")) == (0, 3)
    for c in range(12):
        assert f" column{c} " in narrow
        assert f" cell{c} " in narrow
