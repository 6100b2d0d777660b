"""What each number of a run means, and why one should look at it."""

from __future__ import annotations

import re

import attrs
from attrs import frozen


@frozen
class Meaning:
    """A number's name for people, its unit ("%" for a share), what it is, and why it matters, a sentence each."""

    name: str
    what: str
    why: str
    unit: str = ""

    @property
    def factor(self) -> int:
        """What a number is multiplied with to be in its unit."""
        return 100 if self.unit == "%" else 1


_DISTANCE = "in the features of {features}"
_FIRST_SCALE = "at the first guidance scale"
_FIRST_SIGMA = "at the first guidance scale and σ"
_FID_WHY = "It sees blur, artefacts and missing variety at once, but not where they are."
_KNOWN: dict[str, Meaning] = {
    r"psnr": Meaning(
        "PSNR",
        "Peak signal-to-noise ratio of reconstructions: how close their pixels are to the input's.",
        "Every pixel counts alike, so it rewards blur; read it beside a perceptual number.",
        "dB",
    ),
    r"ssim": Meaning(
        "SSIM",
        "Structural similarity of reconstructions and inputs; 1 if they are equal.",
        "It compares local contrast and structure, which the eye notices more than brightness.",
    ),
    r"lpips": Meaning(
        "LPIPS",
        "Perceptual distance of reconstructions from inputs, in the layers of a network.",
        "It agrees with people better than PSNR on blur and texture.",
    ),
    r"colour_error": Meaning(
        "Colour error",
        "Mean difference of colours (CIEDE2000) between reconstructions and inputs.",
        "Up to 1 nobody sees a difference, from 2 on everybody does (Mokrzycki and Tatol, 2011); wrong tokens often "
        "show as wrong colours.",
        "ΔE",
    ),
    r"rfid": Meaning("rFID", "Fréchet distance between inputs and reconstructions (Inception).", _FID_WHY),
    r"rfd_(?P<features>\w+)": Meaning(
        "rFD", f"Fréchet distance between inputs and reconstructions, {_DISTANCE}.", _FID_WHY
    ),
    r"pfid": Meaning(
        "pFID",
        "Mean Fréchet distance between inputs and reconstructions from perturbed codes, over 15 strengths.",
        "It predicts how well a generator's imperfect codes will be decoded, before any generator is trained.",
    ),
    r"pfd_(?P<features>\w+)": Meaning(
        "pFD",
        f"Mean Fréchet distance between inputs and reconstructions from perturbed codes, {_DISTANCE}.",
        "It predicts how well a generator's imperfect codes will be decoded, before any generator is trained.",
    ),
    r"noise_pf(id|d)(_(?P<features>\w+))?": Meaning(
        "noise pFD",
        "Mean Fréchet distance between inputs and reconstructions from noisy vectors.",
        "The same question as pFID, for tokenizers without a codebook.",
    ),
    r"ifid": Meaning(
        "iFID",
        "Fréchet distance between inputs and what is decoded halfway to a similar training image (Inception).",
        "Generators fill the space between training images; this says what is decoded there, without a generator.",
    ),
    r"ifd_(?P<features>\w+)": Meaning(
        "iFD",
        f"Fréchet distance between inputs and what is decoded between them and similar training images, {_DISTANCE}.",
        "Generators fill the space between training images; this says what is decoded there, without a generator.",
    ),
    r"codebook_usage": Meaning(
        "Codebook usage",
        "Share of the codes that occur in the held-out images.",
        "Codes that never occur are capacity that is wasted.",
        "%",
    ),
    r"codebook_perplexity": Meaning(
        "Codebook perplexity",
        "Number of codes that would be as hard to guess if all were equally frequent.",
        "It falls where a few codes do most of the work, even if all occur.",
    ),
    r"rsfid": Meaning(
        "rsFID",
        "Fréchet distance between inputs and reconstructions in Inception's spatial features.",
        "Unlike rFID's, these features keep where things are.",
    ),
    r"gsfid": Meaning(
        "sFID",
        "Fréchet distance between samples and real images in Inception's spatial features.",
        "Unlike FID's, these features keep where things are, so it sees wrong arrangements.",
    ),
    r"gfid": Meaning("gFID", "Fréchet distance between samples and real images (Inception).", _FID_WHY),
    r"gfd_(?P<features>\w+)": Meaning(
        "gFD",
        f"Fréchet distance between samples and real images, {_DISTANCE}.",
        "The number that training a tokenizer is for: how good what a generator draws looks after decoding.",
    ),
    r"fdr6?(_(?P<features>\w+))?": Meaning(
        "FDr",
        "Fréchet distance of samples to real images, relative to that of held-out images; mean over networks.",
        "1 is as good as held-out images, and no single network can be pleased alone.",
    ),
    r"fd_val_(?P<features>\w+)": Meaning(
        "FD of held-out images",
        f"Fréchet distance of held-out images to the reference, {_DISTANCE}.",
        "What perfect samples would have at this number of images.",
    ),
    r"inception_score": Meaning(
        "Inception Score",
        "Whether samples look like one class each, and like all classes together.",
        "It never looks at real images, so it cannot see a wrong style.",
    ),
    r"classifier_score_(?P<features>\w+)": Meaning(
        "Classifier score",
        "Inception Score's formula with another network: {features}.",
        "It never looks at real images, so it cannot see a wrong style.",
    ),
    r"precision_?(?P<features>\w*)": Meaning(
        "Precision",
        "Share of samples that lie among the real images.",
        "It falls where samples have artefacts.",
    ),
    r"recall_?(?P<features>\w*)": Meaning(
        "Recall",
        "Share of real images that lie among the samples.",
        "It falls where samples lack variety.",
    ),
    r"kid": Meaning("KID", "Kernel distance between samples and real images (Inception).", "Unbiased for few images."),
    r"kd_(?P<features>\w+)": Meaning(
        "KD", f"Kernel distance between samples and real images, {_DISTANCE}.", "Unbiased for few images."
    ),
    r"cmmd": Meaning(
        "CMMD",
        "Kernel distance between samples and real images in CLIP's embeddings, times 1,000.",
        "CLIP has seen far more than Inception's classes, and no normal distribution is assumed.",
    ),
    r"mmd_(?P<features>\w+)": Meaning(
        "MMD",
        f"Kernel distance between samples and real images, {_DISTANCE}, each divided by its length.",
        "CMMD's formula with another network; no normal distribution is assumed.",
    ),
    r"mind": Meaning(
        "MIND",
        "Monge distance between samples and real images (Inception): transport along random directions.",
        "It sees the whole distribution, not only mean and covariance, and 5,000 images are enough.",
    ),
    r"md_(?P<features>\w+)": Meaning(
        "MD",
        f"Monge distance between samples and real images, {_DISTANCE}: transport along random directions.",
        "It sees the whole distribution, not only mean and covariance, and 5,000 images are enough.",
    ),
    r"density_(?P<features>\w+)": Meaning(
        "Density",
        f"How many real images' neighbourhoods a sample lies in, relative to a real image, {_DISTANCE}.",
        "As precision, it falls where samples have artefacts; one outlier among the real images does not raise it.",
    ),
    r"coverage_(?P<features>\w+)": Meaning(
        "Coverage",
        f"Share of real images that have a sample in their neighbourhood, {_DISTANCE}.",
        "As recall, it falls where samples lack variety; outliers among the samples do not raise it.",
    ),
    r"gap_codes_(?P<features>\w+)": Meaning(
        "Gap: codes",
        "What the generator's latents cost even with a perfectly robust decoder, in {features}.",
        "It falls with a better generator; no decoder can lower it.",
    ),
    r"gap_decoder_(?P<features>\w+)": Meaning(
        "Gap: decoder",
        "What a perfectly robust decoder of the same latents would save, in {features}.",
        "It is what robust training and post-training of the decoder can gain.",
    ),
    r"gap_reconstruction_(?P<features>\w+)": Meaning(
        "Gap: reconstruction",
        "What decoding costs even for latents of real images, in {features}.",
        "Where it is most of the decoder's part, blur is what hurts, not wrong tokens.",
    ),
    r"gap_(?P<features>\w+)": Meaning(
        "Gap",
        "How much further samples are from held-out images than training images are, in {features}.",
        "What tokenizer and generator cost together; its parts add up.",
    ),
    r"latent_mmd": Meaning(
        "Latent MMD",
        "Squared distance between generated latents and perturbed latents of real images, at the best α.",
        "It says which strength of perturbation imitates this generator's errors.",
    ),
    r"rank_pfd_(?P<features>\w+)": Meaning(
        "rank pFD",
        f"Fréchet distance between inputs and reconstructions with one generator's wrong tokens, {_DISTANCE}.",
        "What pFID predicts for any generator, for the one whose law of errors it was measured with.",
    ),
    r"changed": Meaning(
        "Other codes",
        f"Share of the draws after true codes that are another code, {_FIRST_SCALE}.",
        "Not each is a mistake.",
        "%",
    ),
    r"relative_rank": Meaning(
        "Relative rank",
        f"Mean rank of the drawn codes that differ, among the neighbours of the true code, over K, {_FIRST_SCALE}; "
        "0 if there are none.",
        "Near 0, errors look like the paper's perturbation; near 0.5, like random codes.",
    ),
    r"within_delta": Meaning(
        "Within δ",
        f"Share of the drawn codes that differ that lie among the δ nearest, 2.4 % of the codebook, {_FIRST_SCALE}; 0 "
        "if there are none.",
        "What the paper's perturbation imitates of this generator.",
        "%",
    ),
    r"error_size": Meaning(
        "Size of the errors",
        "How far latents that keep a share of held-out images' lie from these, in standard deviations of the image's "
        f"tokens, {_FIRST_SIGMA}.",
        "Noise of this strength, as noise_pfd adds it, is as far from real latents as what this generator makes.",
    ),
    r"along_data": Meaning(
        "Errors along the data",
        "Share of the errors' energy along the directions that hold half of the variance of real latents, "
        f"{_FIRST_SIGMA}.",
        "Independent noise spreads over all directions; what lies along the data looks like another real image.",
        "%",
    ),
    r"inflation": Meaning(
        "Variance with errors",
        f"Variance of the latents with errors over that of real ones, mean of the channels, {_FIRST_SIGMA}.",
        "Independent noise raises it above 1; a generator's errors need not.",
    ),
    r"neighbour_correlation": Meaning(
        "Correlation of adjacent errors",
        f"Correlation of the errors of tokens beside or below each other, {_FIRST_SIGMA}.",
        "0 for independent noise; above it, errors spoil regions and not single tokens.",
    ),
    r"suggested_alpha": Meaning(
        "Suggested α",
        "The share of perturbed tokens at which perturbed latents come closest to generated ones.",
        "A sensible α for training a tokenizer and for pFID with this generator.",
    ),
    r"validation_loss": Meaning(
        "Validation loss", "The generator's loss on held-out latents.", "It rises where a generator memorises."
    ),
    r"parameters": Meaning("Parameters", "Number of trained parameters.", "The size of the model."),
    r"steps": Meaning("Steps", "Steps of the optimiser.", "The length of the training."),
    r"num_samples": Meaning("Samples", "Number of samples.", "Distances fall with it, so compare equal numbers."),
    r"num_pairs": Meaning("Pairs", "Pairs of changed latents and their real image.", "What post-training sees."),
    r"train_images": Meaning("Images", "Number of encoded training images.", "What the generator sees."),
    r"views": Meaning("Views", "Crops of each training image.", "Augmentation of the generator's data."),
    r"changed_sigma(?P<features>[\d.e-]+)": Meaning(
        "Change of the latents",
        "Distance of the pairs' latents of σ = {features} from the images': share of the codes that differ; "
        "of vectors, distance over the norm of the images'.",
        "How hard the pairs are for the decoder.",
    ),
    r"decoders": Meaning("Decoders", "Number of decoders that were trained.", "One for each σ of the pairs."),
    r"kept_sigma": Meaning("Kept σ", "The σ of the decoder that the run keeps.", "Chosen on the selection images."),
}
_UNKNOWN = Meaning("", "", "")

#: `compare_decoders` measures each decoder: before, or after post-training with a sigma; guided samples, or pairs.
_OF_DECODER = re.compile(
    r"(?P<decoder>before|sigma[0-9.e-]+)_((?P<guided>guided)_|on_sigma(?P<pairs>[0-9.e-]+)_)?(?P<metric>.+)"
)
_FRECHET = re.compile(r"(?P<of>r|(noise_|rank_)?p|g)f(id|d_\w+)")


@frozen(kw_only=True)
class OfDecoder:
    """A result of one decoder among several.

    Attributes:
        decoder: "before" or "sigma0.9". metric: what was measured, "psnr".
        of: what it was measured on, for people: "guided samples", "pairs of σ = 0.8"; empty for what is usual.
    """

    decoder: str
    metric: str
    of: str

    @property
    def decoder_name(self) -> str:
        """The decoder for people."""
        sigma = self.decoder.removeprefix("sigma")
        return "before" if sigma == "before" else "σ = 1 (control)" if float(sigma) == 1 else f"σ = {sigma}"


def of_decoder(metric: str) -> OfDecoder | None:
    """The parts of the name of a result of `compare_decoders`; None for all others."""
    if (found := _OF_DECODER.fullmatch(metric)) is None:
        return None
    of = "guided samples" if found["guided"] else f"pairs of σ = {found['pairs']}" if found["pairs"] else ""
    return OfDecoder(decoder=found["decoder"], metric=found["metric"], of=of)


def frechet_of(metric: str) -> str | None:
    """What a Fréchet distance was measured on: "r", "p" or "g" for reconstructions, perturbed ones, or samples."""
    found = _FRECHET.fullmatch(metric)
    return found["of"][-1] if found is not None else None


def meaning_of(metric: str) -> Meaning:
    """What a number is called and means; without a text if this version does not know it.

    Args:
        metric: its name without the stage: "rfd_efficientnet_lite0", "sigma0.9_guided_gfd_efficientnet_lite0".
    """
    if (of := of_decoder(metric)) is not None:
        meaning = meaning_of(of.metric)
        return attrs.evolve(meaning, name=", ".join(filter(None, [meaning.name, of.of, of.decoder_name])))
    for pattern, meaning in _KNOWN.items():
        if (found := re.fullmatch(pattern, metric)) is not None:
            features = found.groupdict().get("features") or ""
            return attrs.evolve(meaning, what=meaning.what.replace("{features}", features))
    return Meaning(metric.replace("_", " "), _UNKNOWN.what, _UNKNOWN.why)
