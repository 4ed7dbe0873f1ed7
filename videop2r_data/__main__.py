"""`python -m videop2r_data` is `p2r-data`; `python -m videop2r_data.cli.train` is `p2r-train`."""

from videop2r_data.cli.entry import data

data()
