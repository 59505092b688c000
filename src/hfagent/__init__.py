"""hfagent: post-training that runs overnight and proves what it gained."""

__version__ = "0.1.0"
