from .load import RowCounts as RowCounts
from .load import benchmark_text as benchmark_text
from .load import count_faults as count_faults
from .load import load_benchmark as load_benchmark
from .load import packaged_benchmarks as packaged_benchmarks
