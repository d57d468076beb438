from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.config.check import validate
from ingot.config.explain import explain
from ingot.data import clean
from ingot.data.clean import Cleaning
from ingot.data.document import Conversation, Document, Dropped, Message
from ingot.data.signatures import METHOD
from ingot.errors import UserError

# Article 1 of the Universal Declaration of Human Rights, without any filter's reason to drop it.
PROSE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "
    "должны поступать в отношении друг друга в духе братства.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और "
    "अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً "
    "وعليهم أن يعامل بعضهم بعضاً بروح الإخاء.",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}
ALL = Cleaning(max_repeated_lines=0.2, max_repeated_runs=0.15, max_commonest_pair=0.2, max_symbols=0.2, max_digits=0.2)


@given(text=st.text(st.characters(codec="utf-8"), min_size=1))
def test_nothing_is_done_unless_it_is_asked_for(text: str):
    assert Cleaning().clean(text) == (text, "")
    assert Cleaning().record(Document(text, 3)) == Document(text, 3)
    assert Cleaning().identity() == {}


@pytest.mark.parametrize("language", PROSE)
def test_prose_stays_in_any_language(language: str):
    assert ALL.clean(PROSE[language]) == (PROSE[language], "")


@pytest.mark.parametrize("language", PROSE)
def test_what_repeats_itself_is_left_out_in_any_language(language: str):
    text = PROSE[language]
    assert ALL.clean("\n".join([text] * 3))[1] == "repeated lines"
    assert ALL.clean(" ".join([text] * 3))[1] == "repeated runs of words"
    assert Cleaning(max_commonest_pair=0.2).clean(text + " A b." * 40)[1] == "one pair of words too often"


def test_shares_are_of_what_can_be_seen():
    for share, dropped in ((0.5, False), (0.49, True)):
        assert bool(Cleaning(max_symbols=share).clean("ab ?! cd \n\t😀。")[1]) == dropped
        assert bool(Cleaning(max_digits=share).clean("ab 12 c ٣")[1]) == dropped
    assert Cleaning(max_repeated_lines=0.5).clean("ab\n\n ab \ncd") == ("ab\n\n ab \ncd", "")
    assert Cleaning(max_repeated_lines=0.33).clean("ab\n\n ab \ncd")[1] == "repeated lines"
    assert Cleaning(max_digits=0, max_symbols=0, max_commonest_pair=0).clean(" \n") == (" \n", "")


def test_code_has_more_symbols_than_prose():
    assert not any(Cleaning(max_symbols=0.1).clean(text)[1] for text in PROSE.values())
    assert Cleaning(max_symbols=0.1).clean(Path(clean.__file__).read_text(encoding="utf-8"))[1] == "too many symbols"


def test_lengths_are_in_characters_of_the_normal_form():
    composed, apart = "\u00e9", "e\u0301"
    assert Cleaning(normalize="nfc").clean(apart) == (composed, "")
    assert Cleaning(normalize="nfkc").clean("ﬁ ²") == ("fi 2", "")
    assert Cleaning(normalize="nfc").clean("ﬁ ²") == ("ﬁ ²", "")
    assert Cleaning(min_length=2).clean(apart)[1] == ""
    assert Cleaning(normalize="nfc", min_length=2).clean(apart) == (composed, "shorter than 2 characters")
    assert Cleaning(max_length=1).clean(apart)[1] == "longer than 1 character"
    assert Cleaning(max_length=1, normalize="nfc").clean(apart)[1] == ""


def test_a_conversation_is_normalised_by_message_and_judged_as_a_whole():
    talk = Conversation((Message("user", "e\u0301 1"), Message("assistant", "yes")), 7, cut=2)
    cleaned = Cleaning(normalize="nfc", min_length=7).record(talk)
    assert cleaned == Conversation((Message("user", "\u00e9 1"), Message("assistant", "yes")), 7, cut=2)
    assert Cleaning(min_length=9).record(talk) == Dropped("shorter than 9 characters", 7)
    assert Cleaning(min_length=5).record(Document("four", 9)) == Dropped("shorter than 5 characters", 9)
    assert Cleaning(min_length=5).record(Dropped("empty", 9)) == Dropped("empty", 9)


def test_identity_holds_what_shapes_the_documents_and_nothing_else():
    assert Cleaning(similarity=0.9).identity() == {}
    assert Cleaning(duplicates="exact", similarity=0.9).identity() == {"duplicates": "exact", "method": METHOD}
    near = {"duplicates": "near", "method": METHOD, "similarity": 0.8}
    assert Cleaning(duplicates="near").identity() == near
    assert Cleaning(min_length=3).identity() == {"min_length": 3}
    assert set(Cleaning(normalize="nfc").identity()) == {"normalize", "unicode"}


def test_mistakes_are_one_line():
    for wrong in ({"min_length": 9, "max_length": 3}, {"similarity": 0.2}, {"max_symbols": 2}, {"duplicates": "some"}):
        with pytest.raises(UserError):
            validate(Cleaning, wrong, "data.clean")
    assert all(key.meaning for key in explain(Cleaning))
