"""DRN-D and pyramid pooling as plain PyTorch modules, from their published architecture, for comparison alone."""

import torch
import torch.nn.functional as F
from torch import nn

REPEATS = {"drn_d_22": (1, 1, 1, 2, 2, 2, 2, 1, 1), "drn_d_105": (1, 1, 1, 3, 4, 23, 3, 1, 1)}
WIDTHS = (16, 16, 32, 64, 128, 256, 512, 512, 512)
STRIDES = (1, 1, 2, 2, 2, 1, 1, 1, 1)
DILATIONS = (1, 1, 1, 1, 1, 2, 4, 2, 1)


def conv(channels_in, channels, kernel, stride=1, dilation=1):
    return nn.Conv2d(channels_in, channels, kernel, stride, dilation * (kernel // 2), dilation, bias=False)


class Residual(nn.Module):
    def __init__(self, channels_in, width, bottleneck, stride, dilation):
        super().__init__()
        channels = width * (4 if bottleneck else 1)
        if bottleneck:
            convs = [conv(channels_in, width, 1), conv(width, width, 3, stride, dilation), conv(width, channels, 1)]
        else:
            convs = [conv(channels_in, width, 3, stride, dilation), conv(width, width, 3, 1, dilation)]
        self.count = len(convs)
        for i, c in enumerate(convs, start=1):
            setattr(self, f"conv{i}", c)
            setattr(self, f"bn{i}", nn.BatchNorm2d(c.out_channels))
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = F.relu(y)
        return F.relu(y + self.downsample(x))


class TorchDRN(nn.Module):
    """`forward` gives the outputs of layers 0 to 8; the names are those of the published files."""

    def __init__(self, bottleneck, repeats, widths=WIDTHS):
        super().__init__()
        channels = 3
        for i, (count, width, stride, dilation) in enumerate(zip(repeats, widths, STRIDES, DILATIONS, strict=True)):
            blocks = []
            for repeat in range(count):
                step = stride if repeat == 0 else 1
                if 3 <= i <= 6:
                    blocks.append(Residual(channels, width, bottleneck, step, dilation))
                    channels = width * (4 if bottleneck else 1)
                else:
                    kernel = 7 if i == 0 else 3
                    blocks += [conv(channels, width, kernel, step, dilation), nn.BatchNorm2d(width), nn.ReLU()]
                    channels = width
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Conv2d(channels, 1000, 1)

    def forward(self, x):
        outputs = []
        for i in range(9):
            x = getattr(self, f"layer{i}")(x)
            outputs.append(x)
        return outputs


class TorchPyramidPooling(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(cells), nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            for cells in (1, 2, 3, 6)
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(channels + 4 * width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, x):
        pooled = [
            F.interpolate(branch(x), x.shape[2:], mode="bilinear", align_corners=True) for branch in self.branches
        ]
        return self.fuse(torch.cat([x, *pooled], dim=1))
