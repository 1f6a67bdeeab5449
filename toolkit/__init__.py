"""MEDITRON toolkit: corpus, shards, continued pretraining, conversion and scoring of medical language models."""

__version__ = "0.1.0"
