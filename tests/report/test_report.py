"""What a sweep's pictures and summaries say, read back from the figures themselves."""

import json
import re
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from rodiu_jax.catalog import load_catalog
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.io.number_text import percent
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_json import plan_from_json
from rodiu_jax.model.status import Status
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.report import write_report
from rodiu_jax.report.data.digest import rank_deployments, read_digest, sum_up_rows, summarise_cells
from rodiu_jax.report.data.outputs import OUTPUTS, Axis, axes_of, decimals
from rodiu_jax.report.data.stored_plans import choose_rows
from rodiu_jax.report.figures import style
from rodiu_jax.report.figures.binding import (
    draw_binding,
    rank_tightest,
    read_margins,
    summarise_binding,
)
from rodiu_jax.report.figures.cost_parts import draw_composition
from rodiu_jax.report.figures.maps import draw_heat_map, draw_regime_map, draw_regime_shares
from rodiu_jax.report.figures.pictures import name_files
from rodiu_jax.report.parts.terminal import show
from rodiu_jax.report.text.summary import (
    classify_movement,
    describe_movements,
    describe_proofs,
    summarise_points,
    tabulate_costs,
    write_answer,
)
from rodiu_jax.sweeps import METHODS, read_rows, sweep
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import make_spec
from rodiu_jax.sweeps.store import iterate_rows
from solvers.answers import Answer, Answers
from tests.golden import Golden, numbers
from tests.oracles.tiny import TINY
from tests.page_structure import Structure
from tests.sweeps.small import toy

PRICE, LIMIT = Axis("gpu_price", "Price, multiplier", True), Axis("error_threshold", "Limit, fraction")
COST, SHARE = OUTPUTS[0], next(o for o in OUTPUTS if o.column == "unmet_share")


def frame(samples: int = 2) -> pd.DataFrame:
    """Cost 1000 price + 100 limit + 10 sample; (0.5, 3) unproven in one sample, (2, 1) without any plan."""
    rows = []
    for s in range(samples):
        for p, (price, limit) in enumerate((a, b) for a in (0.5, 1.0, 2.0) for b in (3.0, 1.0)):
            lost = (price, limit) == (2.0, 1.0)
            slow = (price, limit) == (0.5, 3.0) and s == 1
            cost = np.nan if lost else 1000 * price + 100 * limit + 10 * s
            row = {"sample": s, "point": p, "gpu_price": price, "error_threshold": limit}
            row |= {o.column: cost for o in OUTPUTS} | {"unmet_share": np.nan if lost else 0.125}
            row["gpus_rented"] = np.nan if lost else 2 + 4 * s
            row["status"] = "infeasible" if lost else "time_limit" if slow else "optimal"
            row["deployments"] = None if lost else f"plan {s if slow else int(price)}"
            rows.append(row)
    return pd.DataFrame(rows)


def texts(figure) -> list[str]:
    figure.canvas.draw()
    return [t.get_text() for t in figure.axes[0].texts]


def hatched(figure, pattern: str) -> set[tuple[int, int]]:
    boxes = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_hatch() == pattern]
    return {(round(b.get_x() + 0.5), round(b.get_y() + 0.5)) for b in boxes}


def small(**changes):
    factors = [
        {"field": "gpu_price", "scale": [0.5, 1.0, 2.0]},
        {"field": "error_threshold", "value": [3.0, 1.0]},
    ]
    values = {"name": "small", "title": "Small", "samples": 2, "method": "exact", "factors": factors}
    return make_spec(values | changes)


def summed(rows=None, *, parts: int = 3, **changes):
    """The digest of `frame`, read in parts."""
    rows = frame() if rows is None else rows
    cuts = np.array_split(np.arange(len(rows)), parts)
    return sum_up_rows(
        [rows.iloc[cut] for cut in cuts], small(samples=int(rows["sample"].max()) + 1, **changes)
    )


def drawn_map(rows=None, output=COST, **changes):
    found = summed(rows, **changes)
    return draw_heat_map(found, *found.levels, output)[1]


def test_heat_map_shows_the_means_where_they_belong():
    figure = drawn_map(title="A $question$ in dollars $")
    axes, bar = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "3"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x0.5", "x1.0", "x2.0"]
    assert axes.get_xlabel() == "Promised mean error rate (error_threshold), fraction"
    assert axes.get_ylabel().replace("\n", " ") == "Rental price of one GPU (gpu_price), multiplier"
    assert bar.get_ylabel() == "Total cost, $ per period"
    assert axes.get_title("left") == "Total cost, mean over 2 samples\nA $question$ in dollars $"
    expected = [[605.0, 805.0], [1105.0, 1305.0], [np.nan, 2305.0]]
    shown = axes.collections[0].get_array()
    np.testing.assert_allclose(np.ma.filled(shown, np.nan), expected)
    assert texts(figure) == ["605", "805", "1,105", "1,305", "2,305"]
    assert hatched(figure, "////") == {(1, 0)}  # (limit, price) positions: one unproven sample
    assert hatched(figure, "....") == set()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "some scenario not proven to 0.0001%", "no plan",
    ]  # fmt: skip


def test_a_cell_where_a_plan_lacks_in_some_sample_is_dotted():
    rows = frame()
    rows.loc[(rows["sample"] == 1) & (rows["point"] == 2), ["total_cost", "status"]] = [np.nan, "infeasible"]
    figure = drawn_map(rows)
    assert hatched(figure, "....") == {(1, 1)}
    assert "some scenario without a plan: the mean is of the others" in [
        t.get_text() for t in figure.legends[0].get_texts()
    ]


def test_a_proven_map_has_no_legend():
    figure = drawn_map(frame().assign(status="optimal", total_cost=lambda f: f["total_cost"].fillna(1.0)))
    assert not figure.legends
    assert hatched(figure, "////") == set()


def test_shares_are_shown_in_percent_from_zero():
    figure = drawn_map(output=SHARE)
    assert set(texts(figure)) == {"12.50"}
    assert figure.axes[0].collections[0].get_clim() == (0.0, 12.5)


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_constant_and_missing_outputs_are_drawn(value):
    low, high = drawn_map(frame().assign(total_cost=value)).axes[0].collections[0].get_clim()
    assert low < high


@pytest.mark.parametrize(("most", "log"), [(19.0, False), (21.0, True)])
def test_costs_far_apart_are_coloured_by_their_logarithm(most, log):
    rows = frame().assign(total_cost=lambda f: np.where(f["point"] == 0, most, 1.0))
    norm = drawn_map(rows).axes[0].collections[0].norm
    assert norm(most**0.5) == pytest.approx(0.5 if log else (most**0.5 - 1) / (most - 1))


def test_text_stands_out_from_its_cell():
    figure = drawn_map()
    figure.canvas.draw()
    for text in figure.axes[0].texts:
        cell = text.get_bbox_patch().get_facecolor()
        ink = np.array(mpl.colors.to_rgb(text.get_color()))
        assert abs((np.array(cell[:3]) - ink) @ (0.299, 0.587, 0.114)) > 0.45


def test_cells_are_those_of_a_group_by():
    rows = frame(3)
    found = summed(rows)
    table = summarise_cells(found, "total_cost", *found.levels)
    groups = rows.groupby(["gpu_price", "error_threshold"])
    np.testing.assert_allclose(table["mean"], groups["total_cost"].mean())
    np.testing.assert_allclose(table["min"], groups["total_cost"].min())
    np.testing.assert_allclose(table["max"], groups["total_cost"].max())
    assert table["known"].tolist() == groups["total_cost"].count().tolist()
    lacking = groups["status"].apply(lambda s: (~s.isin(["optimal", "gap_limit", "infeasible"])).sum())
    assert table["unproven"].tolist() == lacking.tolist()
    alone = summarise_cells(found, "total_cost", found.levels[1])
    np.testing.assert_allclose(alone["mean"], rows.groupby("error_threshold")["total_cost"].mean())


def test_parts_and_their_order_change_nothing():
    rows = frame(3)
    whole, cut = summed(rows, parts=1), summed(rows.iloc[::-1], parts=7)
    pd.testing.assert_frame_equal(whole.points, cut.points)
    by = ["point", "deployment"]
    pd.testing.assert_frame_equal(
        whole.chosen.sort_values(by, ignore_index=True), cut.chosen.sort_values(by, ignore_index=True)
    )
    assert (whole.statuses, whole.samples) == (cut.statuses, cut.samples)


def test_counts_of_deployments_are_summed_now_and_then(monkeypatch):
    monkeypatch.setattr("rodiu_jax.report.data.digest._COMPACT", 3)
    by = ["point", "deployment"]
    chosen = summed(frame(4), parts=9).chosen.sort_values(by, ignore_index=True)
    expected = frame(4).groupby(["point", "deployments"]).size()
    assert chosen["rows"].tolist() == expected.tolist()


def test_drawn_levels_are_binned_and_listed_ones_are_not():
    factors = [{"field": "gpu_price", "scale": [0.5, 1.5]}, {"field": "budget", "value": [1000, 2000]}]
    spec = small(factors=factors, design={"kind": "sobol", "points": 64}, samples=1)
    levels = sum_up_rows([], spec).levels
    column = spec.levels_at(np.arange(64))[0]
    assert len(levels[0].values) == 5
    assert sorted(np.bincount(levels[0].at)) == [12, 13, 13, 13, 13]
    means = [column[levels[0].at == y].mean() for y in range(5)]
    np.testing.assert_allclose(levels[0].values, means)
    assert levels[0].ticks[0].startswith("x0.5")
    many = small(factors=[{"field": "budget", "value": list(range(100, 130))}], samples=1)
    assert len(sum_up_rows([], many).levels[0].values) == 30


def test_one_at_a_time_each_factor_has_its_own_points_and_the_base():
    factors = [
        {"field": "gpu_price", "scale": [0.5, 2.0]},
        {"field": "error_threshold", "scale": [0.4, 0.7]},
        {"field": "budget", "value": [500, 1500]},
    ]
    found = sum_up_rows([], small(factors=factors, design={"kind": "one-at-a-time"}, samples=1))
    assert [n.at.tolist() for n in found.levels] == [
        [1, 0, 2, -1, -1, -1, -1], [2, -1, -1, 0, 1, -1, -1], [-1, -1, -1, -1, -1, 0, 1],
    ]  # fmt: skip
    assert not found.crossed


def test_regime_map_colours_the_commonest_deployment():
    rows = pd.concat([frame(3), frame(3).query("sample == 0").assign(sample=3)])
    found = summed(rows)
    table, figure = draw_regime_map(found, *found.levels)
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    codes = np.ma.filled(figure.axes[0].collections[0].get_array().astype(float), np.nan)
    shown = [["-" if np.isnan(c) else names[int(c)] for c in row] for row in codes]
    assert shown == [["plan 0", "plan 0"], ["plan 1", "plan 1"], ["-", "plan 2"]]
    assert names[-1] == "no plan"
    assert texts(figure) == ["75%"]
    first = table.iloc[1]
    assert (first["gpu_price"], first["error_threshold"]) == (0.5, 3.0)
    assert (first["deployment"], first["rows"], first["share"]) == ("plan 0", 3, 0.75)


def test_regimes_are_pairs_whatever_their_degrees():
    rows = frame().assign(deployments=["m@g x4; n@g x1", "m@g x8; n@g x2"] * 6)
    found = summed(rows)
    assert set(draw_regime_map(found, *found.levels)[0]["deployment"]) == {"m@g; n@g"}
    assert set(rank_deployments(found)["deployment"]) == set(rows["deployments"])
    table, figure = draw_regime_shares(found)
    assert table.groupby("factor")["rows"].sum().to_dict() == {"gpu_price": 12, "error_threshold": 12}
    assert len(figure.axes) == 2


def test_many_regimes_share_the_last_colour():
    factors = [
        {"field": "gpu_price", "scale": [1, 2, 3, 4]},
        {"field": "error_threshold", "value": [1, 2, 3, 4]},
    ]
    rows = frame(1).iloc[[0] * 16].assign(point=range(16), deployments=[f"plan {m:02d}" for m in range(16)])
    found = sum_up_rows([rows], small(factors=factors, samples=1))
    names = [t.get_text() for t in draw_regime_map(found, *found.levels)[1].legends[0].get_texts()]
    assert names == [*(f"plan {m:02d}" for m in range(8)), "8 other deployments"]


def test_names_are_not_read_as_formulas():
    found = summed(frame().assign(deployments="a$b$@c_d^ x1"), title="$\\broken{$")
    for figure in (draw_regime_map(found, *found.levels)[1], draw_regime_shares(found)[1]):
        figure.canvas.draw()
        assert figure.legends[0].get_texts()[0].get_text() == "a$b$@c_d^"


def test_costs_are_stacked_to_the_total():
    parts = ("rental_cost", "storage_cost", "delay_cost", "unmet_cost")
    rows = frame().assign(**{p: lambda f, k=k: f["total_cost"] * k for k, p in enumerate(parts)})
    table, figure = draw_composition(summed(rows))
    price = table[table["factor"] == "gpu_price"].set_index("level")
    np.testing.assert_allclose(price.loc[2.0, list(parts)].astype(float), [0, 2305, 4610, 6915])
    assert price["known"].tolist() == [4, 4, 2]
    top = max(b.get_y() + b.get_height() for b in figure.axes[0].patches)
    np.testing.assert_allclose(top, 6 * 2305)


def test_figures_leave_matplotlib_as_it_was(tmp_path):
    before = dict(mpl.rcParams)
    style.save_figure(drawn_map(), tmp_path, "map")
    assert dict(mpl.rcParams) == before


def test_pictures_of_the_same_name_and_content_are_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        style.save_figure(drawn_map(), tmp_path / folder, "map")
    for kind in ("svg", "png"):
        assert (tmp_path / "a" / f"map.{kind}").read_bytes() == (tmp_path / "b" / f"map.{kind}").read_bytes()


def test_inline_pictures_have_ids_of_their_own_and_refer_to_them(tmp_path):
    texts = []
    for name in ("one", "two"):
        _, vector = style.save_figure(drawn_map(), tmp_path, name)
        texts.append(style.to_inline_svg(vector.read_text(), name, 'Words "quoted" & <more>'))
    ids = [set(re.findall(r'\bid="([^"]+)"', t)) for t in texts]
    assert ids[0]
    assert not ids[0] & ids[1]
    for own, text in zip(ids, texts, strict=True):
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
        assert {a or b for a, b in used} <= own
        assert "<metadata" not in text
        root = ElementTree.fromstring(text)
        assert root.get("aria-label") == 'Words "quoted" & <more>'


def test_names_for_files_are_distinct_and_harmless():
    names = ["gpu_price[A*]", "gpu_price[A?]", "../../etc/passwd", "gpu_price[<b>]"]
    assert list(name_files(names)) == ["gpu_price_A", "gpu_price_A_2", "etc_passwd", "gpu_price_b"]


@pytest.mark.parametrize(
    ("levels", "ticks"),
    [
        ([0.4, 0.45, 0.5], ["x0.40", "x0.45", "x0.50"]),
        ([1, 2], ["x1", "x2"]),
        ([0.1 + 0.2, 1000], ["x0.3", "x1,000.0"]),
        ([1e-7, 1], ["x1e-07", "x1"]),
    ],
)
def test_ticks(levels, ticks):
    assert PRICE.ticks(levels) == ticks
    assert LIMIT.ticks(levels) == [t[1:] for t in ticks]


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1200, 1300], 0),
        ([0.56, 0.79], 2),
        ([12, 12], 0),
        ([12.5, 12.5], 2),
        ([0, 1e-12], 0),
        ([np.nan], 0),
        ([], 0),
    ],
)
def test_decimals(values, places):
    assert decimals(np.array(values, dtype=float)) == places


def test_a_row_per_point():
    table = summarise_points(summed()).set_index("point")
    assert table["rows"].tolist() == [2] * 6
    assert table.loc[0, ["gpu_price", "error_threshold"]].tolist() == [0.5, 3.0]
    assert table.loc[0, ["total_cost_mean", "total_cost_min", "total_cost_max"]].tolist() == [805, 800, 810]
    assert table["unproven"].tolist() == [1, 0, 0, 0, 0, 0]
    assert table.loc[5, ["total_cost_mean", "commonest_deployment"]].isna().all()
    assert (table.loc[0, "commonest_deployment"], table.loc[0, "commonest_share"]) == ("plan 0", 0.5)
    assert (table.loc[5, "commonest_share"], table.loc[2, "commonest_share"]) == (0.0, 1.0)


def test_the_answer_in_three_sentences(golden: Golden):
    said = [*write_answer(summed()), describe_proofs(summed())]
    golden("report/answer", "\n".join(said))
    assert numbers(said[0]) == [0.5, 1, 605, 2, 3, 2305]
    assert numbers(said[1]) == [705, 0.5, 2305, 2, 227, 855, 1, 1472, 3, 72.1]
    assert numbers(said[2]) == [50, 1, 3, 12.5]
    assert numbers(said[3]) == [12, 6, 2, 91.7, 0.0001, 2]


def test_an_unfinished_sweep_says_so():
    assert numbers(describe_proofs(summed(frame().iloc[:7])))[:4] == [7, 12, 6, 2]


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 9, "0%"),
        (9, 9, "100%"),
        (1, 3, "33.3%"),
        (9999, 10_000, "99.99%"),
        (1, 10_000, "0.01%"),
        (1, 10**12, "<0.0001%"),
    ],
)
def test_all_and_nothing_are_said_of_all_and_nothing_only(part, whole, words):
    assert percent(part / whole) == words


MOVEMENTS = {
    "falls": [3, 2, 2],
    "up and down": [3, 1, 2],
    "does not move": [3, 3, 3 + 1e-7],
    "rises from nothing": [0, 3, 4],
    "one level with plans": [np.nan, np.nan, 4],
}


@pytest.mark.parametrize(
    ("costs", "gap", "trend"),
    [
        ([3, 2, 2], 1e-6, "falls"),
        ([3, 1, 2], 1e-6, "mixed"),
        ([3, 3, 3 + 1e-7], 1e-6, "none"),
        ([3, 3.01, 3.02], 0.01, "within the gap"),
        ([3, 3.01, 3.2], 0.01, "rises"),
        ([0, 3, 4], 1e-6, "rises"),
        ([4], 1e-6, "unknown"),
    ],
)
def test_kinds_of_movements(costs, gap, trend):
    assert classify_movement(np.array(costs, float), gap) == trend


def test_movements(golden: Golden):
    said = {}
    for name, costs in MOVEMENTS.items():
        rows = frame()
        rows["total_cost"] = rows["gpu_price"].map(dict(zip((0.5, 1.0, 2.0), map(float, costs), strict=True)))
        said[name] = describe_movements(summed(rows))[0]
    assert len(set(said.values())) == len(said)
    assert numbers(said["falls"]) == [3, 0.5, 2, 2, 33.3]
    assert numbers(said["rises from nothing"]) == [0, 0.5, 4, 2]
    assert numbers(said["does not move"]) == [0.5, 2]
    rows = frame().assign(total_cost=lambda f: 1000 + f["gpu_price"])
    said["moves within the gap"] = describe_movements(summed(rows, method="cascade", gap=0.02))[0]
    assert numbers(said["moves within the gap"])[0] == 2  # percent that is proven
    golden("report/movements", "\n".join(f"{name}: {text}" for name, text in said.items()))


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "0%"), (4e-5, "0.004%"), (1e-12, "<0.0001%"), (0.5, "50%")],
)
def test_little_is_not_called_nothing(share, words):
    assert percent(share) == words
    said = write_answer(summed(frame().assign(unmet_share=share)))[2]
    assert len(numbers(said)) == 3 + (share > 1e-6)  # the last number is the unserved share


def test_answers_where_little_or_nothing_moves(golden: Golden):
    said = {}
    rows = frame().assign(total_cost=lambda f: 1000 * f["gpu_price"] + f["error_threshold"])
    said["one factor moves it"] = write_answer(summed(rows, method="cascade", gap=0.02))
    rows["total_cost"] = 1000 + rows["gpu_price"]
    said["none moves it by more than the gap"] = write_answer(summed(rows, method="cascade", gap=0.02))
    rows = frame().assign(total_cost=50.0)
    said["every point costs the same"] = write_answer(summed(rows))
    rows.loc[rows["point"] > 0, "total_cost"] = np.nan
    rows.loc[rows["point"] > 0, "deployments"] = None
    said["one point with plans"] = write_answer(summed(rows))
    said["no plan"] = write_answer(summed(frame().assign(total_cost=np.nan)))
    assert [len(lines) for lines in said.values()] == [3, 3, 3, 3, 1]
    golden("report/answers", "\n\n".join("\n".join([f"{k}:", *lines]) for k, lines in said.items()))


def test_cost_grid_in_the_terminal(capsys):
    show([tabulate_costs(summed())])
    out = capsys.readouterr().out
    lines = [[cell.strip() for cell in text.split("│")[1:-1]] for text in out.splitlines() if "│" in text]
    assert lines == [["x0.5", "605", "805"], ["x1.0", "1,105", "1,305"], ["x2.0", "-", "2,305"]]
    one = small(factors=[{"field": "gpu_price", "scale": [0.5, 1.0, 2.0]}], samples=1)
    show([tabulate_costs(sum_up_rows([frame(1).query("point < 3")], one))])
    assert "gpu_price" in capsys.readouterr().out


def test_axes_say_field_names_and_unit():
    factors = [
        {"field": "gpu_price", "names": "H100_*", "scale": [1, 2]},
        {"field": "budget", "value": [3]},
    ]
    price, budget = axes_of(small(factors=factors))
    assert price == Axis("gpu_price", "Rental price of one GPU (gpu_price of H100_*), multiplier", True)
    assert budget == Axis("budget", "Most that rental and storage may cost (budget), $/period", False)


def swept(folder, **changes):
    """The rows of `small` over a tiny catalogue."""
    catalog = folder / "tiny.toml"
    catalog.write_text(TINY)
    return sweep(small(catalog=str(catalog), **changes), folder, quiet=True)


def test_constraints_are_those_of_the_evaluator(tmp_path):
    rows = swept(tmp_path)
    found = read_digest(tmp_path)
    margins = read_margins(tmp_path, found)
    assert margins.looked == len(rows) == 12
    instances = scenarios(found.spec, load_catalog(found.spec.catalog), 0, 12)
    held = read_rows(tmp_path, plans=True)
    expected = []
    for b, text in enumerate(held["plan"]):
        plan = plan_from_json(json.loads(text) | {"instance": b}, instances)
        expected.append(check_plan(plan, instances, b))
    table = margins.rows.sort_values(["sample", "point"], ignore_index=True)
    for name in ("memory", "error", "budget"):
        np.testing.assert_allclose(
            table[f"margin_{name}"], [v.margins[name] for v in expected], rtol=1e-9, atol=1e-9
        )
    assert table["feasible"].tolist() == [v.feasible for v in expected]
    shares = summarise_binding(margins).set_index("constraint")
    assert shares.loc["error", "binds"] == np.mean([v.margins["error"] < 1e-3 for v in expected])
    assert rank_tightest(margins)["plans"].sum() <= 12
    drawn, figure = draw_binding(found, margins)
    assert set(drawn["factor"]) == {"gpu_price", "error_threshold"}
    assert len(figure.axes) == 2


def test_only_the_parts_that_hold_the_chosen_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "fake", toy(Partly(3)))
    sweep(small(method="fake"), tmp_path, quiet=True, chunk=5)

    def numbers(rows: list[int] | None) -> list[list[int]]:
        frames = iterate_rows(tmp_path, columns=["sample", "point"], rows=rows)
        return [(frame["sample"] * 6 + frame["point"]).tolist() for frame in frames]

    assert numbers([11, 0]) == [[0, 1, 2, 3, 4, 10, 11]]
    monkeypatch.setattr("rodiu_jax.sweeps.store._ROWS_AT_ONCE", 6)
    assert numbers(None) == [list(range(10)), [10, 11]], "parts are read together, but no more than need be"
    assert list(iterate_rows(tmp_path, rows=[])) == []
    whole = pd.concat(iterate_rows(tmp_path), ignore_index=True)
    pd.testing.assert_frame_equal(whole, read_rows(tmp_path))
    found = read_digest(tmp_path)
    monkeypatch.setattr("rodiu_jax.report.figures.binding.MOST_ROWS", 6)
    some = read_margins(tmp_path, found)
    monkeypatch.setattr("rodiu_jax.report.figures.binding.MOST_ROWS", 1024)
    planned = read_rows(tmp_path).query("sample == 0 and total_cost == total_cost")["point"]
    assert (some.looked, some.rows["point"].tolist()) == (6, planned.tolist())
    files = {path.name for path in write_report(tmp_path)}
    assert {"constraints.csv", "binding.csv"} <= files


@pytest.mark.parametrize(
    ("points", "samples", "most", "count"),
    [(3, 4, 20, 12), (30, 64, 1024, 480), (121, 64, 1024, 968), (5000, 4, 1024, 1024), (5, 10_000, 1024, 80)],
)
def test_the_rows_looked_at_cover_samples_and_points(points, samples, most, count):
    rows = choose_rows(points, samples, most)
    assert len(rows) == len(set(rows.tolist())) == count
    assert (np.diff(rows) > 0).all()
    assert rows[-1] < points * samples
    if points <= most < points * samples:
        sample, point = np.divmod(rows, points)
        assert set(np.bincount(point)) == {count // points}
        assert (sample.min(), sample.max()) == (0, samples - 1)


def test_a_changed_catalogue_is_not_evaluated(tmp_path):
    swept(tmp_path, samples=1)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(re.sub('"catalog_sha256": "..', '"catalog_sha256": "zz', manifest.read_text()))
    with pytest.raises(InputError, match="the catalogue that the sweep was made from"):
        read_margins(tmp_path, read_digest(tmp_path))
    files = {path.name for path in write_report(tmp_path)}
    assert "constraints.csv" not in files
    assert "the catalogue that the sweep was made from" in (tmp_path / "report.html").read_text()


def test_report_of_failures_and_of_nothing(tmp_path, monkeypatch):
    def failing(instances, **_):
        failed = [Answer.of(instances.names, Status.ERROR, message="no")] * instances.size
        return iter([Answers.stack(failed, names=instances.names)])

    monkeypatch.setitem(METHODS, "fake", toy(failing))
    sweep(small(method="fake", samples=1), tmp_path / "all failed", quiet=True)
    files = write_report(tmp_path / "all failed")
    assert len(Structure(files[0].read_text()).tags) > 50
    assert all(path.exists() for path in files)
    with pytest.raises(InputError, match="the folder of a sweep"):
        write_report(tmp_path)
    for part in (tmp_path / "all failed" / "scenarios").iterdir():
        part.unlink()
    with pytest.raises(WorkFailed, match="no rows yet"):
        write_report(tmp_path / "all failed")


@pytest.mark.slow
def test_a_second_report_leaves_nothing_of_the_first_that_it_does_not_write(tmp_path, monkeypatch):
    swept(tmp_path, samples=1)
    first = write_report(tmp_path)
    own = tmp_path / "figures" / "of-the-user.png"
    killed = tmp_path / "figures" / ".costs.png.abcdef12.png"
    for path in (own, killed):
        path.touch()
    listing = tmp_path / "report-files.json"
    stale = [tmp_path / "figures" / "old.svg", tmp_path / "tables" / "old.csv", tmp_path / "spec.toml"]
    for path in stale[:2]:
        path.touch()
    names = [p.relative_to(tmp_path).as_posix() for p in stale] + ["figures/../manifest.json"]
    listing.write_text(json.dumps(json.loads(listing.read_text()) + names))
    assert write_report(tmp_path) == first
    assert all(path.exists() for path in [*first, own, tmp_path / "spec.toml", tmp_path / "manifest.json"])
    assert not any(path.exists() for path in [*stale[:2], killed])
    assert sorted(tmp_path / name for name in json.loads(listing.read_text())) == sorted(first[2:])


@pytest.mark.slow
def test_boxes_are_on_the_page_or_a_word_why_not(tmp_path, monkeypatch):
    """Scenarios at half of the price have no plan."""
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'rodiu-jax[discovery]'")

    def cheap(instances, **_):
        names, plan = instances.names, Plan(None, (), (), dict.fromkeys(instances.query_names, 1.0))
        none = Answer.of(names, Status.INFEASIBLE)
        served = Answer.of(names, Status.OPTIMAL, plan=plan, costs=costs, lower=16.0)
        yield Answers.stack([none if b % 6 < 2 else served for b in range(instances.size)], names=names)

    costs = dict(zip(COSTS, [16.0, 10.0, 1.0, 5.0, 0.0], strict=True))
    monkeypatch.setitem(METHODS, "fake", toy(cheap))
    sweep(small(samples=5, method="fake"), tmp_path, quiet=True)
    page = write_report(tmp_path)[0].read_text()
    table = pd.read_csv(tmp_path / "tables" / "boxes.csv")
    (box,) = table[table["outcome"].str.contains("infeasible")].to_dict("records")
    assert (box["text"], box["rows"], box["coverage"], box["density"]) == ("gpu_price < 0.8", 10, 1.0, 1.0)
    assert "gpu_price &lt; 0.8" in page
    monkeypatch.setitem(sys.modules, "sklearn.tree", None)
    page = write_report(tmp_path)[0].read_text()
    assert "scikit-learn" in page
    assert not (tmp_path / "tables" / "boxes.csv").exists()


@pytest.mark.parametrize(
    "design",
    [
        "random",
        *(pytest.param(d, marks=pytest.mark.slow) for d in ("saltelli", "morris", "points", "one-at-a-time")),
    ],
)
def test_every_design_has_a_page(tmp_path, monkeypatch, golden: Golden, design):
    """With outputs missing in some rows, and all of them in some points."""
    drawn = design not in ("points", "one-at-a-time")
    prices = [0.5, 1.5] if drawn else [0.5, 1.5, 2.0]
    factors = [
        {"field": "gpu_price", "scale": prices},
        {"field": "budget", "value": [900.0, 1500.0] if drawn else [900.0, 1500.0, 1000.0]},
    ]
    kind = {"kind": design} | ({"points": 8} if drawn else {})
    every = 40 if design == "morris" else 3  # so that saltelli has no whole block
    monkeypatch.setitem(METHODS, "fake", toy(Partly(every)))
    sweep(small(factors=factors, design=kind, samples=2, method="fake"), tmp_path, quiet=True)
    files = write_report(tmp_path)
    page = files[0].read_text()
    assert all(path.stat().st_size for path in files)
    golden(f"page/{design}", Structure(page).words().replace(str(tmp_path), "FOLDER"), numbers=False)
    assert (tmp_path / "figures" / "morris.svg").exists() == (design == "morris")
    assert not (tmp_path / "figures" / "sobol.svg").exists()
    assert ('aria-label="Heat map' in page) == (design != "one-at-a-time")
    show([tabulate_costs(read_digest(tmp_path))])


class Partly:
    """One scenario in ``every`` has no plan, the others a bracket, however the sweep is cut into chunks."""

    def __init__(self, every: int) -> None:
        self.every, self.begun = every, 0

    def __call__(self, instances, **_):
        names, plan = instances.names, Plan(None, (), (), dict.fromkeys(instances.query_names, 1.0))

        def answer(number: int) -> Answer:
            if number % self.every == 2:
                return Answer.of(names, Status.INFEASIBLE)
            costs = dict(zip(COSTS, [10.0 + number, 4.0, 1.0, 5.0, float(number)], strict=True))
            return Answer.of(names, Status.BRACKET, plan=plan, costs=costs, lower=9.0)

        numbers = range(self.begun, self.begun + instances.size)
        self.begun += instances.size
        yield Answers.stack([answer(n) for n in numbers], names=names)
