"""Score standardisation: a control without class embeddings or images of its own, "normalize only" of SPARC (CVPR 2025)."""

import numpy as np

from rcnn.score.score_file import Mean

VALUES = 1 << 22  # scores that are in memory at a time while statistics are made
LEAST = 1e-14  # variance; scores that do not vary more are centred and not scaled


class Standardised:
    """A (B, C) table of scores, brought to mean 0 and deviation 1 (n - 1) twice, computed where it is looked at.

    First each image's scores over the classes, which makes images comparable: all that average precision feels. Then each
    class's over the images, which makes classes comparable. The second step uses the test images' own statistics, so the scores
    of one image depend on the others: it is transductive.
    """

    def __init__(self, table: np.ndarray | Mean, first: int, used: np.ndarray) -> None:
        """Statistics of the columns from `first` and of the images in `used`, (B,) bool; other columns have none."""
        classes = table[:1, :].shape[1]
        self.table, images, step = table, len(used), max(1, VALUES // classes)
        self.image_mean, self.image_std = np.zeros((images, 1)), np.ones((images, 1))
        self.class_mean, self.class_std = np.full((2, classes), np.nan)
        total, squares = np.zeros((2, classes - first))
        for start in range(0, images, step):
            rows = slice(start, start + step)
            scores = table[rows, first:].astype(np.float64)
            self.image_mean[rows] = scores.mean(1, keepdims=True)
            self.image_std[rows] = _deviation(((scores - self.image_mean[rows]) ** 2).sum(1, keepdims=True), classes - first)
            z = ((scores - self.image_mean[rows]) / self.image_std[rows])[used[rows]]
            total += z.sum(0)
            squares += (z**2).sum(0)
        count = max(1, int(used.sum()))
        self.class_mean[first:] = total / count
        self.class_std[first:] = _deviation(squares - total**2 / count, count)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """Float64 scores of a slice of images and one of classes."""
        rows, columns = index
        z = (self.table[index] - self.image_mean[rows]) / self.image_std[rows]
        return (z - self.class_mean[columns]) / self.class_std[columns]


def _deviation(squares, count):
    variance = squares / max(1, count - 1)
    return np.sqrt(np.where(variance > LEAST, variance, 1))
