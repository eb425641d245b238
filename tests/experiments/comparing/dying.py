"""What a process does that reads runs and is killed over one of them. Imports little, as that process does."""

import os

from experiments.comparing.runs import beside, cache


def read(job: cache.Job) -> beside.Found:
    if job.folder.name == "2":
        os._exit(9)
    return cache.read(job)
