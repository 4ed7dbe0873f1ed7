"""Units: one canonical name each, no conversion between them. Symbols keep their case, words do not.

`mW` and `MW` are a billion apart, so that a symbol counts in the case in which the SI writes it. In another
case it counts only where no other symbol could be meant: `KG` is kg, `MS` is neither ms nor mS.
"""

from __future__ import annotations

import re
from collections import defaultdict

_PREFIX_WORDS = "pico nano micro milli centi deci hecto kilo mega giga tera"
_PREFIXES = dict(zip("pnμmcdhkMGT", _PREFIX_WORDS.split(), strict=True))
_SI = """
m nμmcdk meter metre
g μmk gram gramme
s nμm second sec
A μm ampere amp
K m kelvin
mol μm mole
Hz kMGT hertz
N mkM newton
Pa hkMG pascal
J mkMG joule
W μmkMGT watt
V μmkM volt
F pnμm farad
Ω mkMG ohm
C μm coulomb
H μm henry
T μm tesla
S μm siemens
M μm molar
L μmcd liter litre
eV kMGT electronvolt
Wh mkMGT watt-hour watthour
B kMGT byte
bit kMGT bit
bar m bar
cal k calorie
Bq kMG becquerel
Sv μm sievert
lm - lumen
lx - lux
cd - candela
dB - decibel
rad m radian
px - pixel
t k tonne
ha - hectare
rpm -
fps -
bpm -
ppm -
ppb -
"""
"""Symbol, prefixes in use (`-`: none), names."""
_OTHERS = """
% - percent percentage pct 百分比
° - deg degree 度
°C degC celsius 摄氏度
°F degF fahrenheit 华氏度
min - minute 分钟
h hr hour 小时
day d 天
week wk 周
month mo 个月
year yr 岁 年
in - inch
ft - foot feet
yd - yard
mi - mile
nmi - 海里
lb - pound
oz - ounce
gal - gallon
hp - horsepower
kg kilo 千克 公斤
g gm 克
km - 千米 公里
m - 米
cm - 厘米
mm - 毫米
s - 秒
ms - 毫秒
L l 升
mL ml 毫升
km/h kph,kmh,kmph
mi/h mph
N*m Nm,N·m newton-meter newton-metre
μm um
μs us
μg ug
μL uL,ul
bit b
kbit kb,Kb
Mbit Mb
Gbit Gb
kB KB
$ USD dollar usd
US U.S.
€ EUR euro
£ GBP
cent ¢
¥ -
yuan CNY,RMB 元 人民币
yen JPY 円 日元
₹ INR rupee
person - people 人
child - children
man - men
woman - women
tooth - teeth
mouse - mice
"""
"""Canonical unit, further symbols in their case (`-`: none), names in any case."""
_PHRASES = {
    "° °C": "°C",
    "° °F": "°F",
    "° C": "°C",
    "° F": "°F",
    "nautical mi": "nmi",
    "year old": "year",
    "US $": "$",
    "frame/s": "fps",
    "revolution/min": "rpm",
    "beat/min": "bpm",
}
"""Canonical words in a row -> canonical unit."""
_SAME = ({"C", "°C"}, {"F", "°F"}, {"°", "°C"}, {"°", "°F"}, {"yuan", "¥"}, {"yen", "¥"}, {"lb", "£"})
"""Pairs that people write for one another; the number beside them is the same."""
MULTIPLIERS = frozenset("KMBGT")
"""Symbols that may as well multiply (`5K`, `$3M`): never left out, never added."""
_NEVER = frozenset(
    """
    or and not to from than more less fewer least most over under about between per plus minus
    x by hundred thousand million billion trillion dozen half quarter third k mn bn mio lakh crore
    maybe perhaps if but either neither nor no is are was i unknown without except only exactly e pi
    unless which could would might may can cannot must wrong right correct incorrect sure
    """.split()  # noqa: SIM905 -- a list of sixty words reads better as words
)
"""Words that never name a unit or a counted thing: they change the number, or doubt it."""
_HAN_MULTIPLIER = re.compile("[十百千万萬亿億兆]")
_LATEX = re.compile(r"\\(?:text|mathrm|mbox|rm)\b|[{}\\~]")
_POWER = re.compile(r"\s*(?:\^|\*\*)\s*\(?([23])\)?")
_SQUARE = re.compile(r"\b(square|sq\.?|cubic|平方|立方)\s*(\S+)|(平方|立方)(\S+)", re.IGNORECASE)
_SQUARED = re.compile(r"(\S+)\s+(squared|cubed)\b", re.IGNORECASE)
_SHAPE = re.compile(r"[^\W\d_%°$€£¥]+[23]?(?:\s*[/·*]\s*[^\W\d_]+[23]?)*|[%°$€£¥₹¢][CFcf]?")
_OPERATOR = re.compile(r"[/·*]")
_MIN_PLURAL = 4


def _tables() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Symbols by their exact spelling, words by their lower case, and symbols that any case can only mean."""
    symbols: dict[str, str] = {}
    names: dict[str, str] = {}
    for base, prefixes, *words in map(str.split, _SI.strip().splitlines()):
        for prefix in ("", *prefixes.strip("-")):
            symbols[prefix + base] = prefix + base
            names |= {_PREFIXES.get(prefix, "") + word: prefix + base for word in words}
    for unit, others, *words in map(str.split, _OTHERS.strip().splitlines()):
        symbols |= dict.fromkeys([unit, *others.strip("-").split(",")], unit)
        names |= dict.fromkeys(words, unit)
    symbols.pop("", None)
    # `KG` can only be kg, `MS` could be ms or mS: read in any case only where one unit is possible.
    meant = defaultdict(set)
    for symbol, unit in symbols.items():
        meant[symbol.casefold()].add(unit)
    sure = {folded: units.pop() for folded, units in meant.items() if len(units) == 1 and len(folded) > 1}
    return symbols, names, sure


_SYMBOLS, _NAMES, _ANY_CASE = _tables()
_FOLDED_SYMBOLS = frozenset(symbol.casefold() for symbol in _SYMBOLS)


def canonical_unit(text: str) -> str | None:
    r"""The canonical name of a unit or counted noun; `""` for no unit, None if it is no unit at all.

    >>> [canonical_unit(unit) for unit in ("centimeters", "cm^{2}", "red balls", "or 5", "mW", "MW")]
    ['cm', 'cm2', 'red ball', None, 'mW', 'MW']
    """
    for degree in ("^\\circ", "^{\\circ}", "\\circ"):
        text = text.replace(degree, "°")
    text = text.replace("\\%", "%")
    text = " ".join(_LATEX.sub(" " if "\\ " in text else "", text).split()).strip(" .,;()")
    if not text:
        return ""
    text = _POWER.sub(r"\1", text.replace("per cent", "percent"))
    text = _SQUARED.sub(lambda m: m.group(1) + ("2" if m.group(2)[0] in "sS" else "3"), text)
    text = re.sub(r"\s*\bper\b\s*", "/", _SQUARE.sub(_powered, text), flags=re.IGNORECASE)
    if text in _SYMBOLS:
        return _SYMBOLS[text]
    parts = text.split()
    # More than three words are a phrase, not a unit or a counted thing (`red balls`).
    if len(parts) > 3 or any(_never(part) for part in parts):
        return None
    if not all(_SHAPE.fullmatch(p) or p == "/" for p in parts):
        return None
    sides = [side.split() for side in text.replace("·", "*").split("/")]
    unit = "/".join(
        " ".join(w if w in _SYMBOLS else "*".join(map(_one, w.split("*"))) for w in side) for side in sides
    )
    return _PHRASES.get(unit, unit)


def same_unit(one: str, other: str) -> bool:
    """Whether two canonical units are one: by name, or by a habit of writing (`25 C` for `25 °C`)."""
    return one == other or {one, other} in _SAME


def _never(word: str) -> bool:
    if word in _SYMBOLS or word.casefold() in _NAMES:
        return False
    pieces = [piece.rstrip("23") for piece in _OPERATOR.split(word.casefold())]  # `5x2`, `5 not/sure`
    never = any(piece in _NEVER or _singular(piece) in _NEVER for piece in pieces)
    return never or _HAN_MULTIPLIER.match(word) is not None


def _powered(match: re.Match[str]) -> str:
    word, unit = (match.group(1), match.group(2)) if match.group(1) else (match.group(3), match.group(4))
    return f"{_one(unit)}{2 if word.lower().startswith(('sq', '平')) else 3}"


def _one(word: str) -> str:
    """Singular and canonical: `meters` -> `m`, `balls` -> `ball`, `cm2` -> `cm2`, `KG` -> `kg`."""
    if word in _SYMBOLS:
        return _SYMBOLS[word]
    stem, power = (word[:-1], word[-1]) if word.endswith(("2", "3")) else (word, "")
    folded = stem.casefold()
    # The order matters: an exact symbol before a word, a word before a symbol in another case.
    for found in (
        _SYMBOLS.get(stem),
        _NAMES.get(folded),
        _NAMES.get(_singular(folded)),
        _ANY_CASE.get(folded),
        _SYMBOLS.get(_singular(stem)),
        _ANY_CASE.get(_singular(folded)),
    ):
        if found is not None:
            return found + power
    if folded in _FOLDED_SYMBOLS:
        return stem + power  # in this case it is no symbol, and in no other case it may be read
    return (folded[:-1] if len(folded) >= _MIN_PLURAL and _singular(folded) != folded else folded) + power


def _singular(word: str) -> str:
    """Without the plural's ending: `inches` -> `inch`, `kgs` -> `kg`, `glass` -> `glass`."""
    if word.endswith(("ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
