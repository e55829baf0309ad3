"""The commands of `scae`, one file each."""
