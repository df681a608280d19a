"""A reward that random weights can learn: the share of even ids among those that were said."""

from importlib.metadata import EntryPoint

from prh.harness import registry
from prh.tests.training.acting import spoken

SELF = EntryPoint("even", "prh.tests.training.bandit:Even", "prh.rewards")


class Even:
    """Pays for even ids."""

    def __call__(self, group):
        said = [spoken(one.record) for one in group]
        return [sum(number % 2 == 0 for number in ids) / max(1, len(ids)) for ids in said]


def register():
    """Let configurations name it, as an installed package's."""
    registry._found("rewards")["even"] = (SELF,)


CONFIG = """
[model]
base = "tiny-init"
attention = "sdpa"

[[data]]
task = "vstar-mini"

[reward.even]

[advantage]
uniform = 0.0

[rollout]
queries = 2
group = 4

[train]
rounds = 3
batch = 4
micro = 2000
save = 1

[optim]
lr = 3e-4
schedule = "constant"
warmup = 0

[setting.limits]
new_tokens = 10
"""


def config(folder, *more):
    """The configuration in a file."""
    path = folder / "grpo.toml"
    path.write_text(CONFIG)
    return path
