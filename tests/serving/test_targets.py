from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.targets import parse
from signatures.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models/vit", ("path", "", 0, "models/vit", None, None)),
        ("C:weird@folder/1", ("path", "", 0, "C:weird@folder/1", None, None)),
        ("grpc://h:1/m", ("grpc", "h", 1, "m", None, None)),
        ("grpc://h/m", ("grpc", "h", 8500, "m", None, None)),
        ("grpcs://h/m@7", ("grpcs", "h", 8500, "m", 7, None)),
        ("http://h/m", ("http", "h", 8501, "m", None, None)),
        ("https://h/m:stable", ("https", "h", 443, "m", None, "stable")),
        ("http://[::1]:8501/m@00000123", ("http", "[::1]", 8501, "m", 123, None)),
        (
            "vertex://projects/P/locations/L/endpoints/E",
            ("vertex", "", 0, "projects/P/locations/L/endpoints/E", None, None),
        ),
    ],
)
def test_every_form_of_the_contract(text, expected):
    target = parse(text)
    assert (target.scheme, target.host, target.port, target.model, target.version, target.label) == expected


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h:1/m", "http://h:1/v1/models/m"),
        ("http://h:1/m@2", "http://h:1/v1/models/m/versions/2"),
        ("http://h:1/m:live", "http://h:1/v1/models/m/labels/live"),
        ("https://h/some/ingress/m", "https://h:443/some/ingress/v1/models/m"),
        ("http://h:1/v1/models/m", "http://h:1/v1/models/m"),
        ("http://h:1/in/v1/models/m:a b", "http://h:1/in/v1/models/m/labels/a%20b"),
    ],
)
def test_the_url_of_the_rest_api(text, url):
    assert parse(text).url == url


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("grcp://h/m", "Did you mean 'grpc'?"),
        ("ftp://h/m", "wanted BASE, grpc://"),
        ("grpc://h:1", "Write the model's name"),
        ("grpc://h:1/", "Write the model's name"),
        ("grpc://h:1/a/b", "Write the model's name"),
        ("http://h:1/v1/models/m/versions/2", "Write the model's name"),
        ("grpc://:8500/m", "names no host"),
        ("grpc://h:port/m", "port"),
        ("grpc://h:99999/m", "port"),
        ("grpc://h/m@new", "For a label write model:label"),
        ("grpc://h/m@1:x", "wanted BASE"),
    ],
)
def test_what_is_no_target_says_what_is(text, part):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(), st.sampled_from(["", "grpc://", "https://"]))
def test_any_text_is_a_target_or_a_usage_error(text, prefix):
    with contextlib.suppress(UsageError):
        target = parse(prefix + text)
        assert target.text == prefix + text
        assert target.scheme != "path" or "://" not in text
