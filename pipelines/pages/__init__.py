"""The pages of the site that are written by programs: `python -m pipelines.pages` (docs/howto/change_this_site.md).

What a reader looks up (settings, commands, exit codes, files, taps, public names) is read from the classes and
programs themselves, so that it cannot fall behind them.
"""
