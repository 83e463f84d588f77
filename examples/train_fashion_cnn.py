"""Train the example model: a small residual network on Fashion-MNIST, exported to ONNX with batch norm folded in.

``python examples/train_fashion_cnn.py --data fashion_mnist.npz --out examples`` writes ``fashion_cnn.onnx`` and
``fashion_mnist_small.npz``. The npz holds ``x_train`` (uint8 [60000, 28, 28]), ``y_train``, ``x_test`` and ``y_test``,
as in the Debian package ``dataset-fashion-mnist``. Needs PyTorch: ``pip install -c constraints.txt '.[training]' onnxscript``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; the first may halve the image."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class FashionCnn(nn.Module):
    """A residual network for 28 by 28 grey images."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            Block(width, width, 1), Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 2)
        )
        self.head = nn.Linear(2 * width, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """Images [batch, 1, 28, 28] from 0 to 1, to logits [batch, 10]."""
        return self.head(self.blocks(torch.relu(self.norm(self.stem(image)))).mean(dim=(2, 3)))


def augment(images: Tensor, chance: torch.Generator) -> Tensor:
    """Mirror half of the images, and shift each by up to two pixels."""
    mirrored = torch.rand(len(images), generator=chance) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    down, right = (int(n) for n in torch.randint(-2, 3, (2,), generator=chance))
    return torch.roll(nn.functional.pad(images, (2, 2, 2, 2)), (down, right), (2, 3))[:, :, 2:-2, 2:-2]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose class the model names."""
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True)
        )
    return right / len(labels)


def train(model: nn.Module, data: dict[str, Tensor], epochs: int, seed: int) -> None:
    """Train by SGD on a one-cycle schedule, printing the test accuracy of each epoch."""
    chance = torch.Generator().manual_seed(seed)
    images, labels, batch = data["x_train"], data["y_train"], 128
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.15, total_steps=steps, pct_start=0.25)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(images), generator=chance)
        for rows in order.split(batch)[: len(images) // batch]:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(
                    model(augment(images[rows], chance).contiguous(memory_format=torch.channels_last)), labels[rows]
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: accuracy {accuracy(model, data['x_test'], data['y_test']):.4f}", flush=True)


def fold_batch_norm(model: FashionCnn) -> FashionCnn:
    """Multiply each batch norm into the convolution before it, as inference runs them."""
    model.eval().to(memory_format=torch.contiguous_format)
    model.stem, model.norm = fuse_conv_bn_eval(model.stem, model.norm), nn.Identity()
    for block in model.blocks:
        block.conv1, block.norm1 = fuse_conv_bn_eval(block.conv1, block.norm1), nn.Identity()
        block.conv2, block.norm2 = fuse_conv_bn_eval(block.conv2, block.norm2), nn.Identity()
    return model


def export(model: FashionCnn, path: Path) -> None:
    """Write the model as one ONNX file with a free batch dimension, without traces of where it was made."""
    program = torch.onnx.export(
        fold_batch_norm(model),
        (torch.zeros(2, 1, 28, 28),),
        dynamo=True,
        opset_version=21,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:], proto.metadata_props[:], proto.graph.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def small_part(data: dict[str, npt.NDArray[np.generic]], seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """1,000 training rows (100 of each class, to calibrate on) and the first 6,000 test rows."""
    rows = np.concatenate([np.flatnonzero(data["y_train"] == label)[:100] for label in range(len(CLASSES))])
    np.random.default_rng(seed).shuffle(rows)
    return {
        "x_train": data["x_train"][rows],
        "y_train": data["y_train"][rows].astype(np.int64),
        "x_test": data["x_test"][:6000],
        "y_test": data["y_test"][:6000].astype(np.int64),
        "class_names": np.array(CLASSES),
    }


def main() -> None:
    """Train, export, and write the small dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("examples"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    arrays = {name: array for name, array in np.load(options.data).items() if name[:2] in {"x_", "y_"}}
    np.savez_compressed(options.out / "fashion_mnist_small.npz", **small_part(arrays, options.seed))
    data = {
        name: torch.from_numpy(a.astype(np.float32) / 255).unsqueeze(1)
        if name[0] == "x"
        else torch.from_numpy(a.astype(np.int64))
        for name, a in arrays.items()
    }
    model = FashionCnn().to(memory_format=torch.channels_last)
    train(model, data, options.epochs, options.seed)
    export(model, options.out / "fashion_cnn.onnx")


if __name__ == "__main__":
    main()
