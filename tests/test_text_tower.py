"""The text tower and the prompt learner, against the 77-token computation of the equations and against open_clip."""

import copy

import numpy as np
import plain_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from rcnn import clip
from rcnn.clip.text_tower import grow
from rcnn.learn.prompt_learner import PromptLearner

HEADS = 2


def plain_features(state, embeddings, end):
    """Unit text features of (B, 77, width) token embeddings, every token of every block computed."""
    return plain_clip.text_features(state, embeddings, end, HEADS)


def close(ours, expected, tolerance=1e-5):
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


def test_encode_equals_the_plain_computation_over_77_tokens(state, towers, captions):
    tokens = clip.tokenize(captions)
    expected = plain_features(state, state["token_embedding.weight"][tokens], tokens.argmax(1))
    close(towers[1].encode(tokens), expected)


def test_encode_equals_open_clip(towers, reference_clip, captions):
    tokens = clip.tokenize(captions)
    close(towers[1].encode(tokens), reference_clip().encode_text(tokens, normalize=True))


def test_encode_with_gelu_equals_open_clip_with_gelu(state, reference_clip, captions):
    tokens = clip.tokenize(captions)
    text = clip.build(state, "gelu")[1]
    close(text.encode(tokens), reference_clip(quick_gelu=False).encode_text(tokens, normalize=True))


@pytest.mark.parametrize("budget", [1, 50, 10**6])
def test_encode_gives_each_row_its_own_feature_whatever_the_grouping(towers, captions, budget):
    tokens = clip.tokenize(captions)
    alone = torch.cat([towers[1].encode(row[None]) for row in tokens])
    close(towers[1].encode(tokens, budget=budget), alone, 1e-6)


@st.composite
def token_rows(draw):
    """Rows of a start token, some of three tokens, and the end-of-text token, padded with zeros."""
    middles = draw(st.lists(st.lists(st.integers(1, 3), max_size=6).map(tuple), min_size=1, max_size=40))
    rows = np.zeros((len(middles), 8), np.int64)
    for row, middle in zip(rows, middles, strict=True):
        row[: len(middle) + 2] = [8, *middle, 9]
    return rows


@given(rows=token_rows(), most=st.integers(1, 60))
def test_trees_hold_every_row_once_and_no_token_twice_below_the_same_ones(rows, most):
    trees = grow(rows, most)
    assert sorted(row for tree in trees for row in tree.rows) == list(range(len(rows)))
    for tree in trees:
        assert len(tree.tokens) <= most or len(tree.rows) == 1
        seen = [[k for k in range(j + 1) if j < tree.ends[k]] for j in range(len(tree.tokens))]  # by each token
        paths = [tuple(tree.tokens[k] for k in above) for above in seen]
        assert [len(path) - 1 for path in paths] == tree.depths.tolist()
        assert len(set(paths)) == len(paths)
        for row, last in zip(tree.rows, tree.lasts, strict=True):
            assert paths[last] == tuple(rows[row][: rows[row].argmax() + 1])


def test_sentences_that_begin_alike_are_computed_once_as_far_as_they_are_alike(captions):
    tokens = clip.tokenize(captions).numpy()
    (tree,) = grow(tokens, 10**6)
    beginnings = {tuple(row[: i + 1]) for row in tokens for i in range(row.argmax() + 1)}
    assert len(tree.tokens) == len(beginnings) < (tokens != 0).sum()


def test_a_sentence_that_fills_all_77_tokens_is_encoded(state, towers):
    tokens = clip.tokenize([" ".join(["dog"] * 75)])
    assert tokens.argmax(1).item() == 76
    close(towers[1].encode(tokens), plain_features(state, state["token_embedding.weight"][tokens], tokens.argmax(1)))


def test_the_prefix_path_equals_the_full_path(towers):
    text, names = towers[1], ["dog", "traffic light", "animal", "person on a very long bench"]
    tokens = clip.tokenize([f"a photo of a {name}." for name in names])
    end, shared = tokens.argmax(1), 5  # start of text, a, photo, of, a
    rows = text.token_embedding(tokens)[:, : int(end.max()) + 1]
    after_prefix = text(rows[:, shared:], end - shared, text.prefix(tokens[0, :shared]))
    close(F.normalize(after_prefix, dim=-1), F.normalize(text(rows, end), dim=-1))


def test_a_tower_in_bfloat16_multiplies_in_it_and_adds_normalises_and_attends_to_a_prefix_in_float32(towers):
    half = copy.deepcopy(towers[1]).set_precision(torch.bfloat16)
    for name, parameter in half.named_parameters():
        assert (parameter.dtype == torch.bfloat16) == (".attn." in name or ".mlp." in name)
    tokens = clip.tokenize(["a photo of a dog.", "a photo of a cat."])
    end, shared, features = tokens.argmax(1), 5, []
    for tower in (towers[1], half):
        prefix = tower.prefix(tokens[0, :shared])
        assert {part.dtype for block in prefix for part in block} == {torch.float32}
        rows = tower.token_embedding(tokens)[:, shared : int(end.max()) + 1]
        features.append(F.normalize(tower(rows, end - shared, prefix), dim=-1))
    assert features[1].dtype == torch.float32
    assert 0 < (features[0] - features[1]).abs().max() < 0.01


def test_a_learner_holding_the_embedding_of_a_name_gives_the_feature_of_its_prompt(towers):
    text, names = towers[1], ["dog", "cat", "tree"]
    learner = PromptLearner(text, num_classes=3, tokens=1)
    one_token = clip.tokenize(names)[:, 1:2]
    learner.class_vectors.data = text.token_embedding(one_token)
    close(learner(), text.encode(clip.tokenize([f"a photo of a {name}." for name in names])))


def test_the_learners_gradient_equals_the_gradient_through_all_77_tokens(state, towers):
    g, classes, tokens = torch.Generator().manual_seed(1), 5, 4
    learner = PromptLearner(towers[1], classes, tokens)
    learner.class_vectors.data = 0.3 * torch.randn(classes, tokens, 128, generator=g)
    direction = torch.randn(classes, 64, generator=g)
    z = learner()
    ((z - direction).square().sum() + 0.2 * z.sum(0).square().sum()).backward()

    vectors = learner.class_vectors.detach().clone().requires_grad_()
    row = clip.tokenize(["a photo of a X X X X."])
    assert row[0, :12].tolist()[5:9] == [343] * 4  # where the vectors go
    fixed = state["token_embedding.weight"][row].expand(classes, -1, -1)
    embeddings = torch.cat([fixed[:, :5], vectors, fixed[:, 9:]], 1)
    expected = plain_features(state, embeddings, row.argmax(1).expand(classes))
    ((expected - direction).square().sum() + 0.2 * expected.sum(0).square().sum()).backward()

    close(z, expected)
    scale = vectors.grad.abs().max()
    close(learner.class_vectors.grad / scale, vectors.grad / scale)


def test_learning_reaches_the_class_vectors_alone(towers):
    learner = PromptLearner(towers[1], num_classes=2, tokens=3)
    assert [name for name, p in learner.named_parameters() if p.requires_grad] == ["class_vectors"]


def test_the_start_is_normal_with_deviation_002_and_follows_from_the_generator(towers):
    starts = [
        PromptLearner(towers[1], num_classes=40, tokens=4, generator=torch.Generator().manual_seed(seed)).class_vectors.detach()
        for seed in (0, 0, 1)
    ]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert starts[0].std().item() == pytest.approx(0.02, rel=0.05)
    assert starts[0].mean().item() == pytest.approx(0, abs=0.001)
