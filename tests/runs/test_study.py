from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vitbench.errors import UserError
from vitbench.runs import plan as room_of_plans
from vitbench.runs.plan import (
    Planned,
    expand,
    number_of_runs,
    plan,
    planned_ids,
    planned_ids_and_certificates,
    read_notes,
    remember,
    typed_words,
)
from vitbench.runs.study import Study, find_study, load_study, own_studies, study_names
from vitbench.settings.check import check
from vitbench.settings.compose import STUDY_DIR, as_settings, compose
from vitbench.settings.described import settings_described
from vitbench.settings.identity import run_id
from vitbench.settings.named_networks import NamedNetwork, settings_beside


def written(folder: Path, text: str) -> Study:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_study(str(path))


GRID = """
title: Mine
with: data=shapes optim.steps=3
runs:
  - model=vit pe=none,rope data.fraction=0.1,1 seed=range(3)
  - model=resnet data.fraction=0.1,1 seed=0,1,2 optim.steps=5
"""


def test_lines_are_products_and_not_one_product(tmp_path: Path) -> None:
    grid = written(tmp_path, GRID)
    assert number_of_runs(grid) == len(list(expand(grid))) == len(plan(grid)) == 12 + 6


def test_a_line_wins_over_the_common_settings_and_the_typed_word_over_both(tmp_path: Path) -> None:
    planned = plan(written(tmp_path, GRID), ["seed=7"])
    assert {one.settings["seed"] for one in planned} == {7}
    assert {(one.settings["model"]["name"], one.settings["optim"]["steps"]) for one in planned} == {
        ("vit", 3),
        ("resnet", 5),
    }


def own_study(folder: Path, name: str, text: str = GRID) -> Path:
    """A study of the user's own in experiments/ of a folder."""
    path = folder / "experiments" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_study_of_ones_own_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_study(tmp_path, "mine")
    monkeypatch.chdir(tmp_path)
    assert find_study("mine") == Path("experiments/mine.yaml") and load_study("mine").title == "Mine"
    assert "mine" in study_names() and "quickstart" in study_names() and own_studies().keys() == {"mine"}
    with pytest.raises(UserError, match="study=mien: did you mean mine"):
        find_study("mien")
    monkeypatch.chdir(tmp_path / "experiments")
    with pytest.raises(UserError, match=r"study=mine: .* or its name if the file is in experiments/"):
        find_study("mine")


def test_a_study_of_ones_own_does_not_hide_one_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_study(tmp_path, "quickstart")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"rename this file, or type study=experiments/quickstart\.yaml$"):
        load_study("quickstart")
    assert load_study("experiments/quickstart.yaml").title == "Mine"
    path.write_bytes((STUDY_DIR / "quickstart.yaml").read_bytes())  # a copy is the same study
    assert load_study("quickstart").title == "Quickstart"


def test_the_studies_of_a_checkout_are_not_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(STUDY_DIR.parent)
    assert own_studies() == {} and find_study("quickstart").parent == STUDY_DIR


@pytest.mark.parametrize("name", study_names())
def test_planned_ids_are_those_of_single_commands(name: str) -> None:
    """The plan sets keys on copies of a composed choice, and gets the ids of runs that Hydra composes anew."""
    planned = plan(load_study(name))
    for one in planned[len(planned) // 4 :: max(1, len(planned) // 2)]:
        assert run_id(check(as_settings(compose(one.overrides)))) == one.id


def test_a_line_keeps_the_data_it_chooses_itself(tmp_path: Path) -> None:
    grid = written(
        tmp_path, "with: data=cifar10\nruns: [model=vit data=shapes data.train_images=500 seed=0, model=vit seed=1]"
    )
    typed = ["data=imagefolder", "data.root=pets", "data.name=pets", "optim.steps=3"]
    drawn, photographs = (one.settings for one in plan(grid, typed))
    assert (drawn["data"]["source"], drawn["data"]["train_images"]) == ("shapes", 500)
    assert (photographs["data"]["source"], photographs["data"]["root"]) == ("imagefolder", "pets")
    assert drawn["optim"]["steps"] == photographs["optim"]["steps"] == 3
    smaller = plan(grid, ["data.fraction=0.1"])  # no data= is typed, so every line takes it
    assert {one.settings["data"]["fraction"] for one in smaller} == {0.1}


def test_names_of_values_are_checked(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"mine\.yaml: names\.init must map values of init, as they are typed, to words"
    ):
        written(tmp_path, GRID + "names: {init: pretrained}")


@pytest.mark.parametrize(
    ("layout", "line"),
    [
        (
            "tables: {../../README: {}}",
            "tables.../../README: is the name of a file; use up to 100 letters, digits, _ and -",
        ),
        ("tables: {1: {}}", "tables.1: is the name of a file"),
        ("tables: {a: accuracy}", "tables.a must hold settings"),
        ("tables: {a: {where: model=vit}}", "tables.a.where: model=vit: must be settings (KEY: VALUE)"),
        ("tables: {a: {show: true}}", "tables.a.show: True: must be a word"),
        ("tables: {a: {columns: 3}}", "tables.a.columns: 3: must be a word"),
        ("figures: {a: {x: true}}", "figures.a.x: True: must be a word"),
        ("figures: {a: {y: 1}}", "figures.a.y: 1: must be a word or a list"),
        ("figures: {a: [x]}", "figures.a must hold settings"),
        ("figures: {a: {fit: perhaps}}", "figures.a.fit: perhaps: must be true or false"),
    ],
)
def test_layouts_of_a_study_are_checked_when_it_is_read(tmp_path: Path, layout: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        written(tmp_path, GRID + layout)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["null", "0.1", "true", "[0,1]"])
def test_only_words_have_another_name(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"names\.init: .*: only a word can have another name"):
        written(tmp_path, GRID + f"names: {{init: {{'{value}': scratch}}}}")
    assert written(
        tmp_path, GRID + "names: {init: {'[0,1': odd, 'a: b: c': odder}}"
    ).names  # a word may have any letters


def test_two_values_have_two_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml: names\.init: two values have the same name"):
        written(tmp_path, GRID + "names: {init: {a: pretrained, b: pretrained}}")


def test_sweeps_of_a_study_that_begin_together_both_note_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, noted = written(tmp_path, GRID), read_notes

    def slow(path: Path) -> tuple[list[str], list[str]]:
        found = noted(path)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(room_of_plans, "read_notes", slow)
    with ThreadPoolExecutor() as sweeps:
        for seed in "12":
            sweeps.submit(remember, grid, [Planned([], {}, f"vit-s{seed}")], tmp_path, [f"seed={seed}"])
    assert sorted(planned_ids(grid, tmp_path)) == ["vit-s1", "vit-s2"]
    assert sorted(typed_words(grid, tmp_path)) == ["seed=1", "seed=2"]


@pytest.mark.parametrize("name", study_names())
def test_a_study_names_values_that_its_runs_have(name: str) -> None:
    here = load_study(name)
    for key, its in here.names.items():
        assert all(f"{key}='{value}'" in " ".join(here.runs) for value in its), key


def test_an_encoding_of_a_cnn_in_a_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resnet is not a ViT"):
        plan(written(tmp_path, "runs: ['model=resnet,vit pe=rope']"))


def test_a_hundred_thousand_runs_are_counted_not_built(tmp_path: Path) -> None:
    grid = written(tmp_path, "runs: ['model=vit seed=range(1000) optim.lr=range(1,101)']")
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"asks for 100,000 runs; add confirm=true"):
        plan(grid)
    assert time.monotonic() - begin < 5


def test_a_grid_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asks for no run, because seed=range\(0\) has no value"):
        plan(written(tmp_path, GRID), ["seed=range(0)"])


@pytest.mark.parametrize("confirm", [False, True])
def test_a_range_of_a_thousand_million_is_refused_at_once(tmp_path: Path, confirm: bool) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError, match="asks for 1,000,000,000 runs; a study can have at most 1,000,000"):
        plan(written(tmp_path, "runs: ['model=vit seed=range(1000000000)']"), confirm=confirm)
    assert time.monotonic() - begin < 2


def test_a_study_may_name_a_folder_of_images_in_any_letters(tmp_path: Path) -> None:
    line = r"""data=imagefolder data.root='pets (ü) \${x} = it' data.name=2024_10"""
    (one,) = plan(written(tmp_path, f"runs: [{json.dumps(line)}]"))
    assert one.settings["data"]["root"] == "pets (ü) ${x} = it" and one.settings["data"]["name"] == "2024_10"
    assert check(as_settings(compose(one.overrides))) == one.settings, "a launcher composes the same run from its words"


def test_no_reference_in_a_record_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "hidden")
    settings = check(as_settings(compose([])))
    settings["data"]["root"] = settings["data"]["name"] = "${oc.env:KEY}"  # as anyone can have written it
    described = settings_described(settings, "seed=3")
    assert described["data"]["root"] == described["data"]["name"] == "${oc.env:KEY}" and described["seed"] == 3
    settings["model"] |= {"name": "timm", "arch": "${oc.env:KEY}"}
    network = NamedNetwork("x", None, "x")
    assert settings_beside(network, ["data=shapes"], settings)["model"]["arch"] == "${oc.env:KEY}"


@pytest.mark.slow
def test_five_hundred_runs_are_planned_in_seconds(tmp_path: Path) -> None:
    grid = written(
        tmp_path, "runs: ['model=vit pe=none,rope,learned,alibi2d,sincos2d data.fraction=0.1,1 seed=range(50)']"
    )
    assert len(plan(grid)) == 500


REFUSED = {
    "empty": ("", "must hold settings"),
    "a list": ("- model=vit", "must hold settings"),
    "tabs": ("runs:\n\t- model=vit", "is not valid YAML"),
    "a key twice": ("runs: [seed=1]\nruns: [seed=2]", "runs is given twice"),
    "an unknown key": ("run: [seed=1]", "did you mean runs?"),
    "no runs": ("title: x", "runs must list lines"),
    "code": ("runs: [!!python/object/apply:os.system ['touch executed']]", "is not valid YAML"),
    "an alias bomb": ("a: &a [1,1]\nb: &b [*a,*a,*a]\nruns: [*b,*b]", "aliases"),
    "hydra's own settings": ("runs: [seed=1 hydra/launcher=joblib]", "hydra/launcher=joblib is no setting of a run"),
    "a callback": ("runs: [seed=1 +hydra.callbacks.x._target_=os.system]", "is no setting of a run"),
    "hydra's own in `with`": ("with: hydra.job.name=x\nruns: [seed=1]", "hydra.job.name=x is no setting of a run"),
    "a launcher in a package": ("runs: ['optim@hydra.launcher=vit']", "optim@hydra.launcher=vit is no setting"),
    "the environment": ("runs: ['seed=1 data.name=${oc.env:KEY}']", "type the value; a study has no references"),
    "the environment in `with`": (
        "with: init=${oc.env:KEY}\nruns: [seed=1]",
        "type the value; a study has no references",
    ),
    "the environment in quotes": (
        "runs: ['data.name=\"a${oc.env:KEY}\"']",
        "type the value; a study has no references",
    ),
    "another setting": ("runs: ['model.width=${seed}']", "type the value; a study has no references"),
    "the folder of runs": ("runs: [seed=1 runs=/elsewhere]", "runs=/elsewhere: a study cannot say this"),
    "the cache": ("with: data.cache=/elsewhere\nruns: [seed=1]", "data.cache=/elsewhere: a study cannot say this"),
    "a file that is written": ("runs: [seed=1 file=/elsewhere]", "file=/elsewhere: a study cannot say this"),
    "a choice that is a file": ("runs: [model=../../evil]", "model=../../evil: a choice is a name, not a file"),
    "an endless range": ("runs: ['seed=range(0,inf)']", "must be a range that ends"),
    "a range without steps": ("runs: ['seed=range(0,1,0)']", "must be a range that ends"),
    "a deletion": ("runs: [~pe]", "is no setting of a run"),
    "an open list": ("runs: ['data.x=[0,1']", "data.x="),
    "an unknown setting": ("runs: [data.fracton=1]", "did you mean data.fraction"),
    "an unknown model": ("runs: [model=vitt]", "did you mean vit?"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_study_file_is_data_and_is_checked(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = REFUSED[kind]
    monkeypatch.setenv("KEY", "hidden")
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        plan(written(tmp_path, text))
    assert "hidden" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_study_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes("title: é".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        load_study(str(tmp_path / "mine.yaml"))


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + GRID.encode())
    assert load_study(str(tmp_path / "mine.yaml")).title == "Mine"


CERTIFY = GRID + "certify: {where: {data.fraction: [0.1, 7], seed: 0}}\n"


def test_certificates_are_the_same_runs_with_more_samples_behind_all_others(tmp_path: Path) -> None:
    *others, none, rope, resnet = plan(written(tmp_path, CERTIFY))
    assert len(others) == 12 + 6 and not any(one.certifies for one in others)
    by_id = {one.id: one for one in others}
    for one, steps in ((none, 6), (rope, 6), (resnet, 10)):
        assert one.certifies is not None and one.settings["optim"]["steps"] == steps
        its = by_id[one.certifies].settings
        assert one.settings | {"optim": its["optim"]} == its and (its["seed"], its["data"]["fraction"]) == (0, 0.1)
        assert run_id(check(as_settings(compose(one.overrides)))) == one.id  # as a launcher trains it


@pytest.mark.parametrize(
    ("budget", "asked"),
    [
        ("optim.steps=7", {"steps": 21, "epochs": None, "min_steps": None}),
        ("optim.epochs=2.5", {"steps": None, "epochs": 7.5, "min_steps": None}),
        ("optim.epochs=2 optim.min_steps=10", {"steps": None, "epochs": 6.0, "min_steps": 30}),
        ("seed=0", {"steps": 3000, "epochs": None, "min_steps": None}),  # the default has 1,000
    ],
)
def test_a_certificate_has_three_times_the_samples_where_that_is_the_factor(
    tmp_path: Path, budget: str, asked: dict[str, float | None]
) -> None:
    grid = written(tmp_path, f"runs: [model=vit {budget}]\ncertify: {{where: {{model: vit}}, factor: 3}}")
    optim = plan(grid)[-1].settings["optim"]
    assert {key: optim[key] for key in asked} == asked


def test_a_run_of_the_study_is_no_certificate_and_a_narrowed_grid_may_have_none(tmp_path: Path) -> None:
    chain = written(tmp_path, "runs: ['model=vit optim.steps=1,2,4']\ncertify: {where: {model: vit}}")
    assert [(one.settings["optim"]["steps"], bool(one.certifies)) for one in plan(chain)] == [
        *((steps, False) for steps in (1, 2, 4)),
        (8, True),
    ]
    assert not any(one.certifies for one in plan(written(tmp_path, CERTIFY), ["seed=5"]))


def test_where_knows_the_words_of_the_study(tmp_path: Path) -> None:
    grid = written(tmp_path, GRID + "names: {pe: {none: blind}}\ncertify: {where: {pe: blind, data.fraction: 1.0}}")
    assert [one.settings["model"]["pe"]["name"] for one in plan(grid) if one.certifies] == ["none"] * 3


@pytest.mark.parametrize(
    ("certify", "said"),
    [
        ("[seed]", r"certify must be settings \(KEY: VALUE\)"),
        ("{were: {seed: 0}}", r"certify\.were: did you mean where"),
        ("{factor: 2}", r"certify\.where must say which runs, such as"),
        ("{where: {}}", r"certify\.where must say which runs, such as"),
        ("{where: {seed: 0}, factor: 1}", r"certify\.factor: 1: must be a number above 1"),
        ("{where: {seed: 0}, factor: two}", r"certify\.factor: two: must be a number above 1"),
        ("{where: {seed: 0}, factor: 1.001}", r"study=mine: certify\.factor: too small to add a step to vit-"),
        ("{where: {seed: 99}}", r"study=mine: certify\.where: matches none of [\d,]+ runs"),
        ("{where: {data.fractoin: 1}}", r"study=mine: certify\.where\.data\.fractoin: did you mean data\.fraction"),
    ],
)
def test_a_wrong_certify_is_one_line(tmp_path: Path, certify: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan(written(tmp_path, GRID + f"certify: {certify}"))


def test_what_one_sweep_asked_for_as_a_run_is_no_certificate_of_another(tmp_path: Path) -> None:
    grid = written(tmp_path, "runs: [model=vit optim.steps=2]\ncertify: {where: {model: vit}}")
    (run, certificate), (longer, longest) = plan(grid), plan(grid, ["optim.steps=4"])
    remember(grid, [run, certificate], tmp_path)
    assert planned_ids_and_certificates(grid, tmp_path)[1] == {certificate.id: run.id} and certificate.id == longer.id
    remember(grid, [longer, longest], tmp_path, ["optim.steps=4"])
    assert planned_ids_and_certificates(grid, tmp_path)[1] == {longest.id: longer.id}
    assert planned_ids(grid, tmp_path) == [run.id, longer.id, longest.id]
