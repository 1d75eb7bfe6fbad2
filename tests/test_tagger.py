# ruff: noqa: F811, the parameters of tests are fixtures
"""Tagging from Python, with the mini CLIP."""

import itertools
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image
from running import rcnn
from tagging import MINI, NAMES, folder, photos, pictures, run, six  # noqa: F401
from torch.nn import functional as F

from rcnn import runtime, tagger
from rcnn.learn import class_embeddings, losses
from rcnn.tagger import Tagger
from rcnn.text import corpus
from rcnn.text.classes import ClassList, parse_name


def test_one_image_gives_one_list_of_tags_best_first(six, pictures):
    tags = six.tag(pictures[0])
    assert len(tags) == 5
    assert {tag.name for tag in tags} <= set(NAMES)
    assert all(a.score >= b.score for a, b in itertools.pairwise(tags))
    assert {(tag.threshold, tag.present) for tag in tags} == {(None, None)}


def test_several_images_give_a_list_each_whatever_they_are(six, pictures):
    image = Image.open(pictures[1])
    kinds = [str(pictures[1]), pictures[1], image, np.asarray(image)]
    tags = six.tag(kinds, top=2)
    assert [len(t) for t in tags] == [2] * 4
    for found in [*tags, *(six.tag(kind, top=2) for kind in kinds)]:
        assert found == tags[0]


def test_scores_are_in_the_order_of_the_classes_and_of_the_images(six, pictures):
    scores = six.scores(pictures)  # more than one batch
    assert (scores.shape, scores.dtype, scores.device.type) == ((10, 6), torch.float32, "cpu")
    torch.testing.assert_close(six.scores(pictures[9]), scores[9])
    best = [max(zip(row, NAMES, strict=True))[1] for row in scores.tolist()]
    assert [tags[0][0] for tags in six.tag(iter(pictures), top=1)] == best
    assert len(set(best)) > 1


def test_a_photograph_is_turned_upright_by_its_exif_data(six, pictures, tmp_path):
    upright = Image.open(pictures[0]).resize((80, 160)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    torch.testing.assert_close(six.scores(tmp_path / "turned.png"), six.scores(upright))


def test_no_images_give_no_tags(six):
    assert six.tag([]) == []
    assert six.scores([]).shape == (0, 6)


def test_equal_scores_are_ranked_in_the_order_of_the_class_list(six):
    scores = torch.tensor([0.1, 0.3, 0.2, 0.3, 0.3, 0.2])
    assert [tag.name for tag in six.best(scores)] == ["cat", "tree", "house", "boat", "duck"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nowhere.jpg", "cannot read image nowhere.jpg: .*No such file"),
        (np.zeros((4, 4), np.uint8), r"cannot read image 0 \(ndarray\): expected an array \(height, width, 3\) of uint8"),
        (np.zeros((4, 4, 3)), r"cannot read image 0 \(ndarray\): .* of float64"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(six, image, said):
    for look in (six.tag, six.scores):
        with pytest.raises(ValueError, match=said):
            look(image)


def test_the_image_of_several_that_cannot_be_read_is_named(six, pictures):
    with pytest.raises(ValueError, match=r"cannot read image 1 \(ndarray\)"):
        six.tag([pictures[0], np.zeros(3, np.uint8)])


def test_more_tags_than_classes_are_an_error_only_when_asked_for(pictures):
    two = Tagger.from_names(["dog", "cat"], **MINI)
    assert len(two.tag(pictures[0])) == 2
    with pytest.raises(ValueError, match=r"top: expected 1 to 2 \(the number of classes\), got 3"):
        two.tag(pictures[0], top=3)


def test_names_alone_give_the_mean_of_the_templates(six):
    encoded = corpus.encode(six.model, corpus.templates(ClassList(tuple(NAMES), 0)))
    torch.testing.assert_close(six.class_embeddings, class_embeddings.mean(encoded))


def test_centred_names_reach_a_lower_expected_loss_than_their_means(six):
    encoded = corpus.encode(six.model, corpus.templates(ClassList(tuple(NAMES), 0)))
    number = len(encoded)
    sums, weight = losses.class_sums(encoded, number), losses.pair_weight(6, number)
    centred = Tagger.from_names(NAMES, **MINI, centred=True).class_embeddings
    loss, of_means = (losses.expected_loss(z, sums, weight, number) for z in (centred, six.class_embeddings))
    assert loss < of_means - 1
    off_diagonal = ~torch.eye(6, dtype=torch.bool)
    assert (centred @ centred.T)[off_diagonal].mean() < (six.class_embeddings @ six.class_embeddings.T)[off_diagonal].mean()


def test_one_centred_name_is_its_mean(six):
    one = Tagger.from_names(["dog"], **MINI, centred=True)
    torch.testing.assert_close(one.class_embeddings[0], six.class_embeddings[0])


def test_the_weight_is_the_papers_at_coco():
    assert losses.pair_weight(65, 512) == pytest.approx(0.2)


def test_a_note_tells_homonyms_apart_and_is_not_part_of_the_name():
    two = Tagger.from_names(["crane [a wading bird]", "crane [a machine]", "traffic_light"], **MINI)
    assert two.class_names == ["crane", "crane", "traffic light"]
    torch.testing.assert_close(two.class_embeddings[0], two.class_embeddings[1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["dog", "Dog"], "listed twice: dog"),
        (["dog", " "], "expected a class name, got ' '"),
        ([], "the class list is empty"),
        ("dog", "expected a list of names, got 'dog'"),
        (None, "expected a list of names, got None"),
    ],
)
def test_names_that_make_no_class_list_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Tagger.from_names(given, **MINI)


@pytest.mark.parametrize(
    ("line", "part"),
    [("dog", ("dog", "")), (" traffic_light ", ("traffic light", "")), ("crane [a bird]", ("crane", "a bird"))],
)
def test_a_line_of_a_class_list_is_a_name_and_a_note(line, part):
    assert parse_name(line) == part


def test_the_plain_score_looks_at_the_whole_image_alone(six, pictures):
    plain = Tagger.from_names(NAMES, **MINI, grids=())
    torch.testing.assert_close(plain.class_embeddings, six.class_embeddings)
    assert plain.model.encode_views(torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8)).global_features.shape[1] == 1
    assert not torch.allclose(plain.scores(pictures), six.scores(pictures))


def test_the_example_of_the_documentation_runs(six, photos, monkeypatch, capsys):
    (photos / "a.jpg").rename(photos / "photo.jpg")
    monkeypatch.chdir(photos)
    monkeypatch.setattr(runtime, "load_clip", lambda *_, **__: six.model)  # in place of OpenAI's weights
    lines = [line[4:] for line in tagger.__doc__.splitlines() if line.startswith("    ")]
    exec("\n".join(lines), {})
    assert re.match(r"\w+ -?[\d.]+\n", capsys.readouterr().out)


def test_a_run_is_loaded_with_its_class_embeddings_and_settings(run, pictures):
    of_run = Tagger.load(run)
    evaluate = of_run.settings.evaluate
    assert (len(of_run.class_names), evaluate.grids, evaluate.temperature) == (84, (2, 3), 0.05)
    torch.testing.assert_close(of_run.class_embeddings, F.normalize(of_run.class_embeddings))
    other = Tagger.load(run, "evaluate.temperature=0.5", device="cpu", **{"clip.weights": MINI["weights"]})
    assert other.settings.evaluate.temperature == 0.5
    assert not torch.allclose(other.scores(pictures[0]), of_run.scores(pictures[0]))


def test_stream_says_which_images_are_broken_and_gives_every_batch_in_order(six, pictures):
    given = [*pictures[:2], "nowhere.jpg", *pictures[2:]]
    got = list(six.stream(given, batch_size=4))
    assert [(indices, list(broken)) for indices, _, broken in got] == [
        ([0, 1, 3], [2]), ([4, 5, 6, 7], []), ([8, 9, 10], []),
    ]  # fmt: skip
    assert "nowhere.jpg" in got[0][2][2]
    torch.testing.assert_close(torch.cat([scores for _, scores, _ in got]), six.scores(pictures))
    assert six.best(got[0][1][2], top=1)[0][0] == six.tag(pictures[2], top=1)[0][0]


@pytest.mark.parametrize("look", ["tag", "scores"])
def test_what_is_no_regular_file_is_named_by_the_tagger(six, tmp_path, look):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match=f"cannot read image {path}: .* is not a regular file"):
            getattr(six, look)([path])


@pytest.fixture(scope="module")
def checked(six, pictures):
    """Twelve images and the names of what is taken to be on them."""
    images = [picture for picture in pictures for _ in range(2)][:12]
    scores = six.scores(images)
    return images, [[NAMES[c] for c in row.topk(1 + i % 3).indices.tolist()] for i, row in enumerate(scores)]


@pytest.fixture
def calibrated(checked):
    """A tagger with cut-offs, and these."""
    tagger = Tagger.from_names(NAMES, **MINI)
    return tagger, tagger.calibrate(*checked)


def test_calibrated_tags_are_those_that_reach_their_cut_offs(calibrated, pictures):
    tagger, cutoffs = calibrated
    assert 0 <= cutoffs.facts["held_out"]["micro F1"][0] <= 1
    scores = tagger.scores(pictures).numpy()
    present = scores >= cutoffs.thresholds
    assert len(set(present.sum(1))) > 1
    for tags, row in zip(tagger.tag(pictures), present, strict=True):
        assert {tag.name for tag in tags} == {name for name, is_there in zip(NAMES, row, strict=True) if is_there}
        assert all(tag.present and tag.score >= tag.threshold for tag in tags)
    everything = tagger.tag(pictures[0], top=6)
    assert [tag.present for tag in everything] == [tag.score >= tag.threshold for tag in everything]
    assert {tag.name for tag in everything if tag.present} == {tag.name for tag in tagger.tag(pictures[0])}


def test_a_saved_tagger_is_loaded_with_its_cut_offs_and_gives_the_same(calibrated, pictures, tmp_path):
    tagger, cutoffs = calibrated
    tagger.save(tmp_path / "mine")
    again = Tagger.load(tmp_path / "mine")
    assert again.identity == tagger.identity
    assert again.cutoffs.thresholds.tolist() == cutoffs.thresholds.tolist()
    assert again.tag(pictures) == tagger.tag(pictures)
    with pytest.raises(ValueError, match="cut-offs of another model, other class embeddings or other grids"):
        Tagger.load(tmp_path / "mine", **{"evaluate.grids": []})


def test_a_tagger_that_is_saved_anew_without_cut_offs_has_none(calibrated, six, tmp_path):
    calibrated[0].save(tmp_path / "mine")
    six.save(tmp_path / "mine")
    assert Tagger.load(tmp_path / "mine").cutoffs is None


def test_a_run_is_not_overwritten(six, run):
    with pytest.raises(ValueError, match=r"holds a run of rcnn\.train; choose another folder"):
        six.save(run)
    assert len(Tagger.load(run).class_names) == 84


def test_a_saved_tagger_is_no_run_that_can_be_measured(six, tmp_path):
    six.save(tmp_path / "mine")
    _, stderr = rcnn("evaluate", tmp_path / "mine", code=2)
    assert "expected the images and their labels, got null" in stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images, labels: (images, labels[1:]), "labels: expected those of 12 images, got 11"),
        (
            lambda images, labels: (images, [*labels[1:], ["dragon"]]),
            "labels that are not one class of the list each: 'dragon'",
        ),
        (lambda images, labels: (images[:5], labels[:5]), "expected at least 10 checked photos, better 50, got 5"),
        (lambda images, labels: (["nowhere.jpg", *images[1:]], labels), "cannot read image nowhere.jpg"),
        (lambda images, labels: (images, [[]] * 12), "no checked photo shows any of the classes"),
    ],
)
def test_labels_that_do_not_fit_are_named(six, checked, change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        six.calibrate(*change(*checked))
    assert six.cutoffs is None


def test_the_identity_is_that_of_all_that_scores_depend_on(six, run):
    same, others = Tagger.from_names(NAMES, **MINI), [Tagger.from_names(NAMES[::-1], **MINI)]
    others += [Tagger.from_names(NAMES, **MINI, grids=()), Tagger.from_names(NAMES, **MINI, centred=True)]
    others += [Tagger.load(run, pair) for pair in ("seed=1", "evaluate.temperature=0.1", "evaluate.precision=bf16")]
    assert same.identity == six.identity
    assert len({six.identity, *(other.identity for other in others)}) == 7


def test_scores_do_not_depend_on_the_images_beside(six, pictures):
    alone = torch.stack([six.scores(picture) for picture in pictures[:4]])
    assert torch.equal(alone, six.scores(pictures[:4]))
    assert torch.equal(alone.flip(0), six.scores(pictures[3::-1]))
