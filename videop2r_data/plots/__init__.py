"""Colours and helpers that every figure shares, whether it shows a data set or a training run."""
