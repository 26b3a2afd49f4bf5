from __future__ import annotations

import subprocess
import sys

import pytest

import vitrina

HEAVY = (
    "tensorflow",
    "tfx",
    "transformers",
    "numpy",
    "grpc",
    "httpx",
    "google.protobuf",
    "PIL",
    "rich",
    "keras",
    "torch",
)


def _loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has after running this."""
    told = f"{code}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_importing_loads_nothing_heavy():
    assert _loaded_after("import vitrina, vitrina.cli, vitrina.verbs") == set()
    assert _loaded_after("import vitrina; dir(vitrina); vitrina.__version__; vitrina.VitrinaError") == set()


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["predict", "--help"], ["inspect", "--help"], ["nonsense"]]
)
def test_help_loads_no_tensorflow(words):
    loaded = _loaded_after(f"import vitrina.cli; vitrina.cli.main({words!r})")
    assert not loaded & {"tensorflow", "tfx", "transformers", "keras", "torch"}


def test_every_public_name_is_there():
    for name in vitrina.__all__:
        assert getattr(vitrina, name) is not None, name
    assert set(vitrina.__all__) == set(dir(vitrina))


def test_every_verb_of_the_command_is_a_function():
    from vitrina import verbs

    for name in verbs.found():
        verb = getattr(vitrina, name, None)
        assert callable(verb) or callable(getattr(verb, next(iter(_ACTIONS[name])), None)), name


_ACTIONS = {"demo": ["run"], "k8s": ["render"], "pipeline": ["run"]}


def test_the_functions_are_those_of_the_packages():
    import serving.client
    import signatures.export

    assert vitrina.connect is serving.client.connect
    assert vitrina.export is signatures.export.export
    assert vitrina.VitrinaError is sys.modules["signatures.errors"].VitrinaError
    assert vitrina.k8s.render is sys.modules["k8s.render"].render


def test_what_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        vitrina.exprot  # noqa: B018
    with pytest.raises(AttributeError, match=r"vitrina\.pipeline has no 'rnu', only compile, run, submit, watch"):
        vitrina.pipeline.rnu  # noqa: B018


def test_predict_is_connect_and_predict_in_one(tiny_servable, photos):
    with vitrina.connect(str(tiny_servable)) as client:
        assert vitrina.predict(str(tiny_servable), photos[0]) == client.predict(photos[0])


def test_inspect_reads_the_card(tiny_servable, tiny_labels):
    read = vitrina.inspect(tiny_servable)
    assert (read.version, read.versions) == (1, (1,))
    assert read.card.labels == tiny_labels
    assert set(read.signatures) == set(read.card.signatures)
    assert read.sizes["total"] > read.sizes["graph"] > 0
    document = read.to_json()
    assert document["task"] == "image-classification"
    assert document["signatures"]["serving_default"]["outputs"]["scores"]["dtype"] == "float32"
