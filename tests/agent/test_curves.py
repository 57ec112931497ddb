"""The curves of a comparison show its numbers."""

from __future__ import annotations

import numpy as np
import pytest
from forethought.agent.curves import compute_chart, gap_chart, learning_chart, main_rows, profile_chart, scaling_chart
from forethought.agent.evaluation import Episode, Result, Split
from forethought.agent.scores import published_ppo
from forethought.agent.standings import Standing, standings
from forethought.agent.style import colours_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation


def result(name: str, mean: float, calls: float, split: Split = "unseen") -> Result:
    episodes = tuple(Episode(mean + x, 10, False, -1) for x in (-1.0, 0.0, 1.0))
    steps = 0 if name in {"random", "oracle"} else 200_000
    return Result(name, episodes, 1 + calls, calls, world="procgen:coinrun", split=split, run="r", steps=steps)


@pytest.fixture
def rows() -> tuple[Standing, ...]:
    told = [
        ("mode-1", 4.0, 0),
        ("mode-2", 7.0, 768),
        ("mode-2 · 64 calls", 5.0, 60),
        ("mode-2 · 4096 calls", 8.0, 4092),
    ]
    found = [result(*row) for row in told] + [result("random", 2.0, 0)]
    return standings([*found, *(result(name, mean + 1.5, calls, "train") for name, mean, calls in told)])


def axes_of(figure: Figure | None) -> Axes:
    assert figure is not None
    return figure.axes[0]


def dots(axes: Axes) -> set[tuple[float, float]]:
    """Where the means are drawn."""
    return {(float(x), float(y)) for group in axes.collections for x, y in np.asarray(group.get_offsets())}


def words(axes: Axes) -> str:
    return " | ".join(text.get_text() for text in axes.texts)


def test_scaling_goes_through_the_means_in_the_order_of_calls(rows: tuple[Standing, ...]) -> None:
    colours = colours_of([row.name for row in rows])
    axes = axes_of(scaling_chart(rows, "title", colours))
    line = next(line for line in axes.lines if len(np.asarray(line.get_xdata())) == 4)
    assert np.asarray(line.get_xdata()).tolist() == [0, 60, 768, 4092]
    assert np.asarray(line.get_ydata()).tolist() == [4, 5, 7, 8]
    assert line.get_color() == colours["mode-2"] and "random" in words(axes)
    assert any(np.asarray(line.get_ydata()).tolist() == [2, 2] for line in axes.lines)  # the level of chance
    assert scaling_chart(rows[:2], "title", colours) is None  # two points are no curve


def test_settings_have_lines_of_their_own(rows: tuple[Standing, ...]) -> None:
    renamed = [result(f"{setting}: {row.name}", row.mean.mean + shift, row.calls)
               for setting, shift in (("big", 0.0), ("small", -2.0)) for row in rows[:4]]  # fmt: skip
    both = standings(renamed)
    axes = axes_of(scaling_chart(both, "title", colours_of([row.name for row in both])))
    lines = [np.asarray(line.get_ydata()).tolist() for line in axes.lines if len(np.asarray(line.get_xdata())) == 4]
    assert lines == [[4, 5, 7, 8], [2, 3, 5, 6]] and "big" in words(axes) and "small" in words(axes)


def test_compute_and_gap_show_every_row(rows: tuple[Standing, ...]) -> None:
    colours = colours_of([row.name for row in rows])
    assert dots(axes_of(compute_chart(rows, "title", colours))) == {(1, 4), (769, 7), (61, 5), (4093, 8), (1, 2)}
    axes = axes_of(gap_chart(rows, "title", colours))
    assert dots(axes) == {(x, y) for y, mean in enumerate((4.0, 7.0, 5.0, 8.0)) for x in (mean, mean + 1.5)}
    assert words(axes).count("gap +1.5") == 4
    assert [text.get_text() for text in axes.get_yticklabels()] == [row.name for row in rows[:4]]
    assert gap_chart(rows[4:], "title", colours) is None


def test_learning_stands_beside_the_published_curve(rows: tuple[Standing, ...]) -> None:
    colours, curve = colours_of([row.name for row in rows]), published_ppo("procgen:coinrun")
    axes = axes_of(learning_chart(rows, curve, "title", colours))
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [point.unseen for point in curve]
    assert dots(axes) == {(200_000, 4), (200_000, 7)}  # without the budgets
    height = {text.get_text(): text.xyann[1] for text in axes.texts if isinstance(text, Annotation)}
    assert height["mode-2"] > 0 > height["mode-1"]  # names beside their own dots
    assert [row.name for row in main_rows(rows)] == ["mode-1", "mode-2", "random"]
    assert learning_chart(rows, (), "title", colours) is None


def test_a_profile_of_equal_scores_can_be_seen() -> None:
    figure = profile_chart({"a": [[np.array([1.0, 1.0])]]}, "t", colours_of("a"), "return")
    (line,) = axes_of(figure).lines
    tau, share = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert set(share) == {0.0, 1.0} and tau[share == 0].min() == 1.0


def test_profiles_fall_from_one_to_zero() -> None:
    figure = profile_chart(
        {"a": [[np.array([0.0, 1.0])]], "b": [[np.array([2.0, 4.0])]]}, "t", colours_of("ab"), "return"
    )
    for line, middle in zip(axes_of(figure).lines, (0.5, 3.0), strict=True):
        tau, share = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert (np.diff(share) <= 0).all() and share[-1] == 0
        assert share[np.argmin(np.abs(tau - middle))] == 0.5
