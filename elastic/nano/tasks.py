"""The embedded tasks by name."""

from elastic.nano.chains import CHAINS
from elastic.nano.paths import PATHS

TASKS = {"chains": CHAINS, "paths": PATHS}
