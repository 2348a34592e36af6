"""Imported last by the process that those of a batch are forked from: loads models, for the forks to take."""

import gc
import os
from contextlib import suppress

import torch

from varlab.resources import code_digest
from varlab.runs.watched import LOADED
from varlab.weights import ready
from varlab.weights.registry import find
from varlab.weights.zoo import load

torch.set_num_threads(1)  # no thread lives on in a fork, where others would wait for it
for name in os.environ.get(LOADED, "").split():
    with suppress(Exception):  # its report says what is wrong
        ready.add(find(name), load(name))
code_digest()  # of what the forks run, whatever lies there when a later batch begins
gc.collect()
gc.freeze()  # what lies here by now no fork looks through for garbage, or copies by doing so
