"""The figures: their numbers by hand and from the files of a run, and that the pictures are whole."""

import functools
import itertools
import json
import sys

import draw_mini
import numpy as np
import pytest
import torch
from made_up import classes, made_up
from PIL import Image, PdfParser
from running import rcnn

from rcnn import checkpoint
from rcnn.figure import FIGURES
from rcnn.figures import embeddings, groups, hierarchy, predictions
from rcnn.figures.kept_scores import KeptScores
from rcnn.results.result import Result

OURS = "The groups are ours, as the paper does not print its own."
PAIRS = [(0, 2), (1, 2)]  # two children, and their parent, of five classes
SCORES = torch.tensor([[0.9, 0.1, 0.8, 0.3, 0.2], [0.9, 0.8, 0.1, 0.7, 0.2], [0.1, 0.2, 0.9, 0.3, 0.8]])
LABELS = torch.tensor([[1, -1, -1, -1, -1], [1, 1, 1, -1, -1], [-1, 1, 0, -1, 1]], dtype=torch.int8)


@pytest.fixture(scope="module")
def run(tmp_path_factory, features):
    """A run on 24 drawings, measured by a method of two epochs, with its scores kept."""
    folder = tmp_path_factory.mktemp("figures")
    draw_mini.draw_benchmark(folder / "benchmark", 24)
    pairs = [
        f"output={folder}/run", f"cache={features}", f"dataset.images={folder}/benchmark/images",
        f"dataset.annotations={folder}/benchmark/instances.json", "train.epochs=2", "train.batch_size=2048",
        "train.ablation=false", "evaluate.bootstrap=0", "evaluate.diagnostics=false", "evaluate.keep_scores=true",
        "device=cpu",
    ]  # fmt: skip
    rcnn("train", "--config", "configs/mini.yaml", *pairs)
    return folder / "run"


def draw(figure, run, output, *more):
    """What is printed, and the numbers in the JSON file."""
    stdout, _ = rcnn("figure", figure, run, "--output", output, *more)
    return stdout, json.loads((output / f"figure_{figure}.json").read_text(encoding="utf-8"))


def kept_table(run, row, scorer):
    """Scores and labels of the images that show a class, as NumPy reads them."""
    index = json.loads((run / "scores_kept" / "index.json").read_text())
    (file,) = [t["file"] for t in index["tables"] if (t["row"], t["scorer"], t["part"]) == (row, scorer, None)]
    return np.load(run / "scores_kept" / file), np.load(run / "scores_kept" / "labels.npy")


@pytest.fixture(scope="module")
def drawn(run):
    """What is printed, and the numbers, of a figure in its default folder."""
    return functools.cache(lambda figure: draw(figure, run, run / "figures"))


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_a_png_and_a_pdf_of_one_page(run, drawn, figure):
    stdout, _ = drawn(figure)
    file = run / "figures" / f"figure_{figure}.png"
    assert f"figure: {file}, .pdf; its numbers: figure_{figure}.json beside it" in stdout
    with Image.open(file) as picture:
        assert picture.width == 2160  # 7.2 inches at 300 dots
        assert len(picture.convert("L").getcolors()) > 10
    with PdfParser.PdfParser(file.with_suffix(".pdf")) as document:
        assert len(document.pages) == 1


@pytest.mark.parametrize("figure", ["4", "classes"])
def test_the_same_figure_has_the_same_bytes_again(run, tmp_path, drawn, figure):
    drawn(figure)
    draw(figure, run, tmp_path)
    for suffix in ("png", "pdf", "json"):
        name = f"figure_{figure}.{suffix}"
        assert (tmp_path / name).read_bytes() == (run / "figures" / name).read_bytes()


def test_pairwise_recall_counts_pairs_whose_classes_are_both_among_the_best():
    hits = hierarchy.pair_hits(SCORES, PAIRS, 2)
    assert hits.tolist() == [[1, 0], [0, 0], [0, 0]]
    # before completing, only the second image has pairs, two; after it the first has one, and the third as well
    assert hierarchy.pairwise_recall(hits, LABELS, PAIRS) == {"before": 0.0, "after": 25.0}
    hits = hierarchy.pair_hits(SCORES, PAIRS, 5)
    assert hierarchy.pairwise_recall(hits, LABELS, PAIRS) == {"before": 100.0, "after": 100.0}


def test_a_predicted_pair_whose_child_is_absent_never_counts():
    labels = torch.tensor([[-1, -1, 1, -1, -1]], dtype=torch.int8)
    hits = hierarchy.pair_hits(SCORES[:1], PAIRS, 2)
    assert hits.tolist() == [[1, 0]]
    assert hierarchy.pairwise_recall(hits, labels, PAIRS) == {"before": 0.0, "after": 0.0}


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_tied_classes_count_as_any_order_of_them_would_on_average(k):
    scores, orders = [0.5, 0.5, 0.5, 0.9, 0.5], list(itertools.permutations(range(5)))
    best = [sorted(order, key=lambda c: -scores[c])[:k] for order in orders]
    pairs = [(0, 2), (1, 4), (3, 0)]
    expected = [np.mean([child in top and parent in top for top in best]) for child, parent in pairs]
    assert hierarchy.pair_hits(torch.tensor([scores]), pairs, k)[0].tolist() == pytest.approx(expected)


def test_completing_adds_the_parents_of_positive_children_and_leaves_the_labels_alone():
    before = LABELS.clone()
    assert hierarchy.completed(LABELS, PAIRS)[:, 2].tolist() == [1, 1, 1]
    assert torch.equal(LABELS, before)


def test_figure_5_is_what_loops_over_the_kept_scores_find(run, drawn):
    stdout, found = drawn("5")
    result = Result.load(run)
    names, of = result.class_names, groups.read("mini", result.class_names)
    pairs = groups.pairs(of, names)
    assert (found["task"], found["images"], found["hierarchy"]) == ("gzsl", 24, len(pairs))
    assert ("bee", "animal") in [(names[child], names[parent]) for child, parent in pairs]
    shown = {("baseline", "plain"): "class name", ("cnr_pbl", "mssa"): "CNR + PBL (learned names) + MSSA"}
    for key, label in shown.items():
        scores, labels = kept_table(run, *key)
        hit = there = 0
        for s, y in zip(scores, labels, strict=True):
            best = set(np.argsort(-s)[:10])
            for child, parent in pairs:
                there += y[child] == 1
                hit += y[child] == 1 and {child, parent} <= best
        of_row = found["rows"][label]
        assert of_row["pairwise_recall"]["after"] == pytest.approx(100 * hit / there)
        assert found["pairs"] == {"before": there, "after": there}  # drawings are labelled with all kinds
        for part, metric in (("precision", "P@5"), ("recall", "R@5")):
            assert of_row["labels"]["before"][part] == pytest.approx(result.rows[key[0]][key[1]]["gzsl"][metric].value)
    assert OURS in stdout


def test_figure_5_counts_pairs_and_labels_before_and_after_completing(run, tmp_path, drawn, monkeypatch):
    load = KeptScores._load

    def without_animals(self, entry):  # the label, where another is
        table = load(self, entry)
        if entry["file"] == "labels.npy":
            table = np.array(table)
            table[:, Result.load(run).class_names.index("animal")] = -1
        return table

    whole = drawn("5")[1]
    monkeypatch.setattr(KeptScores, "_load", without_animals)
    found = draw("5", run, tmp_path)[1]
    assert found["pairs"]["before"] < whole["pairs"]["before"]
    assert found["pairs"]["after"] == whole["pairs"]["after"]
    for name, of in found["rows"].items():
        assert of["pairwise_recall"]["after"] == pytest.approx(whole["rows"][name]["pairwise_recall"]["after"])
        assert of["by_group"]["animal"]["before"] == 0
        assert of["labels"]["after"] == pytest.approx(whole["rows"][name]["labels"]["after"])
        assert of["labels"]["before"]["recall"] != of["labels"]["after"]["recall"]


def test_cosines_within_and_between_groups_are_means_over_pairs():
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    found = embeddings.cosines(z, {"a": [0, 1], "b": [2, 3]})
    assert (found["within"], found["between"], found["auc"]) == (1, 0, 1)
    # 0 and 2 share a group as well now: (0, 1) 1, (2, 3) 1, (0, 2) 0 within; (0, 3), (1, 2), (1, 3) 0 between
    found = embeddings.cosines(z, {"a": [0, 1], "b": [2, 3], "c": [0, 2]})
    assert found["within"] == pytest.approx(2 / 3)
    assert found["auc"] == pytest.approx((2 * 3 + 3 / 2) / 9)
    assert found["by_group"] == pytest.approx({"a": 1, "b": 1, "c": 0})


def test_figure_4_has_a_place_and_the_cosines_of_every_name_and_learned_name(run, drawn):
    stdout, found = drawn("4")
    learned, metadata = checkpoint.read_run(run)
    of = groups.read("mini", metadata["class_names"])
    assert list(found["panels"]) == ["class name", "CNR + PBL (learned names)"]
    assert len(found["classes"]) == len(found["panels"]["class name"]["places"]) == 65
    assert {p["class"] for p in found["classes"] if p["parent"]} == set(of)
    z = torch.nn.functional.normalize(learned["cnr_pbl"], dim=1)
    group = {c: g for g, members in of.items() for c in members}
    same = [float(z[a] @ z[b]) for a, b in itertools.combinations(group, 2) if group[a] == group[b]]
    assert found["panels"]["CNR + PBL (learned names)"]["within"] == pytest.approx(np.mean(same), abs=1e-6)
    assert f"mean cosine {np.mean(same):.3f} within groups" in stdout
    assert OURS in stdout


def test_figure_3_marks_what_is_true_what_is_reasonable_and_what_is_wrong(run, drawn):
    stdout, found = drawn("3")
    scores, labels = kept_table(run, "cnr_pbl", "mssa")
    result = Result.load(run)
    for image in found["images"]:
        i = int(image["image"].removesuffix(".jpg"))  # without its folder, so that the file can be given away
        for task, first, k in (("zsl", result.seen, 5), ("gzsl", 0, 10)):
            shown = image["tasks"][task]["CNR + PBL (learned names) + MSSA"]
            best = first + np.argsort(-scores[i, first:])[:k]
            assert [entry["class"] for entry in shown] == [result.class_names[c] for c in best]
            assert [entry["is"] == "true" for entry in shown] == [labels[i, c] == 1 for c in best]
    several = np.flatnonzero((labels[:, result.seen :] == 1).sum(1) >= 2)
    first, *_, last = (image["image"] for image in found["images"])
    assert (len(found["images"]), first, last) == (4, f"{several[0]:05}.jpg", f"{several[-1]:05}.jpg")
    assert "evenly spaced of those with two ZSL labels" in stdout


def test_figure_3_takes_images_by_the_end_of_their_path(run, tmp_path):
    _, found = draw("3", run, tmp_path, "--images", "images/00007.jpg", "00003.jpg")
    assert [image["image"] for image in found["images"]] == ["00007.jpg", "00003.jpg"]
    _, stderr = rcnn("figure", "3", run, "--images", "7.jpg", code=2)
    assert stderr == "error: --images: '7.jpg' is the end of 0 image paths of this run; expected one\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [("clouds", "cloud"), ("Boxes", "box"), ("berries", "berry"), ("churches", "church"), ("horses", "horse")],
)
def test_a_plural_and_its_singular_have_one_lemma(one, other):
    assert predictions.lemma(one) == predictions.lemma(other)


@pytest.mark.parametrize(("one", "other"), [("grass", "gra"), ("bus", "bu"), ("glass", "glas"), ("sky", "skies of")])
def test_other_words_have_another_lemma(one, other):
    assert predictions.lemma(one) != predictions.lemma(other)


def test_a_broader_kind_in_the_descriptions_is_reasonable():
    sentences = ["a dog, which is a pet.", "a poodle, which is a dog.", "a poodle, which is a dog, which is a animal."]
    assert predictions.kinds("dog", sentences) == {"pet"}


def test_a_broader_kind_of_a_true_label_is_black_and_another_class_red(run, tmp_path, monkeypatch):
    column = Result.load(run).class_names.index
    load = KeptScores._load

    def one_cat(self, entry):  # image 5 shows a cat, and everything scores animal, cat, bus
        table = np.full_like(load(self, entry), -1)
        if entry["file"] == "labels.npy":
            table[5, column("cat")] = 1
        else:
            table[:, [column("animal"), column("cat"), column("bus")]] = 3, 2, 1
        return table

    monkeypatch.setattr(KeptScores, "_load", one_cat)
    _, stderr = rcnn("figure", "3", run, "--output", tmp_path, code=2)
    assert stderr == "error: no image has two labels; --images says which to show\n"
    stdout, found = draw("3", run, tmp_path, "--images", "00005.jpg")
    shown = found["images"][0]["tasks"]["gzsl"]["class name"]
    assert [entry["is"] for entry in shown[:3]] == ["reasonable", "true", "wrong"]
    assert "class name: ≈ animal, ✓ cat, × bus" in stdout


def test_a_picture_that_was_damaged_since_is_named(run, tmp_path):
    picture = run.parent / "benchmark" / "images" / "00007.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(b"no picture")
    try:
        _, stderr = rcnn("figure", "3", run, "--output", tmp_path, "--images", "00007.jpg", code=2)
    finally:
        picture.write_bytes(whole)
    assert stderr == f"error: {picture}: cannot identify image: it is damaged, or of no known format\n"


def test_figure_classes_is_the_difference_of_average_precisions(run, drawn):
    _, found = drawn("classes")
    result = Result.load(run)
    ours, plain = (result.class_ap[row][by]["zsl"] for row, by in (("cnr_pbl", "mssa"), ("baseline", "plain")))
    names = result.class_names[result.seen :]
    expected = {n: a - b for n, a, b in zip(names, ours, plain, strict=True)}
    assert {e["class"]: e["difference"] for e in found["classes"]} == pytest.approx(expected)
    differences = [e["difference"] for e in found["classes"]]
    assert differences == sorted(differences, reverse=True)


def test_figure_epochs_is_the_loss_and_the_metrics_of_every_epoch(run, drawn):
    _, found = drawn("epochs")
    result = Result.load(run)
    assert found["losses"] == {"CNR + PBL (learned names)": result.learning["learned"]["cnr_pbl"]["losses"]}
    assert list(found["metrics"]) == ["ZSL mAP", "ZSL F1@3", "GZSL mAP", "GZSL F1@3"]
    assert found["metrics"]["GZSL mAP"] == [epoch["gzsl"]["mAP"] for epoch in result.epochs]


@pytest.mark.parametrize("kind", ["nuswide", "coco", "mini"])
def test_the_groups_of_a_data_set_are_eight_of_its_classes_and_no_child_is_a_parent(kind):
    names = classes(kind).names
    found = groups.read(kind, names)
    assert len(found) == 8
    pairs = groups.pairs(found, names)
    assert not {child for child, _ in pairs} & {parent for _, parent in pairs}
    if kind == "nuswide":
        assert len(pairs) == 39
        assert len(set(itertools.chain(*found.values()))) == 46
        assert all(child >= classes(kind).seen for pair in pairs for child in pair)


def test_what_a_run_lacks_for_a_figure_is_one_line_with_the_command_that_makes_it(run, tmp_path):
    result = Result.load(run)
    other = tmp_path / "other run"
    other.mkdir()
    result.save(other / "result.json")
    _, stderr = rcnn("figure", "5", other, code=2)
    again = f"python -m rcnn.evaluate '{other}' evaluate.keep_scores=true"
    assert stderr == f"error: {other} has kept no scores of its images, which this figure needs: {again}\n"
    (other / "scores_kept").symlink_to(run / "scores_kept")
    result.model_copy(update={"made_from": "f" * 64}).save(other / "result.json")
    _, stderr = rcnn("figure", "5", other, code=2)
    assert f"is not of {other}/result.json" in stderr
    result.model_copy(update={"epochs": []}).save(other / "result.json")
    _, stderr = rcnn("figure", "epochs", other, code=2)
    assert stderr.endswith(f"python -m rcnn.evaluate '{other}' evaluate.epochs=true\n")
    result.model_copy(update={"learning": {}}).save(other / "result.json")
    _, stderr = rcnn("figure", "epochs", other, code=2)
    assert "nothing was learned step by step" in stderr
    assert not (other / "figures").exists()


def test_a_damaged_table_of_scores_is_refused(run, tmp_path):
    path = run / "scores_kept" / "labels.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    try:
        _, stderr = rcnn("figure", "5", run, "--output", tmp_path, code=2)
    finally:
        path.write_bytes(whole)
    assert "labels.npy is damaged, or was changed" in stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("coco", "error: figure 5 is of pairs of a class and its parent, and no group of this data set is a class itself\n"),
        ("openimages", "error: Open Images has no groups of classes; rcnn/figures/groups.yaml is where they are listed\n"),
    ],
)
def test_a_data_set_without_pairs_or_groups_is_one_line(tmp_path, kind, said):
    made_up(kind).save(tmp_path / "result.json")
    assert rcnn("figure", "5", tmp_path, code=2)[1] == said


def test_a_class_list_without_a_class_of_the_groups_is_named():
    with pytest.raises(ValueError, match=r"groups\.yaml: mini has 'cat', which is no class of this run"):
        groups.read("mini", ["dog", "animal"])


@pytest.mark.parametrize("package", ["matplotlib", "sklearn.manifold"])
def test_without_its_packages_a_line_says_what_to_install(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    _, stderr = rcnn("figure", "4", run, code=2)
    assert stderr == "error: figures need matplotlib and scikit-learn: pip install matplotlib scikit-learn\n"
