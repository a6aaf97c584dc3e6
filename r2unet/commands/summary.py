"""`r2unet summary`: list the layers of a network and what they cost."""

from __future__ import annotations

import argparse

import numpy as np

from r2unet.commands.messages import training_memory
from r2unet.commands.options import add_network, add_setting, settings_given
from r2unet.training.settings import Settings, new_model

HELP = "list a network's layers, receptive fields, parameters, multiply-adds and memory"
DETAILS = ""


def add_options(p: argparse.ArgumentParser) -> None:
    add_network(p)
    add_setting(p, "size", int, "N", "image size, N x N pixels")
    add_setting(p, "batch_size", int, "N", "images per training step")


def run(options: argparse.Namespace) -> int:
    from r2unet.network.summary import as_table, image_of_zeros, summarize

    settings = Settings(**settings_given(options)).check()
    model = new_model(settings, np.random.default_rng(0))
    print(as_table(summarize(model, image_of_zeros(settings.size))))
    print(training_memory(settings))
    return 0
