"""A small convolutional network: a baseline that shows whether a pixel task can be learnt at all."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three stages of two 3x3 convolutions, each halving the image, and a linear classifier.

    Args:
        side: height and width of the image; a multiple of 8.
        num_classes: classes of the task.
        width: channels of the first stage; the next ones have twice and four times as many.
    """

    version = 1

    def __init__(self, *, side: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        if side % 8:
            raise ValueError(f"side must be a multiple of 8. Got {side}.")
        self.side = side
        stages: list[nn.Module] = []
        in_channels = 1
        for channels in (width, 2 * width, 4 * width):
            for inputs in (in_channels, channels):
                stages += [
                    nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                ]
            stages.append(nn.MaxPool2d(2))
            in_channels = channels
        self.stages = nn.Sequential(*stages)
        # The head sees 4 x 4 regions apart, since Pathfinder asks where a contour ends.
        self.head = nn.Linear(in_channels * 16, num_classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Classify grey levels (B, 1, side * side); the mask is all True and is not needed."""
        image = tokens.view(-1, 1, self.side, self.side).float() / 127.5 - 1
        return self.head(F.adaptive_avg_pool2d(self.stages(image), 4).flatten(1))
