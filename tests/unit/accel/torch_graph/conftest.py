"""The tests run in two processes: for tensors as small as theirs, more threads would only wait for each other."""

import torch

torch.set_num_threads(1)
