"""The golden values of the authors' code are matched, and the script that says so can say no."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_golden", ROOT / "scripts" / "check_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recompute, known = module.recompute, {}

    def once(inputs):  # the tests change what is expected, never an input
        key = str(inputs["meta"])
        if key not in known:
            known[key] = dict(recompute(inputs))
        return known[key].items()

    module.recompute = once
    return module


@pytest.fixture
def check(script, monkeypatch, capsys):
    """Run the script's main on files; returns (exit code, last printed line)."""

    def run(*files):
        monkeypatch.setattr(sys, "argv", ["check_golden.py", *map(str, files)])
        return script.main(), capsys.readouterr().out.splitlines()[-1]

    return run


def tampered(tmp_path, source="tiny32_seed21.npz", **changes):
    """A copy of a golden file, the smaller of the paper's, with other arrays; None leaves one out."""
    arrays = dict(np.load(GOLDEN / source)) | changes
    path = tmp_path / "tampered.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def golden(name):
    return np.load(GOLDEN / "tiny32_seed21.npz")[name]


def test_all_golden_values_are_matched_and_the_last_line_names_the_worst(check):
    code, last = check(*sorted(GOLDEN.glob("*.npz")))
    found = re.fullmatch(r"worst (\w+) (\d\.\de[+-]\d\d)", last)
    assert code == 0
    assert found, last
    assert any(found[1] in np.load(path).files for path in GOLDEN.glob("*.npz"))
    assert float(found[2]) <= 1e-5


def test_each_tampered_golden_value_makes_the_script_exit_1_and_name_it(script, check, tmp_path, monkeypatch):
    arrays = dict(np.load(GOLDEN / "tiny32_seed21.npz"))
    computed = dict(
        script.recompute({name: arrays[name] for name in script.INPUTS["paper"]})
    )  # once: it sees nothing but inputs
    monkeypatch.setattr(script, "recompute", lambda inputs: computed.items())
    compared = sorted(arrays.keys() - script.INPUTS["paper"])
    assert len(compared) == 30
    for name in compared:
        wrong = arrays[name].astype(np.float64)
        wrong.flat[0] += 1e-4 * np.abs(wrong).max()
        code, last = check(tampered(tmp_path, **{name: wrong}))
        assert code == 1
        assert re.fullmatch(rf"worst {name} \d\.\de-0[45]", last), last


def test_each_tampered_value_of_tagclip_makes_the_script_exit_1_and_name_it(script, check, tmp_path, monkeypatch):
    name = "tagclip_tag16_seed7.npz"
    arrays = dict(np.load(GOLDEN / name))
    inputs = script.INPUTS["tagclip"]
    computed = dict(script.recompute({key: arrays[key] for key in inputs}))
    monkeypatch.setattr(script, "recompute", lambda inputs: computed.items())
    compared = sorted(arrays.keys() - inputs)
    assert len(compared) == 84
    for key in compared:
        wrong = arrays[key].astype(np.float64)
        wrong.flat[-1] += 1e-3
        code, last = check(tampered(tmp_path, name, **{key: wrong}))
        assert code == 1
        assert re.fullmatch(rf"worst {key} 1\.0e-03", last), last


def test_a_vote_that_rounding_decides_may_be_either_and_no_other_may(script, check, tmp_path, monkeypatch):
    name = "tagclip_tag16_seed7.npz"
    arrays = dict(np.load(GOLDEN / name))
    computed = {key: array for key, array in arrays.items() if key not in script.INPUTS["tagclip"]}
    votes = script.torch.from_numpy(arrays["image0_votes"].astype(np.int64))
    high = votes.clone()
    high[0, 0] += 1
    computed["image0_votes"] = script.Between(votes, high)
    monkeypatch.setattr(script, "recompute", lambda inputs: computed.items())
    for place, code in (((0, 0), 0), ((0, 1), 1)):
        changed = arrays["image0_votes"].copy()
        changed[place] += 1
        assert check(tampered(tmp_path, name, image0_votes=changed))[0] == code


def test_inputs_are_named_and_not_counted_as_compared(script, capsys):
    script.check(GOLDEN / "tiny32_seed21.npz")
    _, inputs, *compared = capsys.readouterr().out.splitlines()
    assert inputs == "  inputs: image_sizes, labels_pm1, labels_pm1_unknown, meta, n_seen, predictions"
    assert len(compared) == 30
    assert not {line.split()[0] for line in compared} & script.INPUTS["paper"]


def test_one_wrong_file_among_right_ones_makes_the_script_exit_1(check, tmp_path):
    wrong = golden("metrics_pm1_zsl") * 1.01
    code, last = check(tampered(tmp_path, metrics_pm1_zsl=wrong), GOLDEN / "tiny32_seed21.npz")
    assert code == 1
    assert last.startswith("worst metrics_pm1_zsl ")


def test_a_golden_value_that_nothing_is_compared_with_makes_the_script_exit_with_an_error(check, tmp_path):
    with pytest.raises(SystemExit, match="not compared: forgotten"):
        check(tampered(tmp_path, forgotten=np.ones(3)))


def test_a_value_that_the_golden_file_lacks_makes_the_script_exit_with_an_error(check, tmp_path):
    with pytest.raises(SystemExit, match=r"not compared: loss$"):
        check(tampered(tmp_path, loss=None))


def test_a_golden_value_of_another_shape_makes_the_script_exit_with_an_error(check, tmp_path):
    with pytest.raises(SystemExit, match="grad: expected shape"):
        check(tampered(tmp_path, grad=golden("grad")[..., :-1]))
