"""Configurations: what loads, and the one line that says why something does not."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from ingot.config.changes import override
from ingot.config.check import validate
from ingot.config.config import Choice, Config
from ingot.config.explain import explain
from ingot.config.text import parse_yaml, to_yaml, yaml_word
from ingot.errors import UserError, nearest


class Shape(Choice):
    """What is drawn."""


class Circle(Shape, name="circle"):
    """All points at one distance."""

    radius: float = Field(default=1.0, gt=0)
    """distance in metres"""


class Square(Shape, name="square"):
    """Four equal sides."""

    side: int = 2
    """length in metres"""


class Drawing(Config):
    """A test's configuration."""

    title: str
    """what it is called"""
    shape: Shape = Circle()
    """the main one"""
    others: list[Shape] = []
    """more of them"""
    frame: Square = Square()
    """what it is set in"""
    framed: bool = True
    """whether it has a frame"""
    size: tuple[float, float] | None = None
    """width and height in metres"""
    margins: tuple[float, float] = (0.5, 1e-10)
    """in metres"""
    place: Path = Path("walls")
    """where it hangs"""
    note: str = ""
    """what is written below"""


def load(**values: object) -> Drawing:
    return validate(Drawing, {"title": "t", **values}, where="drawing.yaml")


def test_a_choice_is_a_word_or_a_mapping_and_the_first_member_by_default():
    assert load(shape="square").shape == Square()
    assert load(shape={"kind": "square", "side": 3}).shape == Square(side=3)
    assert load(shape={"radius": 2}).shape == Circle(radius=2)
    assert load(others=["square", {"kind": "circle"}]).others == [Square(), Circle()]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"shapes": 1}, "drawing.yaml: shapes: there is no key 'shapes'; did you mean 'shape'?"),
        (
            {"shape": {"kind": "square", "sid": 1}},
            "drawing.yaml: shape.sid: there is no key 'sid'; did you mean 'side'?",
        ),
        ({"others": [{"kind": "circle", "radios": 1}]}, "did you mean 'radius'?"),
        ({"shape": "circel"}, "drawing.yaml: shape: there is no shape of kind 'circel'; did you mean 'circle'?"),
        ({"frame": "circle"}, "there is no square of kind 'circle'; known: square"),
        ({"shape": {"radius": -1}}, "drawing.yaml: shape.radius: input should be greater than 0, not -1"),
        ({"shape": {"kind": "square", "side": "wide"}}, "drawing.yaml: shape.side: a whole number is needed"),
        ({"title": None}, "drawing.yaml: title: text is needed, not None"),
        ({"shape": {"kind": ["a"]}}, "drawing.yaml: shape: there is no shape of kind ['a']; known: circle, square"),
        ({"shape": {"kind": {"a": 1}, "side": 1}}, "there is no shape of kind {'a': 1}"),
        ({"shape": 3}, "drawing.yaml: shape: input should be"),
        ({"others": [["a"]]}, "drawing.yaml: others.0: input should be"),
    ],
)
def test_a_mistake_gets_one_line_with_what_where_and_the_mend(values, line):
    with pytest.raises(UserError) as caught:
        load(**values)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_many_names_the_nearest_are_shown_and_where_all_of_them_are():
    many = [f"name-{number}" for number in range(20)]
    told = nearest("something", ["else", *many], "`ingot list`")
    assert told.startswith("the nearest of 21 are ") and told.endswith("; `ingot list` shows all")
    assert told.count("name-") < 20
    assert nearest("nmae-7", many, "`ingot list`") == "did you mean 'name-7'?"
    assert nearest("something", ["a", "b"], "`ingot list`") == "known: a, b"


def test_a_value_that_does_not_fit_is_sent_only_where_the_caller_says():
    for mend in ("", "see there"):
        with pytest.raises(UserError) as caught:
            validate(Drawing, {"title": 3}, where="drawing.yaml", mend=mend)
        assert str(caught.value).endswith(f"text is needed, not 3{mend and '; see there'}")


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match="title: this key is needed; add title=…"):
        validate(Drawing, {}, where="drawing.yaml")


def test_yaml_round_trip_keeps_the_members_of_choices():
    drawing = load(shape="square", others=[{"kind": "circle", "radius": 0.25}])
    assert validate(Drawing, parse_yaml(to_yaml(drawing)), "again") == drawing


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_prints_is_a_number_in_yaml(number):
    assert parse_yaml(f"{number!r}") == number


def test_yaml_numbers_follow_yaml_1_2():
    assert parse_yaml("[1e-3, 5, 12_000, -2.5e+4, 1.2.3, e5, '7']") == [0.001, 5, 12000, -25000.0, "1.2.3", "e5", "7"]
    assert isinstance(parse_yaml("5"), int)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("010", 10), ("08", 8), ("+1", 1), ("-0", 0), ("0o10", 8), ("0x10", 16), ("0xfF", 255), ("12_000", 12_000)),
        *(("1_0.5", 10.5), ("010.5", 10.5), ("1:30", "1:30"), ("0b11", "0b11"), ("0o18", "0o18"), ("-0x1", "-0x1")),
        *(("_1", "_1"), ("0x", "0x"), ("2026-11-05", "2026-11-05"), ("2024-13-45", "2024-13-45"), ("=", "=")),
        *(("2026-11-05 10:00:00", "2026-11-05 10:00:00"), ("~", None), ("", None), (".inf", float("inf"))),
    ],
)
def test_yaml_scalars_are_those_of_the_core_schema(text, value):
    found = parse_yaml(f"key: {text}")["key"]
    assert (found, type(found)) == (value, type(value))


@example("\x85")
@example("a\u2028b\n")
@given(st.text(st.sampled_from("0123456789abcdefox_.:-+eE~<= nulltryifNTF"), max_size=12) | st.text())
def test_any_string_comes_back_from_yaml_as_it_was(text):
    drawing = load(title=text)
    assert validate(Drawing, parse_yaml(to_yaml(drawing)), "again") == drawing
    assert parse_yaml(f"[{yaml_word([text])}, 1]") == [[text], 1]


@pytest.mark.parametrize(
    "text", ["!!int x", "!!int ''", "!!bool maybe", "!!float x", "!!timestamp x", "9" * 5000, "[" * 5000, "{[a]: 1}"]
)
def test_what_looks_like_a_value_and_is_none_is_one_line(text):
    with pytest.raises(UserError, match=r"^f(:1)?: not valid YAML"):
        parse_yaml(text, "f")


def test_yaml_booleans_follow_yaml_1_2():
    assert parse_yaml("[true, False, no, yes, on, off]") == [True, False, "no", "yes", "on", "off"]


def test_broken_yaml_names_a_line_that_is_there():
    with pytest.raises(UserError, match=r"^f\.yaml:2: not valid YAML"):
        parse_yaml("a: 1\nb: [1,\n", "f.yaml")


def test_overrides_reach_into_mappings_lists_and_bare_words():
    values = {"shape": "circle", "others": [{"kind": "square"}]}
    changed = override(values, ["shape.radius=3", "others.0.side=4", "title=x"])
    assert changed == {
        "shape": {"kind": "circle", "radius": 3},
        "others": [{"kind": "square", "side": 4}],
        "title": "x",
    }
    assert values["shape"] == "circle", "the given values are left alone"


def test_another_kind_drops_the_fields_of_the_old_one():
    assert override({"shape": {"kind": "circle", "radius": 3}}, ["shape.kind=square"]) == {"shape": {"kind": "square"}}


@pytest.mark.parametrize(
    "assignment",
    [
        *("title", "=3", "others.7.side=1", "others.x=1", "title.deeper=1", "frame.side.foo=1", "frame.side.foo.bar=1"),
        *("shape={kind: [a]}", "shape.kind=[a]", "others=[{kind: {a: 1}}]", "frame={kind: [a], sid: 1}"),
        *("title={[a]: 1}", "on.off=1"),
    ],
)
def test_a_malformed_override_is_refused(assignment):
    with pytest.raises(UserError) as caught:
        validate(Drawing, override({"title": "t", "others": [], "frame": {"side": 2}}, [assignment]), "drawing.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["shape.radius=-1"], "command line: shape.radius=-1: input should be"),
        (["shape={kind: circle, radios: 1}"], "command line: shape.radios: there is no key"),
        (["framed=false", "shape.kind=squid"], "command line: shape.kind=squid: there is no shape of kind 'squid'"),
        (["title=x", "title=3"], "command line: title=3: text is needed"),
        (["frame.sides=1"], "command line: frame.sides=1: there is no key 'sides'; did you mean 'side'?"),
        (["framed.deeper=1"], "command line: framed.deeper=1: true has no keys below it"),
        (["title=[1"], "command line: title=[1: not valid YAML"),
        (["others=[]"], "drawing.yaml: size.0: a number is needed"),
        (["others=[]", "size.0=tall"], "command line: size.0=tall: a number is needed"),
        (["size=[1, tall]"], "command line: size.1: a number is needed"),
    ],
)
def test_a_mistake_is_looked_for_where_it_was_made(overrides, place):
    values = {"title": "t", "framed": True, "size": ["wide", 1]}  # a mistake of the file's, told last
    with pytest.raises(UserError) as caught:
        validate(Drawing, values, "drawing.yaml", overrides=overrides)
    assert str(caught.value).startswith(place)


class Sheet(Config):
    """A configuration whose parts must fit each other."""

    width: int = 4
    """in metres"""
    height: int = 4
    """in metres"""

    @model_validator(mode="after")
    def _is_no_banner(self) -> Sheet:
        if self.width > 3 * self.height:
            raise ValueError(f"{self.width} by {self.height} is too wide")
        return self


def test_parts_that_do_not_fit_are_blamed_on_what_changed_them():
    with pytest.raises(UserError, match=r"^command line: width=20: 20 by 4 is too wide"):
        validate(Sheet, {}, "sheet.yaml", overrides=["width=20"])
    with pytest.raises(UserError, match=r"^sheet\.yaml: 20 by 4 is too wide"):
        validate(Sheet, {"width": 20}, "sheet.yaml", overrides=["height=4"])
    with pytest.raises(UserError, match=r"^command line: height=2: 20 by 2 is too wide"):
        validate(Sheet, {"width": 20}, "sheet.yaml", overrides=["height=2"])


def test_explain_lists_every_key_with_its_meaning():
    keys = {key.path: key for key in explain(Drawing)}
    assert keys["title"].default == "needed"
    assert keys["shape[circle].radius"].meaning == "distance in metres"
    assert keys["others.0[square].side"].default == "2"
    assert keys["frame.side"].type == "int"
    defaults = {name: keys[name].default for name in ("framed", "size", "margins", "place", "note")}
    assert defaults == {"framed": "true", "size": "null", "margins": "[0.5, 1.0e-10]", "place": "walls", "note": "''"}
    assert keys["size"].type == "list of float, float | null"


class Unfinished(Choice):
    """A family whose members must say what they do."""

    @abstractmethod
    def act(self) -> str:
        """What it does."""


class Idle(Unfinished, name="idle"):
    """Says nothing."""


def test_a_member_that_leaves_its_part_undone_can_not_be_made():
    with pytest.raises(TypeError, match="act"):
        validate(Unfinished, {"kind": "idle"}, "here")


def test_a_key_that_stands_twice_is_an_error_with_its_line():
    with pytest.raises(UserError, match=r"^drawing.yaml:3: not valid YAML: 'title' stands there twice"):
        parse_yaml("title: a\nshape: circle\ntitle: b\n", where="drawing.yaml")
