"""The ids of runs of many kinds: an id that changes would train again what lies finished in somebody's folder."""

from __future__ import annotations

import pytest

from vitbench.runs.plan import Planner
from vitbench.settings.identity import run_id
from vitbench.settings.overrides import prepare, words_of

IDS = {
    "": "vit-learned-shapes-f1-s0-2d31ebe5",
    "model=resnet": "resnet-shapes-f1-s0-e17a1a53",
    "model=vit pe=none": "vit-none-shapes-f1-s0-4548ca95",
    "pe=sincos1d": "vit-sincos1d-shapes-f1-s0-160cca93",
    "pe=sincos2d seed=3": "vit-sincos2d-shapes-f1-s3-e5389a3f",
    "pe=rope pe.theta=10": "vit-rope-shapes-f1-s0-9f7d1bbf",
    "pe=relative_bias model.size=tiny": "vit-relative_bias-shapes-f1-s0-e189a192",
    "pe=alibi2d model.size=small": "vit-alibi2d-shapes-f1-s0-1c001c40",
    "model=resnet data=cifar10 data.fraction=0.1 seed=1": "resnet-cifar10-f0.1-s1-ddc77951",
    "data=cifar100 data.count=500": "vit-learned-cifar100-n500-s0-3ca372ea",
    "data=mnist model.patch_size=7": "vit-learned-mnist-f1-s0-869fc399",
    "data=imagefolder data.root=/tmp/pets data.image_size=64": "vit-learned-pets-f1-s0-2a9b39c4",
    "data=imagefolder data.root=/tmp/pets data.name=dogs data.follow_links=true": "vit-learned-dogs-f1-s0-8bafdc99",
    "data=imagefolder data.root=/tmp/pets data.image_size=224 model.patch_size=4": "vit-learned-pets-f1-s0-a77a7feb",
    "data=imagefolder data.root=/tmp/pets data.image_size=224": "vit-learned-pets-f1-s0-e4ec491d",  # patches of 16 px
    "data=stl10 model.patch_size=8": "vit-learned-stl10-f1-s0-89246802",
    "data.classes=[3,1]": "vit-learned-shapes-f1-s0-c2c9f37a",
    "data.task=relation data.flip=false augment=light": "vit-learned-shapes-f1-s0-1e5d40d3",
    "augment=strong augment.draw=chunk optim.epochs=2.5": "vit-learned-shapes-f1-s0-5ebf05ec",  # all there was
    "optim=resnet optim.lr=0.1": "vit-learned-shapes-f1-s0-8df951a7",
    "optim.ema=0.99 optim.clip=1": "vit-learned-shapes-f1-s0-3bf78f7d",
    "objective=simsiam model=resnet": "resnet-shapes-f1-s0-fcf38a91",
    "objective=mae augment.crop=0.25": "vit-learned-shapes-f1-s0-f09a1a54",
    "init=vit-learned-shapes-f1-s0-00000000 head=new freeze=backbone": "vit-learned-shapes-f1-s0-f195e935",
    "init=torchvision:resnet18 model=resnet": "resnet-shapes-f1-s0-2ab9e78b",
    "init='data.fraction=0.5' optim.layer_decay=0.7": "vit-learned-shapes-f1-s0-68ce040d",
    "teacher='model=resnet'": "vit-learned-shapes-f1-s0-60c49213",
    "teacher=resnet-shapes-f1-s0-00000000 distill.kind=soft model.distill_token=true model.pool=cls": (
        "vit-learned-shapes-f1-s0-258eccd2"
    ),
    "data.subset_seed=7 data.val_fraction=0.2 eval_every=3 machine.threads=1 keep=[2]": (
        "vit-learned-shapes-f1-s0-10f394e5"
    ),
    "model.size=base model.drop_path=0.1": "vit-learned-shapes-f1-s0-ae713529",
    "data.test={x:[0.5,1.0]} data.train_images=64000": "vit-learned-shapes-f1-s0-4f62022e",
}


@pytest.mark.parametrize("words", IDS)
def test_a_run_keeps_the_id_it_had_in_version_0_1(words: str) -> None:
    typed = [word.replace("'", "") for word in words_of(words)]  # as a shell hands them over
    assert run_id(Planner().settings(prepare(typed))) == IDS[words]
