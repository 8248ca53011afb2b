"""A bank of triggers: many of them in one module, applied in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from phard_hub.settings import settings
from phard_hub.triggers import generator
from phard_hub.triggers.generator import Autoencoder

Trigger = Callable[[Tensor], Tensor]
"""Pixels ``(N, C, H, W)`` in [0, 1] to pixels of the same shape and range."""


@settings
class Parts:
    """Which parts of the trigger are searched, and how fine they are.

    Attributes:
        warp: smooth displacement on a grid of ``warp_grid`` squared.
        latent: edits of an autoencoder's code, on a grid of ``latent_grid`` squared; doubles the cost.
        curve: tone curve of ``knots`` values per channel.
        colour: channel matrix.
        field: additive image of ``field_grid`` squared, or of the image's size where that is smaller.
    """

    warp: bool = True
    latent: bool = False
    curve: bool = True
    colour: bool = True
    field: bool = True
    warp_grid: PositiveInt = 8
    latent_grid: PositiveInt = 8
    knots: Annotated[int, Field(ge=2)] = 64
    field_grid: PositiveInt = 32

    def can(self, kind: str) -> bool:
        """Whether these parts can make a change of this kind as well as any."""
        only = self.only(kind)
        return all(getattr(self, name) for name in _SWITCHES if getattr(only, name))

    def only(self, kind: str) -> Parts:
        """The parts that make changes of one kind, as fine as these."""
        return replace(self, **{name: made == kind for name, made in _SWITCHES.items()})

    def shapes(self, channels: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of one trigger for images of this shape."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.warp:
            shapes["flow"] = (2, self.warp_grid, self.warp_grid)
        if self.latent:
            grid = (Autoencoder.width, self.latent_grid, self.latent_grid)
            shapes |= {"shift": grid[:1], "scale": grid[:1], "gain": grid, "bias": grid}
        if self.curve:
            shapes["knots"] = (channels, self.knots)
        if self.colour:
            shapes["matrix"] = (channels, channels)
        if self.field:
            shapes["values"] = (channels, min(self.field_grid, height), min(self.field_grid, width))
        return shapes


_SWITCHES = {"warp": "warp", "latent": "latent", "curve": "colour", "colour": "colour", "field": "field"}

KIND_OF = {
    "flow": "warp",
    "shift": "latent",
    "scale": "latent",
    "gain": "latent",
    "bias": "latent",
    "knots": "colour",
    "matrix": "colour",
    "values": "field",
}
"""What kind of change each parameter of a trigger makes."""

START = {"flow": 0.01, "shift": 0.05, "scale": 0.05, "gain": 0.05, "bias": 0.05}
"""Spread of the random start; the pixel parts start ten times closer to the identity."""


class Triggers(nn.Module):
    """Many triggers in one module, whose parameters have a leading axis over them.

    ``pace`` is the share of a search's learning rate that suits the parameters.
    """

    pace = 1.0

    def __len__(self) -> int:
        """The number of triggers."""
        return int(next(self.parameters()).shape[0])

    def only(self, kinds: Sequence[str]) -> None:
        """Leave each trigger what its kind may use; here there is only one kind."""

    def grows(self, name: str) -> bool:
        """Whether this parameter is what the strength of a trigger multiplies."""
        del name
        return True

    @torch.no_grad()
    def take(self, other: Triggers, rows: Tensor, strength: Tensor) -> None:
        """Copy these rows ``(P,)`` (bool) of a module of the same kind, scaled by ``strength (P,)``."""
        for (name, mine), theirs in zip(self.named_parameters(), other.parameters(), strict=True):
            shape = (-1, *[1] * (mine.dim() - 1))
            scale = strength.to(theirs).view(shape) if self.grows(name) else 1.0
            mine.copy_(torch.where(rows.to(mine.device).view(shape), theirs * scale, mine))


class Bank(Triggers):
    """``size`` triggers in one module; image i of a batch is stamped with the trigger that ``index[i]`` names.

    The parameters have a leading axis over the triggers, so that a single forward and backward pass serves
    all of them. That is what makes searching every class pair at once affordable.
    """

    def __init__(
        self,
        size: int,
        image_shape: tuple[int, int, int],
        parts: Parts | None = None,
        *,
        autoencoder: Autoencoder | None = None,
    ) -> None:
        """Start at the identity; ``image_shape`` is (C, H, W).

        Raises:
            ValueError: the latent part is asked for without an autoencoder.
        """
        super().__init__()
        self.parts = parts or Parts()
        self.image_shape = image_shape
        if self.parts.latent and autoencoder is None:
            raise ValueError("The latent part needs an autoencoder: see triggers.autoencoder.train_autoencoder.")
        # In a tuple, the autoencoder is no submodule: it is frozen and shared between banks.
        self._autoencoder = (autoencoder,)
        for name, shape in self.parts.shapes(*image_shape).items():
            self.register_parameter(name, nn.Parameter(torch.zeros(size, *shape)))
        self._using: dict[str, Tensor] = {}

    def randomise(self, seed: int) -> Bank:
        """Start each trigger a little off the identity, where symmetric parts would stall; returns itself."""
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                noise = torch.randn(parameter.shape, generator=source)
                parameter.copy_(START.get(name, 0.005) * noise)
        return self

    def first(self, count: int) -> Bank:
        """The first so many triggers, in a bank of their own."""
        (autoencoder,) = self._autoencoder
        bank = Bank(count, self.image_shape, self.parts, autoencoder=autoencoder).to(next(self.parameters()).device)
        bank.load_state_dict({name: value[:count] for name, value in self.state_dict().items()})
        return bank

    @torch.no_grad()
    def only(self, kinds: Sequence[str]) -> None:
        """Leave each trigger the parts of its kind, or all for ``""``; the others are zero and get no gradient."""
        for name, parameter in self.named_parameters():
            using = torch.tensor([kind in ("", KIND_OF[name]) for kind in kinds], device=parameter.device)
            parameter.mul_(using.view(-1, *[1] * (parameter.dim() - 1)))
            if not using.all():
                self._using[name] = using

    @property
    def autoencoder(self) -> Autoencoder | None:
        """What the latent part edits the code of; no parameter of the bank."""
        return self._autoencoder[0]

    @property
    def parameter_names(self) -> list[str]:
        """What the columns of a two-dimensional strength stand for."""
        return [name for name, _ in self.named_parameters()]

    def forward(self, pixels: Tensor, index: Tensor, strength: Tensor | None = None) -> Tensor:
        """Stamp images.

        Args:
            pixels: ``(N, C, H, W)`` in [0, 1].
            index: ``(N,)``, the trigger for each image; or ``(N, m)``, the triggers whose parameters are
                added up for it, -1 for none.
            strength: ``(N,)``, scales the parameters; 0 is the identity, 1 (default) the trigger. With
                ``(N, parameters)`` each parameter has its own, so that parts can be switched off.
        """
        chosen: dict[str, Tensor] = {}
        for column, (name, parameter) in enumerate(self.named_parameters()):
            rows = parameter[index] if index.dim() == 1 else _added(parameter, index)
            if strength is not None:
                scale = strength if strength.dim() == 1 else strength[:, column]
                rows = rows * scale.view(-1, *[1] * (rows.dim() - 1))
            chosen[name] = rows

        out = pixels
        for names, change in self._changes.items():
            if names[0] in chosen:
                out = self._changed(out, index, {name: chosen[name] for name in names}, change)
        return out.clamp(0, 1)

    @property
    def _changes(self) -> dict[tuple[str, ...], Callable[..., Tensor]]:
        """The parts in the order in which they change pixels, by the names of their parameters."""
        return {
            ("flow",): generator.warp,
            ("shift", "scale", "gain", "bias"): self._edit_code,
            ("knots",): generator.tone_curve,
            ("matrix",): generator.colour,
            ("values",): generator.field,
        }

    def _changed(
        self, pixels: Tensor, index: Tensor, values: dict[str, Tensor], change: Callable[..., Tensor]
    ) -> Tensor:
        """Pixels after one part, which leaves those alone that it would not change: at zero it is the identity."""
        if torch.is_grad_enabled():
            using = self._using.get(next(iter(values)))
            changed = None if using is None or index.dim() > 1 else using[index]
        else:
            changed = torch.stack([each.flatten(1).any(1) for each in values.values()]).any(0)
        if changed is None or changed.all():
            return change(pixels, *values.values())
        if not changed.any():
            return pixels
        out = pixels.clone()
        out[changed] = change(pixels[changed], *(each[changed] for each in values.values()))
        return out

    def _edit_code(self, pixels: Tensor, *edits: Tensor) -> Tensor:
        autoencoder = self.autoencoder
        assert autoencoder is not None
        code = autoencoder.encoder(pixels)
        edited = autoencoder.decode(generator.transform_code(code, *edits), pixels)
        return pixels + (edited - autoencoder.decode(code, pixels))

    def trigger(self, number: int, strength: float = 1.0) -> Trigger:
        """One trigger of the bank as a function on pixels."""

        @torch.no_grad()
        def stamp(pixels: Tensor) -> Tensor:
            index = torch.full((len(pixels),), number, device=pixels.device)
            stamped: Tensor = self(pixels, index, torch.full((len(pixels),), strength, device=pixels.device))
            return stamped

        return stamp

    def settings(self) -> dict[str, Any]:
        """The parts as plain values, for the report."""
        return asdict(self.parts)


def _added(parameter: Tensor, index: Tensor) -> Tensor:
    """Sum of the named rows, skipping -1."""
    used = (index >= 0).view(*index.shape, *[1] * (parameter.dim() - 1))
    return torch.sum(parameter[index.clamp(min=0)] * used, dim=1)


def finite(gradient: Tensor) -> Tensor:
    """A gradient for a bank; where it overflowed, as it does behind enormous weights, a trigger stays as it is."""
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def at_size(stamp: Callable[[Tensor], Tensor], pixels: Tensor, size: Tensor) -> Tensor:
    """Stamp images so that they change by about this much, or as much as their triggers can.

    Args:
        stamp: from strengths ``(N,)`` in [0, 1] to stamped pixels.
        pixels: ``(N, C, H, W)``, what is stamped.
        size: L2 norm of the wanted changes ``(N,)``.
    """
    full = change_size(stamp(torch.ones_like(size)), pixels)
    return stamp((size / full.clamp(min=1e-6)).clamp(max=1))


def change_size(stamped: Tensor, pixels: Tensor) -> Tensor:
    """L2 norm of each image's change, ``(N,)``, pixels in [0, 1]; its gradient is 0 where nothing changed."""
    squared = (stamped - pixels).flatten(1).square().sum(1)
    changed = squared > 0
    return torch.where(changed, torch.where(changed, squared, torch.ones_like(squared)).sqrt(), squared)


def grey_level(image_shape: tuple[int, int, int]) -> float:
    """L2 norm of a change by one grey level (of 255, RMS) in images of this shape (C, H, W), pixels in [0, 1]."""
    return math.sqrt(math.prod(image_shape)) / 255
