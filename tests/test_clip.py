"""Loading CLIP: every kind of file, and what is refused with which words. Nothing here reaches the network."""

import hashlib
import io
import os
import pickle
from dataclasses import replace

import open_clip
import pytest
import torch
from hostile import at_once, torchscript

from rcnn import clip
from rcnn.clip.weights import published_sha256
from rcnn.files import file_sha256

OPENAI = "https://openaipublic.azureedge.net/clip/models/5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"
HUB = "hf-hub:timm/vit_base_patch16_clip_224.openai/"
SENTENCES = ["a dog, which is a animal.", "a photo of many tree.", "Traffic lights; 2 of them (red)!"]


class Internet:
    """What is served at each address, and which addresses were asked."""

    def __init__(self):
        self.files, self.asked = {}, []

    def download(self, address):
        self.asked.append(address)
        if address not in self.files:
            raise OSError("no route\nto host")
        return str(self.files[address])


@pytest.fixture(autouse=True)
def internet(monkeypatch):
    internet = Internet()
    by_url, by_hub = "download_pretrained_from_url", "download_pretrained_from_hf"
    monkeypatch.setattr(open_clip.pretrained, by_url, lambda url, cache_dir: internet.download(url))
    monkeypatch.setattr(open_clip.pretrained, by_hub, lambda name, cache_dir: internet.download(f"hf-hub:{name}/"))
    return internet


@pytest.fixture
def publish(monkeypatch):
    """Have open_clip name a file's SHA-256 among those that OpenAI published."""

    def publish(path):
        address = f"https://openaipublic.azureedge.net/clip/models/{file_sha256(path)}/{path.name}"
        monkeypatch.setattr(open_clip, "get_pretrained_url", lambda model, tag: address)
        published_sha256.cache_clear()

    yield publish
    published_sha256.cache_clear()


@pytest.fixture(scope="module")
def expected(towers):
    return towers[1].encode(clip.tokenize(SENTENCES))


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def tiny_config(**changes):
    """What open_clip would say of a model of the tiny weights' size."""
    config = {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 3, "width": 128, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
    }
    return config | changes


# kinds of files


def test_safetensors_load_frozen_in_float32_and_evaluation_mode(write_weights, expected):
    model = clip.load(None, None, write_weights())
    close(model.text.encode(clip.tokenize(SENTENCES)), expected)
    for tower in (model.text, model.image):
        assert not tower.training
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in tower.parameters())
    assert model.text.text_projection.shape[1] == 64
    assert (model.image.image_size, model.image.grid) == (224, 14)


def test_metadata_of_safetensors_sets_heads_and_activation(state, write_weights):
    path = write_weights(vision_heads="4", text_heads="8", activation="gelu", model="made-up")
    model = clip.load(None, None, path)
    image, text = clip.build(state, "gelu", vision_heads=4, text_heads=8)
    tokens, pixels = clip.tokenize(SENTENCES), torch.zeros(1, 3, 224, 224)
    close(model.text.encode(tokens), text.encode(tokens))
    close(model.image(pixels).local_features, image(pixels).local_features.detach())
    assert (model.text.encode(tokens) - clip.build(state)[1].encode(tokens)).abs().max() > 0.01  # so they do matter
    assert model.model == "made-up"


def test_a_file_without_metadata_has_clips_own_colours_and_is_named_after_the_file(write_weights):
    model = clip.load(None, None, write_weights(name="some_clip.safetensors"))
    assert (model.model, model.mean, model.std) == ("some_clip", clip.MEAN, clip.STD)


def test_the_sha256_of_the_file_is_kept(write_weights):
    path = write_weights()
    assert clip.load(None, None, path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_state_dict_of_torch_loads(state, tmp_path, expected):
    torch.save(state, tmp_path / "clip.pt")
    close(clip.load(None, None, tmp_path / "clip.pt").text.encode(clip.tokenize(SENTENCES)), expected)


def test_a_training_checkpoint_with_module_prefixes_loads(state, tmp_path, expected):
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(wrapped, tmp_path / "epoch_3.pt")
    close(clip.load(None, None, tmp_path / "epoch_3.pt").text.encode(clip.tokenize(SENTENCES)), expected)


def test_half_precision_weights_become_float32(state):
    image, text = clip.build({name: tensor.half() for name, tensor in state.items()})
    assert {p.dtype for tower in (image, text) for p in tower.parameters()} == {torch.float32}
    assert text.text_projection[0, 0] == state["text_projection"][0, 0].half().float()


def test_a_torchscript_archive_that_openai_did_not_publish_is_refused_unless_trusted(state, tmp_path, expected):
    path = tmp_path / "clip.pt"
    torchscript(path, state)
    with pytest.raises(ValueError, match=r"TorchScript.*a program.*clip\.trust_torchscript=true"):
        clip.load(None, None, path)
    model = clip.load(None, None, path, trust_torchscript=True)
    close(model.text.encode(clip.tokenize(SENTENCES)), expected)


def test_a_torchscript_archive_with_a_published_sha256_needs_no_trust(state, tmp_path, expected, publish):
    path = tmp_path / "clip.pt"
    torchscript(path, state)
    publish(path)
    close(clip.load(None, None, path).text.encode(clip.tokenize(SENTENCES)), expected)


def test_the_published_sha256_of_vit_b_16_is_known():
    assert "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f" in published_sha256()
    assert len(published_sha256()) == 9  # four ViTs and five ResNets
    assert all(len(digest) == 64 and int(digest, 16) for digest in published_sha256())


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "it_ran"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    buffer = io.BytesIO()
    torch.save({"state_dict": Payload()}, buffer)
    for name, data in (("zip.pt", buffer.getvalue()), ("bare.pt", pickle.dumps(Payload()))):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ValueError, match="weights_only=True"):
            clip.load(None, None, path, trust_torchscript=True)
    assert not trace.exists()


def test_a_file_of_anything_else_is_refused_by_name(tmp_path):
    path = tmp_path / "notes.pt"
    path.write_text("these are notes")
    with pytest.raises(ValueError, match=r"notes\.pt holds no state dict"):
        clip.load(None, None, path)


def test_weights_that_are_no_vit_are_refused(write_weights):
    path = write_weights({"visual.attnpool.positional_embedding": torch.zeros(50, 8)})
    with pytest.raises(ValueError, match=r"not a CLIP ViT.*visual\.class_embedding"):
        clip.load(None, None, path)


def test_weights_with_a_tensor_too_many_are_refused_by_its_name(state, write_weights):
    path = write_weights(state | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(128)})
    with pytest.raises(ValueError, match=r"not a CLIP that this code computes(.|\n)*ls_1\.gamma"):
        clip.load(None, None, path)


def test_weights_with_a_missing_tensor_are_refused_by_its_name(state, write_weights):
    path = write_weights({name: tensor for name, tensor in state.items() if name != "ln_final.bias"})
    with pytest.raises(ValueError, match=r"not a CLIP that this code computes(.|\n)*ln_final\.bias"):
        clip.load(None, None, path)


# named models


def test_a_named_model_takes_heads_and_activation_from_open_clips_configuration(state, write_weights, monkeypatch):
    config = tiny_config(quick_gelu=False)
    config["vision_cfg"]["head_width"], config["text_cfg"]["heads"] = 32, 8
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: config)
    model = clip.load("tiny", None, write_weights())
    image, text = clip.build(state, "gelu", vision_heads=4, text_heads=8)
    tokens, pixels = clip.tokenize(SENTENCES), torch.ones(1, 3, 224, 224)
    close(model.text.encode(tokens), text.encode(tokens))
    close(model.image(pixels).global_features, image(pixels).global_features.detach())
    assert model.model == "tiny"


@pytest.mark.parametrize(
    "changes",
    [
        {"embed_dim": 512},
        {"vision_cfg": {"image_size": 256, "layers": 3, "width": 128, "patch_size": 16}},
        {"vision_cfg": {"image_size": 224, "layers": 4, "width": 128, "patch_size": 16}},
        {"text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 2, "layers": 3}},
    ],
)
def test_weights_of_other_sizes_than_the_named_model_are_refused(write_weights, monkeypatch, changes):
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: tiny_config(**changes))
    with pytest.raises(ValueError, match=r"the weights are not a tiny: .*set clip\.model"):
        clip.load("tiny", None, write_weights())


def test_weights_of_another_model_than_vit_b_16_are_refused_with_both_sizes(write_weights):
    with pytest.raises(ValueError, match=r"not a ViT-B-16-quickgelu: .*\(224, 768, 12, 16, .*got \(224, 128, 3, 16, "):
        clip.load("ViT-B-16-quickgelu", "openai", write_weights())


def test_openai_weights_with_the_name_of_a_gelu_model_are_refused(write_weights):
    with pytest.raises(ValueError, match=r"QuickGELU.*use clip\.model=ViT-B-16-quickgelu"):
        clip.load("ViT-B-16", "openai", write_weights())


def test_a_file_that_openai_published_is_refused_with_the_name_of_a_gelu_model(write_weights, publish):
    path = write_weights()
    publish(path)
    with pytest.raises(ValueError, match=r"use clip\.model=ViT-B-16-quickgelu"):
        clip.load("ViT-B-16", None, path)


@pytest.mark.parametrize("name", ["RN50", "RN50x4-quickgelu"])
def test_a_resnet_is_refused(write_weights, name):
    with pytest.raises(ValueError, match=f"{name} is not a plain CLIP ViT.*ResNet"):
        clip.load(name, "openai", write_weights())


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "ViT-B-16-SigLIP", "convnext_base", "EVA02-B-16", "roberta-ViT-B-32"])
def test_a_model_with_other_parts_than_clips_vit_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is not a plain CLIP ViT"):
        clip.load(name, "openai")


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ValueError, match=r"clip\.model: .*'ViT-Q-16'"):
        clip.load("ViT-Q-16", "openai")


def test_an_unknown_tag_is_refused_with_the_tags_there_are():
    with pytest.raises(ValueError, match=r"clip\.pretrained: .*'my_tag'.*there are: .*openai"):
        clip.load("ViT-B-16-quickgelu", "my_tag")


def test_neither_model_nor_file_is_refused():
    with pytest.raises(ValueError, match=r"clip\.weights=FILE or clip\.model=NAME"):
        clip.load(None, None)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"clip\.weights: there is no file .*gone\.pt"):
        clip.load(None, None, tmp_path / "gone.pt")


# downloads


def test_openais_weights_come_from_openais_address_and_both_copies_are_named_before(write_weights, internet, capsys):
    path = write_weights()
    internet.files = {OPENAI: path, HUB: "other"}
    assert clip.find_weights("ViT-B-16-quickgelu", "openai", None) == path
    assert internet.asked == [OPENAI]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{OPENAI}, else {HUB}" in line


def test_where_openais_address_fails_the_hubs_copy_serves_and_that_is_said(
    write_weights, internet, monkeypatch, expected, capsys
):
    internet.files = {HUB: write_weights()}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: tiny_config())
    model = clip.load("ViT-B-16-quickgelu", "openai")
    close(model.text.encode(clip.tokenize(SENTENCES)), expected)
    assert internet.asked == [OPENAI, HUB]
    assert f"taken from {HUB}, not from\n  {OPENAI}: no route to host\n" in capsys.readouterr().err


def test_the_hubs_copy_is_refused_with_the_name_of_a_gelu_model_though_its_sha256_is_not_openais(write_weights, internet):
    internet.files = {HUB: write_weights()}
    with pytest.raises(ValueError, match=r"QuickGELU.*use clip\.model=ViT-B-16-quickgelu"):
        clip.load("ViT-B-16", "openai")


def test_where_both_copies_fail_one_error_names_both_and_where_to_put_a_file(internet):
    with pytest.raises(FileNotFoundError) as caught:
        clip.load("ViT-B-16-quickgelu", "openai")
    said = str(caught.value)
    assert f"{OPENAI}: no route to host\n" in said
    assert f"{HUB}: no route to host\n" in said
    assert f"fetch {OPENAI} or {HUB}\n" in said
    assert said.endswith("clip.weights=/path/to/ViT-B-16.pt")
    assert internet.asked == [OPENAI, HUB]


def test_weights_of_others_come_from_the_hub_before_any_other_address(write_weights, internet):
    source = open_clip.get_pretrained_cfg("ViT-B-16", "laion400m_e32")
    internet.files = {source["url"]: write_weights()}
    clip.find_weights("ViT-B-16", "laion400m_e32", None)
    assert internet.asked == [f"hf-hub:{source['hf_hub']}", source["url"]]


def test_weights_with_one_address_alone_are_asked_for_there_alone(internet):
    with pytest.raises(FileNotFoundError, match=r"fetch hf-hub:\S+\n.*clip\.weights=/path/to/the file"):
        clip.find_weights("ViT-B-16", "datacomp_xl_s13b_b90k", None)
    assert len(internet.asked) == 1


# vocabulary and tokens


def test_a_compact_vocabulary_expands_known_rows_and_gives_all_others_the_last_row(state, write_weights, expected):
    rows = clip.tokenize(SENTENCES).unique()
    weight, other = state["token_embedding.weight"], torch.arange(128.0)
    compact = state | {"token_embedding.weight": torch.cat([weight[rows], other[None]]), "token_embedding.rows": rows}
    text = clip.load(None, None, write_weights(compact)).text
    close(text.encode(clip.tokenize(SENTENCES)), expected)
    assert text.token_embedding.weight.shape == (49408, 128)
    unknown = sorted(set(range(49408)) - set(rows.tolist()))
    assert torch.equal(text.token_embedding.weight[unknown], other.expand(len(unknown), -1))


def test_building_leaves_the_given_state_dict_alone(state):
    rows = torch.arange(49407)
    compact = state | {"token_embedding.rows": rows}
    before = list(compact)
    clip.build(compact)
    assert list(compact) == before
    assert len(compact["token_embedding.weight"]) == 49408


def test_tokens_equal_those_of_open_clip(captions):
    sentences = [*captions, *SENTENCES, "Ünïcödé & <b>html</b>  spaces", "", "don't 123"]
    assert torch.equal(clip.tokenize(sentences), open_clip.tokenize(sentences))


def test_a_sentence_of_more_than_77_tokens_is_refused_and_named():
    short, long = " ".join(["dog"] * 75), " ".join(["cat"] * 76)
    assert clip.tokenize([short]).shape == (1, 77)
    with pytest.raises(ValueError, match=r"a sentence has 78 tokens, CLIP takes 77.*'cat cat cat"):
        clip.tokenize([short, long])


@pytest.mark.parametrize("unit", ["dog ", "x", "é", "[", "&amp;", "😂"])
@pytest.mark.parametrize("length", [60_000, 1_200_000])
def test_a_sentence_of_any_length_is_refused_at_once_in_one_short_line(unit, length):
    with at_once(), pytest.raises(ValueError, match=r"a sentence has more than 77 tokens.*shorten it: '") as raised:
        clip.tokenize([unit * (length // len(unit.encode()))])
    assert len(str(raised.value)) < 400


def test_the_longest_sentences_that_fit_are_taken():
    longest = max((w for w in clip.tokenizer().encoder if not w.startswith("<")), key=lambda w: len(w.removesuffix("</w>")))
    word = bytes(clip.tokenizer().byte_decoder[letter] for letter in longest.removesuffix("</w>")).decode()
    for sentence in (
        "a " * 75,
        " ".join(["dog"] * 75),
        word * 75,
        " ".join([word] * 37),
        "a" + " " * 100_000 + "b",
        "&amp;" * 75,
    ):
        assert clip.tokens.encode(sentence)[-1] == clip.tokenizer().eot_token_id
    assert clip.tokenize([word * 37]).argmax() < 77


def test_words_like_tokens_of_clips_own_are_taken():
    sentences = ["end_of_text", "a <start> of text", "!<end_of_text>", "<|end_of_text|>"]
    assert torch.equal(clip.tokenize(sentences), open_clip.tokenize(sentences))


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, {3: torch.zeros(1)}])
def test_a_torch_file_without_tensors_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        clip.load(None, None, tmp_path / "odd.pt")


def test_a_part_of_a_clip_is_refused_with_the_tensor_it_lacks(tmp_path):
    torch.save({"visual.class_embedding": torch.zeros(64)}, tmp_path / "part.pt")
    with pytest.raises(ValueError, match=r"part\.pt: .*there is no tensor visual\.conv1\.weight"):
        clip.load(None, None, tmp_path / "part.pt")


def test_a_cut_safetensors_file_is_refused(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    with pytest.raises(ValueError, match="half downloaded"):
        clip.load(None, None, tmp_path / "cut.safetensors")


def test_the_fingerprint_tells_apart_what_the_weights_file_alone_does_not(write_weights, state):
    one = clip.load(None, None, write_weights())
    other = replace(one, text=clip.build(state, "gelu")[1])
    heads = replace(one, image=clip.build(state, vision_heads=4)[0])
    assert len({one.fingerprint, other.fingerprint, heads.fingerprint}) == 3


def test_the_fingerprint_is_of_the_weights_whatever_the_format_and_precision_of_their_file(write_weights, state, tmp_path):
    half = {name: tensor.half() for name, tensor in state.items()}
    torch.save(half | {"logit_scale": torch.ones(())}, tmp_path / "half.pt")
    one = clip.load(None, None, tmp_path / "half.pt")
    other = clip.load(None, None, write_weights({name: tensor.float() for name, tensor in half.items()}))
    assert one.fingerprint == other.fingerprint
    assert one.sha256 != other.sha256
    assert clip.load(None, None, write_weights()).fingerprint != one.fingerprint  # not rounded to half precision
