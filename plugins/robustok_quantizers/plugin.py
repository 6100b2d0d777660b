"""Registers the quantizers."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_quantizers.fsq import FSQ
from robustok_quantizers.ibq import IBQ
from robustok_quantizers.lfq import LFQ
from robustok_quantizers.projected_vq import ProjectedVQ
from robustok_quantizers.residual_vq import ResidualVQ
from robustok_quantizers.sim_vq import SimVQ
from robustok_quantizers.vq import VQ


@hookimpl
def robustok_register(register: Register) -> None:
    register("quantizer", "vq", VQ)
    register("quantizer", "fsq", FSQ)
    register("quantizer", "lfq", LFQ)
    register("quantizer", "residual_vq", ResidualVQ)
    register("quantizer", "sim_vq", SimVQ)
    register("quantizer", "projected_vq", ProjectedVQ)
    register("quantizer", "ibq", IBQ)
