"""Texts on which two programs' tokenizers are compared: many scripts, code, numbers, odd spaces."""

from __future__ import annotations

import random

COUNT = 200
_PIECES = (
    "Hello world",
    "It's the user's, and they're sure we'll HAVE'NT'D",
    "Ünïcödé, naïve café — œuvre “quoted” …",
    "Привет, мир! Ёлка",
    "Γειά σου Κόσμε",
    "שלום עולם",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "你好，世界。漢字仮名",
    "こんにちは、カタカナ",
    "안녕하세요 세계",
    "🎉👩‍👩‍👧🇩🇪 ✓ ∑∞≠ ½",
    'def f(x: int) -> str:\n    return f"{x:>8.3f}"  # note\n',
    "for (int i=0;i<10;++i) { a[i] *= -0.5e-3; }",
    "<html><body class='x'>&amp;</body></html>",
    "SELECT * FROM t WHERE a >= 10 AND b != 'x';",
    "https://example.org/a/b?c=d&e=%20#f",
    "3.14159 1,234,567 0x7fff 1e-9 2026-11-21 007 42",
    "1 12 123 1234 12345 123456 1234567890",
    "  leading and trailing  ",
    "\ttabs\tand  double   triple    spaces",
    "\n\nblank\r\nlines\n \n",
    "CamelCaseWord snake_case_word kebab-case-word",
    "!!! ??? ... --- ___ === *** ###",
    "a\u00a0no-break\u2003em space",
    "<|endoftext|> <|im_start|> </s> [INST] <0x41>",
)
_JOINTS = ("", " ", "\n", "  ", ", ", "\n\n", "\t")


def samples(count: int = COUNT) -> list[str]:
    """The same texts each time: the pieces alone, then pieces and cuts of pieces joined at random."""
    draw = random.Random(7)
    texts = list(_PIECES[:count])
    while len(texts) < count:
        parts = [draw.choice(_PIECES) for _ in range(draw.randint(2, 4))]
        cut = [part[draw.randrange(len(part)) :] if draw.random() < 0.5 else part for part in parts]
        texts.append(draw.choice(_JOINTS).join(cut) + draw.choice(("", str(draw.randrange(10**6)))))
    return texts
