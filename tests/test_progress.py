"""Progress on a terminal and elsewhere, with a clock that the test turns."""

import io
from contextlib import redirect_stderr

import pytest

from rcnn import cli, progress


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


def work(clock, bar, seconds):
    """One update of ten images after each of these numbers of seconds."""
    for passing in seconds:
        clock.now += passing
        bar.update(10)


def test_elsewhere_the_first_minute_is_silent(clock, capsys):
    with progress.progress(title="tag", total=100, unit="image") as bar:
        work(clock, bar, [10] * 5)
    assert capsys.readouterr() == ("", "")


def test_elsewhere_there_is_one_line_a_minute(clock, capsys):
    with progress.progress(title="tag", total=1000, unit="image") as bar:
        work(clock, bar, [20] * 12)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(",")[0] for line in err.splitlines()] == [f"tag: {n}/1000 images" for n in (30, 60, 90, 120)]


def test_time_left_counts_neither_the_start_nor_the_first_batch(clock, capsys):
    with progress.progress(title="tag", total=120, unit="image") as bar:
        clock.now += 3000  # until the work begins
        work(clock, bar, [600])
        work(clock, bar, [60])
    assert capsys.readouterr().err.splitlines() == ["tag: 10/120 images", "tag: 20/120 images, 10 min left"]


def test_time_left_of_a_continued_work_counts_only_what_was_done_now(clock, capsys):
    with progress.progress(title="learn", total=110, unit="epoch", initial=60) as bar:
        work(clock, bar, [60, 60])
    assert capsys.readouterr().err.splitlines()[-1] == "learn: 80/110 epochs, 3 min left"


def test_the_note_and_an_unknown_total_are_shown(clock, capsys):
    bar = progress.progress(title="ask", unit="answer")
    bar.note("$0.12")
    work(clock, bar, [70])
    bar.close()
    assert capsys.readouterr().err == "ask: 10 answers, $0.12\n"


def test_bytes_are_shown_in_units_that_people_read(clock, capsys):
    with progress.progress(title="download", total=6_900_000_000, unit="B") as bar:
        clock.now += 60
        bar.update(1_200_000_000)
    assert capsys.readouterr().err == "download: 1.20G/6.90GB\n"


def test_iterating_gives_every_item_and_counts_it(clock, capsys):
    found = []
    for item in progress.progress([1, 2, 3], "look"):
        found.append(item)
        clock.now += 40
    assert found == [1, 2, 3]
    assert capsys.readouterr().err == "look: 2/3, 40 s left\n"


def test_a_terminal_gets_a_bar_with_the_same_time_left(clock):
    with redirect_stderr(Terminal()) as terminal, progress.progress(title="tag", total=120, unit="image") as bar:
        work(clock, bar, [600, 60])
        assert "20/120 images, 10 min left" in terminal.getvalue()
        bar.note("loss 0.5")
    shown = terminal.getvalue()
    assert "10 min left, loss 0.5" in shown
    assert shown.endswith("\n")


def test_a_terminal_is_left_alone_by_what_takes_less_than_two_seconds(clock):
    for seconds, shown in (([0.9, 0.9], False), ([0.9, 1.2], True)):
        with redirect_stderr(Terminal()) as terminal, progress.progress(title="tag", total=20, unit="image") as bar:
            work(clock, bar, seconds)
        assert bool(terminal.getvalue()) == shown


def test_quiet_shows_nothing_until_the_next_command_starts(clock, capsys):
    parser = cli.parser("train", "a command")
    assert vars(parser.parse_args(["--quiet"])) == {}
    with progress.progress(title="tag", total=100, unit="image") as bar:
        work(clock, bar, [60] * 5)
    assert capsys.readouterr().err == ""
    cli.parser("train", "another command").parse_args([])
    with progress.progress(title="tag", total=100, unit="image") as bar:
        work(clock, bar, [60])
    assert capsys.readouterr().err == "tag: 10/100 images\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (9000, "2.5 h"), (180000, "50.0 h")]
)
def test_times_are_told_in_one_unit(seconds, words):
    assert progress.duration(seconds) == words
