"""The script that compares two copies of CLIP's weights says yes to other formats and no to other numbers."""

import check_weights
import pytest
import torch


@pytest.fixture
def copy_of_torch(state, tmp_path):
    """The tiny CLIP in half precision as a state dict of torch, as OpenAI's archives have it."""
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.fixture
def rounded(state):
    """The same numbers in float32."""
    return {name: tensor.half().float() for name, tensor in state.items()}


def check(capsys, *arguments):
    """(exit code, largest difference by kind of feature)"""
    code = check_weights.main([str(argument) for argument in arguments])
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"the files give {'different' if code else 'the same'} features"
    return code, {line.split()[0]: float(line.split()[2]) for line in lines}


def test_copies_in_two_formats_and_precisions_give_the_same_features(rounded, write_weights, copy_of_torch, capsys):
    assert check(capsys, copy_of_torch, write_weights(rounded)) == (0, {"text": 0, "global": 0, "local": 0})


@pytest.mark.parametrize(
    ("tensor", "kinds"),
    [
        ("text_projection", {"text"}),
        ("visual.proj", {"global", "local"}),
        ("visual.transformer.resblocks.2.ln_2.bias", {"global"}),
    ],
)
def test_a_tensor_that_differs_is_found_in_the_features_it_makes(rounded, write_weights, copy_of_torch, capsys, tensor, kinds):
    rounded[tensor].view(-1)[0] += 1e-2
    code, differences = check(capsys, copy_of_torch, write_weights(rounded))
    assert code == 1
    assert {kind for kind, difference in differences.items() if difference > 1e-6} == kinds


def test_features_that_are_no_numbers_are_different(rounded, write_weights, copy_of_torch, capsys):
    code, differences = check(capsys, copy_of_torch, write_weights(rounded | {"text_projection": torch.full((128, 64), 3e38)}))
    assert code == 1
    assert (differences["global"], differences["local"]) == (0, 0)


def test_weights_of_another_size_are_refused_with_both_shapes(state, write_weights, copy_of_torch):
    smaller = write_weights(state | {"text_projection": torch.ones(128, 32), "visual.proj": torch.ones(128, 32)})
    with pytest.raises(ValueError, match=r"two copies of one model, got text features of shape \(4, 64\).*\(4, 32\)"):
        check_weights.main([str(copy_of_torch), str(smaller)])


def test_the_named_model_must_fit_both_files(write_weights, copy_of_torch):
    with pytest.raises(ValueError, match="the weights are not a ViT-B-16-quickgelu"):
        check_weights.main([str(copy_of_torch), str(write_weights()), "--model", "ViT-B-16-quickgelu"])
