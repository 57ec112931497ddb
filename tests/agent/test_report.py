import base64
import csv
import errno
import json
import math
import os
import re
import sys

import imageio.v3 as iio
import numpy as np
import pytest
from forethought.agent import files as module
from forethought.agent import film as films
from forethought.agent.evaluation import Episode, Result
from forethought.agent.report import References, Report, tables, write_report
from forethought.agent.scores import normalisation, published_ppo
from forethought.agent.statistics import mean_interval, probability_of_improvement, wilson
from forethought.agent.style import colours_of
from rich.console import Console

METADATA = {"command": "forethought compare", "seed": 7, "versions": {"numpy": "1.26"}}


def episodes(returns, successes=None):
    successes = [False] * len(returns) if successes is None else successes
    return tuple(
        Episode(float(total), 10 + index, bool(success), 500 + index)
        for index, (total, success) in enumerate(zip(returns, successes, strict=True))
    )


def frames(count, value, shape=(64, 64)):
    pictures = []
    for index in range(count):
        picture = np.full((*shape, 3), value, np.uint8)
        picture[index % shape[0], :, 0] = 255
        pictures.append(picture)
    return tuple(pictures)


def rows(film=(0, 0)):
    return [
        Result("Mode-2", episodes([20.5, 0.1 + 0.2, 31, 18.6], [1, 0, 1, 1]), 48.25, 1536.0, "", frames(film[0], 200)),
        Result("oracle", episodes([30, 34, 29]), 212.0, 10000.0, "sees [the] level", ()),
        Result("random", episodes([-3, 1, 2, 0]), 0.004, 0.0, "", frames(film[1], 90)),
    ]


FILES = [
    "comparison.mp4", "comparison.png", "comparison.svg", "compute.png", "compute.svg", "episodes.csv", "profile.png",
    "profile.svg", "report.html", "summary.json",
]  # fmt: skip


def table(given, title):
    return tables(given, title)[0]


def text(renderable):
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_files_are_there_and_nothing_else(tmp_path):
    folder = tmp_path / "new" / "folder"
    paths = write_report(rows((3, 2)), "title", folder, METADATA)
    charts = tuple(folder / name for name in ("comparison.png", "compute.png", "profile.png"))
    videos = (folder / "comparison.mp4",)
    assert paths == Report(folder / "episodes.csv", folder / "summary.json", folder / "report.html", charts, videos)
    assert sorted(os.listdir(folder)) == FILES
    write_report(rows((3, 2)), "title", str(folder), METADATA)  # again, over the old ones
    assert sorted(os.listdir(folder)) == FILES


def test_csv_gives_back_every_episode_exactly(tmp_path):
    awkward = [*rows(), Result('with "quotes", and commas', episodes([1e-17, 1 / 3]), 1.0, 0.0)]
    with write_report(awkward, "title", tmp_path, METADATA).episodes.open(newline="") as file:
        lines = list(csv.DictReader(file))
    read = {}
    for line in lines:
        episode = Episode(float(line["return"]), int(line["decisions"]), bool(int(line["success"])), int(line["level"]))
        assert int(line["index"]) == len(read.setdefault(line["row"], []))
        read[line["row"]].append(episode)
    assert list(read) == [row.name for row in awkward]
    assert all(tuple(read[row.name]) == row.episodes for row in awkward)


def test_summary_has_the_numbers_of_the_rows_in_their_order(tmp_path):
    given = rows()
    summary = json.loads(write_report(given, "a title", tmp_path, METADATA).summary.read_text())
    assert summary["title"] == "a title" and summary["metadata"] == METADATA
    assert [row["name"] for row in summary["rows"]] == ["Mode-2", "oracle", "random"]
    for row, read in zip(given, summary["rows"], strict=True):
        interval = mean_interval(row.returns)
        success = wilson(int(row.successes.sum()), len(row.episodes))
        assert read["episodes"] == len(row.episodes)
        assert read["mean"] == interval.mean and read["interval"] == [interval.low, interval.high]
        assert read["success"] == success.mean and read["success_interval"] == [success.low, success.high]
        assert read["decisions"] == np.mean([episode.decisions for episode in row.episodes])
        assert (read["ms_per_decision"], read["calls_per_decision"]) == (row.milliseconds, row.calls)
        assert read["note"] == row.note
    better = summary["probability_of_improvement"]
    assert [(entry["row"], entry["over"]) for entry in better] == [("Mode-2", "oracle"), ("Mode-2", "random")]
    for entry, other in zip(better, given[1:], strict=True):
        assert entry["value"] == probability_of_improvement(given[0].returns, other.returns)
        assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]


def test_success_is_reported_only_where_the_task_has_it(tmp_path):
    without = rows()[1:]
    summary = json.loads(write_report(without, "title", tmp_path, METADATA).summary.read_text())
    assert all("success" not in row for row in summary["rows"])
    assert summary["probability_of_improvement"] == []
    assert "success" not in text(table(without, "title"))
    assert "success" in text(table(rows(), "title"))


def test_one_episode_has_no_interval_anywhere(tmp_path):
    one = [Result("Mode-1", episodes([3.0]), 1.0, 0.0)]
    paths = write_report(one, "title", tmp_path, METADATA)
    content = paths.summary.read_text()
    assert json.loads(content)["rows"][0]["interval"] is None and "NaN" not in content
    assert "one episode: none" in text(table(one, "title"))
    assert "nan" not in text(table(one, "title"))


def test_table_shows_the_rows_in_order_and_takes_names_literally():
    shown = text(table(rows(), "Title [bold]"))
    assert "Title [bold]" in shown and "sees [the] level" in shown
    places = [shown.index(word) for word in ("Mode-2", "oracle", "random")]
    assert places == sorted(places)
    line = next(line for line in shown.splitlines() if "Mode-2" in line)
    interval = mean_interval(rows()[0].returns)
    for cell in (" 4 ", "17.6", f"{interval.low:.1f} … {interval.high:.1f}", "75 % (30 … 95)", " 48 ", "1,536"):
        assert cell in line


def test_chart_shows_the_data(tmp_path):
    given = rows()
    chart = iio.imread(write_report(given, "title", tmp_path / "a", METADATA).charts[0])
    assert chart.shape[1] == 1800
    height, width = chart.shape[:2]
    plot = chart[height // 4 : 3 * height // 4, width // 5 : 3 * width // 5, :3]
    assert plot.std() > 5

    def near(colour):
        return (np.abs(chart[..., :3].astype(int) - colour).max(axis=-1) < 8).sum()

    assert near((0xD5, 0x5E, 0x00)) > 500 and near((0x00, 0x9E, 0x73)) > 500  # Mode-2 and oracle, in their colours
    assert near((0x00, 0x72, 0xB2)) == 0  # Mode-1 is not there

    again = iio.imread(write_report(given, "title", tmp_path / "b", METADATA).charts[0])
    assert np.array_equal(chart, again)
    given[2] = Result("random", episodes([-3, 1, 12, 0]), 0.004, 0.0)
    other = iio.imread(write_report(given, "title", tmp_path / "c", METADATA).charts[0])
    assert other.shape == chart.shape and not np.array_equal(chart, other)


def test_chart_survives_odd_rows(tmp_path):
    odd = [
        Result("$x_1$ \\frac, a name longer than any behaviour's", episodes([5.0]), 1e5, 0.0, "n" * 300),
        Result("flat", episodes([5.0, 5.0]), 0.0, 0.5),
    ]
    chart = iio.imread(write_report(odd, "title $ " * 20, tmp_path, METADATA).charts[0])
    assert chart.shape[1] == 1800 and chart[..., :3].std() > 5


def test_colours_do_not_depend_on_who_is_filmed():
    names = ["a", "MODE-2 (64 plans)", "b", "random held", "expert"]
    colours = colours_of(names)
    assert len(set(colours.values())) == 5
    assert colours["MODE-2 (64 plans)"] == colours_of(["mode-2"])["mode-2"]
    assert colours["random held"] == colours_of(["random"])["random"]
    several = colours_of(["mode-2 · 64 calls", "big: mode-2", "mode-2"])
    assert len(set(several.values())) == 3 and several["big: mode-2"] == colours_of(["mode-2"])["mode-2"]


def test_video_shows_every_step_side_by_side(tmp_path):
    given = rows((9, 4))
    path = write_report(given, "title", tmp_path, METADATA, fps=10).videos[0]
    video = iio.imread(path, plugin="pyav")
    properties = iio.immeta(path, plugin="pyav")
    assert (properties["codec"], properties["video_format"], properties["fps"]) == ("h264", "yuv420p", 10)
    count, height, width, _ = video.shape
    assert count == 9 and height % 2 == width % 2 == 0
    assert width >= 2 * 256 and height >= 256
    tile = films._GAP + films._BAR
    ours, theirs = video[:, tile + 100 : tile + 250, 20:250], video[:, tile + 100 : tile + 250, 290:500]
    assert ours.mean() == pytest.approx(200, abs=3)
    assert theirs[:4].mean() == pytest.approx(90, abs=3)
    assert theirs[4:].mean() == pytest.approx(0.45 * 90, abs=3)  # ended: frozen and dark
    assert np.abs(video[0].astype(int) - video[3]).max() > 50  # pictures move
    bar = video[:, films._GAP : tile - 4, 190:264].astype(int)
    assert np.abs(bar[0] - bar[8]).max() > 50  # and so does the step
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # starts to play before it is loaded


@pytest.mark.parametrize("shape", [(33, 47), (400, 601), (1, 3)])
def test_video_takes_any_size_of_picture(tmp_path, shape):
    filmed = [Result("a name that does not fit " * 9, episodes([1.0]), 0, 0, "", frames(2, 90, shape))]
    video = iio.imread(write_report(filmed, "title", tmp_path, METADATA).videos[0], plugin="pyav")
    scale = math.ceil(256 / min(shape))
    assert len(video) == 2
    assert 0 <= video.shape[1] - (shape[0] * scale + films._BAR + 2 * films._GAP) <= 1
    assert 0 <= video.shape[2] - (shape[1] * scale + 2 * films._GAP) <= 1


def test_without_pictures_there_is_no_video_not_even_an_old_one(tmp_path):
    assert write_report(rows((2, 0)), "title", tmp_path, METADATA).videos
    assert write_report(rows(), "title", tmp_path, METADATA).videos == ()
    assert not (tmp_path / "comparison.mp4").exists()


def test_what_is_not_a_picture_is_named_and_the_numbers_are_kept(tmp_path):
    filmed = [Result("Mode-1", episodes([1.0]), 0, 0, "", (np.zeros(4, np.uint8),))]
    with pytest.raises(ValueError, match=r"'Mode-1': frames\[0\] is uint8 \[4\].*render_mode"):
        write_report(filmed, "title", tmp_path, METADATA)
    assert {"comparison.png", "episodes.csv", "summary.json"} < set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no rows"),
        ([Result("a", (), 0, 0)], "'a' has no episodes"),
        ([Result("a", episodes([1.0]), 0, 0)] * 2, "2 rows are called 'a'"),
        ([Result("a", episodes([1.0, math.nan]), 0, 0)], "'a', episode 1: the return is nan"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        write_report(bad, "title", tmp_path / "x", METADATA)
    with pytest.raises(ValueError, match=message):
        table(bad, "title")
    assert not (tmp_path / "x").exists()


def test_bad_options_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="fps is 0"):
        write_report(rows(), "title", tmp_path, METADATA, fps=0)
    for value in (object(), math.nan):
        with pytest.raises(ValueError, match="metadata"):
            write_report(rows(), "title", tmp_path, {"key": value})
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match=r"Could not write .*file.*another folder"):
        write_report(rows(), "title", tmp_path / "file", METADATA)
    with pytest.raises(NotADirectoryError, match="another folder"):
        write_report(rows(), "title", tmp_path / "file" / "below", METADATA)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_the_old_report_and_no_scraps(tmp_path, monkeypatch):
    before = write_report(rows((2, 2)), "title", tmp_path, METADATA)
    old = {path: path.read_bytes() for path in (before.summary, before.videos[0])}

    replace = os.replace

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", full)
        with pytest.raises(OSError, match=r"Could not write .*episodes\.csv.*No space.*Free some space") as caught:
            write_report(rows((3, 3)), "title", tmp_path, METADATA)
        assert caught.value.errno == errno.ENOSPC
    assert all(path.read_bytes() == content for path, content in old.items())
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", lambda a, b: full() if b.suffix == ".mp4" else replace(a, b))
        with pytest.raises(OSError, match=r"Could not write .*comparison\.mp4.*Free some space"):
            write_report(rows((3, 3)), "title", tmp_path, METADATA)
    assert before.videos[0].read_bytes() == old[before.videos[0]]
    assert sorted(os.listdir(tmp_path)) == FILES


def test_a_folder_without_permission_is_explained(tmp_path, monkeypatch):
    def forbidden(*_):  # permissions do not bind root, who may run the tests
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(module.Path, "write_bytes", forbidden)
    with pytest.raises(PermissionError, match=r"episodes\.csv.*may write to"):
        write_report(rows(), "title", tmp_path, METADATA)
    assert os.listdir(tmp_path) == []


def test_the_library_leaves_pyplot_alone():
    import subprocess

    code = "import sys, forethought.agent.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- several runs, budgets, worlds


def draw(name, world, mean, run="", split="unseen", steps=0, calls=0.0, count=40):
    returns = np.random.default_rng(sum(map(ord, name + run + split))).normal(mean, 1.0, count)
    return Result(name, episodes(returns), 1.0, calls, "", (), world, run, split, steps)


def study(worlds=("procgen:coinrun",)):
    found = []
    for world in worlds:
        for run, shift in (("a", 0.0), ("b", 0.4), ("c", -0.4)):
            for name, mean, calls in (("mode-1", 5.5, 0), ("mode-2 · 64 calls", 6.5, 60), ("mode-2", 7.5, 700)):
                found.append(draw(name, world, mean + shift, run, "unseen", 200_000, calls))
                found.append(draw(name, world, mean + shift + 1, run, "train", 200_000, calls))
        found.append(draw("random", world, 3.0))
    return found


def known(*worlds):
    return References(normalisation, {world: published_ppo(world) for world in worlds})


def test_runs_are_seeds_of_a_row_and_the_gap_is_that_of_the_same_run(tmp_path):
    given = study()
    report = write_report(given, "title", tmp_path, METADATA, references=known("procgen:coinrun"))
    summary = json.loads(report.summary.read_text())
    assert [row["name"] for row in summary["rows"]] == ["mode-1", "mode-2 · 64 calls", "mode-2", "random"]
    row = summary["rows"][2]
    runs = [result for result in given if (result.name, result.split) == ("mode-2", "unseen")]
    trained = [result for result in given if (result.name, result.split) == ("mode-2", "train")]
    means = [result.returns.mean() for result in runs]
    gaps = [t.returns.mean() - r.returns.mean() for r, t in zip(runs, trained, strict=True)]
    assert row["mean"] == pytest.approx(np.mean(means)) and row["runs"] == ["a", "b", "c"]
    assert (row["interval"][0], row["interval"][1]) == pytest.approx((min(means), max(means)), abs=0.1)  # over runs
    assert row["gap"]["value"] == pytest.approx(np.mean(gaps)) and row["gap"]["value"] == pytest.approx(1, abs=0.3)
    assert row["train"]["value"] == pytest.approx(row["mean"] + row["gap"]["value"])
    assert row["score"]["value"] == pytest.approx((row["mean"] - 5) / 5) and row["training_steps"] == 200_000
    assert "gap" not in summary["rows"][3] and summary["published"]["procgen:coinrun"][5]["steps"] == 25_000_000
    names = [path.name for path in report.charts]
    assert names == ["comparison.png", "scaling.png", "compute.png", "gap.png", "learning.png", "profile.png"]
    shown = text(tables(given, "title", known("procgen:coinrun"))[0])
    for word in ("train levels", "normalised", f"{row['mean']:.1f}", "PPO, 25M steps", "8.7"):
        assert word in shown


def test_worlds_are_brought_together_by_normalised_scores(tmp_path):
    worlds = ("procgen:coinrun", "procgen:ninja")
    given = study(worlds)
    report = write_report(given, "title", tmp_path, METADATA, references=known(*worlds))
    summary = json.loads(report.summary.read_text())
    scores = [normalisation(r.world)(r.returns.mean()) for r in given if (r.name, r.split) == ("mode-2", "unseen")]
    whole = summary["over_all_worlds"]["mode-2"]
    assert whole["IQM"]["value"] == pytest.approx(np.mean(sorted(scores)[1:-1]))
    assert whole["mean"]["value"] == pytest.approx(np.mean(scores))
    assert {path.name for path in report.charts} >= {"overall.png", "comparison-procgen-coinrun.png"}
    shown = text(tables(given, "title", known(*worlds))[2])
    assert "IQM" in shown and f"{whole['IQM']['value']:.3f}" in shown and "is better)" in shown
    without = tables([*given, draw("mode-1", "CartPole-v1", 30.0)], "title", known(*worlds))
    assert len(without) == 3  # a world that cannot be normalised: nothing over all


def test_charts_of_an_earlier_report_do_not_stay(tmp_path):
    write_report(study(), "title", tmp_path, METADATA, references=known("procgen:coinrun"))
    (tmp_path / "mine.png").write_bytes(b"")
    write_report(rows(), "title", tmp_path, METADATA)
    assert sorted(os.listdir(tmp_path)) == sorted([*FILES[1:], "mine.png"])


def test_the_page_holds_everything_and_fetches_nothing(tmp_path):
    given = rows((3, 2))
    given[1] = Result("<script>alert(1)</script>", given[1].episodes, 1.0, 0.0, "<b>note</b>")
    report = write_report(given, "a <title>", tmp_path, METADATA | {"command": "</pre><script>"})
    page = report.page.read_text()
    assert "<script" not in page and "<b>note" not in page and "&lt;b&gt;note" in page and "a &lt;title&gt;" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 4 and all(source.startswith("data:") for source in sources)  # three charts and the film
    kept = [base64.b64decode(source.split(",")[1]) for source in sources]
    assert kept[0] == report.charts[0].with_suffix(".svg").read_bytes() and kept[3] == report.videos[0].read_bytes()
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r'src="[^"]*"', "", page))
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert {"Mode-2", "17.6", "1,536"} <= set(cells) and "default-src 'none'" in page


def test_what_is_not_played_on_unseen_levels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="training levels alone"):
        write_report([draw("mode-1", "w", 0.0, "a", "train")], "title", tmp_path, METADATA)
    with pytest.raises(ValueError, match="2 rows are called"):
        write_report([draw("mode-1", "w", 0.0, "a"), draw("mode-1", "w", 1.0, "a")], "title", tmp_path, METADATA)
