"""The embedded tasks, each with a tiny model and its cold start, on which methods show themselves in minutes.

`python -m elastic.nano` writes an ordinary model directory and two data files; nothing else in `elastic` knows of it.
"""
