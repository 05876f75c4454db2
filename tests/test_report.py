"""What a sweep's pictures and summaries say, read back from the figures themselves."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.report import write_report
from rodiu_jax.report.heatmap import figures, heat_map, line, regime_map
from rodiu_jax.report.outputs import OUTPUTS, Axis, axes_of, decimals
from rodiu_jax.report.summary import by_point, commonest, cost_grid, mean_grid, summarise
from rodiu_jax.report.tables import show
from rodiu_jax.sweeps import METHODS, sweep
from rodiu_jax.sweeps.spec import make_spec
from solvers.result import Result
from tests.test_sweeps import fake

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


def hatched(figure) -> set[tuple[int, int]]:
    boxes = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_hatch()]
    return {(round(b.get_x() + 0.5), round(b.get_y() + 0.5)) for b in boxes}


def test_heat_map_shows_the_means_where_they_belong():
    figure = heat_map(frame(), LIMIT, PRICE, COST, title="A $question$ in dollars $")
    axes, bar = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "3"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x0.5", "x1.0", "x2.0"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Limit, fraction", "Price, multiplier")
    assert bar.get_ylabel() == "Total cost, $ per period"
    assert axes.get_title("left") == "Total cost, mean over 2 samples\nA $question$ in dollars $"
    expected = [[605.0, 805.0], [1105.0, 1305.0], [np.nan, 2305.0]]
    shown = axes.collections[0].get_array()
    np.testing.assert_allclose(np.ma.filled(shown, np.nan), expected)
    assert texts(figure) == ["605", "805", "1,105", "1,305", "2,305"]
    assert hatched(figure) == {(1, 0), (0, 2)}  # (limit, price) positions: one unproven sample, no plan
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["some sample lacks a proof", "no plan"]


def test_a_proven_map_has_no_legend():
    proven = frame().query("gpu_price == 1")
    figure = heat_map(proven, LIMIT, PRICE, COST)
    assert not figure.legends
    assert hatched(figure) == set()


def test_shares_are_shown_in_percent_from_zero():
    figure = heat_map(frame(), LIMIT, PRICE, SHARE)
    assert set(texts(figure)) == {"12.50"}
    assert figure.axes[0].collections[0].get_clim() == (0.0, 12.5)


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_constant_and_missing_outputs_are_drawn(value):
    low, high = (
        heat_map(frame().assign(total_cost=value), LIMIT, PRICE, COST).axes[0].collections[0].get_clim()
    )
    assert low < high


def test_text_stands_out_from_its_cell():
    figure = heat_map(frame(), LIMIT, PRICE, COST)
    figure.canvas.draw()
    for text in figure.axes[0].texts:
        cell = text.get_bbox_patch().get_facecolor()
        ink = np.array(mpl.colors.to_rgb(text.get_color()))
        assert abs((np.array(cell[:3]) - ink) @ (0.299, 0.587, 0.114)) > 0.45


def test_line_shows_mean_range_and_lacking_proofs():
    figure = line(frame(), PRICE, COST, title="Prices")
    (axes,) = figure.axes
    mean = axes.lines[0]
    np.testing.assert_allclose(mean.get_xdata(), [0.5, 1, 2])
    np.testing.assert_allclose(mean.get_ydata(), [705, 1205, 2305])
    band = axes.collections[0].get_paths()[0].vertices
    for level, low, high in ((0.5, 600, 810), (1.0, 1100, 1310), (2.0, 2300, 2310)):
        assert {low, high} <= set(band[band[:, 0] == level, 1])
    closed, opened = axes.lines[1:]
    assert closed.get_xdata().tolist() == [1.0]
    assert opened.get_xdata().tolist() == [0.5, 2.0]
    assert opened.get_markerfacecolor() == "white"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["x0.5", "x1.0", "x2.0"]
    assert axes.get_xlabel() == "Price, multiplier"
    assert axes.get_ylabel() == "Total cost, $ per period"


def test_regime_map_colours_the_commonest_deployment():
    rows = pd.concat([frame(3), frame(3).query("sample == 0").assign(sample=3)])
    figure = regime_map(rows, LIMIT, PRICE)
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    codes = np.ma.filled(figure.axes[0].collections[0].get_array().astype(float), np.nan)
    shown = [["-" if np.isnan(c) else names[int(c)] for c in row] for row in codes]
    assert shown == [["plan 0", "plan 0"], ["plan 1", "plan 1"], ["-", "plan 2"]]
    assert names[-1] == "no plan"
    assert texts(figure) == ["3/4"]


def test_many_regimes_share_the_last_colour():
    rows = pd.DataFrame(
        [
            {"sample": 0, "gpu_price": a, "error_threshold": b, "deployments": f"plan {4 * a + b:02d}"}
            for a in range(4)
            for b in range(4)
        ]
    )
    names = [t.get_text() for t in regime_map(rows, LIMIT, PRICE).legends[0].get_texts()]
    assert names == [*(f"plan {m:02d}" for m in range(8)), "8 other deployments"]


def test_names_are_not_read_as_formulas():
    rows = frame().assign(deployments="a$b$@c_d^ x1")
    figure = regime_map(rows, LIMIT, Axis("gpu_price", "$\\broken{$"))
    figure.canvas.draw()
    assert figure.legends[0].get_texts()[0].get_text() == "a$b$@c_d^ x1"


@pytest.mark.parametrize(("count", "pictures"), [(1, 8), (2, 9), (3, 27)])
def test_one_picture_per_pair_of_factors(count, pictures):
    axes = [PRICE, LIMIT, Axis("third[H100_*]", "Third")][:count]
    found = dict(figures(frame().assign(**{"third[H100_*]": 1.0}), axes))
    assert len(found) == pictures
    if count == 3:
        assert "total_cost-gpu_price-third_H100" in found


def test_figures_leave_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    dict(figures(frame(), [PRICE, LIMIT]))
    assert dict(mpl.rcParams) == before


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
    table = by_point(frame(), [PRICE, LIMIT]).set_index("point")
    assert table["samples"].tolist() == [2] * 6
    assert table.loc[0, ["gpu_price", "error_threshold"]].tolist() == [0.5, 3.0]
    assert table.loc[0, ["total_cost_mean", "total_cost_min", "total_cost_max"]].tolist() == [805, 800, 810]
    assert table.loc[0, ["status_optimal", "status_time_limit", "status_infeasible"]].tolist() == [1, 1, 0]
    assert table.loc[5, "status_infeasible"] == 2
    assert table.loc[5, ["total_cost_mean", "commonest_deployment"]].isna().all()
    assert (table.loc[0, "commonest_deployment"], table.loc[0, "commonest_share"]) == ("plan 0", 0.5)
    assert (table.loc[5, "commonest_share"], table.loc[2, "commonest_share"]) == (0.0, 1.0)


def test_commonest():
    assert commonest(pd.Series(["b", "a", "b", "a", None])) == "a"
    assert commonest(pd.Series([None, None])) is None


def small(**changes):
    factors = [
        {"field": "gpu_price", "scale": [0.5, 1.0, 2.0]},
        {"field": "error_threshold", "value": [3.0, 1.0]},
    ]
    values = {"name": "small", "title": "Small", "samples": 2, "method": "exact", "factors": factors}
    return make_spec(values | changes)


def test_summary_in_words():
    text = summarise(frame(), small())
    assert "Small: 12 of 12 scenarios (6 points x 2 sample(s)), 75% proven" in text
    assert "2 without a plan" in text
    assert (
        "Cheapest on average: $605.00 per period at gpu_price x0.5, error_threshold 1 (GPUs 4, unserved"
        in text
    )
    assert "Dearest on average: $2,305.00 per period at gpu_price x2.0, error_threshold 3" in text
    assert (
        "gpu_price: the mean cost rises with it, from $705.00 at x0.5 to $2,305.00 at x2.0 (+227.0%)." in text
    )
    assert "error_threshold: the mean cost rises with it" in text


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([3, 2, 2], "falls with it, from $3.00 at x0.5 to $2.00 at x2.0 (-33.3%)"),
        ([3, 1, 2], "goes up and down"),
        ([3, 3, 3 + 1e-7], "makes no difference to the mean cost between x0.5 and x2.0"),
        ([0, 3, 4], "rises with it, from $0.00 at x0.5 to $4.00 at x2.0."),
        ([np.nan, np.nan, 4], "one level only"),
    ],
)
def test_movements(costs, words):
    rows = frame()
    rows["total_cost"] = rows["gpu_price"].map(dict(zip((0.5, 1.0, 2.0), map(float, costs), strict=True)))
    (said,) = [s for s in summarise(rows, small()).splitlines() if s.startswith("gpu_price:")]
    assert words in said


def test_summary_without_any_plan():
    text = summarise(frame().assign(total_cost=np.nan), small())
    assert text.splitlines()[-1] == "No scenario has a plan, so there is no cost to compare."


def test_cost_grid_in_the_terminal(capsys):
    show([cost_grid(frame(), small())])
    out = capsys.readouterr().out
    lines = [[cell.strip() for cell in text.split("│")[1:-1]] for text in out.splitlines() if "│" in text]
    assert lines == [["x0.5", "605", "805"], ["x1.0", "1,105", "1,305"], ["x2.0", "-", "2,305"]]
    one = small(factors=[{"field": "gpu_price", "scale": [0.5, 1.0, 2.0]}])
    show([cost_grid(frame(), one)])
    assert "705" in capsys.readouterr().out


def test_axes_say_field_names_and_unit():
    factors = [
        {"field": "gpu_price", "names": "H100_*", "scale": [1, 2]},
        {"field": "budget", "value": [3]},
    ]
    price, budget = axes_of(small(factors=factors))
    assert price == Axis("gpu_price", "Rental price of one GPU (gpu_price of H100_*), multiplier", True)
    assert budget == Axis("budget", "Most that rental and storage may cost (budget), $/period", False)


def test_mean_grid_keeps_cells_without_numbers():
    grid = mean_grid(frame(), "total_cost", PRICE, LIMIT)
    assert grid.shape == (3, 2)
    assert np.isnan(grid.loc[2.0, 1.0])


def test_report_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "fake", fake)
    rows = sweep(small(method="fake"), tmp_path, quiet=True)
    written = write_report(tmp_path)
    names = [*(o.column for o in OUTPUTS), "deployments"]
    assert {p.relative_to(tmp_path).as_posix() for p in written} == {
        "summary.csv",
        *(f"figures/{n}.{kind}" for n in names for kind in ("png", "svg")),
    }
    for path in written[1:]:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
        assert len(data) > 5000
    table = pd.read_csv(tmp_path / "summary.csv")
    means = rows.groupby("point")["total_cost"].mean()
    np.testing.assert_allclose(table["total_cost_mean"], means)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock", "figures", "manifest.json", "scenarios", "spec.toml", "summary.csv",
    ]  # fmt: skip


def test_report_of_failures_and_of_nothing(tmp_path, monkeypatch):
    def failing(instances, **_):
        return iter([Result(b, "error", message="no") for b in range(instances.size)])

    monkeypatch.setitem(METHODS, "fake", failing)
    sweep(small(method="fake", samples=1), tmp_path / "all failed", quiet=True)
    assert len(write_report(tmp_path / "all failed")) == 19
    with pytest.raises(InputError, match="the folder of a sweep"):
        write_report(tmp_path)
    for part in (tmp_path / "all failed" / "scenarios").iterdir():
        part.unlink()
    with pytest.raises(WorkFailed, match="no rows yet"):
        write_report(tmp_path / "all failed")
