"""Schemathesis asks the server what its OpenAPI document allows, and what it does not, and holds the answers to it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from serving.inspection import inspect
from serving.openapi import document
from serving.targets import parse

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.specs.openapi import checks  # noqa: E402

# Left out: that all lists of an axis are of one length no JSON Schema says, so that what the document allows may be
# refused; and other methods get TF Serving's own answers, not 405.
LEFT_OUT = [checks.positive_data_acceptance, checks.unsupported_method]


MODES = list(schemathesis.GenerationMode)


@pytest.fixture(scope="module")
def operations(served):
    url = parse(served["http"]).url.partition("/v1")[0]
    told = schemathesis.openapi.from_dict(document(inspect(served["path"]), name="tiny", url=url))
    told.config.update(base_url=url)
    return [found.ok() for found in told.get_all_operations()]


@pytest.mark.parametrize("mode", MODES)
def test_no_answer_is_beside_the_document(operations, mode):
    assert len(operations) > 4
    for operation in operations:
        if mode is schemathesis.GenerationMode.NEGATIVE and (operation.path_parameters or not operation.body):
            continue  # TF Serving refuses versions beyond 64 bits without a body, and a GET has nothing to get wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case):
            case.call_and_validate(excluded_checks=LEFT_OUT, timeout=120)

        ask()
