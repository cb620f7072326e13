"""Policies from logged data: `learner.bc`, `learner.td3_bc`, `learner.iql` and `learner.flow_bc`.

Name the package under `imports:`. The policy is the configuration's `model:`; everything else is the learner's.
"""

from __future__ import annotations

from registry import Registry

from .bc import BC
from .critics import NormalizeReward, ScaleReward
from .flow_bc import FlowBC
from .iql import IQL
from .spread import Spread
from .td3_bc import TD3BC


def register(registry: Registry) -> Registry:
    """What `imports: [extensions.offline]` adds."""
    learners = {"learner.bc": BC, "learner.td3_bc": TD3BC, "learner.iql": IQL, "learner.flow_bc": FlowBC}
    parts = {"policy.spread": Spread, "reward.scale": ScaleReward, "reward.normalize": NormalizeReward}
    return registry.register_all(learners).register_all(parts)
