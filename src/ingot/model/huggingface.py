"""Models as Hugging Face folders: config.json, generation_config.json, model.safetensors, mapped one to one both ways.

Safetensors only: no pickle is read from a model folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ingot.config import validate
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.layouts import LAYOUTS, Weight

_NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # buffers that older folders carry


def to_config(arch: Architecture, *, end: int | None = None, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """config.json of `arch`, for weights stored as `dtype`; `end` is the token that begins and ends a document."""
    layout = LAYOUTS[arch.family]
    config: dict[str, Any] = {"architectures": [layout.class_name], "model_type": arch.family}
    config |= {theirs: getattr(arch, ours) for theirs, ours in layout.fields.items()}
    config[layout.activation] = next(theirs for theirs, ours in layout.mlps.items() if ours == arch.mlp)
    if arch.positions == "rope":  # beside `rope_theta`, which transformers 4 and other programs read
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": arch.rope_theta}
    name = str(dtype).removeprefix("torch.")
    return config | {"bos_token_id": end, "eos_token_id": end, "dtype": name, "torch_dtype": name}


def from_config(config: Mapping[str, Any], where: str = "config.json") -> Architecture:
    """The architecture that a config.json describes. Raises UserError by the first field that does not fit."""
    family = config.get("model_type")
    layout = LAYOUTS.get(family) if isinstance(family, str) else None
    if layout is None:
        _refuse(where, "model_type", family, list(LAYOUTS))
    config = _flatten_rope(config, where)
    for name, allowed in layout.fixed.items():
        if config.get(name, allowed[0]) not in allowed:
            _refuse(where, name, config[name], allowed)
    activation = config.get(layout.activation, layout.defaults[layout.activation])
    if not isinstance(activation, str) or activation not in layout.mlps:
        _refuse(where, layout.activation, activation, list(layout.mlps))
    values: dict[str, Any] = {"family": family, "mlp": layout.mlps[activation]}
    for theirs, ours in layout.fields.items():
        value = config.get(theirs, layout.defaults.get(theirs))
        if value is None and theirs not in layout.defaults:
            raise UserError(f"{theirs} is missing", where=where, mend="the folder may be incomplete")
        if values.setdefault(ours, value) != value:  # GPT-2 has three dropouts where we have one
            _refuse(where, theirs, value, [values[ours]])
    return validate(Architecture, values, where=where)


def _flatten_rope(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`config` with rope_theta and rope_type on top, from transformers 5's rope_parameters or 4's rope_scaling."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        _refuse(where, "rope_parameters", rope, ["one rope for all layers"])
    kind = rope.get("rope_type", rope.get("type", "default"))
    return {**config, **rope, "rope_type": kind}


def _refuse(where: str, field: str, value: object, allowed: Any) -> NoReturn:
    known = " or ".join(json.dumps(one) for one in allowed)
    raise UserError(
        f"this architecture does not fit: {field} is {value!r:.80}", where=where, mend=f"{field} must be {known}"
    )


def _weights(model: Decoder) -> Iterator[Weight]:
    """Every tensor of the model's folder, under its full names."""
    layout, present = LAYOUTS[model.arch.family], dict(model.named_parameters())
    for weight in layout.weights:
        if weight.ours[0] in present:
            yield weight
    for layer in range(model.arch.layers):
        for weight in layout.block_weights:
            ours = tuple(f"blocks.{layer}.{name}" for name in weight.ours)
            if ours[0] in present:
                yield replace(weight, theirs=layout.block.format(layer=layer) + weight.theirs, ours=ours)


def to_tensors(model: Decoder) -> dict[str, Tensor]:
    """The weights under their Hugging Face names and in that layout, on the CPU; a tied head is left out."""
    parameters = dict(model.named_parameters())
    tensors = {}
    for weight in _weights(model):
        value = torch.cat([parameters[name].detach().cpu() for name in weight.ours])
        tensors[weight.theirs] = value.T.contiguous() if weight.transposed else value
    return tensors


@torch.no_grad()
def load_tensors(model: Decoder, tensors: Mapping[str, Tensor], where: str = "tensors") -> None:
    """Put weights in Hugging Face names and layout into `model`, cast to its types.

    Raises UserError that names the first tensor that is missing, of another shape, not a float, or of no use.
    """
    parameters, left = dict(model.named_parameters()), set(tensors)
    bare = model.arch.family == "gpt2" and "wte.weight" in left  # GPT-2's own folder has no `transformer.` in its names
    for weight in _weights(model):
        name = weight.theirs.removeprefix("transformer.") if bare else weight.theirs
        parts = [parameters[ours] for ours in weight.ours]
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        stored = shape[::-1] if weight.transposed else shape
        if name not in left:
            raise UserError(f"the tensor {name} is missing", where=where, mend="the folder may be incomplete")
        value = tensors[name]
        if tuple(value.shape) != stored or not value.is_floating_point():
            raise UserError(
                f"{name} holds {tuple(value.shape)} {value.dtype}, and {stored} floats are expected",
                where=where,
                mend="config.json and the weights do not belong together",
            )
        rows = (value.T if weight.transposed else value).split([len(part) for part in parts])
        for part, row in zip(parts, rows, strict=True):
            part.copy_(row)
        left.remove(name)
    left = {name for name in left if not name.endswith(_NOT_WEIGHTS)}
    if model.arch.tied:
        left.discard("lm_head.weight")  # written by some all the same
    if left:
        raise UserError(f"the tensor {min(left)} has no place in the model", where=where, mend="check config.json")


def save_model(model: Decoder, folder: Path, *, end: int | None = None) -> None:
    """Write `model` as files that AutoModelForCausalLM loads; `end` is the token that begins and ends a document."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_tensors(model)
    config = to_config(model.arch, end=end, dtype=next(iter(tensors.values())).dtype)
    generation = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load_architecture(folder: Path) -> Architecture:
    """The architecture of the model in a Hugging Face folder. Raises UserError as `load_model` does."""
    path = _present(folder, "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the model can't be read ({error})", where=str(folder), mend="check the files") from None
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=str(path), mend="the file is damaged") from None
    if not isinstance(config, dict):
        raise UserError("a mapping is expected", where=str(path), mend="the file is damaged")
    return from_config(config, where=str(path))


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Decoder:
    """The model in a Hugging Face folder, its weights cast to `dtype`, ready to go on training.

    Raises UserError for a folder that is incomplete, damaged or of another architecture.
    """
    arch, weights = load_architecture(folder), _present(folder, "model.safetensors")
    try:
        tensors = load_file(weights)
    except OSError as error:
        raise UserError(f"the model can't be read ({error})", where=str(folder), mend="check the files") from None
    except SafetensorError as error:
        raise UserError(f"not valid safetensors: {error}", where=str(weights), mend="the file is damaged") from None
    with torch.device("meta"):  # no memory and no random numbers for weights that are about to be replaced
        model = Decoder(arch).to(dtype)
    model.to_empty(device=device)
    load_tensors(model, tensors, where=str(weights))
    return model


def _present(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"there is no {name}", where=str(folder), mend="name a model folder")
    return folder / name
