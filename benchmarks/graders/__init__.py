"""Graders compared on labelled answers: ours, math-verify, lmms-eval's, inspect_ai's and Video-R1's."""
