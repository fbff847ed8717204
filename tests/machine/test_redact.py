"""What looks like a secret is stored nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, Output
from vitbench.machine.redact import REDACTED, redacted
from vitbench.runs.run import write_record

Cli = Callable[..., Output]
KEY = "0123456789abcdef0123456789abcdef01234567"  # as wandb's are

SECRETS = {
    "of GitHub": "ghp_" + "aB3" * 12,
    "of OpenAI": "sk-proj-" + "aB3" * 12,
    "of Hugging Face": "hf_" + "aB3" * 12,
    "of wandb": "wandb_v1_" + "aB3" * 12 + "_" + "aB3" * 12,
    "of AWS": "AKIA" + "A1B2" * 4,
    "of Slack": "xoxb-123456789012-abcdef",
    "a signed token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123",
    "in a URL": "user:hunter2@",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_known_by_its_shape(kind: str) -> None:
    secret = SECRETS[kind]
    text = f"see https://{secret}host/x" if kind == "in a URL" else f"data.name={secret} seed=1"
    assert redacted(text) == text.replace(secret.removesuffix("@"), REDACTED)
    assert redacted({"a": [text]}) == {"a": [redacted(text)]}


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "WANDB_API_KEY",
        "HF_TOKEN",
        "TRACKIO_WRITE_TOKEN",
        "password",
        "hf.token",
        "client_secret",
        "access-key",
    ],
)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert redacted(f"{name}=correcthorse seed=1") == f"{name}={REDACTED} seed=1"
    assert redacted(redacted(f"{name}=correcthorse")) == f"{name}={REDACTED}"
    assert redacted(f"{name}=correcthorse: no such setting") == f"{name}={REDACTED}: no such setting"
    assert redacted({name: "short"}) == {name: REDACTED}


def test_a_secret_is_known_because_the_environment_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redacted(f"data.root=/x/{KEY}") == f"data.root=/x/{KEY}"
    monkeypatch.setenv("MY_TOKEN", KEY)
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id")
    monkeypatch.setenv("OTHER_PASSWORD", "short")
    assert redacted(f"data.root=/x/{KEY} /home/me/.ssh/id short") == f"data.root=/x/{REDACTED} /home/me/.ssh/id short"


@pytest.mark.parametrize(
    "text",
    [
        "model.distill_token=true seed=1",
        "token: Tensor = self.embed(images)",
        "vit-rope-cifar10-f0.1-s0-3fa9c1d2",
        f"sha256:{KEY}",
        "data.root=C:/user@host timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "keep=[100,200] probe=[task-skills]",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert redacted(text) == text


def test_no_file_and_no_line_holds_a_secret_that_was_typed(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    words = [*TINY, "runs=r", f"data.root={KEY}"]
    first = vitbench("train", *words)
    assert first.code == 0
    (tmp_path / "s.yaml").write_text("runs: ['model=vit seed=1']")
    assert vitbench("sweep", "study=s.yaml", *words).code == 0
    assert vitbench("report", "study=s.yaml", "runs=r").code == 0
    assert vitbench("train", *words, "init=" + KEY).code == 2
    records = [json.loads(path.read_text()) for path in (tmp_path / "r").glob("*/record.json")]
    assert [record["config"]["data"]["root"] for record in records] == [REDACTED, REDACTED]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10 and not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not [path for path in tmp_path.rglob("*") if KEY in path.name]
    assert vitbench("train", *words).out == first.out.replace("\n", ": nothing to do\n"), "it is the same run"


def test_a_traceback_is_stored_without_its_secrets(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("vitbench.training.prepare.prepare", lambda *_: Path(f"/nowhere/{KEY}").read_bytes())
    with pytest.raises(FileNotFoundError):
        vitbench("train", *TINY, "runs=r")
    (failure,) = (tmp_path / "r").glob("*/failure.json")
    assert KEY not in failure.read_text() and "FileNotFoundError" in failure.read_text()


def test_a_folder_of_images_that_is_a_secret_is_stored_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", KEY)
    record: Any = {"config": {"data": {"root": KEY}}, "scan": {"root": f"/x/{KEY}"}, "warnings": [KEY], "id": "x"}
    write_record(tmp_path, record)
    text = (tmp_path / "record.json").read_text()
    assert KEY not in text and text.count(REDACTED) == 3


@pytest.mark.parametrize("key", ["data.name", "data.root"])
def test_a_secret_stands_in_no_name_of_a_folder(key: str, vitbench: Cli, tmp_path: Path) -> None:
    secret = SECRETS["of GitHub"]
    output = vitbench("train", "data=imagefolder", f"{key}={secret}")
    assert output.code == 2 and "looks like a secret" in output.err and secret not in output.err
    assert not [*tmp_path.iterdir()]


def test_hydra_stores_no_secret_of_a_multirun(vitbench: Cli, tmp_path: Path) -> None:
    output = vitbench("train", "-m", "seed=0,1", f"data.root={SECRETS['of GitHub']}")
    assert output.code == 2 and "would be stored in multirun.yaml" in output.err and not [*tmp_path.iterdir()]
