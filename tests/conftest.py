"""Settings of every test."""

import torch

torch.set_num_threads(1)  # as in training: several test processes on few cores would fight for them
