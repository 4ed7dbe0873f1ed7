from .plot import plot_runs as plot_runs
from .samples import colour as colour
from .samples import pick as pick
from .samples import read_samples as read_samples
from .samples import render_samples as render_samples
