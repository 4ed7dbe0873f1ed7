"""The programs `p2r-data` and `p2r-train`: parse the command line, call the rooms, print, set the exit code.

`entry` starts a program, `main` and `train` hold the commands. Nothing else in the package prints. Modules
import light things alone at the top: a command imports the rooms when it runs, so that `--help` is quick.
"""
