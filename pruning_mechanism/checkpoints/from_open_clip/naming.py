"""What a name such as `open_clip:MobileCLIP2-S0` stands for: a configuration and weights.

Nothing is ever unpickled: weights are safetensors files, on the hub or on this machine.
"""

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pruning_mechanism.checkpoints.record import first_line, read_object
from pruning_mechanism.families import TowerError
from pruning_mechanism.modeling.libraries import Module, library

PREFIX = "open_clip:"
RANDOM = "random"
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "model.safetensors")
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
SHOWN = 12


@dataclass(frozen=True)
class Wanted:
    """A model of open_clip's.

    `model` is open_clip's configuration of it, `preprocessing` how its images are prepared;
    `weights` are None where random ones are asked for; `directory` may hold its tokenizer.
    """

    spec: str
    name: str
    model: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    weights: Path | None
    directory: Path | None = None

    @property
    def text(self) -> Mapping[str, Any]:
        """Its entries for the text tower."""
        entries: Mapping[str, Any] = self.model["text_cfg"]
        return entries


def is_open_clip(path: str | Path) -> bool:
    """Whether a checkpoint is named as a model of open_clip's."""
    return str(path).startswith(PREFIX)


def open_clip() -> Module:
    """The library.

    Raises:
        TowerError: it isn't installed.
    """
    try:
        return library("open_clip")
    except ValueError as error:
        raise TowerError(str(error).replace("this model", "a model of open_clip's")) from error


def find(spec: str) -> Wanted:
    """What a name stands for; its weights are fetched if need be.

    Raises:
        TowerError: there is no such model, or its weights can't be had.
    """
    rest = spec.removeprefix(PREFIX)
    if (directory := Path(rest).expanduser()).is_dir():
        return _in_directory(spec, directory, None)
    name, _, weights = rest.partition(":")
    name = name.replace("/", "-")  # as open_clip does
    if name not in open_clip().list_models():
        raise TowerError(f"{spec}: {_unknown(name)}")
    model = open_clip().get_model_config(name)
    tags = open_clip().pretrained.list_pretrained_tags_by_model(name)
    place = Path(weights).expanduser()
    if weights == RANDOM:
        return Wanted(spec, name, model, _preprocessing(_of_tag(name, tags[:1])), None)
    if tag := _tag(spec, name, weights, tags):
        entries = _of_tag(name, [tag])
        return Wanted(
            spec, name, _activated(model, entries), _preprocessing(entries), _fetched(spec, entries)
        )
    if place.is_dir():
        return _in_directory(spec, place, model)
    found = _checked(spec, place)
    return Wanted(spec, name, model, _agreed(spec, name, tags), found)


def _unknown(name: str) -> str:
    known = open_clip().list_models()
    if same := [each for each in known if each.lower() == name.lower()]:
        return f"open_clip writes it {same[0]}"
    near = difflib.get_close_matches(name.lower(), [each.lower() for each in known], SHOWN, 0.5)
    names = [each for each in known if each.lower() in near] or known
    more = "" if len(names) <= SHOWN else f" and {len(names) - SHOWN} more"
    return f"open_clip has no model {name!r}: it has {', '.join(names[:SHOWN])}{more}"


def _tag(spec: str, name: str, weights: str, tags: Sequence[str]) -> str | None:
    """The tag that is asked for; None: a path is.

    Raises:
        TowerError: neither is.
    """
    if not weights:
        if len(tags) == 1:
            return tags[0]
        if not tags:
            raise TowerError(
                f"{spec}: open_clip lists no weights of {name}: name a file, as in "
                f"{PREFIX}{name}:FILE.safetensors, or {PREFIX}{name}:{RANDOM}"
            )
        raise TowerError(
            f"{spec}: there are {len(tags)} sets of weights of {name}: name one, as in "
            f"{PREFIX}{name}:{tags[0]}, of {', '.join(tags)}"
        )
    if (tag := weights.lower().replace("-", "_")) in tags:
        return tag
    path = Path(weights).expanduser()
    if path.exists() or path.suffix in (".safetensors", *PICKLED) or len(path.parts) > 1:
        return None
    listed = ", ".join(tags) or "none"
    raise TowerError(
        f"{spec}: open_clip lists no weights {weights!r} of {name}, and there is no such file: "
        f"it lists {listed}; {RANDOM} makes random ones"
    )


def _of_tag(name: str, tags: Sequence[str]) -> Mapping[str, Any]:
    """What open_clip says of the first of some tags; nothing without one."""
    if not tags:
        return {}
    entries: Mapping[str, Any] = open_clip().pretrained.get_pretrained_cfg(name, tags[0])
    return entries


def _preprocessing(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """How images are prepared: what is said, and open_clip's defaults for the rest."""
    usual = asdict(open_clip().transform.PreprocessCfg())
    return usual | {name: entries[name] for name in usual if entries.get(name) is not None}


def _agreed(spec: str, name: str, tags: Sequence[str]) -> Mapping[str, Any]:
    """How images are prepared for weights of one's own: as for all that open_clip lists."""
    every = [_preprocessing(_of_tag(name, [tag])) for tag in tags] or [_preprocessing({})]
    if any(other != every[0] for other in every):
        raise TowerError(
            f"{spec}: images are prepared in several ways for {name} ({', '.join(tags)}): put the "
            f"file into a directory with an {CONFIG} that says how, and name the directory"
        )
    return every[0]


def _activated(model: Mapping[str, Any], entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with the activation that the weights were trained with."""
    return {**model, "quick_gelu": bool(entries.get("quick_gelu", model.get("quick_gelu")))}


def _in_directory(spec: str, directory: Path, model: Mapping[str, Any] | None) -> Wanted:
    """The model in a directory in the layout of the hub."""
    entries: Mapping[str, Any] = {}
    if (directory / CONFIG).is_file():
        entries = read_object(directory / CONFIG)
        model = entries.get("model_cfg", entries)
    parts = {"embed_dim", "vision_cfg", "text_cfg"}
    if not isinstance(model, Mapping) or not parts <= set(model):
        raise TowerError(
            f"{spec}: the directory has no {CONFIG} with a model_cfg of {', '.join(sorted(parts))}"
        )
    files = [directory / name for name in WEIGHTS] + sorted(directory.glob("*.safetensors"))
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise TowerError(f"{spec}: the directory has no {WEIGHTS[0]}; {_never()}")
    preprocessing = entries.get("preprocess_cfg")
    return Wanted(
        spec,
        directory.resolve().name,
        model,
        _preprocessing(preprocessing if isinstance(preprocessing, Mapping) else {}),
        found,
        directory if any((directory / name).is_file() for name in TOKENIZER) else None,
    )


def _checked(spec: str, file: Path) -> Path:
    if file.suffix in PICKLED:
        raise TowerError(f"{spec}: {file.name} is pickled; {_never()}")
    if not file.is_file():
        raise TowerError(f"{spec}: there is no file {file}")
    if file.suffix != ".safetensors":
        raise TowerError(f"{spec}: {file.name} is no safetensors file; {_never()}")
    return file


def _never() -> str:
    return (
        "pickled files may run code and are not read: save the weights with "
        "safetensors.torch.save_file and name that file"
    )


def _fetched(spec: str, entries: Mapping[str, Any]) -> Path:
    """The file of weights that open_clip lists, from the hub or its cache."""
    hub = entries.get("hf_hub") or ""
    if entries.get("file"):
        return _checked(spec, Path(entries["file"]))
    if not hub:
        raise TowerError(
            f"{spec}: its weights are published as {entries.get('url')} only; {_never()}"
        )
    repository, _, name = hub.rpartition("/")
    names = [Path(name).with_suffix(".safetensors").name] if name else []
    return _from_hub(spec, repository, tuple(dict.fromkeys([*names, WEIGHTS[0]])))


@functools.cache
def _from_hub(spec: str, repository: str, names: tuple[str, ...]) -> Path:
    """The first of some files that a repository on the hub has; asked for once in a run."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:
            raise _unreachable(spec, repository, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub's library and what it stands on fail in many ways
            raise _unreachable(spec, repository, error) from error
    raise TowerError(f"{spec}: {repository} on the hub has no safetensors file; {_never()}")


def _unreachable(spec: str, repository: str, error: Exception) -> TowerError:
    return TowerError(
        f"{spec}: its weights ({repository} on the hub) can't be reached: {first_line(error)}"
    )
