"""Training and evaluation on a built data set: SFT, PA-GRPO and its ablations; what `p2r-train` runs.

A recipe (`load_train_recipe`) goes into `train`; metrics, samples, checkpoints and the model end in the run's
folder. Importing this loads neither torch nor transformers.

    settings   every setting, as typed records
    data       questions of a data set as model inputs
    model      the policy and the reference: loading, the forward pass, saving
    rollout    completions drawn from the policy
    judging    verdicts on observations
    process    masks, rewards, advantages, loss: pure functions
    memory     what a run takes, counted before it starts; out of memory, explained
    run        the loops of SFT and RL, checkpoints, logs
    evaluate   a checkpoint on held-out questions
    look       curves and samples of a run
    tiny       a tiny model of the demo world, for trying out
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
