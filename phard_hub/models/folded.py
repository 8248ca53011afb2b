"""A copy of a classifier that gives the same answers sooner, for work in which it does not learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.nn.utils.fusion import fuse_conv_bn_weights

from phard_hub.models.classifier import Classifier

_TOLERANCE = 1e-3
"""By how much a logit of the copy may differ, as a share of the largest one."""


@torch.no_grad()
def folded(classifier: Classifier, pixels: Tensor) -> Classifier:
    """A frozen copy in evaluation mode: each batch norm is folded into the convolution before it.

    Which convolution that is, and whether the copy then answers as the classifier does, is seen on the given images.
    Where it does not, the copy is not folded.

    Args:
        classifier: in any mode; it is left as it was.
        pixels: some images ``(N, C, H, W)`` in [0, 1], where the classifier is.
    """
    plain = classifier.clone().eval().requires_grad_(False)
    copy = plain.clone()
    for convolution, norm in _followed(copy, pixels):
        _fold(copy, convolution, norm)
    convert_conv2d_weight_memory_format(copy.requires_grad_(False), torch.channels_last)
    answers, wanted = copy(pixels), plain(pixels)
    return copy if (answers - wanted).abs().max() <= _TOLERANCE * wanted.abs().max() else plain


def _followed(classifier: Classifier, pixels: Tensor) -> list[tuple[str, str]]:
    """The names of each convolution and of the batch norm that gets what it gave, if both are used only once."""
    given: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []
    used: list[str] = []

    def gave(name: str, output: Tensor) -> None:
        used.append(name)
        given.append((name, output))

    def got(name: str, values: Tensor) -> None:
        used.append(name)
        pairs.extend((convolution, name) for convolution, output in given if output is values)

    handles = []
    for name, module in classifier.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(lambda _module, _inputs, output, name=name: gave(name, output)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(lambda _module, inputs, name=name: got(name, inputs[0])))
    classifier(pixels)
    for handle in handles:
        handle.remove()
    return [pair for pair in pairs if all(used.count(name) == 1 for name in pair)]


def _fold(classifier: Classifier, convolution: str, norm: str) -> None:
    before, after = classifier.get_submodule(convolution), classifier.get_submodule(norm)
    assert isinstance(before, nn.Conv2d)
    assert isinstance(after, nn.BatchNorm2d)
    assert after.running_mean is not None
    assert after.running_var is not None
    before.weight, before.bias = fuse_conv_bn_weights(
        before.weight, before.bias, after.running_mean, after.running_var, after.eps, after.weight, after.bias
    )
    # Those of timm hold an activation as well.
    kept = [module for name, module in after.named_children() if name in ("drop", "act")]
    classifier.set_submodule(norm, nn.Sequential(*kept))
