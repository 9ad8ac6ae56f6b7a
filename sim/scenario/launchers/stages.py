"""Layers of pipeline stages, as Megatron-LM and torchtitan divide them."""

import re
from typing import Any

from sim.scenario.launchers.settings import Settings

LONGEST = 1 << 16
"""Letters of a layout that is written out."""


def virtual(s: Settings, pipeline: int, layers: int) -> int:
    """Stages of a rank, by whichever flag says them (validate_args of megatron/training/arguments.py)."""
    if layout := _layout(s):
        return max(1, _stages(layout) // pipeline)
    if chunks := s.whole("num_virtual_stages_per_pipeline_rank", 0, least=0):
        return chunks
    if chunks := s.whole("virtual_pipeline_model_parallel_size", 0, least=0):
        return chunks
    if not (size := s.whole("num_layers_per_virtual_pipeline_stage", 0, least=0)):
        return 1
    whole = layers + s.flag("account_for_embedding_in_pipeline_split") + s.flag("account_for_loss_in_pipeline_split")
    if whole % (pipeline * size):
        what = f"{whole} layers cannot be divided into stages of {size} on {pipeline} ranks"
        raise s.refusal("num_layers_per_virtual_pipeline_stage", what)
    return whole // pipeline // size


def _layout(s: Settings) -> str:
    return s.word("pipeline_model_parallel_layout").strip("'\"").replace(" ", "")


def _stages(layout: str) -> int:
    """Stages of a layout such as Et*3|(tt|)*6,mL: repetitions are written out, and | parts stages
    (megatron/core/transformer/pipeline_parallel_layer_layout.py)."""
    text = layout.replace(",", "")
    for pattern in (r"\(([^()]+)\)\*([0-9]{1,4})", r"([^*()])\*([0-9]{1,4})"):
        if sum(int(match[2]) * len(match[1]) for match in re.finditer(pattern, text)) > LONGEST:
            return 1
        text = re.sub(pattern, lambda match: match[1] * int(match[2]), text)
    return text.count("|") + 1


def placement(s: Settings, pipeline: int, chunks: int, layers: int) -> Any:
    """Layers of each stage: a layout, evenly, or a list where the first or last rank has others."""
    if layout := _layout(s):
        return layout
    first = s.whole("decoder_first_pipeline_num_layers", s.whole("num_layers_in_first_pipeline_stage", 0, 0), least=0)
    last = s.whole("decoder_last_pipeline_num_layers", s.whole("num_layers_in_last_pipeline_stage", 0, 0), least=0)
    ends = s.flag("account_for_embedding_in_pipeline_split"), s.flag("account_for_loss_in_pipeline_split")
    if first or last:
        return _uneven(s, pipeline, chunks, layers, first, last)
    if not any(ends):
        return "even"
    stages = pipeline * chunks
    counts = [(layers + sum(ends)) // stages] * stages
    counts[0] -= ends[0]
    counts[-1] -= ends[1]
    return counts


def _uneven(s: Settings, pipeline: int, chunks: int, layers: int, first: int, last: int) -> list[int]:
    """Stages of a rank are alike; ranks between the first and the last are too."""
    between = pipeline - bool(first) - bool(last)
    rest = layers - first - last
    name = "decoder_first_pipeline_num_layers" if first else "decoder_last_pipeline_num_layers"
    if rest < 0 or (between and rest % (between * chunks)) or (not between and rest):
        raise s.refusal(name, f"leaves {rest} layers for {between} ranks of {chunks} stages")
    ranks = [first] * bool(first) + [rest // between if between else 0] * between + [last] * bool(last)
    if any(count % chunks for count in ranks):
        raise s.refusal(name, f"cannot be divided into {chunks} stages of a rank")
    return [count // chunks for count in ranks] * chunks


def lighter_ends(layers: int, stages: int, first: int, last: int) -> list[int]:
    """torchtitan's split: as evenly as it goes, where the first stage counts as `first` and the last as `last` layers
    more (torchtitan/distributed/pipeline_parallel.py, generate_llm_fqn_per_model_part)."""
    each, more = divmod(layers + first + last, stages)
    counts = [each + (stage < more) for stage in range(stages)]
    counts[0] -= first
    counts[-1] -= last
    return counts
