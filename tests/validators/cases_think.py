"""What think segments settle on: (text, label or None for undecided, options). Written down before the rule."""

from __future__ import annotations

PETS = ("A. cat", "B. dog", "C. bird")
HAN = ("A. 红色", "B. 蓝色", "C. 绿色")
KANJI = ("A. 赤", "B. 青", "C. 緑")
GENES = ("A. AA", "B. Aa", "C. aa")
FAULTS = ("A. Multiple sclerosis", "B. Stroke", "C. Epilepsy")
TESTS = ("A. Cone testing", "B. Sampling", "C. Cannot be told")
VALUES = ("A. 2", "B. 3.5", "C. 35")
NAMED = ("Caption A: The man smiles.", "Caption B: The man is serious.")

CHOICES: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
    # capitals and dress
    ("Thus, the correct answer is Option B.", "B", PETS),
    ("Thus, the correct answer is OPTION B.", "B", PETS),
    ("Therefore, the correct answer is Option B, as it barks.", "B", PETS),
    ("Therefore, the correct answer is option B: dog.", "B", PETS),
    ("Thus, the answer is \\(\\boxed{B}\\).", "B", PETS),
    ("Thus, the answer is \\( \\boxed{\\text{B}} \\)", "B", PETS),
    ("So, the correct answer is:\n\\[ \\boxed{B} \\]", "B", PETS),
    ("\\(\\boxed{\\text{B. dog}}\\)", "B", PETS),
    ("$$\\boxed{B}$$", "B", PETS),
    ("**Answer**: B", "B", PETS),
    ("**Final answer:** B", "B", PETS),
    ("The answer is:\n\nB. dog", "B", PETS),
    ("The answer is clearly B, since it barks.", "B", PETS),
    ("The answer is indeed B.", "B", PETS),
    ("The answer would be B.", "B", PETS),
    ("I will go with B.", "B", PETS),
    ("So I choose option B.", "B", PETS),
    ("It barks. B is the correct answer.", "B", PETS),
    ("It barks. So option B is correct.", "B", PETS),
    ("Since it does not purr, the answer is B.", "B", PETS),
    ("Since it might be far away, the answer is B.", "B", PETS),
    ("So the answer is Caption B.", "B", NAMED),
    ("So the answer is Aa.", "B", GENES),
    ("Therefore, the correct answer is B. The other options do not bark.", "B", PETS),
    # a last sentence that never says "the answer is"
    ("It barks. This matches the explanation in option B.", "B", PETS),
    ("It barks. This corresponds to option B.", "B", PETS),
    ("It barks. This aligns most closely with Option B.", "B", PETS),
    ("The ratio is two thirds, which is option B.", "B", PETS),
    ("Given these points, the most accurate explanation is B.", "B", PETS),
    ("Considering this, the most incorrect statement is B, as it barks.", "B", PETS),
    ("Therefore, the disease that could do this is Multiple sclerosis.", "A", FAULTS),
    ("Given these points, the most likely diagnosis is multiple sclerosis.", "A", FAULTS),
    ("Given these points, the most likely diagnosis would be a stroke.", "B", FAULTS),
    ("In conclusion, the animal in the video is a dog.", "B", PETS),
    ("Therefore, the value is 3.5.", "B", VALUES),
    # Chinese and Japanese
    ("天空很亮。因此，答案是B。", "B", HAN),
    ("天空很亮，所以选B。", "B", HAN),
    ("因此正确答案是蓝色。", "B", HAN),
    ("空が明るい。したがって、答えはBです。", "B", KANJI),
    ("よって、正解は青です。", "B", KANJI),
    # undecided
    ("The answer is Aa or AA.", None, GENES),
    ("The answer is AAA.", None, GENES),
    ("The answer is B, which is wrong.", None, PETS),
    ("The incorrect answer is B.", None, PETS),
    ("If it barked, the answer would be B.", None, PETS),
    ("Otherwise, the answer would be B.", None, PETS),
    ("The answer is \\(\\boxed{A \\text{ or } B}\\).", None, PETS),
    ("Option B is not correct.", None, PETS),
    ("If it barks, option B is correct.", None, PETS),
    ("Option B is correct only if it barks.", None, PETS),
    ("This does not match option B.", None, PETS),
    ("This matches option B but not the colour.", None, PETS),
    ("This matches option A and option B.", None, PETS),
    ("Option A mentions a cat, which does not fit.", None, PETS),
    ("This rules out option B.", None, PETS),
    ("It barks, unlike option A.", None, PETS),
    ("I would not choose B.", None, PETS),
    ("Therefore, the disease is not Multiple sclerosis.", None, FAULTS),
    ("Therefore, the disease may be Multiple sclerosis.", None, FAULTS),
    ("Therefore, the disease is Multiple sclerosis or Stroke.", None, FAULTS),
    ("Stroke is rare. Therefore, the disease is more like multiple sclerosis.", None, FAULTS),
    ("The least likely diagnosis is Stroke, so another is meant.", None, FAULTS),
    ("The animal in the first frame is a dog.", None, PETS),
    ("The animal is a dog.", None, PETS),
    ("Therefore, the value is 35.2.", None, VALUES),
    ("Therefore, is the animal a dog?", None, PETS),
    ("Therefore, the animal is a dog. Its tail is short.", None, PETS),
    ("答案不是B。", None, HAN),
    ("答案可能是B。", None, HAN),
    ("答案是A或B。", None, HAN),
    ("如果天空晴朗，答案是B。", None, HAN),
    ("答案是B吗？", None, HAN),
    ("答案是B。等等，不对。", None, HAN),
    ("答えはBではありません。", None, KANJI),
    ("答えはBかもしれません。", None, KANJI),
    ("答えはBです。しかし、雲がある。", None, KANJI),
)

NUMBERS: tuple[tuple[str, float | None], ...] = (
    ("Thus \\(\\boxed{7}\\).", 7),
    ("The final answer is:\n\\[ \\boxed{1000} \\]", 1000),
    ("The answer is \\(7\\).", 7),
    ("**Answer:** 7", 7),
    ("So the answer is 7 balls.", 7),
    ("So the answer is 7, as nobody leaves.", 7),
    ("Since it is not hidden, the answer is 7.", 7),
    ("因此，答案是7。", 7),
    ("因此，一共有7个球。", None),
    ("したがって、答えは7です。", 7),
    ("There are 7 balls.", None),
    ("The answer is 7 or \\(\\boxed{8}\\) ... wait.", None),
    ("答案不是7。", None),
    ("答えは7ではありません。", None),
)
