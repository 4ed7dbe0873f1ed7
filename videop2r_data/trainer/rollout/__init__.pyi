from .hf import HfEngine as HfEngine
