"""The embedded default: a task, a tokenizer, a tiny model and its cold start, on which E1 shows itself in minutes.

`python -m elastic.nano` writes an ordinary model directory and two data files; nothing else in `elastic` knows of it.
"""
