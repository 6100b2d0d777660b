"""Settings in the environment that would change a run without its recipe saying so: refused by name, or recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from robustok_core.errors import RobustokError, raise_all

_PARALLEL = "choose multi-GPU (DDP) or FSDP version 2 in `accelerate config`; see recipes/cluster"
_VERSION = "robustok shards weights with FSDP version 2: set fsdp_version: 2"
_OFFLOAD = "set fsdp_offload_params: false"
_CHECKPOINTING = "set fsdp_activation_checkpointing: false"
_STATE = "set fsdp_state_dict_type: SHARDED_STATE_DICT; any number of processes reads such a checkpoint"
_RESHARD = "set fsdp_reshard_after_forward: true, or false to keep gathered weights until the backward pass"
_WRAP = "set fsdp_auto_wrap_policy: NO_WRAP; robustok chooses the blocks of its models itself"
_ACCUMULATION = "set `accumulation` in the training stages of the recipe"
_DYNAMO = "robustok compiles the blocks of its models itself: set run.compile, and launch with --dynamo_backend no"
_TF32 = "float32 would be rounded to TF32 in evaluations too; unset it, and use run.precision to train faster"
_FPMATH = "float32 would be rounded to a shorter type in evaluations too; unset it, and use run.precision"


_ON, _OFF = ("1", "true", "yes", "on", "y", "t"), ("", "0", "false", "no", "off", "n", "f")


def _is_on(value: str) -> bool:
    return value.strip().lower() not in _OFF


#: What accelerate would read (`accelerate launch` sets some of them to these harmless values), and what to do instead.
_NOT_HONOURED: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "ACCELERATE_USE_DEEPSPEED": (_is_on, _PARALLEL),
    "ACCELERATE_USE_MEGATRON_LM": (_is_on, _PARALLEL),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (_is_on, _PARALLEL),
    "ACCELERATE_USE_SAGEMAKER": (_is_on, _PARALLEL),
    "ACCELERATE_DYNAMO_BACKEND": (_is_on, _DYNAMO),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (lambda value: value.strip() not in ("", "1"), _ACCUMULATION),
}
#: What accelerate would read beside ACCELERATE_USE_FSDP.
_NOT_HONOURED_OF_FSDP: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "FSDP_VERSION": (lambda value: value.strip() != "2", _VERSION),
    "FSDP_OFFLOAD_PARAMS": (_is_on, _OFFLOAD),
    "FSDP_ACTIVATION_CHECKPOINTING": (_is_on, _CHECKPOINTING),
    "FSDP_AUTO_WRAP_POLICY": (lambda value: value.strip().upper() not in ("", "NO_WRAP"), _WRAP),
    "FSDP_STATE_DICT_TYPE": (lambda value: value.strip().upper() not in ("", "SHARDED_STATE_DICT"), _STATE),
    "FSDP_RESHARD_AFTER_FORWARD": (lambda value: value.strip().lower() not in (*_ON, *_OFF), _RESHARD),
    "FSDP_IGNORED_MODULES": (lambda value: value.strip() not in ("", "None"), "leave out fsdp_ignored_modules"),
}
#: What the numeric libraries would read: each lowers the precision of float32 everywhere.
_LESS_THAN_FLOAT32: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "ONEDNN_DEFAULT_FPMATH_MODE": (lambda value: value.strip().upper() not in ("", "STRICT"), _FPMATH),
    "DNNL_DEFAULT_FPMATH_MODE": (lambda value: value.strip().upper() not in ("", "STRICT"), _FPMATH),
}
_LESS_THAN_FLOAT32_ON_CUDA: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "NVIDIA_TF32_OVERRIDE": (_is_on, _TF32),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": (_is_on, _TF32),
}
#: Variables that may change the last bits of results; those that are set are recorded in run.json.
_RECORDED = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINALG_PREFER_CUSOLVER",
)


def check_arithmetic() -> None:
    """Raises RobustokError for each variable that would compute in less than float32, whatever the recipe says."""
    import torch

    wanted = dict(_LESS_THAN_FLOAT32)
    if torch.cuda.is_available():
        wanted |= _LESS_THAN_FLOAT32_ON_CUDA
    raise_all(_set_among(wanted))


def check_launch() -> None:
    """Raises RobustokError for each setting of a launcher that a run would not honour."""
    problems = _set_among(_NOT_HONOURED)
    if shards_weights():
        problems += _set_among(_NOT_HONOURED_OF_FSDP, {"FSDP_VERSION": "1", **os.environ})  # as accelerate reads it
    if _is_left_alone():
        what = "`accelerate launch` was asked for several processes, and has started only this one"
        hint = "it finds too few GPUs; on CPUs: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu ..., and for one "
        problems.append(RobustokError(what, hint=hint + "process --num_processes 1, without MASTER_ADDR"))
    raise_all(problems)


def _is_left_alone() -> bool:
    """Whether the launcher has set what several processes need to meet, but nothing that tells them apart."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    return launched and "WORLD_SIZE" not in os.environ


def shards_weights() -> bool:
    """Whether the launcher asks for weights that are divided among the processes."""
    return _is_on(os.environ.get("ACCELERATE_USE_FSDP", ""))


def frees_gathered_weights() -> bool:
    """Whether divided weights that were gathered are freed after the forward pass, as the launcher says."""
    return _is_on(os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true"))


def check_precision(precision: str, *, where: str | None) -> None:
    """Raises RobustokError if the launcher was told another mixed precision than the recipe's.

    Args:
        precision: of the recipe, with "auto" settled. where: its line in the recipe.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").strip().lower()
    if asked not in ("", "no", precision):
        what = f"run.precision is {precision!r}, but ACCELERATE_MIXED_PRECISION is {asked!r}"
        hint = f"set run.precision = {asked!r}" if asked in ("bf16", "fp16") else f"robustok knows no {asked!r}"
        raise RobustokError(what, where=where, hint=f"{hint}, or launch with --mixed_precision no")


def recorded_variables() -> dict[str, str]:
    """The variables that may change the last bits of results, where they are set."""
    return {name: os.environ[name] for name in _RECORDED if name in os.environ}


def _set_among(
    variables: Mapping[str, tuple[Callable[[str], bool], str]], environment: Mapping[str, str] = os.environ
) -> list[RobustokError]:
    return [
        RobustokError(f"the environment variable {name}={environment[name]} is not supported", hint=hint)
        for name, (matters, hint) in variables.items()
        if name in environment and matters(environment[name])
    ]
