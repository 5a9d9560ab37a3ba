"""The steps in which K prompts are learned, each a function of tensors that `repeat` can record.

    look          rows -> source logits under the prompt as it is
    find          source logits and labels -> the mapping
    step          rows -> the prompt moves; the logits and losses before that
    first_step    the same, and between logits and losses the mapping is found: the prompt is as it was before the epoch,
                  so the first step and the mapping share their logits

The mapping that the steps read lies in one tensor, which changes in place.
"""

from __future__ import annotations

import weakref
from functools import partial

import torch
from torch import Tensor

from vpcore.networks.cohort import member_losses
from vpcore.networks.frozen import Frozen
from vpcore.networks.repeat import adam, repeat
from vpcore.prompting.fixed_prompts import Prompt
from vpcore.prompting.label_mapping import LabelMapping, target_logits


class Learner:
    """K prompts as they learn.

    Args:
        network: frozen, S source classes.
        prompt: K prompts on the network's device.
        rule: where the mapping comes from.
        mapping: what `rule.start` gave.
        images: (M, 3, h, h) uint8 training images; `labels`: (M,) target classes.
        priority: (K, T, S), for ties.
        lr: learning rate of Adam at the start.
    """

    def __init__(
        self, network: Frozen, prompt: Prompt, rule: LabelMapping, mapping: Tensor | None, images: Tensor, labels: Tensor,
        *, priority: Tensor, lr: float,
    ) -> None:  # fmt: skip
        device = self.device = network.device
        self.network, self.prompt, self.rule = network, prompt, rule
        self.images, self.labels, self.priority = images.to(device), labels.to(device), priority.to(device)
        self._mapping = None if mapping is None else mapping.to(device).requires_grad_(rule.learned)
        learned = [self.mapping] if rule.learned else []
        self.optimizer = adam([*prompt.parameters(), *learned], lr=lr, device=device, fused=False)
        # a step that held its learner would keep it, and what a GPU has recorded, until Python looks for cycles
        me = weakref.proxy(self)
        self.look = repeat(partial(Learner._look, me), device=device)
        self.find = repeat(partial(Learner._find, me), device=device, on_host=rule.on_host)
        self.step = repeat(partial(Learner._step, me), device=device)
        self.first_step = repeat(partial(Learner._first_step, me), device=device, on_host=rule.on_host)

    @property
    def mapping(self) -> Tensor:
        """(K, T) indices or (K, S + 1, T) matrices that the steps read source classes through, once there are any."""
        assert self._mapping is not None, "a mapping is found before the first step"
        return self._mapping

    def find_now(self, index: Tensor, batch: int) -> Tensor:
        """The mapping under the prompt as it is, shown (K, n) rows as in evaluation, so many at a time."""
        self.prompt.eval()
        logits = torch.cat([self.look(part) for part in index.split(batch, dim=1)], dim=1)
        return self.find(logits, self.labels[index])

    def read_through_(self, mapping: Tensor) -> None:
        """Let the steps that follow read the source classes through this mapping."""
        if self._mapping is None:
            self._mapping = mapping.clone()
        else:
            self.mapping.copy_(mapping)

    def source_logits(self, rows: Tensor, *drawn: Tensor) -> Tensor:
        """(K, n) rows of the training images, and what `Prompt.draw` gave for them -> (K, n, S)"""
        return self.network(self.prompt.views(self.images[rows].float() / 255, *drawn)).unflatten(0, rows.shape)

    def losses(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(K, n, S) source logits of rows -> (K,) mean cross-entropy of each member."""
        return member_losses(target_logits(logits, self.mapping), self.labels[rows])

    def _look(self, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.source_logits(rows)

    def _find(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.rule.update(logits, labels, self.priority)

    def _step(self, rows: Tensor, *drawn: Tensor) -> tuple[Tensor, Tensor]:
        return self._move(self.source_logits(rows, *drawn), rows)

    def _first_step(self, rows: Tensor, order: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.source_logits(rows)
        self.read_through_(self._find(torch.cat([logits.detach(), *others], dim=1), self.labels[order]))
        return self._move(logits, rows)

    def _move(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        losses = self.losses(logits, rows)
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        return logits.detach(), losses.detach()
