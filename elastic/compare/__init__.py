"""Methods of training side by side: `python -m elastic.compare` trains, evaluates and compares them."""
