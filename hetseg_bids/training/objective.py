"""What a training step makes smaller: the system's loss and 1 - Dice, of labels and lessons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hetseg_bids.training.losses import soft_dice_loss
from hetseg_bids.training.teaching import teaching_losses

_Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """The two losses of a batch.

    Attributes
    ----------
    plain, system : callable
        Losses of each pixel and task.
    membership : (ids, T) tensor
        Which ids count as which task.
    parts : int
        How many tasks, the last ones, are parts, which labels alone teach.
    """

    plain: _Loss
    system: _Loss
    membership: Tensor
    parts: int = 0

    def __call__(
        self,
        levels: tuple[Tensor, ...],
        labels: Tensor,
        kept: Tensor | None,
        lesson: tuple[Tensor, Tensor] | None,
        warm: bool,
    ) -> Tensor:
        """Mean loss of the system, and 1 - soft Dice: (2,) tensor.

        Parameters
        ----------
        levels : tuple of (B, outputs, H, W) tensors
            See `HetsegNet.forward_training`.
        labels : (B, H, W) uint8 tensor
            aseg ids.
        kept : (B, T, H, W) or (B, T, 1, 1) bool tensor, or None
            Labels that count.
        lesson : tuple of (B, H, W, 2 S) uint8 and (B,) float tensor, or None
            The teacher's maps, and the share of a slice's loss that they have.
        warm : bool
            Whether the plain loss takes the place of the system's.
        """
        # each coarser level has half the weight of the one before; the weights sum to 1
        shares = [0.5**i for i in range(len(levels))]
        losses = []
        for share, output in zip(shares, levels, strict=True):
            # between the pixels at which strided convolutions are centred
            step = labels.shape[-1] // output.shape[-1]
            seen = None if kept is None else kept[..., ::step, ::step].float()
            known = None if lesson is None else (lesson[0][:, ::step, ::step], lesson[1])
            output = output.float()
            # (B, H, W, T) viewed as (B, T, H, W): the memory order of the logits
            targets = self.membership[labels[..., ::step, ::step].int()].permute(0, 3, 1, 2)
            loss = self._losses_of(output, targets.float(), seen, known, warm)
            losses.append(share / sum(shares) * loss)
        return torch.stack(losses).sum(0)

    def _losses_of(
        self,
        output: Tensor,
        targets: Tensor,
        weight: Tensor | None,
        lesson: tuple[Tensor, Tensor] | None,
        warm: bool,
    ) -> Tensor:
        elementwise = (self.plain if warm else self.system)(output, targets)
        told, tasks = output.new_zeros(()), targets.shape[1]
        counted: slice | list[int] = slice(tasks)
        if lesson is not None:
            share = lesson[1].view(-1, 1, 1, 1)
            losses, probability = teaching_losses(output, lesson[0])
            told = (share * losses).mean()
            taught, parts = losses.shape[1], slice(tasks - self.parts, tasks)
            learned = torch.lerp(targets[:, :taught], (probability > 0.5).float(), share)
            # a teacher knows nothing of the auxiliary tasks
            targets = torch.cat((learned, targets[:, parts]), dim=1)
            counted = [*range(taught), *range(tasks)[parts]] if self.parts else slice(taught)
            own = (1 - share).repeat(1, tasks, 1, 1)
            own[:, parts] = 1
            elementwise = own * elementwise
        if weight is None:
            system = elementwise.mean()
        else:
            weights = weight.expand_as(elementwise)
            system = (elementwise * weights).sum() / weights.sum().clamp_min(1)
        seen = None if weight is None else weight[:, counted]
        dice = soft_dice_loss(output[:, counted], targets, seen)
        return torch.stack((system + told, dice))
