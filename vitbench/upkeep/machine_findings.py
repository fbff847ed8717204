"""What `doctor` finds about the machine: packages, processors, GPUs, memory, limits, and environment variables.

Packages are imported in another process, so that a broken package breaks nothing here.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.machine.limits import free_memory, processor_quota
from vitbench.machine.provenance import commit, cores, processor
from vitbench.numbers.words import plural
from vitbench.settings.compose import PACKAGE
from vitbench.upkeep.finding import LOOK, WRONG, Finding, spoken_bytes
from vitbench.version import __version__

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest version with which vitbench is tested
FOR_DEVELOPERS = ("test", "docs", "release")  # extras that a user of vitbench does not need
SECONDS_TO_IMPORT = 120
LITTLE_MEMORY, FEW_DESCRIPTORS = 2_000_000_000, 1024  # bytes; files
IMPORTED = ("numpy", "PIL", "yaml", "safetensors", "scipy", "pandas", "matplotlib", "torch", "torchvision")
# The code of the other process. It names each module before it imports it, so that a module which ends the process is
# known.
LOOK_AT_PACKAGES = """
import importlib, json, sys
facts = {"broken": {}, "gpus": []}
for name in sys.argv[1:]:
    print(json.dumps({"begun": name}), flush=True)
    try:
        importlib.import_module(name)
    except BaseException as error:
        facts["broken"][name] = f"{type(error).__name__}: {error}"
print(json.dumps({"begun": "CUDA"}), flush=True)
if not {"torch", "numpy"} & set(facts["broken"]):
    import torch
    facts |= {"torch": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = {"name": torch.cuda.get_device_name(number)}
        try:
            gpu["free"], gpu["memory"] = torch.cuda.mem_get_info(number)
            ones = torch.ones(64, 64, device=f"cuda:{number}")
            gpu["error"] = None if float((ones @ ones).sum()) == 64.0**3 else "it computes wrong sums"
        except Exception as error:
            gpu["error"] = str(error)
        facts["gpus"].append(gpu)
print(json.dumps({"facts": facts}), flush=True)
"""


class Packages(NamedTuple):
    """What the other process found."""

    broken: dict[str, str]  # the errors of modules that cannot be imported
    gpus: list[dict[str, Any]]  # of each GPU: name, free and memory in bytes, error
    threads: int | None = None  # the number of threads that torch uses by default
    cuda: str | None = None  # the version of CUDA with which torch was built; None: without CUDA


def look_at_packages() -> Packages:
    """Imports what vitbench needs, and computes a little on each GPU, in a process of its own."""
    command = [sys.executable, "-P", "-c", LOOK_AT_PACKAGES, *IMPORTED]
    said, ended = "", ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS_TO_IMPORT)
        said, ended = done.stdout, f"importing it ends Python with code {done.returncode}"
    except subprocess.TimeoutExpired as slow:
        said = slow.stdout.decode(errors="replace") if isinstance(slow.stdout, bytes) else slow.stdout or ""
        ended = f"importing it takes more than {SECONDS_TO_IMPORT} s"
    begun = "python"
    for line in said.splitlines():
        try:
            told = json.loads(line)
            if facts := told.get("facts"):
                return Packages(facts["broken"], facts["gpus"], facts.get("threads"), facts.get("cuda"))
            begun = told.get("begun", begun)
        except (ValueError, AttributeError):  # a package printed this line when it was imported
            continue
    return Packages({begun: ended}, [])


# ------------------------------------------------------------------------------------------------------------ versions


def of_versions(packages: Packages) -> Iterator[Finding]:
    """Looks at the versions of Python, vitbench, and the packages that it needs or can use."""
    own = ".".join(map(str, sys.version_info[:2]))
    low, high = (".".join(map(str, each)) for each in PYTHONS)
    python = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] < PYTHONS[0]:
        yield Finding("python", python, WRONG, f"vitbench needs Python {low} to {high}.")
    elif sys.version_info[:2] > PYTHONS[1]:
        yield Finding("python", python, LOOK, f"vitbench is tested with Python {low} to {high}, not with {own}.")
    else:
        yield Finding("python", python)
    yield Finding("vitbench", f"{__version__}{f', commit {code}' if (code := commit()) else ''} in {PACKAGE}")
    right = []
    for requirement, extra in _requirements():
        name, installed = requirement.name, _version(requirement.name)
        if installed is None and not extra:
            yield Finding(name, "not installed", WRONG, "vitbench needs it.", f"pip install '{requirement}'")
        elif installed is None:
            yield Finding(name, "not installed", means=f"Optional: pip install 'vitbench[{extra}]' brings it.")
        elif not requirement.specifier.contains(installed, prereleases=True):
            means = (
                f"vitbench needs {requirement.specifier}; older versions have known security holes or lack functions."
            )
            yield Finding(name, installed, WRONG, means, f"pip install '{name}{requirement.specifier}'")
        else:
            right.append(f"{name} {installed}")
    yield Finding("packages", ", ".join(right))
    for name, error in packages.broken.items():
        means = "It does not work: " + " ".join(error.split())[:300]
        package = {"PIL": "pillow", "yaml": "pyyaml", "CUDA": "torch"}.get(name, name)
        again = "" if name == "python" else f"pip install --force-reinstall {package}"
        yield Finding(name, "broken", WRONG, means, again)


def versions() -> dict[str, str | None]:
    """Returns the versions of Python, vitbench and every package that it needs or can use; None: not installed."""
    known: dict[str, str | None] = {"python": platform.python_version(), "vitbench": __version__}
    return known | {requirement.name: _version(requirement.name) for requirement, _ in _requirements()}


def _requirements() -> list[tuple[Any, str]]:
    """Lists the packages that users of vitbench need, each with the extra that asks for it or ""."""
    from packaging.requirements import Requirement

    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():  # in a checkout, the installed metadata may be out of date
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        words = [(line, "") for line in table["dependencies"]]
        extras = table["optional-dependencies"].items()
        words += [(line, extra) for extra, lines in extras if extra not in FOR_DEVELOPERS for line in lines]
    else:
        try:
            words = [(line, _extra(line)) for line in requires("vitbench") or []]
        except PackageNotFoundError:
            words = []
    wanted = [(Requirement(line.partition(";")[0]), extra) for line, extra in words if extra not in FOR_DEVELOPERS]
    return sorted(wanted, key=lambda pair: (bool(pair[1]), pair[0].name))


def _extra(line: str) -> str:
    found = re.search(r"""extra\s*==\s*['"]([\w-]+)""", line)
    return found[1] if found else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------------- what computes


def of_hardware(packages: Packages) -> Iterator[Finding]:
    """Looks at processors, GPUs, memory, and the limits of this process."""
    here, quota = cores(), processor_quota()
    found = f"{plural(here, 'core')} of {processor()}"
    if here < (os.cpu_count() or here):
        found += f", of {os.cpu_count()} in the machine"
    if quota is not None and quota < here:
        whole = max(1, int(quota))
        means = (
            f"A container or batch system allows the computing time of {quota:g} of them. If more threads compute, the "
            "system halts all of them again and again."
        )
        yield Finding("processors", f"{found}; quota {quota:g}", LOOK, means, f"export OMP_NUM_THREADS={whole}")
    else:
        yield Finding("processors", found)
    yield from _gpus(packages)
    yield from _limits()


def _gpus(packages: Packages) -> Iterator[Finding]:
    there = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    for number, gpu in enumerate(packages.gpus):
        found = gpu["name"]
        found += f", {spoken_bytes(gpu['free'])} of {spoken_bytes(gpu['memory'])} free" if "free" in gpu else ""
        if gpu["error"]:
            means = f"It does not compute: {' '.join(gpu['error'].split())[:200]}"
            yield Finding(f"GPU {number}", found, WRONG, means, "nvidia-smi")
        else:
            yield Finding(f"GPU {number}", found)
    if not packages.gpus and there and hidden in ("", "-1"):
        yield Finding(
            "GPU",
            f"{len(there)}, hidden by CUDA_VISIBLE_DEVICES={hidden}",
            LOOK,
            "Runs train on the processor.",
            "unset CUDA_VISIBLE_DEVICES",
        )
    elif not packages.gpus and there:
        built = f"for CUDA {packages.cuda}, which this driver may lack" if packages.cuda else "without CUDA"
        means = f"torch cannot use them: it was built {built}. pytorch.org/get-started says how to install another."
        yield Finding("GPU", f"{len(there)}, but torch sees none", WRONG, means, "nvidia-smi")
    elif not packages.gpus:
        yield Finding("GPU", "none; runs train on the processor")


def _limits() -> Iterator[Finding]:
    free = free_memory()
    means = "A run with many or large images may be killed; machine.images=cache keeps them on the disk."
    little = (LOOK, means, "vitbench train machine.images=cache") if free < LITTLE_MEMORY else ()
    yield Finding("memory", f"{spoken_bytes(free)} free", *little)
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if soft != resource.RLIM_INFINITY and soft < FEW_DESCRIPTORS:
        means = "Each process of a sweep opens dozens of files and libraries."
        yield Finding("open files", f"at most {soft:,}", LOOK, means, f"ulimit -n {min(4096, most)}")
    else:
        yield Finding("open files", "at most " + ("any number" if soft == resource.RLIM_INFINITY else f"{soft:,}"))
    for name, limit, letter in (("address space", resource.RLIMIT_AS, "v"), ("file size", resource.RLIMIT_FSIZE, "f")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            means = "There is a limit; torch maps several GB that it does not use, and sets of images are large."
            yield Finding(name, f"at most {spoken_bytes(most)}", LOOK, means, f"ulimit -{letter} unlimited")


# --------------------------------------------------------------------------------------------------- the environment

# what each variable does, as the rest of a sentence that begins with "It"; harmless values are below
DANGEROUS = {
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "lets torch run code that is in a file of weights. vitbench does not ask torch "
    "for that, but libraries may.",
    "LD_PRELOAD": "loads a library into every process before all others; allocators and profilers change what is "
    "measured, and some break torch.",
    "PYTHONPATH": "names folders that come before installed packages; another torch or vitbench may be there.",
    "PYTHONOPTIMIZE": "switches off the checks by which vitbench notices its own mistakes.",
    "PYTHONWARNINGS": "may turn warnings of libraries into errors.",
    "PYTHONINSPECT": "keeps Python open when a command has ended, so that a sweep never ends.",
    "GOMP_CPU_AFFINITY": "ties threads to cores, so that all runs of a sweep share the first cores.",
    "KMP_AFFINITY": "ties threads to cores, so that all runs of a sweep share the first cores.",
    "OMP_PROC_BIND": "ties threads to cores, so that all runs of a sweep share the first cores.",
    "NVIDIA_TF32_OVERRIDE": "changes the precision of every product on a GPU, and no record says so.",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "changes the precision of every product on a GPU, and no record says so.",
    "CUBLAS_WORKSPACE_CONFIG": "makes two runs of a command on a GPU differ, unless it is :4096:8 or :16:8.",
    "CUDA_LAUNCH_BLOCKING": "makes a GPU wait after each operation, which makes training several times as slow.",
}
HARMLESS = {
    "CUBLAS_WORKSPACE_CONFIG": (":4096:8", ":16:8"),
    "OMP_PROC_BIND": ("false", "FALSE"),
    "CUDA_LAUNCH_BLOCKING": ("0",),
    "PYTHONOPTIMIZE": ("0",),
}
ALWAYS_WRONG = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def of_environment(environment: Mapping[str, str], threads: int | None = None) -> Iterator[Finding]:
    """Looks at variables that change what vitbench computes, or how fast. `threads` is the number that torch uses."""
    here = max(1, min(cores(), int(processor_quota() or cores())))
    for name in THREADS:
        value = environment.get(name)
        number = int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 9 else None
        if value is not None and not number:
            yield Finding(name, value, LOOK, "It is not a number of threads, so it is ignored.", f"unset {name}")
        elif number and number > here:
            means = f"More threads than {plural(here, 'core')} make every step slower."
            yield Finding(name, f"{number:,}", LOOK, means, f"export {name}={here}")
        elif number and number < here and name == THREADS[0]:
            means = "This is right where several runs share the machine; a single run leaves cores idle."
            yield Finding(name, f"{number} of {plural(here, 'core')}", means=means)
    if THREADS[0] not in environment:
        by_default = f"not set; torch uses {plural(threads, 'thread')}" if threads else "not set"
        yield Finding(THREADS[0], by_default)
    for name, does in DANGEROUS.items():
        value = environment.get(name)
        if value and value not in HARMLESS.get(name, ()):
            yield Finding(name, value, WRONG if name in ALWAYS_WRONG else LOOK, f"It {does}", f"unset {name}")
    if not environment.get("HOME"):
        means = "The home folder (~) is not known, so the folder of decoded images is not known either."
        yield Finding("HOME", "not set", LOOK, means, "export HOME=FOLDER, or data.cache=FOLDER in each command")
    if sys.getfilesystemencoding().lower() != "utf-8":
        means = "Names of files with letters other than a to z cannot be read."
        yield Finding("locale", sys.getfilesystemencoding(), LOOK, means, "export PYTHONUTF8=1")
