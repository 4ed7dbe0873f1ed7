from .full import PARTS as PARTS
from .full import guarded as guarded
from .full import said as said
from .plan import MemoryPlan as MemoryPlan
from .plan import plan_memory as plan_memory
