"""What a recipe amounts to before anything runs. Light: arithmetic on the recipe, no framework."""

from toolkit.plan.layout import Layout, layout
from toolkit.plan.stages import Step, missing_inputs, step_named, steps

__all__ = ["Layout", "Step", "layout", "missing_inputs", "step_named", "steps"]
