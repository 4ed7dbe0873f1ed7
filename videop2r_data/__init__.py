"""Build, check, publish and train on process-aware chain-of-thought data for video and image QA.

    import videop2r_data as p2r

    report = p2r.build("demo", "my-set")             # a recipe: packaged, a file, or its settings
    rows = p2r.load("my-set")                        # accepted traces; "rl", "rejected" are the other configs
    trace = p2r.parse_trace(rows[0]["output"])       # observation, think, answer
    p2r.score(rows[0]["problem_type"], prediction=trace.answer, reference=rows[0]["solution"])
    p2r.judge(rows[:3], by="my-set")                 # does the answer follow from the observation alone?
    p2r.look("my-set", rows[0]["sample_id"])         # question, verdicts, every call
    p2r.verify("my-set").ok

Names load at their first use. docs/python.md explains each; errors are `P2RError`s with a hint.
"""

import lazy_loader

from videop2r_data.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
