"""Elastic: train and measure reasoning models that think within a token budget (E1, arXiv 2505.05315)."""
