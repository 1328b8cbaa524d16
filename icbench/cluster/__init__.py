"""A SLURM cluster: its commands, what is submitted to it, what its jobs do around their workers."""
