"""Ten thousand lines to tokenize: prose, digits, code, emoji, any characters, markers whole and torn.

Drawn from a seed, so that a failure can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

LINES = 10_000

_PROSE = (
    "the of and image What is in this picture? It's they'LL I'M don't naïve Straße façade coöperate "
    "SmolVLM tokenizer HTTPServer snake_case camelCase x86_64 e-mail 3rd 1st ... -- -> => != <= :: ;) "
    "日本語 你好世界 こんにちは 한국어 Привет мир Ελληνικά עברית مرحبا हिन्दी ไทย Việt កាន់តែ"
)
_EMOJI = ("😀", "🚀", "❤️", "👨‍👩‍👧", "🇫🇷", "🐈‍⬛", "👍🏽", "1️⃣", "☃", "🦙🦙")
_CODE = (
    "def f(x, *, y=None):\n    return {'a': x[0], \"b\": y ** 2}  # it's",
    "for (int i = 0; i < n; ++i) { sum += a[i]; }\t// ok\r\n",
    "SELECT * FROM t WHERE id = 42 AND name LIKE '%x%';",
    '<div class="row">\n\t<p>&nbsp;</p>\n</div>',
    "git commit -m 'fix: #123' && make -j8 2>&1 | tee log.txt",
    "https://example.org/a/b?c=1&d=%20#e",
)
_SPACES = (
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t",
    "\r\n",
    " \n ",
    "\u00a0",
    "\u2003",
    "\u200b",
    "\ufeff",
    "",
)
_DIGITS = "0123456789\u0661\u0662\u0967\u0968\u00b2\u00b3\u00bc\u2167\uff14\uff12"  # of several scripts


def corpus(markers: Sequence[str], *, seed: int) -> list[str]:
    """Returns `LINES` lines; `markers` are those of the tokenizer."""
    rng = random.Random(seed)
    return [_line(rng, markers) for _ in range(LINES)]


def _line(rng: random.Random, markers: Sequence[str]) -> str:
    kinds = (
        lambda: rng.choice(_PROSE.split()),
        lambda: rng.choice(_PROSE.split()),
        lambda: "".join(rng.choices(_DIGITS, k=rng.randint(1, 8))),
        lambda: f"{rng.uniform(-1e6, 1e6):.{rng.randint(0, 6)}f}",
        lambda: rng.choice(_EMOJI),
        lambda: rng.choice(_CODE),
        lambda: rng.choice(markers),
        lambda: rng.choice(markers)[: rng.randint(1, 6)],
        lambda: "".join(chr(_code_point(rng)) for _ in range(rng.randint(1, 5))),
        lambda: "".join(rng.choices("'\"`.,!?-=/\\()[]{}<>|#*_~", k=rng.randint(1, 6))),
    )
    return "".join(rng.choice(kinds)() + rng.choice(_SPACES) for _ in range(rng.randint(1, 12)))


def _code_point(rng: random.Random) -> int:
    """Any character but half a surrogate pair, half of them below U+0300."""
    point = rng.randrange(0x300) if rng.random() < 0.5 else rng.randrange(0x110000)
    return 0x20 if 0xD800 <= point < 0xE000 else point
