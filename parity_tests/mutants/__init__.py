"""Planted porting bugs, each a small patch to the port that the suite has to catch.

They stand under the path of the file that they patch: `mutants/core/warp.py` holds those of `port/core/warp.py`.
Among them is every deviation of the public ports that was found (field `seen`).
"""
