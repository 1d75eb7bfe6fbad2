"""The result file: what it keeps, what it refuses, and when it may stand beside the paper's numbers."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from made_up import ROOT, classes, labelled, made_up

from rcnn import config, rows
from rcnn.datasets import DATASETS
from rcnn.datasets.images import ImageSet
from rcnn.files import sealed, write_json
from rcnn.results import measuring, summary, table
from rcnn.results.result import VERSION, Metric, Number, Result
from rcnn.text.classes import ClassList

IMAGES = 1000
FULL = {
    "class_ap": {"mine": {"plain": {"zsl": [0.0, 33.3333, 100.0]}}},
    "decided_by_ties": {"mine": {"plain": {"zsl": {"3": 4}}}},
    "coinciding": {"mine": [["cat", "dog"]]},
    "diagnostics": {"mine": {"plain": {"zsl": {"global": 1.5, "local": 2.5}}}},
    "epochs": [{"epoch": 1, "zsl": {"mAP": 4.5}}],
    "best_on_test": {"zsl": {"epoch": 1, "mAP": 4.5}},
    "comparable": False,
    "doubts": ["the class list is not the paper's"],
    "git_commit": "f" * 40,
    "sources": {"score/mssa.py": "0" * 64},
    "seconds": {"total": 1.25},
}


@pytest.fixture
def written(tmp_path):
    """A result file, and its content."""
    path = tmp_path / "result.json"
    made_up().save(path)
    return path, {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != "sha256"}


@pytest.mark.parametrize("fields", [{}, FULL], ids=["bare", "full"])
def test_a_result_is_the_same_after_it_was_saved_and_loaded(tmp_path, fields):
    result = made_up("coco", "clip.pretrained=null", **fields)
    result.rows["mine"] = {"plain": {"zsl": {"mAP": Metric(value=1.5, versus_plain=Number(value=0.5, interval=(0.1, 0.9)))}}}
    result.save(tmp_path / "run" / "result.json")
    assert Result.load(tmp_path / "run" / "result.json") == Result.load(tmp_path / "run") == result


def test_the_average_precision_of_every_class_is_kept(tmp_path):
    result = made_up(class_ap={"mine": {"mssa": {"gzsl": [round(100 * i / 7, 4) for i in range(65)]}}})
    result.save(tmp_path / "result.json")
    assert Result.load(tmp_path).class_ap == result.class_ap


def test_a_file_that_is_not_there_is_named_and_so_is_the_command_that_makes_it(tmp_path):
    for given, named in ((tmp_path / "no.json", "no.json"), (tmp_path, "result.json")):
        with pytest.raises(
            FileNotFoundError, match=rf"^there is no result file \S+{named}; python -m rcnn.evaluate makes one$"
        ):
            Result.load(given)


def refused(path):
    with pytest.raises(ValueError, match="measure again") as error:
        Result.load(path)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{path} is ")
    return line


@pytest.mark.parametrize("content", [b"", b"5", b"null", b"[1, 2]", b"{}", b"method: cnr", b"\xff\xfe\x00", b'{"version": 2}'])
def test_a_file_that_is_no_result_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    refused(path)


def test_a_cut_file_is_refused_in_one_line_wherever_it_was_cut(written):
    path, _ = written
    content = path.read_bytes()
    for size in (1, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:size])
        refused(path)


def test_a_file_of_another_version_is_refused_in_one_line(written):
    path, content = written
    for version in (1, VERSION + 1):
        path.write_text(json.dumps(content | {"version": version}), encoding="utf-8")
        assert f"no result file of version {VERSION}, but of {version}" in refused(path)
    path.write_text(json.dumps(content | {"version": VERSION + 1, "novel": 3}), encoding="utf-8")
    refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rows", 5),
        ("rows", {"baseline": {"plain": {"zsl": {"mAP": "high"}}}}),
        ("class_ap", {"baseline": {"plain": [1.0]}}),
        ("class_ap", {"baseline": {"plain": {"zsl": ["high"]}}}),
        ("comparable", "perhaps"),
        ("images", {"used": 3}),
        ("seed", 0.5),
        ("config", []),
        ("config", {"dataset": 3}),
        ("config", {"dataset": {"kind": ["coco"]}}),
        ("config", {"train": {"novel": 3}}),
    ],
)
def test_a_file_with_wrong_types_or_unknown_options_inside_is_refused_in_one_line(written, key, value):
    path, content = written
    write_json(path, sealed(content | {key: value}))
    assert "is no result file: " in refused(path)


def test_a_file_that_lacks_or_adds_a_field_is_refused_in_one_line(written):
    path, content = written
    for name in content.keys() - {"version"}:
        write_json(path, sealed({key: value for key, value in content.items() if key != name}))
        assert "Field required" in refused(path)
    write_json(path, sealed(content | {"novel": 3}))
    assert "is no result file: novel: " in refused(path)


@pytest.mark.parametrize(
    "change", [lambda text: text.replace('"value": 2', '"value": 9', 1), lambda text: text.replace('"seed": 0', '"seed": 1')]
)
def test_a_file_in_which_a_number_was_changed_is_refused(written, change):
    path, _ = written
    before = path.read_text(encoding="utf-8")
    assert change(before) != before
    path.write_text(change(before), encoding="utf-8")
    assert "is damaged, or was changed" in refused(path)


def test_every_flipped_bit_of_a_file_is_refused_or_changes_nothing(tmp_path):
    result, path = (
        made_up(rows={"cnr_pbl": {"mssa": {"zsl": {"mAP": Metric(value=3)}}}}, class_names=["a"], config={}),
        tmp_path / "r",
    )
    result.save(path)
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        with contextlib.suppress(ValueError):
            assert Result.load(path) == result


@pytest.mark.parametrize("kind", ["coco", "nuswide"])
def test_the_data_set_of_a_result_is_that_of_its_configuration(kind):
    assert made_up(kind).dataset == kind


def test_the_terminal_shows_rows_from_elsewhere_under_their_key_and_every_doubt():
    result = made_up(doubts=["first", "second"])
    result.rows["mine"] = result.rows["templates"]
    lines = table.render(labelled(result)).splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith(" mine")] == [" mine", " mine + MSSA"]
    assert [line for line in lines if "NOT" in line] == [f"NOT COMPARABLE with the paper: {d}." for d in ("first", "second")]


def measured(
    kind="coco", *overrides, of=None, broken=(), missing=0, counts=(), unverified="", unknown=lambda labels: None, **positives
):
    """The Result of made-up scores of the class name's row, on images with as many positives as the paper's, or `positives`.

    `unknown` may change the labels in place.
    """
    of, positives = of or classes(kind), (DATASETS[kind].positives_per_image or {"zsl": 1.2, "gzsl": 3.0}) | positives
    labels = torch.full((IMAGES, len(of)), -1, dtype=torch.int8)
    parts = (of.seen, positives["zsl"]), (0, positives["gzsl"] - positives["zsl"])
    for first, per_image in parts:  # column by column, so that every image shows an unseen class
        places = torch.arange(round(IMAGES * per_image))
        labels[places % IMAGES, first + places // IMAGES] = 1
    unknown(labels)
    fixed = [f"evaluate.{key}" for key in ("bootstrap=0", "diagnostics=false", "grids=[]", f"batch_size={IMAGES}")]
    options = [*fixed, "dataset.expected_images={}", *overrides]
    settings = config.load(ROOT / "configs" / f"{kind}.yaml", options)
    metadata = {
        "method": "baseline",
        "learning": {},
        "identity": {"corpus": "c" * 64, "clip": "b" * 64},
        "weights_sha256": "d" * 64,
    }
    paths = [Path(f"{i}.jpg") for i in range(IMAGES)]
    images = ImageSet(paths, labels, missing=("gone.jpg",) * missing, counts=dict(counts), unverified=unverified)
    embeddings = {rows.BASELINE: torch.eye(len(of))}
    scores = torch.rand(IMAGES, len(of), generator=torch.Generator().manual_seed(0)).numpy()
    good = torch.ones(IMAGES, dtype=torch.bool)
    good[list(broken)] = False
    used = measuring.images_in_use(labels, of, good, settings.dataset.keep_unlabelled)
    standardised = settings.evaluate.standardised
    as_absent = measuring.unknown_as_absent(labels, of, settings.evaluate, settings.dataset.keep_unlabelled)
    units = [measuring.Unit(("baseline", "plain"), lambda owner: {"total": scores}, list(of.tasks), standardised)]
    found = measuring.measure_all(units, labels, used, of, settings.evaluate, settings.seed, as_absent=as_absent)
    found = summary.summarise(settings, metadata, of, images, embeddings, found, used, len(broken))
    result = Result(**found, made_from="a" * 64, sources={}, seconds={})
    assert result.comparable == (not result.doubts)
    return result


@pytest.mark.parametrize("kind", ["coco", "nuswide"])
def test_a_result_of_the_shipped_classes_and_the_paper_s_test_set_is_comparable(kind):
    result = measured(kind)
    assert result.comparable
    assert {task: t.positives_per_image for task, t in result.images.tasks.items()} == DATASETS[kind].positives_per_image


def test_what_is_measured_holds_the_average_precision_of_every_class_and_survives_the_file(tmp_path):
    result = measured()
    (by_task,) = result.class_ap["baseline"].values()
    assert {task: len(values) for task, values in by_task.items()} == {"zsl": 17, "gzsl": 65}
    for task, values in by_task.items():
        mean = result.rows["baseline"]["plain"][task]["mAP"].value
        assert sum(values) / len(values) == pytest.approx(mean, abs=1e-3)
    result.save(tmp_path / "result.json")
    assert Result.load(tmp_path) == result


def test_the_class_name_is_measured_with_standardised_scores_as_well_unless_that_is_switched_off():
    result = measured()
    assert list(result.rows) == ["baseline", "baseline/standardised"]
    assert result.label("baseline/standardised", "plain") == "class name, standardised (transductive)"
    lines = table.render(result).splitlines()
    assert any(line.startswith(" class name, standardised (transductive)") for line in lines)
    assert any(line.startswith("Standardised: ") and "transductive" in line for line in lines)
    result = measured("coco", "evaluate.standardised=false")
    assert list(result.rows) == ["baseline"]
    assert "tandardised" not in table.render(result)


def sparse(labels):
    """Of three classes: no known label; positive or unknown ones alone; no positive one."""
    labels[:, 0] = 0
    labels[:, 1] = 0
    labels[::2, 1] = 1
    labels[:, 2] = -1


@pytest.mark.parametrize("unknown", ["always", "with_negatives"])
def test_unknown_labels_reach_result_file_and_table(tmp_path, unknown):
    zero, excluded = (
        measured("coco", f"evaluate.unknown={unknown}", f"evaluate.classes_without_positives={w}", unknown=sparse, gzsl=20.0)
        for w in ("zero", "excluded")
    )
    assert zero.classes["zsl"].model_dump() == {"scored": 17, "known": 17, "positive": 2, "positive_or_unknown": 0}
    assert zero.classes["gzsl"].model_dump() == {"scored": 65, "known": 64, "positive": 19, "positive_or_unknown": 1}
    ap = zero.class_ap["baseline"]["plain"]["gzsl"]
    assert ap[0] is None
    assert (ap[1] == 100) == (unknown == "always")
    assert ap[2] == 0
    assert excluded.class_ap["baseline"]["plain"]["gzsl"][2] is None
    for result in (zero, excluded):
        result.save(tmp_path / "result.json")
        assert Result.load(tmp_path) == result
    said = next(line for line in table.render(zero).splitlines() if line.startswith("GZSL: ") and "evaluate.classes" in line)
    assert f"class name {excluded.rows['baseline']['plain']['gzsl']['mAP'].value:.1f} (every mAP" in said


def test_images_of_which_none_with_a_positive_label_can_be_read_are_refused_in_one_line():
    def all_but_one(labels):
        labels[1:] = -1

    overrides = ["dataset.allow_missing=true", "dataset.keep_unlabelled=true"]
    with pytest.raises(ValueError, match=r"^zsl: none of the images that show its classes can be read$"):
        measured("coco", *overrides, broken=(0,), unknown=all_but_one)


def test_a_result_of_classes_in_another_order_or_split_is_not_comparable():
    shipped = classes("coco")
    swapped = ClassList((shipped.names[1], shipped.names[0], *shipped.names[2:]), shipped.seen)
    for other in (swapped, ClassList(shipped.names, shipped.seen + 1)):
        assert measured(of=other).doubts == ["the class list is not the paper's"]


@pytest.mark.parametrize("kind", ["coco", "nuswide"])
@pytest.mark.parametrize("task", ["zsl", "gzsl"])
@pytest.mark.parametrize(("factor", "said"), [(1.02, "2 %"), (0.98, "2 %"), (1.5, "50 %"), (1.009, None), (0.991, None)])
def test_positives_per_image_off_by_more_than_one_percent_are_a_doubt(kind, task, factor, said):
    implied = DATASETS[kind].positives_per_image[task]
    doubts = measured(kind, **{task: factor * implied}).doubts
    assert len(doubts) == (said is not None)
    for doubt in doubts:
        assert doubt.startswith(
            f"{task.upper()}: {factor * implied:.3f} positives an image, the paper's own rows imply {implied}"
        )
        assert f"{said} off: not its test set" in doubt


def test_another_number_of_images_than_expected_is_a_doubt():
    assert measured("coco", f"dataset.expected_images={{zsl: {IMAGES + 1}, gzsl: {IMAGES}}}").doubts == [
        "ZSL: 1,000 images have a positive label, 1,001 were expected"
    ]


def test_a_test_list_that_was_cut_is_a_doubt():
    official = DATASETS["nuswide"].counts
    assert measured("nuswide", counts=official).comparable
    assert measured("nuswide", counts=official | {"test images": 107_000}).doubts == [
        "107,000 test images, 107,859 were expected"
    ]


def test_what_could_not_be_verified_is_said_and_is_no_doubt():
    result = measured("nuswide", unverified="the order of the labels")
    assert result.comparable
    assert "Not verified: the order of the labels." in table.render(result).splitlines()


@pytest.mark.parametrize(("missing", "broken"), [(3, (1, 998)), (3, ()), (0, (5,))])
def test_images_that_were_left_out_are_a_doubt(missing, broken):
    result = measured("coco", "dataset.allow_missing=true", missing=missing, broken=broken)
    assert result.doubts == [f"{missing} missing and {len(broken)} unreadable images were left out"]
    assert result.images.tasks["gzsl"].images == result.images.used == IMAGES - len(broken)


def test_images_without_a_positive_label_are_a_doubt_if_they_are_kept():
    assert measured("coco", "dataset.keep_unlabelled=true").doubts == ["images without a positive label were kept"]


def test_a_data_set_that_the_paper_does_not_measure_is_not_comparable():
    assert measured("mini", of=ClassList.read(ROOT / "data/mini/seen.txt", ROOT / "data/mini/unseen.txt")).doubts == [
        "the paper does not measure this data set"
    ]


def test_a_result_that_speaks_of_a_task_without_images_is_refused_in_one_line(tmp_path):
    value = made_up().model_dump(mode="json", exclude_none=True) | {"decided_by_ties": {"cnr": {"plain": {"new": {"3": 1}}}}}
    write_json(tmp_path / "result.json", sealed(value))
    assert "it has numbers, and no images, of the task 'new'" in refused(tmp_path / "result.json")
