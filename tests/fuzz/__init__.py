"""Fuzzing: what strangers write, in every place where this package reads it.

One module per target, `run.py` for the long runs (`make fuzz`), `test_corpus.py` for what the test suite
replays. A target fails where an input raises anything but the documented error, breaks an invariant, or
costs more time or memory than its bounds.
"""
