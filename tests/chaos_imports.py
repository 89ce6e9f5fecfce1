"""What the commands that ``chaos.py`` forks import: once, in the process that they are forked from."""

import maskrl  # noqa: I001  # its guard comes first
import accelerate.optimizer  # noqa: F401
import torch._dynamo
import torch.distributed.distributed_c10d
import torch.utils.tensorboard.writer  # noqa: F401

import maskrl.cli.eval_command
import maskrl.evaluations.geneval
import maskrl.filters.std_percentile
import maskrl.reducers.none
import maskrl.runtime.record
import maskrl.training.loop
import maskrl.transitions.p_theta1
import toy_run  # noqa: F401
from maskrl.filters.keep_all import KeepAll

maskrl.runtime.record.versions([KeepAll])  # what is installed is looked up once
