"""A checkpoint on held-out questions: answers, perception, and whether the two agree."""
