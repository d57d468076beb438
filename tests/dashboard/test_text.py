from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.dashboard.text import compact, duration, embed_json, escape, plain, setting


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12_345, "12.3k"),
        (2_880_000, "2.88M"),
        (999_950, "1M"),
        (999, "999"),
        (7.4e9, "7.4B"),
        (0, "0"),
        (math.nan, "–"),
    ],
)
def test_compact(value: float, shown: str) -> None:
    assert compact(value) == shown


def test_figures_keep_their_decimals() -> None:
    assert [plain(1.17), plain(24.86, 1), plain(12_345.6), plain(math.inf)] == ["1.170", "24.9", "12.3k", "–"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(42, ("42", "seconds")), (300, ("5.0", "minutes")), (36_000, ("10.0", "hours")), (math.nan, ("–", "minutes"))],
)
def test_duration(seconds: float, shown: tuple[str, str]) -> None:
    assert duration(seconds) == shown


def test_settings_read_as_words() -> None:
    assert [setting(value) for value in (None, True, 8192, 1e-6, ["a", 2], [])] == [
        "none",
        "yes",
        "8,192",
        "1e-06",
        "a · 2",
        "none",
    ]


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_embedded_json_reads_back_equal_and_cannot_end_its_element(text: str) -> None:
    embedded = embed_json({"text": text})
    assert not set(embedded) & set("<>&\u2028\u2029")
    assert json.loads(embedded) == {"text": text}


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_escaped_text_is_inert_and_encodes(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("<>\"'\x00")
    escaped.encode()
