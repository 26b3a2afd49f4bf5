"""The command as a person meets it: exit codes, what goes to stdout, one line on stderr."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vitrina import cli, verbs

pytestmark = pytest.mark.long


def vitrina(*words, check=None):
    """Runs the real command; `check` is the exit code wanted. What TensorFlow's libraries log there is left out."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    ran = subprocess.run(
        [sys.executable, "-m", "vitrina", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
    )
    # Absl's lines (`E0000 00:00:1795241573.243756 ...`) come from TensorFlow 2.21's CUDA probe, at any log level.
    ran.stderr = "".join(
        line for line in ran.stderr.splitlines(True) if not re.match(r"[IWE]0000 |WARNING: All log", line)
    )
    if check is not None:
        assert ran.returncode == check, ran.stderr + ran.stdout
    return ran


def one_line(ran) -> str:
    """The only line on stderr."""
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("vitrina: ")
    return lines[0]


@pytest.fixture
def run(capsys):
    """Runs the command in this process: exit code, stdout, stderr."""

    def call(*words):
        code = cli.main([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture
def pictures(tmp_path, photos) -> Path:
    """A folder with two photos and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photos[0])
    (folder / "b.png").write_bytes(photos[2])
    (folder / "broken.jpg").write_bytes(b"this is no image")
    (folder / "notes.txt").write_text("not listed")
    return folder


# The frame


def test_help_lists_the_verbs_that_exist(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name, told in verbs.found().items():
        assert f"  {name}" in out
        assert told in out


def test_a_verb_exists_where_its_module_does():
    named = {path.stem for path in Path(verbs.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(verbs.found()) <= named
    assert {"export", "inspect", "verify", "serve", "predict"} <= set(verbs.found())


@pytest.mark.parametrize("name", sorted(verbs.found()))
def test_every_verb_has_help(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "usage: vitrina" in out


def test_no_words_are_wrong_usage(run):
    code, out, _ = run()
    assert code == 2
    assert "usage: vitrina COMMAND" in out


def test_the_version(run):
    from vitrina import __version__

    assert run("--version") == (0, f"vitrina {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["exprot"], "There is no command 'exprot'. Did you mean 'export'?"),
        (["inspect"], "The following arguments are required: BASE_OR_VERSION. See: vitrina inspect --help"),
        (["inspect", "a", "--jsno"], "Unrecognized arguments: --jsno"),
        (["export", "m"], "required: --to"),
        (["export", "m", "--to", "x", "--top-k", "many"], "invalid int value: 'many'"),
        (["predict", "grcp://h/m", __file__], "Did you mean 'grpc'?"),
        (["predict", "grpc://h/m", "missing.png"], "There is no file missing.png"),
        (["predict", "base", __file__, "--input", "question"], "wanted NAME=VALUE"),
    ],
)
def test_wrong_usage_is_one_line_and_two(run, words, part):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert part in err
    assert len(err.splitlines()) == 1


def test_verbose_adds_the_trace(run, tmp_path):
    code, _, err = run("inspect", tmp_path / "nix", "--verbose")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("vitrina: There is no folder")
    assert run("--verbose", "inspect", tmp_path / "nix")[2].splitlines()[-1] == err.splitlines()[-1]


def test_a_defect_is_told_as_such(run, monkeypatch):
    def broken(_):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("vitrina.verbs.inspect.run", broken)
    code, _, err = run("inspect", "x")
    assert code == 1
    assert "ZeroDivisionError: oh (this is a defect of Vitrina" in err


def test_ctrl_c_is_130(run, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vitrina.verbs.inspect.run", interrupted)
    assert run("inspect", "x") == (130, "", "vitrina: interrupted\n")


def test_a_closed_pipe_is_no_failure(tiny_servable):
    command = f"{sys.executable} -m vitrina inspect {tiny_servable} --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("{0\n", "")


def test_a_full_stdout_is_a_failure(tiny_servable):
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "vitrina", "inspect", str(tiny_servable)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ran.returncode == 1
    assert "No space left" in one_line(ran)


# inspect and predict


def test_inspect_for_people_and_programs(run, tiny_servable, tiny_labels):
    code, out, err = run("inspect", tiny_servable)
    assert (code, err) == (0, "")
    for told in ("image-classification", "serving_default", "image_bytes", "TFViTForImageClassification", "12: kind a"):
        assert told in out
    code, out, _ = run("inspect", tiny_servable / "1", "--json")
    assert code == 0
    assert json.loads(out)["labels"] == list(tiny_labels)


def test_predict_answers_the_same_from_every_target(run, served, pictures):
    told = {kind: run("predict", target, pictures, "--json", "--timeout", "120") for kind, target in served.items()}
    assert told["grpc"] == told["http"] == told["path"]
    code, out, err = told["path"]
    assert (code, err) == (1, "")  # one of the three is no image
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.jpg", "b.png", "broken.jpg"]
    assert [bool(line["error"]) for line in lines] == [False, False, True]
    assert lines[2]["labels"] == []
    assert len(lines[0]["labels"]) == len(lines[0]["scores"]) == 5


def test_predict_for_people(run, served, pictures):
    code, out, _ = run("predict", served["grpc"], pictures / "a.jpg", pictures / "broken.jpg")
    assert code == 1
    assert "kind" in out
    assert "no image" in out
    assert run("predict", served["grpc"], pictures / "a.jpg")[0] == 0


def test_predict_another_signature(run, served, pictures):
    code, out, _ = run("predict", served["http"], pictures / "a.jpg", "--signature", "preprocess", "--json")
    assert code == 0
    assert len(json.loads(out)["pixel_values"]) == 3
    code, _, err = run("predict", served["http"], pictures / "a.jpg", "--signature", "preproces")
    assert code == 2
    assert "Did you mean 'preprocess'?" in err


def test_predict_an_input_that_the_task_has_not(run, served, pictures):
    code, _, err = run("predict", served["http"], pictures / "a.jpg", "--input", "question=Where?")
    assert code == 2
    assert "no input 'question', only image_bytes" in err


def test_predict_nobody_there(run, pictures):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, out, err = run("predict", f"http://127.0.0.1:{port}/m", pictures / "a.jpg")
    assert (code, out) == (1, "")
    assert "Nothing serves at" in err
    assert len(err.splitlines()) == 1


def test_predict_an_empty_folder(run, served, tmp_path):
    code, _, err = run("predict", served["http"], tmp_path)
    assert code == 2
    assert "holds no images" in err


# The real command: nothing of TensorFlow's own talk, nothing half-written


def test_export_and_predict_say_nothing_but_their_own(tiny_vit, tmp_path, pictures):
    ran = vitrina("export", tiny_vit, "--to", tmp_path / "base", "--top-k", 3, "--no-verify", check=0)
    assert ran.stdout == f"{tmp_path}/base/1\n"
    assert ran.stderr.splitlines()[0] == f"Loading {tiny_vit}"
    assert all(line.split()[0] in ("Loading", "Tracing", "Writing", "Wrote") for line in ran.stderr.splitlines())
    asked = vitrina("inspect", tmp_path / "base", "--json", check=0)
    assert asked.stderr == ""
    assert json.loads(asked.stdout)["options"]["top_k"] == 3
    ran = vitrina("predict", tmp_path / "base", pictures / "a.jpg", "--json", check=0)
    assert ran.stderr == ""
    assert len(json.loads(ran.stdout)["labels"]) == 3


@pytest.mark.parametrize(
    ("model", "options", "part"),
    [
        ("nowhere/at/all/there", [], "nowhere/at/all/there"),
        ("{vit}", ["--task", "image_classify"], "No task named 'image_classify'. Did you mean 'image-classification'?"),
        ("{vit}", ["--task", "image-clasification"], "Did you mean 'image-classification'?"),
        ("{no_processor}", [], "preprocessor_config.json"),
        ("{empty}", [], "config.json"),
        ("{vit}", ["--version", "0"], "a version is a positive integer"),
        ("{vit}", ["--top-k", "0"], "top"),
    ],
)
def test_what_cannot_be_exported(run, tiny_vit, tmp_path, model, options, part):
    no_processor = tmp_path / "no_processor"
    shutil.copytree(tiny_vit, no_processor)
    (no_processor / "preprocessor_config.json").unlink()
    (tmp_path / "empty").mkdir()
    model = model.format(vit=tiny_vit, no_processor=no_processor, empty=tmp_path / "empty")
    code, out, err = run("export", model, "--to", tmp_path / "new" / "base", *options)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("vitrina: ")
    assert part in last
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_a_base_that_is_a_file(tiny_vit, tmp_path):
    (tmp_path / "file").write_text("")
    ran = vitrina("export", tiny_vit, "--to", tmp_path / "file" / "base", "--no-verify", check=1)
    assert "is not a folder" in ran.stderr.splitlines()[-1]
    assert (tmp_path / "file").read_text() == ""


def test_a_read_only_folder(tiny_vit, read_only):
    ran = vitrina("export", tiny_vit, "--to", read_only / "base", "--no-verify", check=1)
    assert re.search("read-only|may not be written", ran.stderr.splitlines()[-1])
    assert list(read_only.iterdir()) == []


def test_a_full_disk(run, tiny_vit, mount):
    disk = mount("size=1m")
    code, out, err = run("export", tiny_vit, "--to", disk / "new" / "base", "--no-verify")
    assert (code, out) == (1, "")
    assert "full" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert list(disk.iterdir()) == []


def test_a_busy_port(tiny_servable):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        ran = vitrina("serve", f"--port={port}", f"--model_base_path={tiny_servable}", check=1)
    assert f"Port {port}" in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "{missing}"],
        ["predict", "{missing}", __file__],
        ["serve", "--port=0", "--model_base_path=relative/path"],
    ],
)
def test_a_missing_folder(words, tmp_path):
    words = [word.format(missing=tmp_path / "missing") for word in words]
    ran = vitrina(*words)
    assert ran.returncode in (1, 2)
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_verify_of_a_missing_folder(run, tmp_path):
    code, out, err = run("verify", tmp_path / "missing")
    assert (code, out) == (2, "")
    assert "There is no folder" in err.splitlines()[-1]


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system in memory with the given options; gives its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def call(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode != 0:
            pytest.skip(f"only root may mount a file system of its own here: {ran.stderr.strip()}")
        return folder

    yield call
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.fixture
def read_only(tmp_path, request):
    """A folder that cannot be written; root passes over permissions, so for root it is a read-only file system."""
    if os.geteuid() == 0:
        return request.getfixturevalue("mount")("ro")
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o555)
    return folder


def test_a_terminated_export_leaves_nothing(run, monkeypatch, tmp_path):
    from signatures import base_path, export

    def writes(model, *, to, **given):
        with base_path.new_version(to) as draft:
            (draft.staging / "half.pb").write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(export, "export", writes)
    before = signal.getsignal(signal.SIGTERM)
    code, out, err = run("export", "model", "--to", tmp_path / "new" / "base")
    assert (code, out, err) == (128 + signal.SIGTERM, "", "vitrina: terminated\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_export_takes_how_images_are_prepared(run, monkeypatch, tmp_path):
    from signatures import export
    from signatures.preprocessing import from_options

    seen = []
    monkeypatch.setattr(export, "export", lambda model, **given: seen.append(given["preprocessing"]) or tmp_path)
    words = ("export", "model.keras", "--to", tmp_path)
    shown = (
        "--size",
        "24x20",
        "--resample",
        "bicubic",
        "--mean",
        "0.5",
        "--std",
        "0.1,0.2,0.3",
        "--rescale",
        "1/127.5",
    )
    assert run(*words)[0] == 0
    assert run(*words, *shown)[0] == 0
    assert run(*words, "--size", "256", "--crop", "224")[0] == 0
    options = {"resample": "bicubic", "mean": [0.5] * 3, "std": [0.1, 0.2, 0.3], "rescale": 1 / 127.5}
    assert seen == [None, from_options(size=(24, 20), **options), from_options(size=256, crop=224)]

    for wrong, says in [
        (("--mean", "0.5"), "without --size"),
        (("--size", "24", "--mean", "0.5"), "one of mean and std"),
        (("--size", "24", "--resample", "cubic"), "Choose one of"),
        (("--size", "2x"), "wanted pixels such as 224"),
        (("--size", "24", "--std", "1,2"), "wanted three numbers"),
        (("--size", "24", "--rescale", "1/0"), "wanted a number"),
    ]:
        code, _, err = run(*words, *wrong)
        assert code == 2
        assert says in err
