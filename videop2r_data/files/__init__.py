"""The floor for rows on disk: what a build wrote or a pool holds, opened and read in constant memory.

Builders, cards and trainer meet through these files and share nothing else, so how a file is named, found,
opened and checked is decided here once.
"""
