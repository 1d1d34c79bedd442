"""A network of transformers, made from its configuration or read from its files, and what is said where that fails."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.language import files, probe
from common.language.config import Attention, ModelConfig
from common.language.sources import first_line

REMEDIES = (
    "put the weights into a local folder and set model.name=<folder>; or fetch them once on a machine with a network "
    "(python -m scripts.fetch <name> <folder>); or run without them: scale=cpu trains the embedded model=tiny on "
    "generated data"
)


def settings_of(config: ModelConfig, source: str) -> Any:
    """The network's own configuration.

    Raises:
        UserError: it is not there, of an unknown kind, or asks for code of its own.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model.name={config.name}: config.json asks for code that comes with the model (auto_map), and code "
                "from a model folder is never run; use a model of a kind that transformers knows, such as gpt2"
            ) from error
        raise UserError(
            f"model.name={config.name}: {first_line(error)}; config.json alone would tell its size, else {REMEDIES}"
        ) from error


def random(settings: Any, config: ModelConfig, dtype: torch.dtype) -> Any:
    """Of these sizes, with weights of its own kind's start."""
    from transformers import AutoModelForCausalLM

    how = {"attn_implementation": config.attention.value, "dtype": dtype, "trust_remote_code": False}
    return AutoModelForCausalLM.from_config(settings, **how)


def read(source: str, settings: Any, config: ModelConfig, dtype: torch.dtype) -> Any:
    """With the weights of the folder `source`, or of the hub's cache.

    Raises:
        UserError: some weights are not there, or are none of this network.
    """
    from transformers import AutoModelForCausalLM

    network, found = AutoModelForCausalLM.from_pretrained(
        source,
        config=settings,
        attn_implementation=config.attention.value,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=None if config.pickled else True,
        ignore_mismatched_sizes=True,  # they are refused below, by name
        output_loading_info=True,
    )
    weights = {name for name, _ in network.named_parameters()}
    missing = sorted(weights & {str(name) for name in found["missing_keys"]})
    shapes = [f"{name} is {list(there)}, not {list(own)}" for name, there, own in sorted(found["mismatched_keys"])]
    whole = [f"{name} holds whole numbers" for name in files.whole_numbers(Path(source), weights)]
    for wrong, what in ((missing, "are not in its files"), (shapes, "have another shape"), (whole, "are no weights")):
        if wrong:
            named = f"{', '.join(wrong[:4])}{', ...' if len(wrong) > 4 else ''}"
            raise UserError(
                f"model.name={config.name}: {len(wrong)} of {len(weights)} weights {what}: {named}; copy the files "
                "again, or set model.pretrained=false for a start from random weights"
            )
    return network


def unbuilt(config: ModelConfig, settings: Any, error: Exception) -> UserError:
    """The message of a network that could not be made."""
    if isinstance(error, KeyError) and error.args == (config.attention.value,):  # of a table of its layers
        return refused(config, settings, f"its layers know no attention '{config.attention.value}'")
    if "Weights only load failed" in str(error):
        return UserError(f"model.name={config.name}: its pickled weights hold more than tensors, which is never run")
    kind = "" if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: "
    return UserError(f"model.name={config.name}: {kind}{first_line(error)}; {REMEDIES}")


def refused(config: ModelConfig, settings: Any, reason: str) -> UserError:
    """The message of a network that cannot be used, with what would help."""
    eager = replace(config, attention=Attention.eager)
    decoder = copy.deepcopy(settings)
    decoder.is_decoder = True
    remedies = (
        (settings, eager, "set model.attention=eager"),
        (decoder, config, 'set "is_decoder": true in its config.json'),
        (decoder, eager, 'set "is_decoder": true in its config.json, and model.attention=eager'),
    )
    for changed, how, words in remedies:
        if _works(changed, how):
            return UserError(f"model.name={config.name}: {reason}; {words}")
    return UserError(f"model.name={config.name}: {reason}; use another causal language model, such as gpt2")


def _works(settings: Any, config: ModelConfig) -> bool:
    """Whether a network of this kind, of two layers and random weights, passes the probe."""
    settings = copy.deepcopy(settings)
    with torch.random.fork_rng([]):
        try:
            settings.num_hidden_layers = min(2, settings.num_hidden_layers)
            return probe.failure(random(settings, config, torch.float32)) is None
        except Exception:  # whatever a library's model raises
            return False
