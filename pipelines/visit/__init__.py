"""A visit to a machine that is lent for minutes: measure, train what is next, bring everything home.

    python -m pipelines.visit --seconds 560 --out $OUT             on that machine
    python -m pipelines.visit.bring_home FOLDER                    here, with what came back

It needs nothing but the tree and the data files. Every phase is a process of its own with a limit
(`processes`), what is known is written after each, and training is stopped in time to bring the state
home in at most eight files below 16 MiB (`parcel`), from which the next visit goes on.
"""
