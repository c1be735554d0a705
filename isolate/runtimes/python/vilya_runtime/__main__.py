"""Entry of the runtime: `python3 -I -B /vilya/python/vilya_runtime/__main__.py`.

Isolated mode leaves both this folder and the function's out of the path, so the
two are put there by hand: the runtime's only for as long as it imports itself,
so that none of its module names can shadow one of the function's. The function's is
added when it is known which that is (`server.main`).
"""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, _ROOT)
from vilya_runtime import server  # noqa: E402
from vilya_runtime import vilya  # noqa: E402

sys.path.remove(_ROOT)
sys.modules["vilya"] = vilya

sys.exit(server.main(os.environ))
