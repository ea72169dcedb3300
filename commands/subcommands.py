"""The sub-commands of `clip-cascade`: one row for each command of the project.

A command's module is named here and not imported, so that the list is there at once. `summary` is
the first line of the docstring of the command's options.
"""

from dataclasses import dataclass

GROUPS = {
    "compress": "make a tower cheaper",
    "search": "search your own photos",
    "measure": "measure recall and seconds",
    "draw": "draw figures from results and reports",
    "demo": "the demo checkpoint",
}
"""What the commands of each group do, in the order of the help text."""


@dataclass(frozen=True)
class Subcommand:
    """A command: `clip-cascade NAME` does what `python -m MODULE` does."""

    name: str
    module: str
    group: str
    summary: str


SUBCOMMANDS = (
    Subcommand(
        "joint",
        "compress.joint",
        "compress",
        "Prune, merge, exit and align a CLIP vision tower, all under one budget.",
    ),
    Subcommand(
        "recover",
        "compress.recover",
        "compress",
        "Prune what the rest of a CLIP tower can rebuild; needs images only, or texts only.",
    ),
    Subcommand(
        "fisher",
        "compress.fisher",
        "compress",
        "Prune a CLIP tower by Fisher information (arXiv 2204.09656).",
    ),
    Subcommand(
        "sensitivity",
        "compress.sensitivity",
        "compress",
        "Prune the least sensitive heads of a CLIP tower (arXiv 1905.10650).",
    ),
    Subcommand(
        "baseline",
        "compress.baseline",
        "compress",
        "Prune a CLIP tower by a torch-pruning importance, to compare with.",
    ),
    Subcommand(
        "flip",
        "compress.flip",
        "compress",
        "Leave out patches of every image (FLIP, arXiv 2212.00794).",
    ),
    Subcommand(
        "merge",
        "compress.merge",
        "compress",
        "Merge similar tokens between attention and MLP (ToMe, arXiv 2210.09461).",
    ),
    Subcommand(
        "rank",
        "compress.rank",
        "compress",
        "Let the highest-ranked tokens go on, and fuse the others into one.",
    ),
    Subcommand(
        "resolution",
        "compress.resolution",
        "compress",
        "Reduce all images, or each by what it would lose.",
    ),
    Subcommand(
        "patch-size",
        "compress.patch_size",
        "compress",
        "Read smaller images, cut into as many patches, by a patch embedding solved for anew.",
    ),
    Subcommand(
        "early-exit",
        "compress.early_exit",
        "compress",
        "End a tower after one of its first layers, with a head solved in closed form.",
    ),
    Subcommand(
        "align",
        "compress.align",
        "compress",
        "Align a first stage to the full tower's embeddings by ridge regression, in closed form.",
    ),
    Subcommand(
        "export-tower",
        "compress.export",
        "compress",
        "Export a vision tower for ONNX Runtime or OpenVINO, beside its weights.",
    ),
    Subcommand(
        "heal",
        "compress.heal",
        "compress",
        "Train a pruned, merged or shortened vision tower towards the full tower's embeddings.",
    ),
    Subcommand(
        "distill",
        "compress.distill",
        "compress",
        "Train a small image encoder of timm towards the full tower's embeddings.",
    ),
    Subcommand(
        "index",
        "cascade.index",
        "search",
        "Make photos searchable; only what is new or changed is read, and a cut-off run goes on.",
    ),
    Subcommand(
        "search",
        "cascade.search",
        "search",
        "Find photos of a collection by words, by an example, or by both.",
    ),
    Subcommand(
        "refine",
        "cascade.refine",
        "search",
        "Let the last stage encode photos ahead of any query, until a budget is used up.",
    ),
    Subcommand(
        "export",
        "cascade.export",
        "search",
        "Write what a stage has made of a collection's photos for other programs.",
    ),
    Subcommand(
        "migrate",
        "cascade.migrate",
        "search",
        "Give a collection another last stage without encoding all of its photos again.",
    ),
    Subcommand(
        "serve",
        "cascade.serve",
        "search",
        "Serve a collection as a page and to programs; cascade.search then answers at once, too.",
    ),
    Subcommand(
        "status",
        "cascade.status",
        "search",
        "Say what a collection holds, how far each stage has come, and what was skipped.",
    ),
    Subcommand(
        "experiment",
        "evaluation.cascade",
        "measure",
        "Compress first stages, put each in front of the full tower, measure recall and seconds.",
    ),
    Subcommand(
        "plan",
        "evaluation.plan",
        "measure",
        "Choose m for a collection so that its agreement with the full tower is certified.",
    ),
    Subcommand(
        "stream",
        "evaluation.stream",
        "measure",
        "Count what the last stage encodes over a stream of queries, fixed against adaptive m.",
    ),
    Subcommand(
        "indexing",
        "evaluation.indexing",
        "measure",
        "Index photos, search them meanwhile, and say how soon and how well that works.",
    ),
    Subcommand(
        "equal-time",
        "evaluation.equal_time",
        "measure",
        "Compare rules at equal measured time, as shares of the full tower's.",
    ),
    Subcommand(
        "masking",
        "evaluation.masking",
        "measure",
        "Mask patches by each rule, put each tower in front of the full one, measure.",
    ),
    Subcommand(
        "text-conditioned",
        "evaluation.text_conditioned",
        "measure",
        "Re-rank with fewer tokens, chosen by the query's text or without it; measure both.",
    ),
    Subcommand(
        "zero-shot",
        "evaluation.zero_shot",
        "measure",
        "Classify images by the names of classes: top-k of each stage beside the full tower's.",
    ),
    Subcommand(
        "latency",
        "evaluation.latency",
        "measure",
        "Put models into a latency table: parameters, milliseconds of images and texts, a score.",
    ),
    Subcommand(
        "breakdown",
        "evaluation.breakdown",
        "measure",
        "Split the time from a photograph's bytes to its embedding into reading, ..., encoding.",
    ),
    Subcommand(
        "runtimes",
        "evaluation.runtimes",
        "measure",
        "Time towers in several runtimes, and measure what each keeps of their search results.",
    ),
    Subcommand(
        "patches",
        "evaluation.patches",
        "measure",
        "Write down which patches first stages keep and which tokens they merge, image by image.",
    ),
    Subcommand(
        "thumbnails",
        "evaluation.thumbnails",
        "measure",
        "Say how many photos have a thumbnail that a tower can read, and what each way costs.",
    ),
    Subcommand(
        "seeds",
        "evaluation.seeds",
        "measure",
        "Sum up one experiment's reports under several seeds: means and 95 % t intervals.",
    ),
    Subcommand(
        "table",
        "evaluation.table",
        "measure",
        "Put reports into the paper's table: changes in recall, speedups, MACs, seconds.",
    ),
    Subcommand(
        "draw-pareto",
        "figures.pareto",
        "draw",
        "Draw what first stages and cascades find against what they save, from reports.",
    ),
    Subcommand(
        "draw-mask",
        "figures.mask",
        "draw",
        "Draw the heads and neurons that a result keeps, and the curves that it was chosen by.",
    ),
    Subcommand(
        "draw-repair",
        "figures.repair",
        "draw",
        "Draw each sublayer's relative error before and after its repair.",
    ),
    Subcommand(
        "draw-masking",
        "figures.masking",
        "draw",
        "Draw the cascade's recall and speedup against the share of patches masked.",
    ),
    Subcommand(
        "draw-stream",
        "figures.stream",
        "draw",
        "Draw a collection's cost over its lifetime against the number of queries.",
    ),
    Subcommand(
        "draw-topk",
        "figures.topk",
        "draw",
        "Draw how often the right class is among a stage's first k, from a zero-shot report.",
    ),
    Subcommand(
        "draw-latency",
        "figures.latency",
        "draw",
        "Draw what models score against the milliseconds that they take, from latency reports.",
    ),
    Subcommand(
        "draw-breakdown",
        "figures.breakdown",
        "draw",
        "Draw the milliseconds from a photograph's bytes to its embedding, step by step.",
    ),
    Subcommand(
        "draw-indexing",
        "figures.indexing",
        "draw",
        "Draw what a search finds against minutes of indexing, from a report.",
    ),
    Subcommand(
        "draw-patches",
        "figures.patches",
        "draw",
        "Draw which patches first stages keep and which tokens they merge.",
    ),
    Subcommand(
        "demo-closing",
        "demo.closing",
        "demo",
        "Say in one sentence what an experiment found, and what to do next.",
    ),
    Subcommand(
        "demo-first-stage",
        "demo.first_stage",
        "demo",
        "Make a first stage by the joint rule; the defaults made demo/clip-scenes-first.",
    ),
    Subcommand(
        "demo-scenes",
        "demo.scenes",
        "demo",
        "Draw held-out scenes into files, to index and search.",
    ),
    Subcommand(
        "demo-photographs",
        "demo.photographs",
        "demo",
        "Make camera files with thumbnails, and web-sized ones, of a corpus's pictures.",
    ),
    Subcommand(
        "demo-train",
        "demo.train",
        "demo",
        "Train a small CLIP (12 × 12 heads, 128 px); the defaults made demo/clip-scenes.",
    ),
    Subcommand(
        "demo-probe",
        "demo.probe",
        "demo",
        "Say what a checkpoint knows of held-out scenes.",
    ),
)
