from .report import PAPER_TABLE as PAPER_TABLE
from .report import Code as Code
from .report import Finding as Finding
from .report import VerifyReport as VerifyReport
from .report import nested as nested
from .run import verify_release as verify_release
from .traces import TraceReport as TraceReport
from .traces import verify_traces as verify_traces
