"""Reading, converting, writing and refusing checkpoints, and the folders of runs."""
