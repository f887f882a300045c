"""Single layers, forward and with gradients, beside PyTorch eager, Flax NNX and Equinox.

    python benchmarks/layers.py --layers lstm attention

A layer is called on an input, alone or with the gradients by input and parameters, given one by its output; compiled,
but for PyTorch. Each library runs in a process of its own and they take turns, as in workloads.py. Images are
channels-first, but for Flax, which has them channels-last. Equinox has layers of one sample, mapped over the batch.
"""

from __future__ import annotations

import argparse

from _layer_data import LAYERS, MODES
from workloads import measure, options


def main() -> None:
    """Measure every layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    options(parser)
    parser.set_defaults(seconds=0.3)
    args = parser.parse_args()
    work = [f"{layer}/{mode}" for layer in args.layers for mode in args.modes]
    titles = {f"{name}/{mode}": f"{title}: {mode}" for name, (title, _) in LAYERS.items() for mode in MODES}
    measure("layers", "_layer", titles, work, args)


if __name__ == "__main__":
    main()
