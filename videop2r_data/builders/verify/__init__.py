"""Hold a released data set against itself, its lock, its card and the scorers."""

from videop2r_data.builders.verify.report import Code, Finding, PaperDifference, Place, VerifyReport
from videop2r_data.builders.verify.run import verify_release

__all__ = ["Code", "Finding", "PaperDifference", "Place", "VerifyReport", "verify_release"]
