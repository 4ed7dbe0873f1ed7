"""What PA-GRPO computes, as pure functions: token masks, rewards, advantages, the loss.

masks.py       a completion against the template; token ids -> weights of perception and reasoning
rewards.py     graded rollouts -> rewards of perception and reasoning, and the lengths that are paid
advantages.py  rewards -> advantages within each group -> which advantage goes to which tokens
loss.py        the clipped loss with KL, in parts that add up over micro-batches and ranks
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
