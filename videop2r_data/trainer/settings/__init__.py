"""Every setting of training and evaluation as typed records; a recipe loads neither torch nor vLLM."""
