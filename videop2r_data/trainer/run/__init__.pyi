from .rl import run_rl as run_rl
from .session import open_session as open_session
from .sft import run_sft as run_sft
