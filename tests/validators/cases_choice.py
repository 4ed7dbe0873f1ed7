"""Multiple choice: `paper` wants the very characters of the reference, `robust` the option that is named."""

from __future__ import annotations

from tests.validators.case import Case

PETS = ("A. cat", "B. dog", "C. bird")
YES = ("A. Yes", "B. No")
FRUIT = ("A. Apple pie", "B. Banana split", "C. Cannot be determined", "D. Date cake")
NUMBERS = ("A. 2", "B. 3", "C. 4", "D. 5")
LENGTHS = ("A. 5 cm", "B. 5 m", "C. 50 cm", "D. 5.5 m")
NESTED = ("A. red", "B. red and blue", "C. blue")
TWINS = ("A. left", "B. right", "C. left", "D. up")
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TEN = tuple(f"{letter}. item {word}" for letter, word in zip("ABCDEFGHIJ", WORDS, strict=True))
TWELVE = (*TEN, "K. item eleven", "L. item twelve")
BARE = ("cat", "dog", "bird")
ROUND = ("(A) cat", "(B) dog", "(C) bird")
COUNTED = ("1. cat", "2. dog", "3. bird")
LETTERS_AS_TEXT = ("A. C", "B. A", "C. B")
HAN = ("A. 红色", "B. 蓝色", "C. 绿色")
LONG = (
    "A. It may convert gravitational energy into elastic energy.",
    "B. It may convert one force to another force.",
    "C. It may convert one speed to another speed.",
)

CASES = (
    # the letter in all its dress
    Case("B", "B", 1, 1, "the letter", PETS),
    Case(" B\n", "B", 1, 1, "white space around it", PETS),
    Case("A", "B", 0, 0, "another letter", PETS, "mismatch"),
    Case("(B)", "B", 0, 1, "brackets", PETS),
    Case("[B]", "B", 0, 1, "square brackets", PETS),
    Case("B.", "B", 0, 1, "a stop", PETS),
    Case("B)", "B", 0, 1, "half a bracket", PETS),
    Case("B:", "B", 0, 1, "a colon", PETS),
    Case("b", "B", 0, 1, "lower case", PETS),
    Case("(b)", "B", 0, 1, "lower case in brackets", PETS),
    Case("Ｂ", "B", 0, 1, "full-width letter", PETS),
    Case("（Ｂ）", "B", 0, 1, "full-width brackets", PETS),
    Case("B。", "B", 0, 1, "ideographic stop", PETS),
    Case("**B**", "B", 0, 1, "bold", PETS),
    Case("**(B)**", "B", 0, 1, "bold brackets", PETS),
    Case("\\boxed{B}", "B", 0, 1, "boxed", PETS),
    Case("$\\boxed{B}$", "B", 0, 1, "boxed in mathematics", PETS),
    Case("\\boxed{\\text{B}}", "B", 0, 1, "boxed text", PETS),
    Case("$B$", "B", 0, 1, "mathematics", PETS),
    Case('"B"', "B", 0, 1, "quoted", PETS),
    Case("`B`", "B", 0, 1, "as code", PETS),
    Case("B\u200b", "B", 0, 1, "zero-width space", PETS),
    Case("Option B", "B", 0, 1, "called an option", PETS),
    Case("option (B).", "B", 0, 1, "called an option, in brackets", PETS),
    Case("The answer is B", "B", 0, 1, "a phrase around it", PETS),
    Case("The correct answer is (B).", "B", 0, 1, "a longer phrase", PETS),
    Case("Answer: B", "B", 0, 1, "a label before it", PETS),
    Case("B is correct.", "B", 0, 1, "a phrase after it", PETS),
    # with its text
    Case("B. dog", "B", 0, 1, "its own text", PETS),
    Case("(B) dog", "B", 0, 1, "its own text after brackets", PETS),
    Case("B: dog", "B", 0, 1, "its own text after a colon", PETS),
    Case("B dog", "B", 0, 1, "its own text after a blank", PETS),
    Case("B. DOG.", "B", 0, 1, "its own text in capitals, with a stop", PETS),
    Case("**B. dog**", "B", 0, 1, "letter and text in bold", PETS),
    Case("Ｂ．ｄｏｇ", "B", 0, 1, "all of it full-width", PETS),
    Case("dog", "B", 0, 1, "its text alone", PETS),
    Case("Dog.", "B", 0, 1, "its text alone, other case, a stop", PETS),
    Case("The answer is dog", "B", 0, 1, "its text in a phrase", PETS),
    Case("B. dog", "B. dog", 1, 1, "the reference has letter and text", PETS),
    Case("B", "B. dog", 0, 1, "the reference has letter and text, the answer the letter", PETS),
    Case("B", "dog", 0, 1, "the reference is the text", PETS),
    Case("B", "<answer>B</answer>", 1, 1, "the reference wears its tag", PETS),
    Case("B. dog, since it barks", "B", 0, 1, "own text, then an explanation", PETS),
    Case("B. It may convert one force to another force", "B", 0, 1, "own long text without its stop", LONG),
    Case("It may convert one force to another force.", "B", 0, 1, "long text alone", LONG),
    Case("B. 蓝色", "B", 0, 1, "Chinese text", HAN),
    Case("蓝色", "B", 0, 1, "Chinese text alone", HAN),
    Case("B、蓝色", "B", 0, 1, "Chinese comma after the letter", HAN),
    # refused
    Case("A or B", "A", 0, 0, "two options", PETS, "several_answers"),
    Case("A or B", "B", 0, 0, "two options, the second is right", PETS, "several_answers"),
    Case("A, B", "A", 0, 0, "a list", PETS, "several_answers"),
    Case("A and B", "B", 0, 0, "both", PETS, "several_answers"),
    Case("A/B", "A", 0, 0, "a slash", PETS, "several_answers"),
    Case("AB", "A", 0, 0, "two letters in one", PETS, "several_answers"),
    Case("cat or dog", "A", 0, 0, "two texts", PETS, "several_answers"),
    Case("A、B", "A", 0, 0, "a Chinese list", HAN, "several_answers"),
    Case("not A", "A", 0, 0, "negated", PETS, "negated_answer"),
    Case("not A", "B", 0, 0, "negated, no other is named", PETS, "negated_answer"),
    Case("not A", "B", 0, 0, "negated of two: still names no option", YES, "negated_answer"),
    Case("The answer is not B", "B", 0, 0, "negated phrase", PETS, "negated_answer"),
    Case("It isn't B", "B", 0, 0, "negated by a contraction", PETS, "negated_answer"),
    Case("A. dog", "A", 0, 0, "letter beside another option's text", PETS, "conflicting_text"),
    Case("A. dog", "B", 0, 0, "text beside another option's letter", PETS, "conflicting_text"),
    Case("A. Banana split", "A", 0, 0, "letter beside another long text", FRUIT, "conflicting_text"),
    Case("B. not dog", "B", 0, 0, "own text negated", PETS),
    Case("B. dog or bird", "B", 0, 0, "own text, then another option's", PETS),
    Case("D", "A", 0, 0, "no such option", PETS, "not_an_option"),
    Case("Z", "A", 0, 0, "no such option", PETS, "not_an_option"),
    Case("Apple", "A", 0, 0, "begins with A, is a part of its text", FRUIT, "not_an_option"),
    Case("Apple", "A", 0, 0, "begins with A, names nothing", PETS, "not_an_option"),
    Case("Cannot be determined", "C", 0, 0, "begins with C, is no option", PETS, "not_an_option"),
    Case("Cannot be determined", "C", 0, 1, "here it is the text of C", FRUIT),
    Case("A cat", "B", 0, 0, "an article or letter A: not B in any reading", PETS),
    Case("", "A", 0, 0, "empty", PETS, "empty_answer"),
    Case("   ", "A", 0, 0, "blank", PETS, "empty_answer"),
    Case(")", "A", 0, 0, "a bracket", PETS, "empty_answer"),
    Case(".", "A", 0, 0, "a stop", PETS, "empty_answer"),
    Case("**", "A", 0, 0, "empty bold", PETS, "empty_answer"),
    Case("\\boxed{}", "A", 0, 0, "an empty box", PETS),
    Case("nan", "A", 0, 0, "nan", PETS, "not_an_option"),
    Case("I do not know", "I", 0, 0, "the pronoun is no tenth option", TEN),
    Case("None of the above", "A", 0, 0, "no option", PETS, "not_an_option"),
    Case("A " * 5000, "A", 0, 0, "ten thousand characters", PETS, "too_long"),
    # numbers of options, kinds of labels
    Case("B", "A", 0, 0, "two options, wrong", YES, "mismatch"),
    Case("no", "B", 0, 1, "two options, text", YES),
    Case("Yes", "B", 0, 0, "two options, other text", YES, "mismatch"),
    Case("J", "J", 1, 1, "ten options, the last", TEN),
    Case("item ten", "J", 0, 1, "ten options, text", TEN),
    Case("item", "J", 0, 0, "ten options, the part that all share", TEN, "not_an_option"),
    Case("(L)", "L", 0, 1, "twelve options", TWELVE),
    Case("L. item twelve", "L", 0, 1, "twelve options, with text", TWELVE),
    Case("L", "J", 0, 0, "of ten options, L is none", TEN, "not_an_option"),
    Case("B", "B", 1, 1, "options without letters go by position", BARE),
    Case("dog", "B", 0, 1, "options without letters, text", BARE),
    Case("A. dog", "B", 0, 0, "options without letters, conflict", BARE, "conflicting_text"),
    Case("B", "B", 1, 1, "options in brackets", ROUND),
    Case("(B) dog", "(B)", 0, 1, "reference and options in brackets", ROUND),
    Case("2", "2", 1, 1, "numbered options", COUNTED),
    Case("2. dog", "2", 0, 1, "numbered options, with text", COUNTED),
    Case("4", "2", 0, 0, "numbered options, no such number", COUNTED, "not_an_option"),
    Case("A", "A", 1, 1, "no options in the row: any letter"),
    Case("(A)", "A", 0, 1, "no options in the row, brackets"),
    # texts that look like something else
    Case("3", "B", 0, 1, "the text is a number", NUMBERS),
    Case("B. 3", "B", 0, 1, "letter and number", NUMBERS),
    Case("B. 4", "B", 0, 0, "letter beside another option's number", NUMBERS, "conflicting_text"),
    Case("6", "B", 0, 0, "a number that is no option", NUMBERS, "not_an_option"),
    Case("5 m", "A", 0, 0, "5 m is not 5 cm", LENGTHS, "mismatch"),
    Case("5 m", "B", 0, 1, "5 m", LENGTHS),
    Case("5", "B", 0, 0, "5 of what", LENGTHS, "not_an_option"),
    Case("A. 5 m", "A", 0, 0, "the letter of 5 cm beside 5 m", LENGTHS, "conflicting_text"),
    Case("red", "A", 0, 1, "a text that begins another", NESTED),
    Case("red and blue", "B", 0, 1, "a text that holds two others", NESTED),
    Case("A. red and blue", "A", 0, 0, "letter beside a longer option's text", NESTED, "conflicting_text"),
    Case("left", "A", 0, 1, "two options read the same", TWINS),
    Case("C", "A", 0, 1, "another letter of the same text", TWINS),
    Case("B", "A", 0, 0, "another text", TWINS, "mismatch"),
    Case("C", "C", 1, 1, "letters as texts: the label counts", LETTERS_AS_TEXT),
    Case("A", "B", 0, 0, "letters as texts: the label counts, not the text", LETTERS_AS_TEXT, "mismatch"),
    # bad references are never paid and never 0
    Case("A", "", None, None, "no reference", PETS, "bad_reference"),
    Case("D", "D", 1, None, "a reference outside of the options", PETS, "bad_reference"),
    Case("A or B", "A or B", 1, None, "a reference of two options", PETS, "bad_reference"),
    # whole completions
    Case("<think>so B</think><answer>B</answer>", "B", 1, 1, "the tag", PETS),
    Case("<think><answer>A</answer>?</think><answer>B</answer>", "B", 1, 1, "one quoted in think", PETS),
    Case("<think><answer>B</answer></think>", "B", 0, 0, "only an answer inside think", PETS, "no_answer"),
    Case("<observation><answer>B</answer></observation><answer>A</answer>", "B", 0, 0,
         "an answer inside the observation", PETS, "mismatch"),
    Case("<answer>A</answer><answer>B</answer>", "B", 0, 0, "two different answers", PETS, "several_answers"),
    Case("<answer>B</answer> <answer>b</answer>", "B", (0, 1), 1, "the same answer twice", PETS),
    Case("<answer></answer>", "B", 0, 0, "an empty tag", PETS, "empty_answer"),
    Case("<think>B</think>", "B", 0, 0, "no answer tag", PETS, "no_answer"),
    Case("<answer>B", "B", 0, 0, "an unclosed answer", PETS, "no_answer"),
    Case("<ANSWER>B</ANSWER>", "B", 0, 0, "upper-case tags", PETS, "no_answer"),
)  # fmt: skip
