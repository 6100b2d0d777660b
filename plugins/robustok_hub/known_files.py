"""Which importer reads a file, by the names of its weights.

Those of our importers are here rather than in `Importer.recognised_by`, because importers refuse each other's files by
them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

_TAMING = ("encoder.mid.block_1.conv1.weight", "decoder.up.0.block.0.conv1.weight")
_LLAMAGEN = ("encoder.conv_blocks.0.res.0.conv1.weight", "quantize.embedding.weight")
_DINOV2 = ("encoder.latent_tokens", "encoder.model.patch_embed.proj.weight")
_DIFFUSION = ("t_embedder.mlp.0.weight", "final_layer.linear.weight")
_PATCHES = (*_DIFFUSION, "x_embedder.proj.weight")
_DIT = (*_PATCHES, "blocks.0.mlp.fc2.weight")
#: Pairs of an importer and names of weights.
KnownNames = Sequence[tuple[str, Collection[str]]]
#: Importers, and names that all their files have, or all of one layout, and that no other's files have together.
NAMES: KnownNames = (
    ("robustok", (*_DINOV2, "quantize.embedding.weight")),
    ("robustok", (*_DINOV2, "quantize.embedding.weight", "encoder.latent_pos_embed")),
    ("maetok", (*_DINOV2, "encoder.latent_pos_embed")),
    ("softvq", (*_DINOV2, "encoder.latent_pos_embed", "quantize.embedding")),
    ("titok", ("latent_tokens", "encoder.latent_token_positional_embedding", "quantize.embedding.weight")),
    ("gigatok", (*_LLAMAGEN, "s2to1encoder.encoder_embed.weight")),
    ("llamagen_vq", _LLAMAGEN),
    ("taming_vq", (*_TAMING, "quantize.embedding.weight")),
    ("ibq", (*_TAMING, "quantize.embedding.weight")),
    ("vqgan_lc", (*_TAMING, "tok_embeddings.weight", "codebook_projection.weight")),
    ("ldm_vae", _TAMING),
    ("diffusers", ("encoder.down_blocks.0.resnets.0.conv1.weight", "encoder.mid_block.resnets.0.conv1.weight")),
    ("maskgit_vq", ("encoder.mid.0.conv1.weight", "encoder.down.0.block.0.conv1.weight", "quantize.embedding.weight")),
    ("open_magvit2", ("encoder.mid_block.0.conv1.weight", "decoder.adaptive.0.gamma.weight")),
    ("ldetok", ("encoder.latent_head.weight", "decoder.decoder_embed.weight")),
    ("rae", ("decoder_embed.weight", "decoder_layers.0.intermediate.dense.weight")),
    ("rar", ("target_aware_pos_embed", "timesteps_embeddings", "lm_head.weight")),
    ("llamagen_gpt", ("cls_embedding.embedding_table.weight", "tok_embeddings.weight", "output.weight")),
    ("sit", (*_DIFFUSION, "x_embedder.weight")),
    ("dit", _DIT),
    ("sit", _DIT),
    ("lightningdit", (*_PATCHES, "blocks.0.mlp.w3.weight")),
    ("lightningdit", (*_DIT, "feat_rope.freqs_cos")),
    ("lightningdit", (*_DIT, "blocks.0.norm1.weight")),
)
#: What the importers read.
FORMATS = {
    "robustok": "a RobusTok tokenizer",
    "maetok": "a MAETok tokenizer",
    "softvq": "a SoftVQ tokenizer",
    "titok": "a TiTok tokenizer",
    "gigatok": "a GigaTok tokenizer",
    "llamagen_vq": "a LlamaGen tokenizer",
    "taming_vq": "a VQGAN of taming-transformers",
    "ibq": "an IBQ tokenizer",
    "vqgan_lc": "a VQGAN-LC tokenizer with a projected table",
    "ldm_vae": "a latent diffusion autoencoder",
    "diffusers": "a model of diffusers (AutoencoderKL or VQModel)",
    "maskgit_vq": "a MaskGIT VQGAN",
    "open_magvit2": "an Open-MAGVIT2 tokenizer",
    "ldetok": "a DeTok tokenizer",
    "rae": "a RAE decoder",
    "rar": "a RAR generator",
    "llamagen_gpt": "a LlamaGen generator",
    "sit": "a SiT",
    "dit": "a DiT",
    "lightningdit": "a LightningDiT",
}


def likely_importers(weights: Collection[str], known: KnownNames = NAMES) -> list[str]:
    """The importers of files whose weights have these names, the best fitting only; several if names cannot tell.

    `taming_vq` and `ibq` read the same names, as do `sit` and `dit`.
    """
    fitting = [(importer, own) for importer, names in known if (own := set(names)) <= set(weights)]
    return list(dict.fromkeys(name for name, own in fitting if not any(own < other for _, other in fitting)))


def better_importers(importer: str, weights: Collection[str]) -> list[str]:
    """The likely importers of such a file, or none if this one is among them: a damaged file still looks like its own.

    Args:
        importer: the one that was chosen. weights: the names in the file.
    """
    likely = likely_importers(weights)
    return [] if importer in likely else likely


def fits(importer: str, weights: Collection[str]) -> bool:
    """Whether a file has the names of an importer's files, and perhaps more."""
    return any(name == importer and set(names) <= set(weights) for name, names in NAMES)
