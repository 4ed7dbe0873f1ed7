"""Near copies: what the package finds beside two MinHash libraries, on texts with planted copies.

    python -m benchmarks.near_copies --library ours|datasketch|rensa [--texts 20000] [--equal 0] [--json FILE]

Random texts of 60 words; one in ten is a copy of another with one to six words changed. Their exact Jaccard
similarity over shingles of three words is known: recall and precision of "0.8 or more" are counted per row.
`--equal` adds so many texts that are all the same. The libraries are no dependencies: install them beside.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import record

HASHES, BANDS, LEVEL = 64, 16, 0.8
_WORD = re.compile(r"\w+")


def shingles(text: str) -> set[str]:
    """The runs of three words of a text."""
    words = _WORD.findall(text.lower())
    return {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def made(count: int, equal: int, seed: int) -> tuple[list[str], set[int]]:
    """Texts, and the rows whose exact similarity to another one is 0.8 or more."""
    rng = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(5000)]
    texts: list[str] = []
    true: set[int] = set()
    while len(texts) < count:
        words = rng.choices(vocabulary, k=60)
        texts.append(" ".join(words))
        if rng.random() < 0.1:
            for at in rng.sample(range(60), rng.randint(1, 6)):
                words[at] = f"x{rng.randrange(10**6)}"
            texts.append(" ".join(words))
            left, right = shingles(texts[-2]), shingles(texts[-1])
            if len(left & right) / len(left | right) >= LEVEL:
                true |= {len(texts) - 2, len(texts) - 1}
    true |= set(range(len(texts), len(texts) + equal))
    return [*texts, *(["the red ball moves to the left and the blue one stays"] * equal)], true


def ours(texts: list[str]) -> set[int]:
    """Rows with a near copy, as the figures find them."""
    import numpy as np

    from videop2r_data.cards.figures import copies

    column = copies.MinHashes()
    for row, text in enumerate(texts):
        column.add(row, text)
    column._hash()
    signatures, exact = np.concatenate(column._signatures), np.concatenate(column._exact)
    best, _ = copies._compare(signatures, np.zeros(len(exact), np.uint64), exact)
    return set(np.concatenate(column._rows)[best >= LEVEL - 1e-6].tolist())


def datasketch(texts: list[str]) -> set[int]:
    """Rows with a near copy, as datasketch finds them."""
    from datasketch import MinHash, MinHashLSH

    def signature(text: str) -> Any:
        made = MinHash(num_perm=HASHES, seed=0)
        made.update_batch([shingle.encode() for shingle in shingles(text)])
        return made

    return _queried(MinHashLSH(num_perm=HASHES, params=(BANDS, HASHES // BANDS)), signature, texts)


def rensa(texts: list[str]) -> set[int]:
    """Rows with a near copy, as rensa finds them."""
    from rensa import RMinHash, RMinHashLSH

    def signature(text: str) -> Any:
        made = RMinHash(HASHES, 0)
        made.update(sorted(shingles(text)))
        return made

    return _queried(RMinHashLSH(LEVEL, HASHES, BANDS), signature, texts)


def _queried(index: Any, signature: Callable[[str], Any], texts: Iterable[str]) -> set[int]:
    kept = [signature(text) for text in texts]
    for row, one in enumerate(kept):
        index.insert(row, one)
    return {
        row
        for row, one in enumerate(kept)
        if any(other != row and one.jaccard(kept[other]) >= LEVEL for other in index.query(one))
    }


def main() -> None:
    """Find planted near copies with one library; print recall, precision, CPU and memory as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", choices=("ours", "datasketch", "rensa"), default="ours")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--equal", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    record.add_option(parser)
    chosen = parser.parse_args()
    texts, true = made(chosen.texts, chosen.equal, chosen.seed)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found: set[int] = {"ours": ours, "datasketch": datasketch, "rensa": rensa}[chosen.library](texts)
    result = {
        "library": chosen.library,
        "texts": len(texts),
        "true": len(true),
        "recall": round(len(true & found) / len(true), 4),
        "precision": round(len(true & found) / max(1, len(found)), 4),
        "cpu_s": round(time.process_time() - start, 1),
        "peak_mb_above_texts": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
    }
    print(json.dumps(result))
    name = "near_copies" if chosen.library == "ours" else f"near_copies_{chosen.library}"
    record.save(chosen, name, result, packages=["numpy", *({chosen.library} & {"datasketch", "rensa"})])


if __name__ == "__main__":
    main()
