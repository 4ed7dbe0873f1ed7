from .base import PoolDigest as PoolDigest
from .base import Source as Source
from .benchmark import BenchmarkSource as BenchmarkSource
from .dataset import is_hub_id as is_hub_id
from .opening import open_source as open_source
from .opening import open_sources as open_sources
from .opening import read_json_files as read_json_files
