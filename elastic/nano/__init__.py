"""The embedded tasks, each with a tiny model and its cold start, on which methods show themselves in minutes.

`python -m elastic.nano` writes an ordinary model directory and two data files; of the rest of
`elastic`, only `elastic.compare` knows of it, and runs it.
"""
