"""Multiple choice, beyond one letter and one text: look-alike options, lists, options with names, several answers.

Each family was written down before the rule that serves it. `paper` wants the very characters.
"""

from __future__ import annotations

from tests.validators.case import Case

GENES = ("A. AA", "B. Aa", "C. aa")
GASES = ("A. CO", "B. Co", "C. CO2")
POWERS = ("A. 5 mW", "B. 5 MW", "C. 5 kW")
POINTS = ("A. 5", "B. .5", "C. 50")
TENS = ("A. 5", "B. 50", "C. 500")
FACTORIALS = ("A. n", "B. n!", "C. 2n")
SQUARES = ("A. 10²", "B. 102", "C. 10³")
LANGUAGES = ("A. Go", "B. C++", "C. C#", "D. R")
SIGNED = ("A. -5", "B. 5", "C. 0")
STARS = ("A. A*", "B. greedy", "C. Dijkstra")
OUT_OF_STEP = ("b", "a", "c")
PETS = ("A. cat", "B. dog", "C. bird")
FOUR = ("A. cat", "B. dog", "C. bird", "D. fish")
NESTED = ("A. red", "B. red and blue", "C. blue")
COUNTED = ("1. cat", "2. dog", "3. bird")
CAPTIONS = ("Caption A: The man smiles.", "Caption B: The man is serious.")
NUMBERED = ("Option 1: It rolls.", "Option 2: It slides.", "Option 3: It stops.")
LABELLED = ("A. Option 1: It rolls.", "B. Option 2: It slides.")
SHUFFLED = ("Option 2: It slides.", "Option 1: It rolls.")
HAN_NAMED = ("选项A：红色", "选项B：蓝色")
YES = ("A. Yes", "B. No")
BARE_YES = ("Yes", "No")
YES_OR_OPEN = ("A. Yes", "B. No", "C. Cannot tell")
HAN_YES = ("A. 是", "B. 否")
KANA_YES = ("A. はい", "B. いいえ")
ORDERS = ("A. sofa, lamp", "B. lamp, sofa")


def _exact(prediction: str, reference: str) -> float:
    return float(prediction == reference)


def _right(prediction: str, reference: str, why: str, options: tuple[str, ...]) -> Case:
    return Case(prediction, reference, _exact(prediction, reference), 1, why, options)


def _wrong(prediction: str, reference: str, why: str, options: tuple[str, ...], reason: str = "") -> Case:
    return Case(prediction, reference, _exact(prediction, reference), 0, why, options, reason)


LOOK_ALIKES = (
    _wrong("A", "B", "AA is not Aa", GENES, "mismatch"),
    _wrong("C", "B", "aa is not Aa", GENES, "mismatch"),
    _right("Aa", "B", "the raw text finds its option", GENES),
    _right("aa", "C", "the raw text finds its option", GENES),
    _wrong("Aa", "A", "another genotype", GENES, "mismatch"),
    _wrong("aA", "B", "no option reads so, and folded it is three", GENES),
    _wrong("A. Aa", "A", "the letter of AA beside Aa", GENES, "conflicting_text"),
    _right("B. Aa", "B", "letter and raw text", GENES),
    _right("(B) Aa.", "B", "letter, raw text and a stop", GENES),
    _right("The answer is Aa.", "B", "the raw text in a phrase", GENES),
    _wrong("The answer is Aa.", "A", "the raw text of another option in a phrase", GENES, "mismatch"),
    _wrong("A", "B", "carbon monoxide is not cobalt", GASES, "mismatch"),
    _right("CO", "A", "the raw text", GASES),
    _wrong("co", "A", "carbon monoxide or cobalt", GASES),
    _right("co2", "C", "folded, but unique", GASES),
    _wrong("B", "A", "a megawatt is not a milliwatt", POWERS, "mismatch"),
    _right("5 MW", "B", "the raw text", POWERS),
    _wrong("5 MW", "A", "the raw text of another option", POWERS, "mismatch"),
    _wrong("5 mw", "A", "milli or mega", POWERS),
    _wrong("5 mw", "B", "milli or mega", POWERS),
    _right("5 KW", "C", "folded, but unique", POWERS),
    _wrong("B", "A", "a half is not five", POINTS, "mismatch"),
    _right(".5", "B", "the raw text", POINTS),
    _wrong(".5", "A", "the point counts", POINTS, "mismatch"),
    _right("5.", "A", "a full stop after it does not", POINTS),
    _wrong(".5", "A", "the point counts where no option has one, too", TENS),
    _right("5.", "A", "a full stop", TENS),
    _wrong("A", "B", "n is not its factorial", FACTORIALS, "mismatch"),
    _right("n!", "B", "the raw text", FACTORIALS),
    _wrong("n!", "A", "the sign counts", FACTORIALS, "mismatch"),
    _wrong("5!", "A", "the sign counts where no option has one, too", TENS),
    _right("n.", "A", "a full stop does not", FACTORIALS),
    _wrong("A", "B", "ten squared is not 102", SQUARES, "mismatch"),
    _right("10²", "A", "the raw text", SQUARES),
    _right("102", "B", "the raw text", SQUARES),
    _right("10^2", "A", "typed", SQUARES),
    _right("C++", "B", "signs as text", LANGUAGES),
    _right("c++", "B", "signs as text, small", LANGUAGES),
    _right("C#", "C", "signs as text", LANGUAGES),
    _wrong("B", "C", "C++ is not C#", LANGUAGES, "mismatch"),
    _right("-5", "A", "a minus", SIGNED),
    _right("\u22125", "A", "U+2212", SIGNED),
    _wrong("-5", "B", "the sign counts", SIGNED, "mismatch"),
    _right("A*", "A", "a star as text", STARS),
    _right("**A. A***", "A", "a star as text, in bold", STARS),
    _right("a", "B", "a text that is a small letter", OUT_OF_STEP),
    _right("A", "A", "a letter that is a label", OUT_OF_STEP),
    _wrong("a", "A", "a text that is a small letter", OUT_OF_STEP, "mismatch"),
)

LETTERED = ("A. B", "B. C", "C. A")
FORMULAS = ("A. 3 + x", "B. B(x) = 3", "C. A(x) = 3")
BOLD = ("A. a call is an **offer**", "B. a bid is an **offer**", "C. 2**3")
STREETS = ("A. Track No. 2", "B. Track No. 8", "C. Mr. Nile")
SENTENCES = ("A. It rolls. It stops.", "B. It slides. It stops.")
FALLING = ("-3.47%", "+3.47%")

TEXTS = (
    _right("The answer is B.", "B", "a letter that is another option's text: the label counts", LETTERED),
    _right("The answer is B because it fits.", "B", "the same with a reason", LETTERED),
    _wrong("The answer is B.", "A", "the label counts, not the text", LETTERED, "mismatch"),
    _right("Based on the video, the answer is A(x) = 3", "C", "a text that begins with a letter", FORMULAS),
    _right("A. a call is an **offer**", "A", "bold inside of the text", BOLD),
    _right("**A. a call is an offer**", "A", "bold around it, none inside", BOLD),
    _wrong("23", "C", "a power is not a number of two digits", BOLD),
    _right("2**3", "C", "a power", BOLD),
    _right("Based on the video, the answer is Track No. 8.", "B", "a stop inside of the text", STREETS),
    _right("The answer is Mr. Nile, as he waves.", "C", "a title", STREETS),
    _right(
        "Based on the video, the answer is It slides. It stops.", "B", "a text of two sentences", SENTENCES
    ),
    _right("The correct answer is (A) -3.47%", "A", "a sign", FALLING),
    _wrong("The correct answer is (B) -3.47%", "B", "a letter beside another sign", FALLING),
)

LISTS = (
    *(_wrong("A. cat B. dog C. bird", right, "all options", PETS) for right in "ABC"),
    *(_wrong("A. cat\nB. dog\nC. bird", right, "all options, a line each", PETS) for right in "AC"),
    _wrong("A. cat, B. dog, C. bird", "A", "all options, with commas", PETS),
    _wrong("A) cat B) dog C) bird", "A", "all options, with brackets", PETS),
    _wrong("A: cat; B: dog", "A", "two options", PETS),
    _wrong("A. cat or B. dog", "A", "two options", PETS),
    _wrong("A. cat, dog", "A", "its own text, then another's", PETS),
    _wrong("A. cat B", "A", "its own text, then a letter", PETS),
    _wrong("A. cat (B)", "A", "its own text, then a letter in brackets", PETS),
    _wrong("B. dog A. cat", "B", "backwards", PETS),
    _wrong("cat dog bird", "A", "all texts", PETS),
    _wrong("cat, dog, bird", "B", "all texts, with commas", PETS, "several_answers"),
    _wrong("A B C", "A", "all letters", PETS, "several_answers"),
    _wrong("ABC", "A", "all letters in one", PETS, "several_answers"),
    _wrong("1. cat 2. dog 3. bird", "1", "all options, numbered", COUNTED),
    _wrong("The answer is A. cat B. dog C. bird", "A", "all options in a phrase", PETS),
    _right("B. red and blue", "B", "a text that holds two others", NESTED),
    _right("B. red and blue, as the flag shows", "B", "the same with an explanation", NESTED),
    _wrong("A. red, blue", "A", "its own text, then another's", NESTED),
    _right("B. The animal is a dog.", "B", "its own text in a sentence", PETS),
    _wrong("B. The animal is a cat.", "B", "another text in a sentence", PETS, "conflicting_text"),
    _wrong("B. The animal is not a dog.", "B", "its own text, negated", PETS),
)

NAMED = (
    _right("A", "A", "by position", CAPTIONS),
    _right("Caption A", "A", "its name", CAPTIONS),
    _right("caption a.", "A", "its name, small, a stop", CAPTIONS),
    _right("Caption A: The man smiles.", "A", "the whole option", CAPTIONS),
    _right("Caption A: The man smiles", "Caption A: The man smiles.", "the reference is the whole option", CAPTIONS),
    _right("Caption A", "Caption A: The man smiles.", "the reference is the whole option, the answer its name", CAPTIONS),
    _right("B", "Caption B: The man is serious.", "the reference is the whole option", CAPTIONS),
    _right("The man smiles.", "A", "its text", CAPTIONS),
    _right("A. Caption A: The man smiles.", "A", "as it is shown", CAPTIONS),
    _right("A. Caption A", "A", "letter and name", CAPTIONS),
    _right("A. The man smiles.", "A", "letter and text", CAPTIONS),
    _right("The answer is Caption A.", "A", "its name in a phrase", CAPTIONS),
    _right("Caption A matches the video better.", "A", "its name in a sentence", CAPTIONS),
    _wrong("Caption B", "A", "another name", CAPTIONS, "mismatch"),
    _wrong("A. Caption B: The man is serious.", "A", "letter beside another option", CAPTIONS, "conflicting_text"),
    _wrong("Caption A: The man is serious.", "A", "name beside another text", CAPTIONS, "conflicting_text"),
    _wrong("Caption A or Caption B", "A", "two names", CAPTIONS),
    _wrong("Caption A and B", "A", "two names in one", CAPTIONS),
    _wrong("Caption A does not match the video.", "A", "negated", CAPTIONS),
    _wrong("Caption C", "A", "no such name", CAPTIONS, "not_an_option"),
    _right("Option 2", "B", "its name", NUMBERED),
    _right("option 2.", "B", "its name, small, a stop", NUMBERED),
    _right("Option 2: It slides.", "B", "the whole option", NUMBERED),
    _right("It slides", "B", "its text", NUMBERED),
    _right("2", "B", "its number", NUMBERED),
    _right("(2)", "B", "its number in brackets", NUMBERED),
    _right("2. It slides.", "B", "number and text", NUMBERED),
    _right("B", "B", "by position", NUMBERED),
    _right("Option B", "B", "by position, called an option", NUMBERED),
    _right("B. Option 2: It slides.", "B", "as it is shown", NUMBERED),
    _right("The correct option is Option 2.", "B", "its name in a phrase", NUMBERED),
    _wrong("Option 2: It rolls.", "B", "name beside another text", NUMBERED, "conflicting_text"),
    _wrong("Option 2: It rolls.", "A", "text beside another name", NUMBERED, "conflicting_text"),
    _wrong("B. Option 1", "B", "letter beside another name", NUMBERED, "conflicting_text"),
    _wrong("Option 4", "B", "no such name", NUMBERED, "not_an_option"),
    _wrong("Option 1 and Option 2", "A", "two names", NUMBERED),
    _wrong("Option 1: It rolls. Option 2: It slides.", "A", "two options", NUMBERED),
    _right("Option 2", "B", "letters and names", LABELLED),
    _right("B. Option 2: It slides.", "B", "letters and names, whole", LABELLED),
    _right("B. It slides.", "B", "letters and names, the text", LABELLED),
    _right("Option 1", "B", "names out of order", SHUFFLED),
    _wrong("Option 1", "A", "names out of order", SHUFFLED, "mismatch"),
    _right("选项B", "B", "a Chinese name", HAN_NAMED),
    _right("选项B：蓝色", "B", "a Chinese option", HAN_NAMED),
    _right("蓝色", "B", "a Chinese text", HAN_NAMED),
    _wrong("选项A：蓝色", "A", "a Chinese name beside another text", HAN_NAMED, "conflicting_text"),
)  # fmt: skip

YES_NO = (
    _right("yes.", "A", "small, with a stop", YES),
    _right("Yes, the man is running.", "A", "an explanation", YES),
    _right("Yes, the man is running.", "A", "an explanation, options without letters", BARE_YES),
    _right("Yes. The man is running.", "A", "a sentence after it", YES),
    _right("Yes, he does.", "A", "a short sentence after it", YES),
    _right("Yes, he is.", "Yes", "the reference is the text", BARE_YES),
    _right("Yes it is", "A", "without a comma", YES),
    _right("Yes \u2014 the man runs", "A", "a dash", YES),
    _right("Yes, because the man runs.", "A", "a reason", YES),
    _right("No, the man is not running.", "B", "a negation is what No means", YES),
    _right("No, he isn't.", "B", "a contraction", YES),
    _right("No, there is no dog.", "B", "a second no", YES),
    _right("No, not at all.", "B", "a second negation", YES),
    _right("A. Yes, the man is running.", "A", "with its letter", YES),
    _right("B. No, the man is not running.", "B", "with its letter", YES),
    _right("The answer is yes.", "A", "a phrase", YES),
    _right("The answer is no, he is not running.", "B", "a phrase and an explanation", YES),
    _right("Based on the video, the answer is No.", "B", "a longer phrase", YES),
    _wrong("Yes, the man is running.", "B", "the other answer", YES, "mismatch"),
    _wrong("No, the man is not running.", "A", "the other answer", YES, "mismatch"),
    _wrong("A. No, the man is not running.", "A", "letter beside the other answer", YES),
    _wrong("Yes and no", "A", "both", YES, "several_answers"),
    _wrong("Yes or no", "A", "both", YES, "several_answers"),
    _wrong("Yes, no", "A", "both", YES, "several_answers"),
    _wrong("Yes. No.", "A", "both", YES),
    _wrong("No. Yes.", "B", "both, the other way round", YES),
    _wrong("No, Yes", "B", "both, both with a capital", YES),
    _wrong("Yes, but no", "A", "both", YES),
    _wrong("Yes, but he walks.", "A", "taken back", YES),
    _wrong("Yes, maybe.", "A", "in doubt", YES),
    _wrong("Yes? He may be.", "A", "a question", YES),
    _wrong("Yes, the man is not running.", "A", "yes to a negation: no telling", YES),
    _wrong("Yes, that is false.", "A", "taken back", YES),
    _wrong("No. 5", "B", "a number", YES),
    _wrong("Not yes", "A", "negated", YES),
    _wrong("No doubt", "B", "an idiom", YES),
    _wrong("No one is running.", "B", "no as part of a word", YES),
    _wrong("No, cannot tell", "B", "two options", YES_OR_OPEN),
    _wrong("No, I cannot tell.", "B", "two options in a sentence", YES_OR_OPEN),
    _right("Cannot tell", "C", "the third", YES_OR_OPEN),
    _right("是，他在跑。", "A", "Chinese", HAN_YES),
    _right("是的，他在跑。", "A", "Chinese, with its particle", HAN_YES),
    _right("否，他没有跑。", "B", "Chinese", HAN_YES),
    _wrong("不是", "A", "negated", HAN_YES),
    _wrong("是不是", "A", "a question", HAN_YES),
    _wrong("是还是否", "A", "both", HAN_YES),
    _right("はい、走っています。", "A", "Japanese", KANA_YES),
    _right("いいえ、走っていません。", "B", "Japanese", KANA_YES),
    _wrong("はい、走っていません。", "A", "yes to a negation: no telling", KANA_YES),
    _wrong("はいかいいえ", "A", "both", KANA_YES),
)

SEVERAL = (
    _right("A,C", "A,C", "as the reference has it", FOUR),
    _right("A, C", "A,C", "a blank", FOUR),
    _right("C,A", "A,C", "another order", FOUR),
    _right("A and C", "A,C", "a word", FOUR),
    _right("A & C", "A,C", "a sign", FOUR),
    _right("A;C", "A,C", "a semicolon", FOUR),
    _right("A C", "A,C", "a blank alone", FOUR),
    _right("A\nC", "A,C", "lines", FOUR),
    _right("A and C are correct.", "A,C", "a verdict behind them", FOUR),
    _wrong("A or C are correct.", "A,C", "a verdict behind either", FOUR),
    _wrong("A and C are not correct.", "A,C", "a verdict against them", FOUR),
    _right("AC", "A,C", "run together", FOUR),
    _right("CA", "A,C", "run together, another order", FOUR),
    _right("(A), (C)", "A,C", "brackets", FOUR),
    _right("(A) and (C)", "(A),(C)", "brackets in both", FOUR),
    _right("A、C", "A,C", "a Chinese comma", FOUR),
    _right("A和C", "A,C", "a Chinese word", FOUR),
    _right("AとC", "A,C", "a Japanese word", FOUR),
    _right("a, c", "A,C", "small letters", FOUR),
    _right("A. cat, C. bird", "A,C", "with their texts", FOUR),
    _right("A. cat\nC. bird", "A,C", "with their texts, a line each", FOUR),
    _right("cat and bird", "A,C", "their texts alone", FOUR),
    _right("Both A and C", "A,C", "both", FOUR),
    _right("Options A and C", "A,C", "called options", FOUR),
    _right("The answers are A and C.", "A,C", "a phrase", FOUR),
    _right("The correct answer is A, C.", "A,C", "a phrase in the singular", FOUR),
    _right("Based on the video, the answer is A and C.", "A,C", "a longer phrase", FOUR),
    _right("答案是A和C。", "A,C", "a Chinese phrase", FOUR),
    _right("答えはAとCです。", "A,C", "a Japanese phrase", FOUR),
    _right('["A", "C"]', "A,C", "a list", FOUR),
    _right("\\boxed{A, C}", "A,C", "boxed", FOUR),
    _right("**A, C**", "A,C", "bold", FOUR),
    _right("A, C", "AC", "the reference runs together", FOUR),
    _right("B, A and D", "A, B, D", "three", FOUR),
    _right("A, B, and D", "A, B, D", "three, with a comma before the word", FOUR),
    _right("A, C, A", "A,C", "one of them twice", FOUR),
    _right("3, 1", "1,3", "numbered options", COUNTED),
    _right("C, A", "A,C", "no options in the row", ()),
    _wrong("A", "A,C", "one of two", FOUR, "mismatch"),
    _wrong("A. cat", "A,C", "one of two, with its text", FOUR, "mismatch"),
    _wrong("A, B", "A,C", "one wrong", FOUR, "mismatch"),
    _wrong("A, B, C", "A,C", "one too many", FOUR, "mismatch"),
    _wrong("ABCD", "A,C", "all", FOUR, "mismatch"),
    _wrong("A or C", "A,C", "an alternative is no set", FOUR),
    _wrong("A/C", "A,C", "an alternative is no set", FOUR),
    _wrong("A, C or D", "A,C", "an alternative at the end", FOUR),
    _wrong("A, C, E", "A,C", "no such option", FOUR),
    _wrong("not A, C", "A,C", "negated", FOUR),
    _wrong("A and not C", "A,C", "negated", FOUR),
    _wrong("A. dog, C. bird", "A,C", "a letter beside another text", FOUR),
    _wrong("A, C, maybe D", "A,C", "in doubt", FOUR),
    _wrong("neither A nor C", "A,C", "negated", FOUR),
    _wrong("", "A,C", "empty", FOUR, "empty_answer"),
    _wrong("13", "1,3", "numbers do not run together", COUNTED),
    _wrong("A,C", "A", "two for one", FOUR, "several_answers"),
    _right("sofa, lamp", "A", "a text that holds a comma is one option", ORDERS),
    Case("A", "A or C", 0, None, "an alternative as reference", FOUR, "bad_reference"),
    Case("A", "A,E", 0, None, "a reference outside of the options", FOUR, "bad_reference"),
    Case("1", "13", 0, None, "numbers do not run together", COUNTED, "bad_reference"),
    Case("C", "CAT", 0, None, "no options: letters do not run together", (), "bad_reference"),
)

CASES = (*LOOK_ALIKES, *TEXTS, *LISTS, *NAMED, *YES_NO, *SEVERAL)
