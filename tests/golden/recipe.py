"""Deterministic inputs for the golden values in this folder.

Everything here is a pure function of a seed and NumPy's PCG64 stream, so the same arrays
come out on every machine: no checkpoint has to be stored next to the expected outputs.

`clip_shapes(case)` lists the tensors of a small CLIP in OpenAI / open_clip naming, and
`clip_weights(case, seed)` fills them. A model built from them uses QuickGELU and has
`width // 64` attention heads in both towers.
"""

import zlib

import numpy as np

# name -> embed_dim, image_size, patch, vision (width, layers), text (width, layers), context, vocab
CASES = {
    "tiny16": dict(embed_dim=64, image_size=224, patch=16, vision=(128, 3), text=(128, 3), context=77, vocab=49408),
    "tiny32": dict(embed_dim=96, image_size=224, patch=32, vision=(192, 2), text=(64, 2), context=77, vocab=49408),
}


def rng(seed, name):
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))


def clip_shapes(case):
    c = CASES[case]
    (vw, vl), (tw, tl), e = c["vision"], c["text"], c["embed_dim"]
    grid = c["image_size"] // c["patch"]
    s = {
        "positional_embedding": (c["context"], tw),
        "text_projection": (tw, e),
        "token_embedding.weight": (c["vocab"], tw),
        "ln_final.weight": (tw,),
        "ln_final.bias": (tw,),
        "logit_scale": (),
        "visual.class_embedding": (vw,),
        "visual.positional_embedding": (grid * grid + 1, vw),
        "visual.proj": (vw, e),
        "visual.conv1.weight": (vw, 3, c["patch"], c["patch"]),
        "visual.ln_pre.weight": (vw,),
        "visual.ln_pre.bias": (vw,),
        "visual.ln_post.weight": (vw,),
        "visual.ln_post.bias": (vw,),
    }
    for prefix, width, layers in (("visual.transformer", vw, vl), ("transformer", tw, tl)):
        for i in range(layers):
            p = f"{prefix}.resblocks.{i}."
            s |= {
                p + "ln_1.weight": (width,),
                p + "ln_1.bias": (width,),
                p + "ln_2.weight": (width,),
                p + "ln_2.bias": (width,),
                p + "attn.in_proj_weight": (3 * width, width),
                p + "attn.in_proj_bias": (3 * width,),
                p + "attn.out_proj.weight": (width, width),
                p + "attn.out_proj.bias": (width,),
                p + "mlp.c_fc.weight": (4 * width, width),
                p + "mlp.c_fc.bias": (4 * width,),
                p + "mlp.c_proj.weight": (width, 4 * width),
                p + "mlp.c_proj.bias": (width,),
            }
    return s


def clip_weights(case, seed):
    """dict name -> float32 array."""
    out = {}
    for name, shape in clip_shapes(case).items():
        if name == "logit_scale":
            out[name] = np.float32(np.log(1 / 0.07))
            continue
        x = rng(seed, name).standard_normal(shape)
        if ".ln_" in name or name.startswith("ln_"):
            x = 1 + 0.1 * x if name.endswith("weight") else 0.05 * x
        elif name.endswith("bias"):
            x = 0.05 * x
        elif name == "token_embedding.weight" or name.endswith("positional_embedding"):
            x = 0.3 * x
        elif name == "visual.conv1.weight":
            x = x / np.sqrt(np.prod(shape[1:])) * 2
        elif name in ("visual.proj", "text_projection"):
            x = x / np.sqrt(shape[0])
        elif x.ndim == 2:
            x = x / np.sqrt(shape[1]) * 1.2
        out[name] = x.astype(np.float32)
    return out


def image(seed, i, height, width):
    """uint8 (height, width, 3): smooth coloured blobs with some noise, never constant."""
    g = rng(seed, f"image{i}")
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    img = np.zeros((height, width, 3))
    for _ in range(6):
        cy, cx, r = g.uniform(0, 1), g.uniform(0, 1), g.uniform(0.05, 0.3)
        img += np.exp(-(((y - cy) ** 2 + (x - cx) ** 2) / r**2))[..., None] * g.uniform(0, 255, 3)
    return np.clip(img + g.normal(0, 12, img.shape), 0, 255).astype(np.uint8)


def class_vectors(seed, classes, tokens, width):
    """float32 (classes, tokens, width): class-name vectors, wide apart so that errors show."""
    return (0.3 * rng(seed, "clsn").standard_normal((classes, tokens, width))).astype(np.float32)


CAPTIONS = [
    ("a golden retriever, which is a dog, which is a animal.", 0),
    ("a dog, which has a wagging tail.", 0),
    ("a dog, which appears together with the park", 0),
    ("a tabby, which is a cat.", 1),
    ("a cat, which has retractable claws and whiskers on the face.", 1),
    ("a cat, which appears together with the living room: on a cozy couch or near a window.", 1),
    ("a taxi, which is a car, which is a vehicle.", 2),
    ("a car, which has four wheels, headlights, and a windshield (usually tinted).", 2),
    ("a photo of the dirty car.", 2),
    ("a jet, which is a airplane, which is a vehicle.", 3),
    ("a airplane, which has wings: large horizontal surfaces for lift.", 3),
    ("a airplane, which appears together with the runway - a plane taking off at sunset.", 3),
    ("a oak, which is a tree, which is a plant.", 4),
    ("a tree, which has bark, branches, and leaves.", 4),
    ("a photo of many tree.", 4),
    ("a sunset, which is a sky, which is a scene.", 5),
]
