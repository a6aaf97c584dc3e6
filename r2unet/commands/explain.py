"""`r2unet explain`: draw the features that a network computes from an image."""

from __future__ import annotations

import argparse

from minidl.backend import resolve_device
from r2unet.commands.messages import (
    DISCLAIMER,
    explain_memory_error,
    memory_remedy,
    print_licence,
    warn_uncalibrated,
)
from r2unet.commands.options import add_checkpoint, add_device, add_size
from r2unet.commands.values import given_path, picture
from r2unet.commands.workers import load_network
from r2unet.data.classes import CLASSES
from r2unet.errors import visible
from r2unet.files import check_outputs, check_writable
from r2unet.training.calibrate import correction
from r2unet.training.export import check_multiple

HELP = "draw the features that the network computes from an image, and what drove its diagnosis"
DETAILS = (
    "The figure shows features of every encoder level, of every step of the first recurrent convolution, and "
    "of the inputs and the output of every decoder block. If the network has a diagnosis, it also shows the "
    f"evidence for the most probable classes, and the mask as the diagnosis head sees it. {DISCLAIMER}"
)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("image", type=given_path, metavar="IMAGE", help="an image of any size")
    add_checkpoint(p)
    p.add_argument("--out", required=True, type=picture, metavar="F.png", help="the figure to write")
    add_size(p)
    add_device(p)


def run(options: argparse.Namespace) -> int:
    from r2unet.prediction.explain import explain, plot_explanation
    from r2unet.prediction.photographs import read_photograph

    device = resolve_device(options.device)
    check_writable("--out", options.out.parent)
    check_outputs("--out", [options.out], [options.image, options.checkpoint])
    model, settings, state = load_network(options)
    check_multiple(settings.size, settings.multiple)  # no pixels are added at the border
    classes = CLASSES[settings.classes]
    print_licence(state)
    warn_uncalibrated(options.checkpoint, settings, state)
    option = f"--checkpoint {options.checkpoint}"
    with explain_memory_error(option, 1, settings.size, device, memory_remedy(device)):
        explanation = explain(
            model.to(device),
            read_photograph(options.image),
            settings.size,
            device,
            classes,
            correction(state, tta=False),
        )
        plot_explanation(explanation, options.out)
    print(visible(f"the figure is in {options.out}"))
    return 0
