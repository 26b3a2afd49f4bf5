"""All tests that run servers on an emulated cluster, in one file so that one process forks all of these servers."""

from __future__ import annotations

import pytest

from tests.k8s.stories.configuration import *  # noqa: F403
from tests.k8s.stories.measuring import *  # noqa: F403
from tests.k8s.stories.pushing import *  # noqa: F403
from tests.k8s.stories.trouble import *  # noqa: F403
from tests.k8s.stories.whole import *  # noqa: F403

pytestmark = pytest.mark.long
