"""The synthetic world: exact scenes, questions of every type, traces with planted defects, an exact judge.

Everything that comes from here is synthetic and says so. Media libraries are loaded when files are written.
"""

from videop2r_data.demo.backend import MODEL, DemoBackend
from videop2r_data.demo.question import (
    TEMPLATE_DEFECTS,
    Defect,
    Question,
    SceneSample,
    applicable,
    expected_rejection,
)
from videop2r_data.demo.render import render_frames
from videop2r_data.demo.report import DemoReport, evaluate
from videop2r_data.demo.scene import EXACT_MEAN, ZERO, Scene
from videop2r_data.demo.statements import observation_is_sufficient
from videop2r_data.demo.traces import write_trace
from videop2r_data.demo.world import iter_scenes, read_world, write_world

__all__ = [
    "EXACT_MEAN",
    "MODEL",
    "TEMPLATE_DEFECTS",
    "ZERO",
    "Defect",
    "DemoBackend",
    "DemoReport",
    "Question",
    "Scene",
    "SceneSample",
    "applicable",
    "evaluate",
    "expected_rejection",
    "iter_scenes",
    "observation_is_sufficient",
    "read_world",
    "render_frames",
    "write_trace",
    "write_world",
]
