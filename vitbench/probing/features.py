"""Compares frozen networks: `vitbench features models=[RUN_ID,timm:NAME,torchvision:NAME@FILE] shares=[0.1,1] seeds=3`.

Each combination of network, share, seed and classifier is a run with freeze=backbone and classifier=linear or nearest.
A network that is refused gets a line that says why, and the others continue. Finished runs are not done again.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vitbench.data.menu import forget
from vitbench.errors import StorageError, UserError, check_choice
from vitbench.machine.disk import write
from vitbench.machine.progress import progress
from vitbench.machine.provenance import commit, now
from vitbench.menu import FROM_1, SHARE, check_ranges
from vitbench.numbers.words import plural
from vitbench.probing.features_told import Compared, told
from vitbench.runs.ancestor import validation_leaks
from vitbench.runs.costs import Cost
from vitbench.runs.images import done, set_aside
from vitbench.runs.origin import find_parents
from vitbench.runs.record import RECORD_SCHEMA, Record
from vitbench.runs.records import find_record
from vitbench.runs.run import Run
from vitbench.settings.check import check, check_machine
from vitbench.settings.compose import cache_folder
from vitbench.settings.identity import RESULTS_VERSION
from vitbench.settings.named_networks import NamedNetwork, read_networks, settings_beside

if TYPE_CHECKING:
    from vitbench.data.share import Share
    from vitbench.machine.hardware import Machine
    from vitbench.probing.frozen import Classified, Features

CLASSIFIERS = ("linear", "nearest")


class Asked(NamedTuple):
    """What was typed, after it was checked."""

    networks: list[NamedNetwork]
    shares: list[float]
    seeds: int
    classifiers: list[str]
    runs: str
    data_words: list[str]
    machine: dict[str, Any]


def main(config: Any) -> int:
    """Does the missing runs and compares the networks. Returns 0, or the highest exit code of refused networks."""
    forget()
    asked = _asked(config)
    planned: dict[NamedNetwork, list[Run]] = {}
    for network in asked.networks:
        settings = _settings(network, asked)
        planned[network] = [
            Run.of(_of_run(settings, share, seed, classifier))
            for share in asked.shares
            for seed in range(asked.seeds)
            for classifier in asked.classifiers
        ]
    code, refused = 0, set()
    for network, runs in planned.items():
        try:
            missing = [run for run in runs if done(run) is None]
            if missing:
                _do(network, missing, asked)
        except StorageError:
            raise
        except UserError as error:
            refusal = type(error)(f"{network.prefix}: {_in_words_of_this_command(str(error), network)}")
            if len(planned) == 1:
                raise refusal from None
            print(f"vitbench: {refusal}", file=sys.stderr)
            refused.add(network)
            code = max(code, error.exit_code)
    compared = [
        Compared(
            network.typed, run.settings["classifier"], run.settings["data"]["fraction"], run.settings["seed"], record
        )
        for network, runs in planned.items()
        if network not in refused
        for run in runs
        if (record := run.record()) is not None
    ]
    told(compared, Path(asked.runs).expanduser())
    return code


# ------------------------------------------------------------------------------------------------------------- asked


def _asked(config: Any) -> Asked:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    typed = [word.lstrip("+") for word in HydraConfig.get().overrides.task]
    given: Any = OmegaConf.to_container(config, resolve=True)
    shares, classifiers = (
        each if isinstance(each := given[key], list) else [each] for key in ("shares", "classifiers")
    )
    if not shares or not all(isinstance(share, int | float) and not isinstance(share, bool) for share in shares):
        raise UserError(f"shares={given['shares']}: must be shares of the training images, for example [0.1,1]")
    for share in shares:
        check_ranges({"shares": share}, {"shares": SHARE})
    check_ranges(given, {"seeds": FROM_1.up_to(1_000)})
    if not classifiers:
        raise UserError("classifiers=[]: must be linear, nearest or both")
    for classifier in classifiers:
        check_choice("classifiers", str(classifier), CLASSIFIERS)
    data_words = [word for word in typed if word.partition("=")[0].partition(".")[0] == "data"]
    for word in data_words:
        _check_data_word(word)
    check_machine(given["machine"]["device"], given["machine"]["threads"])
    return Asked(
        networks=read_networks(given["models"]),
        shares=sorted({float(share) for share in shares}),
        seeds=given["seeds"],
        classifiers=[*dict.fromkeys(classifiers)],
        runs=given["runs"],
        data_words=data_words,
        machine=given["machine"],
    )


def _check_data_word(word: str) -> None:
    """Refuses settings that contradict shares=, or that give each run other images, so that features cannot be kept."""
    key, _, value = word.partition("=")
    if key in ("data.fraction", "data.count"):
        raise UserError(f"{word}: type the shares of the images as shares=[0.1,1]")
    if key.startswith("data.permute") or (key == "data.online" and value.lower() == "true"):
        raise UserError(f"{word}: `vitbench features` takes the images as they are; drop it")


def _settings(network: NamedNetwork, asked: Asked) -> dict[str, Any]:
    """Returns the checked settings of a network's runs, without share, seed and classifier."""
    record = None
    if network.library is None:
        try:
            record = find_record(Path(asked.runs).expanduser() / network.name)
        except UserError as error:
            raise UserError(
                f"{network.prefix}: {error}; networks of libraries are typed timm:NAME or torchvision:NAME"
            ) from None
        if "optim" not in record["config"]:
            raise UserError(f"{network.prefix}: was trained elsewhere; type timm:NAME@FILE or torchvision:NAME@FILE")
        if record["config"]["data"].get("permute", "none") != "none":
            raise UserError(f"{network.prefix}: was trained on rearranged images (data.permute); drop it")
    settings = settings_beside(network, asked.data_words, record and record["config"])
    data = settings["data"]
    if record and data["image_size"] is None:
        its = record["config"]["data"]
        same = its["source"] == data["source"]
        data["image_size"] = its["image_size"] if same else record["image_size"]
    settings |= {"runs": asked.runs, "machine": {**settings["machine"], **asked.machine}}
    data["cache"] = cache_folder(data["cache"])
    if data["val_fraction"] == 0:
        raise UserError(
            "data.val_fraction=0: the penalty and the number of neighbours are chosen on validation images; drop it"
        )
    try:
        return check(settings)
    except UserError as error:
        raise UserError(f"{network.prefix}: {_in_words_of_this_command(str(error), network)}") from None


def _of_run(settings: dict[str, Any], share: float, seed: int, classifier: str) -> dict[str, Any]:
    return settings | {"seed": seed, "classifier": classifier, "data": {**settings["data"], "fraction": share}}


def _in_words_of_this_command(line: str, network: NamedNetwork) -> str:
    """Rewrites a line about a run's settings in the settings of this command."""
    line = line.removeprefix(f"init={network.init}: ").replace("as init=FILE", f"as models=[{network.typed}@FILE]")
    return line.replace("data.fraction=", "shares=")


# -------------------------------------------------------------------------------------------------------------- doing


def _do(network: NamedNetwork, missing: Sequence[Run], asked: Asked) -> None:
    """Computes the features of a network, unless they are kept already, and does its missing runs."""
    for line in filter(None, map(set_aside, missing)):
        print(line, file=sys.stderr)
    parents = find_parents(missing[0].settings)  # before torch is imported

    import torch

    from vitbench.machine.hardware import Machine
    from vitbench.probing.frozen import Labelled, classify, compute_features
    from vitbench.training.prepare import share_of

    shares = [share_of(run.settings) for run in missing]  # a wrong share is refused before anything is computed
    dataset = shares[0].dataset
    _check_images(network, parents.origin and parents.origin.name, dataset.train.channels, asked)
    hardware = {key: asked.machine[key] for key in ("device", "threads")}
    machine = Machine.of(**hardware, precision="float32", compile=False)
    show = asked.machine["progress"]
    with progress(f"features of {network.typed}", len(dataset.train) + len(dataset.test), "images", show) as display:
        features = compute_features(missing[0].settings, parents, dataset, machine, display)
    leaks = [validation_leaks(run.settings, dataset.fingerprint) for run in missing]
    for line in dict.fromkeys([*features.notes, *dataset.warnings, *chain.from_iterable(leaks)]):
        print(f"{network.typed}: {line}", file=sys.stderr)
    labels, classes = torch.from_numpy(dataset.train.labels.copy()), len(dataset.classes)
    with progress(f"classifiers of {network.typed}", len(missing), "runs", show) as display:
        for done, (run, share) in enumerate(zip(missing, shares, strict=True)):
            begin = time.perf_counter()
            fit, choose = (
                Labelled(features.train[places], labels[places]) for places in (share.chosen, share.held_out)
            )
            found = classify(run.settings["classifier"], fit, choose, features.test, classes)
            seconds = time.perf_counter() - begin
            _write(run, _record(run, share, features, found, seconds, parents.cost, machine), found, share)
            display.update(done + 1)


def _check_images(network: NamedNetwork, run: str | None, channels: int, asked: Asked) -> None:
    """Refuses a run whose network takes images with another number of channels."""
    if network.library is None and run is not None:
        its = find_record(Path(asked.runs).expanduser() / run)["channels"]
        if its != channels:
            raise UserError(f"it takes images with {plural(its, 'channel')}, and these have {channels}")


def _write(run: Run, record: Record, found: Classified, share: Share) -> None:
    import numpy as np

    with run.claim():
        if run.record() is not None:
            return
        run.start()
        predictions = found.scores.argmax(1).short().numpy()
        for file, array in {"predictions": predictions, "labels": share.dataset.test.labels.astype("int16")}.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            write(run.folder / f"{file}.npy", buffer.getvalue())
        run.finish(record)


def _record(
    run: Run, share: Share, features: Features, found: Classified, seconds: float, before: Cost, machine: Machine
) -> Record:
    """Makes the record of a run. `seconds` is the time of fitting; `before` is what training the network cost."""
    from vitbench.numbers.classified import TOP, balanced_accuracy, top_accuracy

    dataset, images = share.dataset, len(share.chosen) + len(share.held_out)
    truth, predictions, classes = dataset.test.labels, found.scores.argmax(1).numpy(), len(dataset.classes)
    seconds += images * features.seconds
    has_top = classes > TOP and found.penalty is not None  # nearest neighbours vote for too few classes
    record = {
        "schema": RECORD_SCHEMA,
        "results_version": RESULTS_VERSION,
        "id": run.id,
        "status": "finished",
        "config": dict(run.settings),
        "classes": list(dataset.classes),
        "image_size": dataset.train.image_size,
        "channels": dataset.train.channels,
        "train_images": len(share.chosen),
        "val_images": len(share.held_out),
        "test_images": len(dataset.test),
        "mean": list(features.mean),
        "std": list(features.std),
        "data_fingerprint": dataset.fingerprint,
        "parameters": features.parameters,
        "multiply_adds": features.multiply_adds,
        "steps": 0,
        "train_seconds": seconds,
        "images_per_second": images / seconds,
        "diverged_step": None,
        "val_accuracy": found.val_accuracy,
        "val_loss": None,
        "test_accuracy": float((predictions == truth).mean()),
        "test_loss": None,
        "test_balanced_accuracy": balanced_accuracy(truth, predictions, classes),
        "test_top5_accuracy": top_accuracy(found.scores.numpy(), truth) if has_top else None,
        "test_calibration_error": None,
        **({"scan": dataset.scan._asdict()} if dataset.scan else {}),
        "features": {"width": features.train.shape[1], "penalty": found.penalty, "neighbours": found.neighbours},
        "init": features.init,
        "created": now(),
        "commit": commit(),
        **machine.described(),
        "warnings": [*dataset.warnings, *validation_leaks(run.settings, dataset.fingerprint), *features.notes],
    }
    own = Cost(seconds, images, images * features.multiply_adds)
    return cast(Record, record | own.plus(before).as_totals)
