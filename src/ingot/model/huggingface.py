"""Models as Hugging Face folders: config.json, generation_config.json, model.safetensors, mapped one to one both ways.

Safetensors only: no pickle is read from a model folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.codes import Kind
from ingot.model.decoder import Decoder
from ingot.model.foreign import check_held, check_numbers, inside, read_json
from ingot.model.layouts import HARMLESS, LAYOUTS, MODEL_TYPES, Layout, Weight

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # where there are several files
ROPE = ("rope_parameters", "rope_scaling")  # transformers 5's and 4's
FILE_BYTES = 2**31  # of weights, in each of several files at least
# What config.json says of weights that are whole numbers, which only ingot reads.
QUANTIZATION: dict[Kind, dict[str, Any]] = {
    "int8": {"quant_method": "ingot", "bits": 8},
    "int4": {"quant_method": "ingot", "bits": 4},
}
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
    kind = config.get("model_type")
    layout = MODEL_TYPES.get(kind) if isinstance(kind, str) else None
    if layout is None:
        _refuse(where, "model_type", kind, list(MODEL_TYPES))
    config = _flatten_rope(config, where)
    _check_fields(config, layout, where)
    activation = config.get(layout.activation, layout.defaults[layout.activation])
    if not isinstance(activation, str) or activation not in layout.mlps:
        _refuse(where, layout.activation, activation, list(layout.mlps))
    values: dict[str, Any] = {"family": layout.family, "mlp": layout.mlps[activation]}
    for theirs, ours in layout.fields.items():
        value = config.get(theirs, layout.defaults.get(theirs))
        if value is None and theirs not in layout.defaults:
            raise UserError(f"{theirs} is missing", where=where, mend="the folder may be incomplete")
        if values.setdefault(ours, value) != value:  # GPT-2 has three dropouts where we have one
            _refuse(where, theirs, value, [values[ours]])
    check_numbers(values, where)
    return validate(Architecture, values, where=where)


def _check_fields(config: Mapping[str, Any], layout: Layout, where: str) -> None:
    """Refuse the first field that says that the model computes something else, or that nobody knows here."""
    for name, allowed in layout.fixed.items():
        value = config.get(name, layout.defaults.get(name, allowed[0]))
        every = value if name == "layer_types" and isinstance(value, list) else [value]
        if any(one not in allowed for one in every):
            _refuse(where, name, value, allowed)
    if config.get("n_ctx", config.get("n_positions")) != config.get("n_positions"):  # GPT-2's two names for one number
        _refuse(where, "n_ctx", config["n_ctx"], [config.get("n_positions")])
    known = {"n_ctx", layout.activation, *layout.fields, *layout.fixed, *HARMLESS, *ROPE}
    known |= {"sliding_window"} if "use_sliding_window" in layout.fixed else set()  # how wide it would be
    for name, value in config.items():
        if name not in known and value is not None:
            what = f"this architecture does not fit: {name!s:.80} is {value!r:.80}, which is not known here"
            raise UserError(what, where=where, mend=f"remove {name!s:.80} if it changes nothing in the model")


def _flatten_rope(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`config` with rope_theta and rope_type on top, from transformers 5's rope_parameters or 4's rope_scaling."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        _refuse(where, "rope_parameters", rope, ["one rope for all layers"])
    named = {"rope_type" if name == "type" else name: value for name, value in rope.items()}  # its older name
    return {**config, **named}


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


def stored(model: Decoder, parameter: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights one after another under their Hugging Face names and in that layout; a tied head is left out.

    `parameter` gives one of the model's by its name. What comes is a copy, where the parameters are.
    """
    for weight in _weights(model):
        value = torch.cat([parameter(name).detach() for name in weight.ours])
        yield weight.theirs, value.T.contiguous() if weight.transposed else value


def to_tensors(model: Decoder) -> dict[str, Tensor]:
    """All weights as `stored` has them, on the CPU."""
    return {name: value.cpu() for name, value in stored(model, model.get_parameter)}


def share_out(model: Decoder, most: int) -> list[list[str]]:
    """The names of the stored weights by file: at most `most` of them, and no more than it takes at `FILE_BYTES`."""
    parameters = dict(model.named_parameters())
    sizes = {weight.theirs: sum(parameters[name].nbytes for name in weight.ours) for weight in _weights(model)}
    whole, before = sum(sizes.values()), 0
    files: list[list[str]] = [[] for _ in range(max(1, min(most, whole // FILE_BYTES)))]
    for name, size in sizes.items():
        files[before * len(files) // whole].append(name)
        before += size
    return [names for names in files if names]


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


def save_model(model: Decoder, folder: Path, *, end: int | None = None, stops: Sequence[int] = ()) -> None:
    """Write `model` as files that AutoModelForCausalLM loads; `end` is the token that begins and ends a document.

    `stops`: all tokens that end what it writes, where the end of an answer is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_tensors(model)
    write_weights(tensors, folder / WEIGHTS)
    write_config(model.arch, folder, dtype=next(iter(tensors.values())).dtype, end=end, stops=stops)


def write_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """One file of weights."""
    save_file(tensors, path, metadata={"format": "pt"})


def weights_file(number: int, count: int) -> str:
    """The name of one of `count` files of weights, counted from 0."""
    return WEIGHTS if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def write_config(
    arch: Architecture,
    folder: Path,
    *,
    dtype: torch.dtype,
    end: int | None = None,
    stops: Sequence[int] = (),
    kind: Kind | None = None,
) -> None:
    """All of a model's folder but the weights, which are stored as `dtype`; `end` and `stops` as in `save_model`.

    `kind`: of the codes that its matrices are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = to_config(arch, end=end, dtype=dtype) | ({"quantization_config": QUANTIZATION[kind]} if kind else {})
    generation = {"bos_token_id": end, "eos_token_id": list(stops) if len(stops) > 1 else end, "pad_token_id": end}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def write_index(folder: Path, files: Sequence[Sequence[str]], size: int) -> None:
    """Say which weights, of `size` bytes together, are in which of several `files`, in their order."""
    where = {name: weights_file(number, len(files)) for number, names in enumerate(files) for name in names}
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model's folder, from one file or from all that its index names; their memory is mapped.

    Raises UserError for a folder that is incomplete or damaged.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return read_file(inside(folder, WEIGHTS))
    try:
        names = read_json(inside(folder, INDEX))["weight_map"].values()
        files = [inside(folder, name) for name in sorted(set(names))]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError):
        raise UserError("not an index of weights", where=str(folder / INDEX), mend="the file is damaged") from None
    return {name: value for path in files for name, value in read_file(path).items()}


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file; their memory is mapped. Raises UserError for one that is damaged."""
    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"the model can't be read ({error})", where=str(path), mend="check the files") from None
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        what = f"not valid safetensors: {error!s:.200}"
        raise UserError(what, where=str(path), mend="the file is damaged") from None


def stated_kind(config: Mapping[str, Any]) -> Kind | None:
    """The codes that the matrices of a folder are, by its config.json; None: no such as ingot makes."""
    stated = config.get("quantization_config")
    return next((kind for kind, ours in QUANTIZATION.items() if stated == ours), None)


def load_architecture(folder: Path) -> Architecture:
    """The architecture of the model in a Hugging Face folder. Raises UserError as `load_model` does."""
    path = inside(folder, "config.json")
    config = read_json(path)
    if kind := stated_kind(config):
        what = f"its weights are {kind} codes, which write and are measured, and can't be trained or converted"
        raise UserError(what, where=str(folder), mend="take the model that it was exported from")
    return from_config(config, where=str(path))


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Decoder:
    """The model in a Hugging Face folder, its weights cast to `dtype`, ready to go on training.

    Raises UserError for a folder that is incomplete, damaged or of another architecture, or whose weights are codes.
    """
    arch, tensors = load_architecture(folder), read_weights(folder)
    check_held(arch, sum(value.numel() for value in tensors.values()), where=str(folder))
    with torch.device("meta"):  # no memory and no random numbers for weights that are about to be replaced
        model = Decoder(arch).to(dtype)
    model.to_empty(device=device)
    load_tensors(model, tensors, where=str(folder / WEIGHTS))
    return model
