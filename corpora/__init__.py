"""Image–caption corpora, each a `datasets.Dataset` with columns image, captions and key.

The first step of corpus → importance → mask: calibration and evaluation data come from here, and
nothing here knows of models. Files are read as their publishers ship them:

| name | what the directory holds | splits |
| --- | --- | --- |
| scenes | no directory: images and captions are generated | train, validation |
| coco | `train2017/`, `val2017/`, `annotations/captions_{train,val}2017.json` (or 2014) | COCO's |
| flickr30k | `results.csv` or `results_20130124.token`, `flickr30k_images/` | by hash |
| flickr8k | `Flickr8k.token.txt` or `captions.txt`, `Flicker8k_Dataset/` or `Images/` | by hash |
| | … and `Flickr_8k.{train,dev,test}Images.txt` | the publisher's |
| folder | `train/`, `validation/`, `test/`, each with images and `metadata.jsonl` | these |
| | … or images and `metadata.jsonl` (`file_name`, `captions`) right in it | by hash |
| | … or, where no captions are asked for, images alone, in folders of any name | like these |
| hub:owner/name | none; `hub:owner/name@config` for one of its configs | the publisher's |
| hub | the hub's layout: parquet files or an imagefolder (or `hub:./DIR`) | the publisher's |

`dataset_{coco,flickr30k,flickr8k}.json` (Karpathy's splits, the ones the field reports) go before
the publisher's split where they lie in the directory; train is then train and restval. By hash
means `corpora.splits.hashed`: 1,000 images, or a fifth of fewer than 5,000, are held out. Test and
validation are the same images where a corpus has just one of them.

A picture, that is, a file or its bytes, however often it comes and under whatever names, is one
row with all of its captions. One that a publisher has in train and in a held-out split is left out
of train.

Images with a class each instead of captions are loaded by `corpora.labelled`.

What others import is at the top. In the rooms below are `readers` of what publishers ship,
`decoding` of pictures, `generating` of scenes, and `photographs`, which makes camera files of
pictures.

What needs `datasets` is imported when it is first asked for: search decodes images by this package
and needs no more of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from corpora.decoding.images import open_image
from corpora.problems import CorpusError, CorpusWarning
from corpora.splits import SPLITS

if TYPE_CHECKING:
    from corpora.column import drop_unreadable
    from corpora.loading import CORPORA, load_corpus
    from corpora.scenes import load_scenes

__all__ = [
    "CORPORA",
    "SPLITS",
    "CorpusError",
    "CorpusWarning",
    "drop_unreadable",
    "load_corpus",
    "load_scenes",
    "open_image",
]

_ON_DEMAND = {
    "CORPORA": "corpora.loading",
    "drop_unreadable": "corpora.column",
    "load_corpus": "corpora.loading",
    "load_scenes": "corpora.scenes",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)
