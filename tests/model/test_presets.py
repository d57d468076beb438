from __future__ import annotations

import pytest

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.model.architecture import Architecture, parameter_counts
from ingot.recipe.recipe import Recipe


@pytest.mark.parametrize(("kind", "millions"), [("tiny", 25), ("small", 349), ("medium", 1510), ("large", 7114)])
def test_a_size_is_about_what_its_name_promises(kind: str, millions: int):
    arch = Architecture.model_validate(kind).with_vocabulary(32768)
    assert round(parameter_counts(arch)["total"] / 1e6) == millions
    assert (arch.family, arch.positions, arch.norm, arch.mlp) == ("llama", "rope", "rms", "swiglu")
    assert arch.kv_heads < arch.heads


def test_a_size_is_spelt_out_and_reads_back_the_same():
    arch = Architecture.model_validate({"kind": "small", "mlp": "geglu", "layers": 4})
    assert (arch.kind, arch.mlp, arch.layers, arch.hidden_size) == ("shape", "geglu", 4, 1024)
    assert Architecture.model_validate(arch.to_dict()) == arch


def test_auto_stays_auto_and_keeps_what_is_given():
    arch = Architecture.model_validate({"kind": "auto", "mlp": "geglu", "context": 512})
    assert (arch.kind, arch.mlp, arch.context) == ("auto", "geglu", 512)
    assert Architecture.model_validate(arch.to_dict()) == arch


def test_a_key_on_the_command_line_changes_a_named_size():
    assert Recipe.load("modern-small", ["model.mlp=geglu"]).model.mlp == "geglu"


def test_mistakes_are_told():
    with pytest.raises(UserError, match="there is no model of kind 'huge'; known: shape, auto, tiny"):
        validate(Architecture, {"kind": "huge"}, where="x")
    with pytest.raises(UserError, match="the size is chosen by itself, so leave out layers"):
        validate(Architecture, {"kind": "auto", "layers": 3}, where="x")
