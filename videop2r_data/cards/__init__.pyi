from .card import write_dataset_card as write_dataset_card
from .card import write_model_card as write_model_card
from .figures import compute_stats as compute_stats
from .figures import make_figures as make_figures
from .gallery import make_gallery as make_gallery
from .gallery import write_gallery as write_gallery
from .hub import pull_dataset as pull_dataset
from .hub import push_dataset as push_dataset
