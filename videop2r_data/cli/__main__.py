"""`python -m videop2r_data.cli` is `p2r-data`."""

from videop2r_data.cli.entry import data

data()
