"""The menu of probes: what `probe=` offers. Imports no torch."""

from __future__ import annotations

from vitbench.menu import Choice

MENU: dict[str, Choice] = {
    "shift": Choice("vitbench.probes.shift:probe", "is the class the same when the image moves? (1904.11486)"),
    "equivariance": Choice(
        "vitbench.probes.equivariance:probe", "do the maps of layers move with the image? (1805.12177)"
    ),
    "lie": Choice("vitbench.probes.lie:probe", "how fast do the answers change when the image moves? (2210.02984)"),
    "shuffle": Choice("vitbench.probes.shuffle:probe", "what is lost when tiles change places? (2105.10497)"),
    "occlusion": Choice("vitbench.probes.occlusion:probe", "what is lost when tiles are dropped? (2105.10497)"),
    "resolution": Choice("vitbench.probes.resolution:probe", "accuracy at other image sizes (1906.06423)"),
    "rotation": Choice("vitbench.probes.rotation:probe", "accuracy on images turned by 0 to 180 degrees"),
    "scale": Choice("vitbench.probes.scale:probe", "accuracy on images shrunk or enlarged within their frame"),
    "corruption": Choice("vitbench.probes.corruption:probe", "accuracy under noise, blur, JPEG ... (1903.12261)"),
    "frequency": Choice("vitbench.probes.frequency:probe", "do low or high frequencies decide the class? (2202.06709)"),
    "cost": Choice("vitbench.probes.cost:probe", "multiply-adds, speed and memory against image size and batch"),
    "attention_distance": Choice(
        "vitbench.probes.attention_distance:probe", "how far does each head of a ViT look? (2010.11929)"
    ),
    "receptive_field": Choice(
        "vitbench.probes.receptive_field:probe", "which pixels does a unit of each layer answer to? (1701.04128)"
    ),
    "pe_similarity": Choice(
        "vitbench.probes.pe_similarity:probe", "which positions does an encoding make similar? (2010.11929)"
    ),
    "gate": Choice("vitbench.probes.gate:probe", "how much of each head's attention is by position? (2103.10697)"),
    "filters": Choice("vitbench.probes.filters:probe", "what does the first layer look for? (2010.11929)"),
    "cka": Choice("vitbench.probes.cka:probe", "which layers of two networks are similar? linear CKA (2010.15327)"),
    "linear": Choice(
        "vitbench.probes.linear:probe", "at which depth can a linear probe read off the class? (2010.11929)"
    ),
    "attribution": Choice(
        "vitbench.probes.attribution:probe",
        "which parts of an image decide the class, by three tested methods (1806.07421)",
    ),
}

# Figures of probes, which are put beside the rows or drawn into `file=`. A figure is draw(subject, *, seed, ending) ->
# bytes, and takes those of its probe's options that it needs, by their names.
FIGURES: dict[str, Choice] = {
    "equivariance": Choice("vitbench.probes.two_paths:draw", "layer then shift, shift then layer, and the difference"),
    "attention_distance": Choice("vitbench.probes.attention_distance:draw", "distance against depth, a dot a head"),
    "receptive_field": Choice("vitbench.probes.receptive_field:draw", "maps against depth"),
    "pe_similarity": Choice("vitbench.probes.pe_similarity:draw", "the similarity of each position to all others"),
    "filters": Choice("vitbench.probes.filters:draw", "kernels, or principal components of the patch embedding"),
    "cka": Choice("vitbench.probes.cka:draw", "the similarity of all layers with all, as heat maps"),
    "attribution": Choice("vitbench.probes.attribution:draw", "images with rollout, Grad-CAM and integrated gradients"),
}

# Figures of several networks side by side, run=[ID,ID] file=: draw(subjects: {name: subject}, *, seed, ending) -> bytes
TOGETHER: dict[str, Choice] = {
    "receptive_field": Choice("vitbench.probes.how_far:draw", "fields and attention distance against depth")
}

# Figures that are made of pixels are .png beside the rows; the others are .svg.
PIXELS = frozenset({"receptive_field", "pe_similarity", "filters", "attribution"})

# `probe.cka.other=` takes this word in place of a run. It means the images themselves, as a control.
RAW_PIXELS = "pixels"

# Probes that have nothing to measure in a model without attention and positions.
FOR_VITS = frozenset({"attention_distance", "pe_similarity", "gate"})

# The version of a probe's protocols, where it is not 1. Raising it here and in the protocols makes files anew.
VERSIONS: dict[str, int] = {}
