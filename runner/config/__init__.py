"""What a run does, and where: the YAML with flags over it, checked whole before anything is sent."""

from runner.config.chosen import Config
from runner.config.reading import config_from, load_config
from runner.config.schema import json_schema

__all__ = ["Config", "config_from", "json_schema", "load_config"]
