from .batch import ModelInputs as ModelInputs
from .batch import PromptBatch as PromptBatch
from .collate import Collator as Collator
from .examples import DemoStream as DemoStream
from .examples import Example as Example
from .examples import draw as draw
from .rows import read_examples as read_examples
