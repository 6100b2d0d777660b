"""Stage `take_tokenizer`: a tokenizer without training, to be measured or used as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from robustok_core.kinds.cost import Cost
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.runs.components import save_component
from robustok_core.runs.promises import TokenizerPromise
from robustok_stages.costs import parameters, weights_bytes


@frozen(kw_only=True)
class TakeTokenizerConfig:
    """No options."""


class TakeTokenizer(Stage):
    """Writes [tokenizer] as it is built as the artifact "tokenizer": with the weights that it brings, else random ones.

    So a pretrained one, such as `diffusers_vae`, is measured without training, and an untrained one as a baseline.
    """

    Config = TakeTokenizerConfig
    uses = ("tokenizer",)
    makes = ("tokenizer",)

    def __init__(self, config: TakeTokenizerConfig) -> None:
        self.config = config

    def plan(self, context: StageContext) -> Mapping[str, Promise]:
        """The tokenizer's space; it has no discriminators."""
        tokenizer = context.sketch("tokenizer")
        promise = TokenizerPromise(
            space=tokenizer.space,
            image_size=tokenizer.image_size,
            opponents=(),
            post_trained=False,
            stage=context.stage,
            sketch=lambda: tokenizer,
        )
        return {"tokenizer": promise}

    def cost(self, context: StageContext) -> Cost:
        """Its weights; nothing is computed."""
        tokenizer = context.sketch("tokenizer")
        return Cost(frozen=parameters(tokenizer), disk={"tokenizer": weights_bytes(tokenizer)})

    def result_names(self) -> Sequence[str]:
        return ["parameters"]

    def run(self, context: StageContext) -> Mapping[str, float]:
        """Writes the artifact and returns the number of parameters."""
        tokenizer = context.build("tokenizer")
        with context.making("tokenizer") as folder:
            if folder is not None:
                about = {"fingerprint": context.fingerprint, "run": context.run_name, "opponents": []}
                save_component(folder, "tokenizer", context.spec("tokenizer").table(), tokenizer, **about)
        return {"parameters": float(sum(parameter.numel() for parameter in tokenizer.parameters()))}
