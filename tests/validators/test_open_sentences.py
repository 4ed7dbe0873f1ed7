"""Every way to leave a conclusion open, around every form of one: none of them is an answer, here or in thinking."""

from __future__ import annotations

import pytest

from videop2r_data.validators import score, think_choice, think_number

PETS = ("A. cat", "B. dog", "C. bird")
CLAIMS = (
    "the answer is B", "the correct answer is B. dog", "the answer is dog", "B is correct", "I choose B",
    "option B is the right answer", "it is a dog", "the animal is a dog", "Answer: B", "\\boxed{B}",
)  # fmt: skip
COUNTS = (
    "the answer is 5",
    "there are 5 balls",
    "Answer: 5",
    "\\boxed{5}",
    "a total of 5 balls",
    "the number is 5",
)
OPEN = (
    "If it runs, {}.", "{} if it runs.", "Unless it sits, {}.", "{}, unless it sits.", "Perhaps {}.", "Maybe {}.",
    "{}, maybe.", "{}, perhaps.", "{}?", "Is it true that {}?", "It is not true that {}.", "It is false that {}.",
    "I doubt that {}.", "I am not sure that {}.", "I'm not sure if {}.", "Nobody says that {}.", "Some say {}.",
    "He claims that {}.", "One might think that {}.", "You would think that {}, but no.", "{}, but I am not sure.",
    "{}. But maybe not.", "{}. Wait, no.", "{}, which is wrong.", "{}. That is wrong.", "{}. This is incorrect.",
    "Suppose {}.", "Assume that {}.", "Suppose {}. Then it runs.", "It would be wrong to say that {}.",
    "It is impossible that {}.", "It is unlikely that {}.", "It is possible that {}.", "{} is wrong.",
    "I first thought {}.", "I thought {}.", "I used to think {}.", "Initially {}.", "They asked whether {}.",
    "The question is whether {}.", "To say that {} is wrong.", "{} would be wrong.", "{} cannot be right.",
    "Don't say {}.", "{} could be right.", "{}... or not.", "{} (not sure)", "{} (wrong)", "{}. Or not.",
)  # fmt: skip
"""What leaves every claim open."""
TAKEN_BACK = (
    "{}. Actually, ?.", "{}. No, ?.", "{}. Or ?.", "{} or ?.", "{} and ?.", "{}, ?.", "{}/?", "Either {} or ?.",
    "Neither {} nor ?.", "{}. So does ?.", "{}. ? is also correct.", "? is correct and {}.", "{} - no, ?", "{}; no, ?.",
    "{}. My answer: ?.", "{}. Final answer: ?", "Final answer: ?. {}.", "{}, or rather ?.", "{}, no, ?.",
    "{}, sorry, ?.", "{}. Sorry, ?.", "{}. Correction: ?.", "{}. I mean ?.", "{}. On second thought, ?.",
)  # fmt: skip
"""What goes to another option, which stands for `?`."""


HAN = ("A. 红色", "B. 蓝色", "C. 绿色")
HAN_CLAIMS = ("答案是B", "正确答案是B", "答案是蓝色", "选B", "我选择B", "B是正确的", "选项B正确", "答案：B")
HAN_OPEN = (
    "如果下雨，{}。", "除非下雨，{}。", "也许{}。", "可能{}。", "{}吗？", "{}，对吗？", "是不是{}？", "并非{}。", "不能说{}。",
    "{}是错的。", "{}，这是错误的。", "{}。不对。", "{}。错了。", "我怀疑{}。", "我不确定{}。", "不确定{}", "有人说{}。",
    "我以为{}。", "{}，但不一定。", "{}。等等，不是。", "{}或C。", "{}或者C。", "{}和C。", "{}、C。", "{}，也可能是C。",
    "{}。也可能是C。", "{}。其实是C。", "{}。不，是C。", "{}。不，C。", "既不是{}也不是C。", "要么{}要么C。", "{}还是C？",
    "C正确，{}。", "假设{}。", "最初{}。", "难道{}？", "{}，大概。", "{}，应该不是。", "问题是{}是否正确。",
)  # fmt: skip
KANJI = ("A. 赤", "B. 青", "C. 緑")
KANJI_CLAIMS = ("答えはB", "正解はB", "答えは青", "Bを選びます", "Bが正解", "Bが正しい", "答え：B")
KANJI_OPEN = (
    "もし雨なら、{}です。", "たぶん{}です。", "おそらく{}です。", "{}ですか？", "{}でしょうか。", "{}ではない。", "{}ではありません。",
    "{}とは限りません。", "{}かもしれない。", "{}だと思われる。", "{}は間違いです。", "{}というのは間違いです。", "{}です。違う。",
    "{}です。いや、違います。", "{}です。しかし違うかもしれない。", "{}かCです。", "{}またはCです。", "{}とCです。", "{}、Cです。",
    "{}です。Cも正しい。", "{}です。やっぱりCです。", "{}ですが、Cかもしれません。", "{}と言う人もいます。", "{}と思っていました。",
    "{}かどうか分かりません。", "{}と仮定します。", "最初は{}と思った。", "{}じゃない。", "{}とは言えない。",
)  # fmt: skip


def _sentence(pattern: str, claim: str, other: str = "") -> str:
    text = pattern.replace("?", other).replace("{}", claim) if other else pattern.replace("{}", claim)
    return text[0].upper() + text[1:] if not text.startswith("\\") else text


@pytest.mark.parametrize("pattern", OPEN)
def test_an_open_conclusion_is_no_answer(pattern: str) -> None:
    for claim in CLAIMS:
        text = _sentence(pattern, claim)
        found = score("multiple choice", prediction=text, reference="B", options=PETS)
        assert found.value == 0, text
    for claim in COUNTS:
        text = _sentence(pattern, claim)
        assert score("numerical", prediction=text, reference="5").value == 0, text


@pytest.mark.parametrize("pattern", TAKEN_BACK)
def test_a_conclusion_that_goes_to_another_option_is_no_answer(pattern: str) -> None:
    for claim in CLAIMS:
        text = _sentence(pattern, claim, "C")
        assert score("multiple choice", prediction=text, reference="B", options=PETS).value == 0, text


@pytest.mark.parametrize(
    ("pattern", "claims", "options"),
    [(p, HAN_CLAIMS, HAN) for p in HAN_OPEN] + [(p, KANJI_CLAIMS, KANJI) for p in KANJI_OPEN],
)
def test_nor_is_one_in_chinese_and_japanese(
    pattern: str, claims: tuple[str, ...], options: tuple[str, ...]
) -> None:
    for claim in claims:
        text = _sentence(pattern, claim)
        assert score("multiple choice", prediction=text, reference="B", options=options).value == 0, text


@pytest.mark.parametrize("pattern", OPEN)
def test_thinking_settles_on_no_open_conclusion(pattern: str) -> None:
    for claim in CLAIMS:
        text = "It runs. " + _sentence(pattern, claim)
        assert think_choice(text, PETS) is None, text
    for claim in COUNTS:
        text = "It runs. " + _sentence(pattern, claim)
        assert think_number(text) is None, text


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_claim_is_an_answer_where_nothing_leaves_it_open(claim: str) -> None:
    for pattern in ("{}", "{}.", "Based on the video, {}.", "It runs. {}.", "It does not purr, so {}."):
        text = _sentence(pattern, claim)
        if claim in CLAIMS[6:8] and pattern.startswith("It runs"):
            continue  # a plain statement counts alone
        assert score("multiple choice", prediction=text, reference="B", options=PETS).value == 1, text
