"""What several processes have to do together when they train: batch norm, and weights that no answer depends on.

Batch norm normalises each image by the others of its batch. Where a batch is divided over processes, each would see
its own part alone, and two processes would train another model than one does. So sums are brought together in the
forward pass, and their gradients in the backward pass, on any device, as `torch.nn.SyncBatchNorm` does it on GPUs; it
is done where the function is called, so no module is changed, and those of any library take part.

In six steps of a small convolutional network, weights of one process and of two came to differ by 2e-7 at most, and by
8e-3 where each process normalised its own part. Multiplied in bf16, sums of another order are rounded far more roughly,
and weights differ by 1e-4 (a ViT) to 6e-3 (a ResNet) after twelve steps, whatever is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from phard_hub.models.classifier import Classifier
from phard_hub.models.parts import inside_of_a_part

_BATCH_NORM = signature(functional.batch_norm)


def without_unused(classifier: Classifier, pixels: Tensor) -> None:
    """Parameters that answers do not depend on ask for no gradient any more, or processes would wait for it for ever.

    Some networks have such: DINOv2 has a token for masked patches, which only its pre-training saw.
    """
    parameters = [each for each in classifier.parameters() if each.requires_grad]
    training = classifier.training
    logits = classifier.eval()(pixels)
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(logits.sum(), parameters, allow_unused=True), strict=True
    ):
        parameter.requires_grad_(gradient is not None)
    classifier.train(training)


def batch_norm_over_all(accelerator: Accelerator) -> AbstractContextManager[Any]:
    """Inside, batch norm that trains sees the images of all processes, which have to do the same at the same time."""
    return nullcontext() if accelerator.num_processes == 1 else _OverAll(accelerator)


class _OverAll(TorchFunctionMode):
    """Takes the place of the function that all modules of batch norm call."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self.accelerator = accelerator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function gives
        if func is functional.batch_norm and not inside_of_a_part():
            given = _BATCH_NORM.bind(*args, **(kwargs or {}))
            given.apply_defaults()
            if given.arguments["training"]:
                return self._normalised(**given.arguments)
        return func(*args, **(kwargs or {}))

    def _normalised(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,  # noqa: ARG002
        momentum: float,
        eps: float,
    ) -> Tensor:
        values = input.float()
        over = [0, *range(2, values.dim())]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        here = values.new_tensor([values.numel() / values.shape[1]])
        count, total = self._sum(torch.cat([here, values.sum(over)])).tensor_split([1])
        mean = total / count
        centred = values - mean.view(shape)
        variance = self._sum(centred.square().sum(over)) / count
        with torch.no_grad():
            if running_mean is not None and running_var is not None:
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        normalised = centred * scale.view(shape)
        return (normalised if bias is None else normalised + bias.view(shape)).to(input.dtype)

    def _sum(self, values: Tensor) -> Tensor:
        result: Tensor = _Sum.apply(values, self.accelerator)  # type: ignore[no-untyped-call]
        return result


class _Sum(torch.autograd.Function):
    """The sum over all processes; each adds to the losses of all, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, accelerator: Accelerator) -> Tensor:  # noqa: ANN401 - torch's
        ctx.accelerator = accelerator
        result: Tensor = accelerator.reduce(values, "sum")
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        return _Sum.apply(gradients[0], ctx.accelerator), None  # type: ignore[no-untyped-call]
