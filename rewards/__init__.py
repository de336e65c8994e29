"""Verifiable rewards, in TRL's calling convention; independent of elastic, trl and torch."""
