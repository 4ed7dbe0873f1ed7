"""A model small enough to train from scratch on a processor, for the demo world."""
