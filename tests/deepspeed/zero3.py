"""One of several processes of a training under DeepSpeed on a processor: python zero3.py ARGUMENTS of prh.

Accelerate counts the processes of accelerators alone, though DeepSpeed has them meet over gloo as well; so it is told
here how many there are.
"""

import torch
from accelerate import PartialState
from prh.__main__ import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    state = PartialState()
    state.backend = "gloo"
    state.num_processes = torch.distributed.get_world_size()
    state.process_index = state.local_process_index = torch.distributed.get_rank()
    main()
