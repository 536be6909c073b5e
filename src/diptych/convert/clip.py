"""CLIP and SigLIP as OpenAI, open_clip (with timm) and Hugging Face publish them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from diptych.convert.family import Family, Node, count, heads_of
from diptych.convert.rules import Drop, Rule, Table, Weights, rename, split, transpose
from diptych.convert.settings import Setting, Settings, Use
from diptych.convert.split import Backbone, Split
from diptych.models.clip import Clip, DualEncoder, Siglip
from diptych.nn.towers import resize_positions
from diptych.text import BytePair, SentencePiece


def _scalars(probe: str, shape: Sequence[int]) -> Rule:
    """Rule for the scale and bias of SigLIP's logits, which the two forms hold in other shapes.

    Args:
        probe: a name that only this form has. It decides in which shape scale and bias are written back.
    """
    return Rule(
        (probe, "logit_scale", "logit_bias"),
        ("image.pool.probe", "logit_scale", "logit_bias"),
        lambda tensors: (tensors[0], *(tensor.reshape(()) for tensor in tensors[1:])),
        lambda tensors: (tensors[0], *(tensor.reshape(tuple(shape)) for tensor in tensors[1:])),
    )


def _packed(source: str, target: str, *, parts: Sequence[str] = ("query", "key", "value")) -> Table:
    """Rules for projections of attention that a file holds in one matrix and one bias."""
    weights, biases = (tuple(f"{target}.{part}.{kind}" for part in parts) for kind in ("weight", "bias"))
    # torch's MultiheadAttention writes `in_proj_weight`, timm's Linear `qkv.weight`.
    joint = "_" if source.endswith("in_proj") else "."
    return split(f"{source}{joint}weight", weights), split(f"{source}{joint}bias", biases)


def _openai_layer(source: str, target: str) -> Table:
    return (
        rename(f"{source}.ln_1", f"{target}.attention_norm"),
        *_packed(f"{source}.attn.in_proj", f"{target}.attention"),
        rename(f"{source}.attn.out_proj", f"{target}.attention.out"),
        rename(f"{source}.ln_2", f"{target}.feedforward_norm"),
        rename(f"{source}.mlp.c_fc", f"{target}.feedforward.expand"),
        rename(f"{source}.mlp.c_proj", f"{target}.feedforward.contract"),
    )


def _hugging_face_layer(source: str, target: str) -> Table:
    return (
        rename(f"{source}.layer_norm1", f"{target}.attention_norm"),
        rename(f"{source}.self_attn.q_proj", f"{target}.attention.query"),
        rename(f"{source}.self_attn.k_proj", f"{target}.attention.key"),
        rename(f"{source}.self_attn.v_proj", f"{target}.attention.value"),
        rename(f"{source}.self_attn.out_proj", f"{target}.attention.out"),
        rename(f"{source}.layer_norm2", f"{target}.feedforward_norm"),
        rename(f"{source}.mlp.fc1", f"{target}.feedforward.expand"),
        rename(f"{source}.mlp.fc2", f"{target}.feedforward.contract"),
    )


def _openai_text(source: str = "") -> Table:
    return (
        rename(f"{source}token_embedding", "text.words"),
        rename(f"{source}positional_embedding", "text.positions.weight"),
        *_openai_layer(f"{source}transformer.resblocks.{{}}", "text.encoder.layers.{}"),
        rename(f"{source}ln_final", "text.norm"),
    )


COUNTERS = "a counter of positions that older versions of transformers saved"
HUGGING_FACE: Table = (  # what CLIP and SigLIP have in common
    rename("vision_model.embeddings.patch_embedding", "image.patches"),
    rename("vision_model.embeddings.position_embedding.weight", "image.positions"),
    *_hugging_face_layer("vision_model.encoder.layers.{}", "image.encoder.layers.{}"),
    rename("vision_model.post_layernorm", "image.norm"),
    rename("text_model.embeddings.token_embedding", "text.words"),
    rename("text_model.embeddings.position_embedding", "text.positions"),
    *_hugging_face_layer("text_model.encoder.layers.{}", "text.encoder.layers.{}"),
    rename("text_model.final_layer_norm", "text.norm"),
    Drop("vision_model.embeddings.position_ids", COUNTERS),
    Drop("text_model.embeddings.position_ids", COUNTERS),
)
CLIP_HUGGING_FACE: Table = (
    *HUGGING_FACE,
    rename("vision_model.embeddings.class_embedding", "image.first"),
    rename("vision_model.pre_layrnorm", "image.before"),  # spelled like this in all files
    rename("visual_projection", "image_projection"),
    rename("text_projection.weight", "text_projection.weight"),
    rename("logit_scale", "logit_scale"),
)
CLIP_OPENAI: Table = (
    rename("visual.conv1", "image.patches"),
    rename("visual.class_embedding", "image.first"),
    rename("visual.positional_embedding", "image.positions"),
    rename("visual.ln_pre", "image.before"),
    *_openai_layer("visual.transformer.resblocks.{}", "image.encoder.layers.{}"),
    rename("visual.ln_post", "image.norm"),
    transpose("visual.proj", "image_projection.weight"),
    *_openai_text(),
    transpose("text_projection", "text_projection.weight"),
    rename("logit_scale", "logit_scale"),
    *(
        Drop(name, "a size, which the tensors show")
        for name in ("input_resolution", "context_length", "vocab_size")
    ),
    Drop("attn_mask", "the causal mask"),
)
SIGLIP_HUGGING_FACE: Table = (
    *HUGGING_FACE,
    _scalars("vision_model.head.probe", (1,)),
    *_packed("vision_model.head.attention.in_proj", "image.pool.attention"),
    rename("vision_model.head.attention.out_proj", "image.pool.attention.out"),
    rename("vision_model.head.layernorm", "image.pool.norm"),
    rename("vision_model.head.mlp.fc1", "image.pool.feedforward.expand"),
    rename("vision_model.head.mlp.fc2", "image.pool.feedforward.contract"),
    rename("text_model.head", "text_projection"),
)
TRUNK = "visual.trunk.blocks.{}"
SIGLIP_OPEN_CLIP: Table = (
    rename("visual.trunk.patch_embed.proj", "image.patches"),
    Rule(
        ("visual.trunk.pos_embed",),
        ("image.positions",),
        lambda tensors: (tensors[0][0],),
        lambda tensors: (tensors[0][None],),
    ),
    rename(f"{TRUNK}.norm1", "image.encoder.layers.{}.attention_norm"),
    *_packed(f"{TRUNK}.attn.qkv", "image.encoder.layers.{}.attention"),
    rename(f"{TRUNK}.attn.proj", "image.encoder.layers.{}.attention.out"),
    rename(f"{TRUNK}.norm2", "image.encoder.layers.{}.feedforward_norm"),
    rename(f"{TRUNK}.mlp.fc1", "image.encoder.layers.{}.feedforward.expand"),
    rename(f"{TRUNK}.mlp.fc2", "image.encoder.layers.{}.feedforward.contract"),
    rename("visual.trunk.norm", "image.norm"),
    _scalars("visual.trunk.attn_pool.latent", ()),
    rename("visual.trunk.attn_pool.q", "image.pool.attention.query"),
    *_packed("visual.trunk.attn_pool.kv", "image.pool.attention", parts=("key", "value")),
    rename("visual.trunk.attn_pool.proj", "image.pool.attention.out"),
    rename("visual.trunk.attn_pool.norm", "image.pool.norm"),
    rename("visual.trunk.attn_pool.mlp.fc1", "image.pool.feedforward.expand"),
    rename("visual.trunk.attn_pool.mlp.fc2", "image.pool.feedforward.contract"),
    *_openai_text("text."),
    rename("text.text_projection", "text_projection"),
)
IMAGE_POSITIONS = (
    "visual.positional_embedding",
    "visual.trunk.pos_embed",
    "vision_model.embeddings.position_embedding.weight",
)
TEXT_POSITIONS = (
    "positional_embedding",
    "text.positional_embedding",
    "text_model.embeddings.position_embedding.weight",
)


def _named(weights: Weights, *names: str) -> Tensor:
    """The tensor that a file has under one of these names."""
    return weights[next((name for name in names if name in weights), names[0])]


def _tower(dim: int, hidden: int, layers: int) -> Node:
    # so400m has 16 heads of 72; all other published towers have heads of 64.
    heads = 16 if dim == 1152 else heads_of(dim)
    return {"_target_": "diptych.nn.Sizes", "dim": dim, "heads": heads, "hidden": hidden, "layers": layers}


def _sizes(file: Split) -> Node:
    """Sizes that both families have."""
    weights = file.backbone
    patches = _named(
        weights,
        "visual.conv1.weight",
        "visual.trunk.patch_embed.proj.weight",
        "vision_model.embeddings.patch_embedding.weight",
    )
    words = _named(
        weights,
        "token_embedding.weight",
        "text.token_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
    )
    table = _named(weights, *IMAGE_POSITIONS).squeeze(0)
    image = next(
        (
            (len(weights[name]), count(weights, f"{layers}.{{}}."))
            for layers, inner in (
                ("visual.transformer.resblocks", "mlp.c_fc"),
                ("visual.trunk.blocks", "mlp.fc1"),
                ("vision_model.encoder.layers", "mlp.fc1"),
            )
            if (name := f"{layers}.0.{inner}.bias") in weights
        )
    )
    text = next(
        (
            (len(weights[name]), count(weights, f"{layers}.{{}}."))
            for layers, inner in (
                ("transformer.resblocks", "mlp.c_fc"),
                ("text.transformer.resblocks", "mlp.c_fc"),
                ("text_model.encoder.layers", "mlp.fc1"),
            )
            if (name := f"{layers}.0.{inner}.bias") in weights
        )
    )
    patch = patches.shape[2]
    return {
        "vocab_size": len(words),
        "text": _tower(words.shape[1], *text),
        "vision": _tower(len(patches), *image),
        # Of a grid that is not square, only its number of cells shows; see `_adapt`.
        "image_size": math.isqrt(len(table)) * patch,
        "patch": patch,
        "max_positions": len(_named(weights, *TEXT_POSITIONS)),
    }


def _clip_sizes(file: Split) -> Node:
    weights = file.backbone
    openai = "visual.proj" in weights
    joint = weights["visual.proj"].shape[1] if openai else len(weights["visual_projection.weight"])
    # OpenAI's archives are in half precision and hold their sizes; open_clip's own weights use exact GELU.
    own = "input_resolution" in weights or _named(weights, "visual.proj", "logit_scale").dtype == torch.half
    activation = "quick_gelu" if own or not openai else "gelu"
    return {**_sizes(file), "joint_dim": joint, "activation": activation}


def _siglip_sizes(file: Split) -> Node:
    sizes = _sizes(file)
    second = sizes["vocab_size"] > 100_000  # SigLIP 2 has Gemma's vocabulary
    timm = "visual.trunk.pos_embed" in file.backbone
    # timm computes the exact GELU; so do open_clip's texts of SigLIP 1.
    activation = "gelu" if timm else "gelu_tanh"
    text = "gelu" if timm and not second else "gelu_tanh"
    return {**sizes, "pad_id": 0 if second else 1, "activation": activation, "text_activation": text}


def _adapt(model: DualEncoder, file: Split) -> Split:
    """Interpolate tables of positions to the sizes of the model, as open_clip does when it loads weights."""
    weights = dict(file.backbone)
    for name in IMAGE_POSITIONS:
        if name in weights and (table := weights[name]).dim() > 1:
            rows = table.reshape(-1, table.shape[-1])
            side = math.isqrt(len(rows) - (model.image.first is not None))
            if len(rows) != len(model.image.positions) and not table.is_meta:
                new = resize_positions(rows.float(), (side, side), model.image.grid, antialias=True)
                weights[name] = new.reshape(*table.shape[:-2], *new.shape)
    room = model.text.positions.num_embeddings
    for name in TEXT_POSITIONS:
        if name in weights and (table := weights[name]).dim() == 2 and len(table) != room:
            longer = F.interpolate(table.float().T[None], size=room, mode="linear", align_corners=False)
            weights[name] = longer[0].T
    return replace(file, backbone=weights)


def _clip_processor(use: Use) -> Settings:
    return _processor(use)


def _siglip_processor(use: Use) -> Settings:
    return _processor(use, mean=[0.5] * 3, std=[0.5] * 3)


def _processor(use: Use, **colors: list[float]) -> Settings:
    size = use.found.sizes["image_size"]
    square = {"_target_": "diptych.data.SquareTransform", "size": size, "shape": "squash", **colors}
    return {
        "max_tokens": Setting(None, "the file: rows of its table of positions"),
        "square": Setting(square, "the original for memes: squashed, so that no margin with text is cut off"),
    }


HABITS = {
    "activation": "assumed: weights do not show it; set model.activation=gelu|gelu_tanh|quick_gelu",
    "text_activation": "assumed: weights do not show it; set model.text_activation=gelu|gelu_tanh",
    "pad_id": "the original: the padding token of its vocabulary",
}
CLIP = Family(
    name="clip",
    title="CLIP (openai/CLIP, open_clip, Hugging Face)",
    model=Clip,
    backbone=Backbone(key="visual.conv1.weight|vision_model.embeddings.patch_embedding.weight"),
    # Hugging Face's form first: OpenAI's `text_projection` would take its `text_projection.weight`, too.
    table=(*CLIP_HUGGING_FACE, *CLIP_OPENAI),
    adapt=_adapt,
    sizes=_clip_sizes,
    required=frozenset(
        {
            "visual.class_embedding|vision_model.embeddings.class_embedding",
            "visual.proj|visual_projection.weight",
            "token_embedding.weight|text_model.embeddings.token_embedding.weight",
        }
    ),
    # A width of the text stands for several builders, so a bundle names the class with all sizes.
    builders={(512, 12): "Clip", (768, 12): "Clip"},
    tokenizer=BytePair,
    regions=False,
    processor=_clip_processor,
    habits=HABITS,
)
SIGLIP = Family(
    name="siglip",
    title="SigLIP and SigLIP 2 (Hugging Face, open_clip with timm)",
    model=Siglip,
    backbone=Backbone(key="visual.trunk.pos_embed|vision_model.embeddings.patch_embedding.weight"),
    table=(*SIGLIP_OPEN_CLIP, *SIGLIP_HUGGING_FACE),
    adapt=_adapt,
    sizes=_siglip_sizes,
    required=frozenset(
        {
            "visual.trunk.attn_pool.latent|vision_model.head.probe",
            "text.token_embedding.weight|text_model.embeddings.token_embedding.weight",
            "text.text_projection.bias|text_model.head.bias",
        }
    ),
    builders={(768, 12): "Siglip", (1152, 27): "Siglip"},
    tokenizer=SentencePiece,
    regions=False,
    processor=_siglip_processor,
    habits=HABITS,
)
FAMILIES = (CLIP, SIGLIP)
