"""MEDITRON toolkit: corpus, shards, continued pretraining, conversion and scoring of medical language models on Slurm."""

__version__ = "0.1.0"
