"""The few numbers of the speed model that no data sheet states, as fitted to published step times. What they multiply
is the other modules'; `python -m toolkit.plan.fit` fits them anew and prints the values that stand here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Params:
    """Shares are of what a data sheet says, or of what is named. The last three are no parameters of the model: what a
    site's own runs showed (`calibrate`), or how far published steps lie from it.
    """

    matmul: float  # of the rate that the largest products reach (`work.best_share`): what a training's reach
    fill: float  # elements of the inner dimension whose time a product loses besides its main loop, on an A100
    memory: float  # of the memory's bandwidth: what element-wise kernels reach
    link: float  # of one direction of the GPUs' links: what collectives within a node reach
    network: float  # of the NICs' rate: what traffic between nodes reaches where each GPU has a NIC of its own
    shared: float  # of that: what is left where several GPUs share a NIC
    layer_s: float  # seconds that each pass over a layer takes besides: launches, and waiting for other ranks
    low: float  # measured over foretold step time, of the fastest steps that are to be reckoned with
    high: float  # and of the slowest
    site: float = 1.0  # measured over foretold step time, of this site


# As `python -m toolkit.plan.fit` printed them.
PARAMS = Params(
    matmul=0.974,
    fill=346.0,
    memory=0.732,
    link=0.747,
    network=0.877,
    shared=0.596,
    layer_s=6.49e-05,
    low=0.856,
    high=1.169,
)
