"""The comparison of a document's comments with its code: what it lets pass, and what it does not."""

from __future__ import annotations

import textwrap

import pytest
from stated_values import run_block, same_text


def run(code: str) -> None:
    run_block(textwrap.dedent(code), 3, "page.md", {})


RIGHT = [
    "print(1 / 3)  # 0.33",
    "print(1 / 3)  # 0.3333",
    "print('a', 2)  # a 2",
    "print('two', 'words')  # two   words",
    "print([0.1234, -5.0])  # [0.12, -5.00]",
    "print({'a': 1e-07})  # {\"a\": 1e-07}",
    "print('expected a picture, got a cup; open it')  # expected a picture, got ...",
    "for i in range(3):\n    print(i)  # 0",
    "try:\n    int('x')\nexcept ValueError as error:\n    print(error)  # invalid literal for int() ...",
    "[1, 2.5]  # [1, 2.5]",
    "[1, 2.512]  # [1, 2.51]: more is better",
    "x = (1, 'a')  # (1, \"a\"); two things",
    "'yes; no'  # \"yes; no\"; words",
    "True  # True",
    "'words'  # words about it, not compared",
    "x = 5  # five",
    "import numpy as np\nnp.zeros((2, 3))  # (2, 3) float64\nnp.zeros((2, 3))  # (n, 3) "
    "float64\nnp.zeros(4)  # (4,) seconds: 0, 0",
    "print(\n    1,\n    2,\n)  # 1 2",
    "print('#')",
    "# print(1)  # 2",
]

WRONG = [
    ("print(1 / 3)  # 0.35", r"page\.md:3: the document says '0\.35', its code prints '0\.333"),
    ("\nprint(1)  # 2", r"page\.md:4: "),
    ("print(10)  # 11", "says '11'"),
    ("print(3.0)  # the best first", "says 'the best first'"),
    ("print([1, 2])  # [1, 3]", "prints"),
    ("print(1, 2)  # 1", "prints"),
    ("print('expected a cup')  # expected a picture ...", "prints"),
    ("for i in range(3):\n    print(i)  # 2", "prints '0"),
    ("if False:\n    print(1)  # 1", r"page\.md:4: the print before '1' never runs"),
    ("[1, 2.5]  # [1, 2.4, 3]", "its code gives"),
    ("[1, 2.5]  # [2.5, 1]", "its code gives"),
    ("[4.57, 3.67, 3.84]  # [4.52, 3.8, 3.49]", "its code gives"),
    ("'a'  # \"b\"", "its code gives 'a'"),
    ("[0, 1]  # [0, 1], 0 is the best", "expected a value, then maybe `; words`"),
    ("5  # 5 things", "expected a value"),
    ("None  # True", "its code gives None"),
    ("x = [1]  # [2]", "its code gives"),
    (
        "import numpy as np\nnp.zeros((2, 3))  # (n, 4) float64",
        r"says shape \(n, 4\), its code gives \(2, 3\)",
    ),
    ("import numpy as np\nnp.zeros((2, 3))  # (2,) float64", "says shape"),
]


@pytest.mark.parametrize("code", RIGHT)
def test_what_is_so_passes(code: str):
    run(code)


@pytest.mark.parametrize(("code", "message"), WRONG)
def test_what_is_not_so_is_found(code: str, message: str):
    with pytest.raises(AssertionError, match=message):
        run(code)


def test_blocks_share_what_they_define_and_keep_what_statements_give():
    names: dict[str, object] = {}
    run_block("x = [1, 2]  # [1, 2]\n", 1, "page.md", names)
    run_block("y = x[1]  # 2\n", 5, "page.md", names)
    assert (names["x"], names["y"]) == ([1, 2], 2)


@pytest.mark.parametrize(
    ("stated", "got", "same"),
    [
        ("4.57", "4.5745", True),
        ("4.57", "4.5601", True),
        ("4.57", "4.5559", False),
        ("4.570", "4.5745", False),
        ("5", "5.0", True),
        ("5", "5.01", False),
        ("1.5e-3", "0.00154", True),
        ("a b", "a  b\n", True),
        ("a 1 ...", "a 1 and more 7", True),
        ("a 1 ...", "b 1", False),
    ],
)
def test_numbers_are_compared_within_their_digits(stated: str, got: str, same: bool):
    assert same_text(stated, got) == same
