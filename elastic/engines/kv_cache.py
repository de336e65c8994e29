"""A KV cache for a decode loop whose rows come and go.

Differences from transformers' DynamicCache: a step writes in place instead of copying the whole cache to append one
column, a group's prompt is spread to its samples, and finished rows are dropped by moving others into their places.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, DynamicLayer

_SPARE_COLUMNS = 64


class GrowingLayer(DynamicLayer):
    """Keys and values [rows, heads, columns, head_dim], as views of buffers that have room for more columns."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._key_buffer = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self._value_buffer = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            capacity = max(end + _SPARE_COLUMNS, int(1.25 * end))
            self._key_buffer = _with_capacity(self._key_buffer[..., :start, :], capacity)
            self._value_buffer = _with_capacity(self._value_buffer[..., :start, :], capacity)
        self._key_buffer[..., start:end, :] = key_states
        self._value_buffer[..., start:end, :] = value_states
        self.keys, self.values = self._key_buffer[..., :end, :], self._value_buffer[..., :end, :]
        return self.keys, self.values

    def spread(self, rows: torch.Tensor) -> None:
        """Make one row of each of `rows`, repeats allowed."""
        end = self.get_seq_length()
        self._key_buffer = self._key_buffer.index_select(0, rows)
        self._value_buffer = self._value_buffer.index_select(0, rows)
        self.keys, self.values = self._key_buffer[..., :end, :], self._value_buffer[..., :end, :]

    def keep(self, count: int, holes: torch.Tensor, movers: torch.Tensor, first_column: int) -> None:
        """Keep `count` rows: the first ones, with the rows `movers` from behind them copied over the rows `holes`."""
        if len(holes):
            self.keys[holes] = self.keys[movers]
            self.values[holes] = self.values[movers]
        self._key_buffer = self._key_buffer[:count, :, first_column:]
        self._value_buffer = self._value_buffer[:count, :, first_column:]
        self.keys, self.values = self.keys[:count, :, first_column:], self.values[:count, :, first_column:]


class GrowingCache(Cache):
    """A cache of GrowingLayers, for models whose every layer attends to keys and values of its own."""

    def __init__(self):
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def spread(self, rows: torch.Tensor) -> None:
        for layer in self.layers:
            layer.spread(rows)

    def keep(self, rows: list[int], first_column: int) -> None:
        """Put row `rows[i]` into place i, without the columns before `first_column`.

        Each of `rows` is in its place already, or comes from behind the last place: so few rows are copied.
        """
        holes = [place for place, row in enumerate(rows) if place != row]
        movers = [rows[place] for place in holes]
        index_2H = torch.tensor([holes, movers], dtype=torch.long, device=self.layers[0].device)
        for layer in self.layers:
            layer.keep(len(rows), *index_2H, first_column)


def _with_capacity(old: torch.Tensor, capacity: int) -> torch.Tensor:
    new = old.new_empty((*old.shape[:2], capacity, old.shape[3]))
    new[..., : old.shape[2], :] = old
    return new
