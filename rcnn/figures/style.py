"""The look of all figures, and their files. Nothing of matplotlib's global state is touched."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rcnn.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # noqa: F401, for the figures' modules
    from matplotlib.figure import Figure

MISSING = "figures need matplotlib and scikit-learn: pip install matplotlib scikit-learn"
WIDTH = 7.2  # inches, of two columns of text
# Okabe and Ito's colours, which are told apart without full colour vision; shapes tell the groups apart without any
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
MARKERS = "os^DvPX*"
LOOK = {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7, "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3.5,
    "text.parse_math": False, "pdf.fonttype": 42, "errorbar.capsize": 2,
}  # fmt: skip


@contextlib.contextmanager
def look() -> Iterator[None]:
    """What is drawn and saved inside looks alike; ValueError without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise ValueError(MISSING) from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(LOOK)
        yield


def new(height: float) -> "Figure":
    """A figure of the width of a page, `height` in inches, whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure((WIDTH, height), layout="constrained")


def note(figure: "Figure", text: str) -> None:
    """Small print below everything."""
    figure.supxlabel(text, fontsize=5.5, color="0.35", x=0.01, ha="left")


def save(figure: "Figure", folder: str | Path, name: str) -> None:
    """Write NAME.png and NAME.pdf, whole or not at all, without a date: the same figure gives the same files."""
    for form, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        with replace_file(Path(folder) / f"{name}.{form}") as file:
            figure.savefig(file, format=form, dpi=300, metadata=metadata)
