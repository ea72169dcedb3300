"""The command of a rule: open the source, make and write a result for each setting, show a table.

Between the rules and the floor of all command lines (`commands`).
"""

import shlex
from collections.abc import Callable
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from transformers import PreTrainedModel

from commands.inputs import inputs_of
from commands.published import published_name
from commands.screen import printable
from commands.writing.results import Closing, Outputs, result_directories
from commands.writing.results import Setting as Named
from compress.budgets.budgets import SecondBudget
from compress.budgets.settings import Setting
from compress.calibrating.deploying import check_deployment
from compress.choices import DEMO_MODEL, towers_called
from compress.errors import UserError
from compress.making.make import Result, make, share_of, write
from compress.making.rule import Rule
from compress.making.source import Needs, Source, open_source
from compress.options import FullTowerOptions, OutputOptions
from compress.training.processes import is_first
from corpora import CorpusError
from pruning_mechanism import Shape, TowerError, TowerKind, layered, macs, parameters
from pruning_mechanism.families import tower_config
from pruning_mechanism.runtimes import RUNTIMES

MENDABLE = (UserError, TowerError, CorpusError)
"""What the libraries raise where a user of a command can do something about it."""


def run_rule(
    rule: Rule, options: FullTowerOptions, opened: Callable[[], Source] | None = None
) -> None:
    """The command of a rule, whose options have `output` and `overwrite`.

    Args:
        rule: what to do.
        options: of its command.
        opened: gives the source, if that isn't what the options' checkpoints are.

    Raises:
        UserError, UsageError, TowerError, CorpusError: something that is named can't be used, or
            results can't be made.
        TypeError: the options lack `output` and `overwrite`.
    """
    if not isinstance(options, OutputOptions):
        raise TypeError(f"{type(options).__name__} is no OutputOptions: where do results go?")
    _refuse_unread_texts(rule, options)
    called = _called(rule, options)
    directories = result_directories(rule.settings, called, options.output)
    outputs = Outputs(directories, options.overwrite, inputs_of(options), MENDABLE)
    if is_first():
        outputs.check()
    for asked in rule.asked.values():
        if isinstance(asked, SecondBudget):
            check_deployment(asked.deployment, options.device)
    finish = options.finish
    needs = rule.needs | Needs.of(finish.align)
    source = opened() if opened else open_source(options.checkpoints, options.sampling, needs)
    for setting in rule.settings:
        rule.check(source, rule.asked[setting])

    if not is_first():  # it only helps the first one to train
        for setting in rule.settings:
            make(source, rule, setting, finish)
        return

    settings: dict[Named, Setting] = {setting: setting for setting in rule.settings}

    def made(asked: Named, directory: Path) -> Closing:
        result = make(source, rule, settings[asked], finish)
        write(result, source, directory)
        closing = [*summary(source, result), *running(result, directories[asked], options)]
        return Closing(result.compression.notes, closing, result.step.obsolete)

    outputs.write(source.calibration.unreadable, made)


def _refuse_unread_texts(rule: Rule, options: FullTowerOptions) -> None:
    asked = options.checkpoints
    if asked.text_model and not rule.needs.captions and asked.towers == ("vision",):
        raise UserError(f"--text-model is not read: {rule.name} reads no captions; leave it out")


def _called(rule: Rule, options: FullTowerOptions) -> str:
    """What a result's directory is called, before its setting."""
    before = "" if options.model == DEMO_MODEL else f"{_file_name(options.model)}-"
    tower = towers_called(options.checkpoints.towers)
    return f"{before}{rule.name}" if tower == "vision" else f"{before}{rule.name}-{tower}"


def _file_name(model: str) -> str:
    """A checkpoint's public name as a part of a file name."""
    return Path(published_name(model)).name.replace(":", "-")


def summary(source: Source, result: Result) -> list[RenderableType]:
    """What a rule's command ends with: a short table, and how far the alignment came."""
    headings = ("", "tower", "layers", "tokens", "heads", "neurons", "GMACs", "share", "parameters")
    table = Table(title=" → ".join(result.compression.chain))
    for heading in headings:
        table.add_column(heading, justify="right")
    for kind in source.kinds:
        for name, model in (("before", source.model), ("after", result.model)):
            cost, share = macs(model, kind).encoder, share_of(source, model, [kind])
            table.add_row(
                name,
                kind,
                *_layers(model, kind),
                f"{cost / 1e9:.3f}",
                f"{share:.3f}",
                f"{parameters(model, kind):,}",
            )
    found = result.alignment
    if found is None or found.as_it_was:
        return [table]
    return [
        table,
        "mean squared distance to the full tower's embeddings: "
        f"{found.before:.4g} before the alignment, {found.after:.4g} after it, "
        f"{found.left_out:.4g} on images left out",
    ]


def running(result: Result, place: Path, options: FullTowerOptions) -> list[RenderableType]:
    """How a result is run in what it was made to run in, if torch alone isn't that."""
    record = result.compression
    form = RUNTIMES[record.runtime].form
    if record.runtime == "torch" and record.dtype is None:
        return []
    says = f"Stage.load({str(place)!r}) runs it in {record.runtime}, {record.dtype or 'float32'}"
    if form is None:
        return [printable(says)]
    export = f"python -m compress.export {shlex.quote(str(place))} --to {form.name}"
    if record.dtype == "int8":
        images = f"--corpus {shlex.quote(options.corpus)}"
        if options.corpus_dir is not None:
            images += f" --corpus-dir {shlex.quote(str(options.corpus_dir))}"
        return [printable(f"{says}, once it is calibrated: {export} --dtype int8 {images}")]
    return [printable(f"{says}, and keeps its graph in the cache; beside the weights: {export}")]


def _layers(model: PreTrainedModel, kind: TowerKind) -> tuple[str, str, str, str]:
    """A tower's layers, tokens, heads and neurons, as far as rules know them."""
    if kind == "vision" and not layered(model):
        return ("–",) * 4
    shape = Shape.of(model.config, tower=kind)
    first, last = shape.layer_tokens[0].attention, shape.layer_tokens[-1].mlp
    return (
        f"{tower_config(model.config, kind).num_hidden_layers}",
        f"{first:g}" if first == last else f"{first:g} → {last:g}",
        f"{sum(shape.heads):,}",
        f"{sum(shape.neurons):,}",
    )
