"""What the keys of result.json are: each with its unit and a sentence, which docs/REFERENCE.md shows.

Keys are dotted; `*` stands for one name or number at its place (a pipeline position, a class of links), `a|b` for
either. SI units unless the key says otherwise.
"""

from collections.abc import Iterable
from itertools import takewhile

from hwmodels.document import did_you_mean

PHASES = "forward|backward|weight|overlapped|bubble|optimizer"
FIGURES = {
    "schema_version": "version of this file's keys",
    "scenario": "name of the scenario, as its file says it; see overrides",
    "scenario_hash": "digest of all that decides the answer: equal hashes are equal runs",
    "overrides.*": "what the command line or the caller changed in the file, key=value each",
    "unfelt.*": "a line for each key that somebody asks about and that changes nothing in this run, and why",
    "detail": "what is drawn: op, layer or chunk",
    "gpus": "GPUs of the cluster; null with chunk times",
    "feasible": "whether every rank fits in memory and the scenario's limits hold",
    "infeasible.*": "a line for each reason against it",
    "advice.*.*": "where a rank does not fit in memory, up to three changes with which it does, fastest first; of the "
    "command line alone: step_time_s, longer_s than this step, peak_bytes",
    "advice.*.change.*": "that change as overrides, key=value each",
    "step_time_s": "seconds of one training step",
    "tokens_per_step": "tokens of a step, all sequences together; null with chunk times, as all to mfu",
    "tokens_per_day": "tokens a day at this step time",
    "gpu_hours_per_trillion_tokens": "GPU-hours for 10^12 tokens",
    "tflops_per_gpu.causal|non_causal": "10^12 FLOP/s of a GPU; causal counts half of the attention matrix",
    "mfu.causal|non_causal": "the same over the device's peak",
    "mfu_peak.precision|tflops": "that peak: of dense products in this format, 10^12 FLOP/s",
    f"phases_s.{PHASES}": "seconds by phase, mean of pipeline positions; they add up to the step",
    f"phases_per_rank.{PHASES}.*": "seconds by phase and pipeline position",
    "bubble_fraction": "idle part of the step between a position's first moment and its optimizer, mean of positions",
    "bubble_s.fill|activations|gradients|drain": "seconds idle by cause (what is waited for), mean of positions",
    "bubble_s.sends": "the same, for what it sends itself; where comm.messages is waited",
    "exposed_communication_s": "seconds in which an exchange (or a gather or reduction in a pass) runs and compute "
    "waits for it, mean of positions; what "
    "messages take of its NICs is in them",
    "waiting_for_peers_s": "seconds in which an exchange waits for slower ranks; where ranks differ",
    "overlap_fraction": "part of the exchanges' time that compute hides; null where there are none",
    "binds.resource|line": "what most of the step goes to (by the waterfall), and a line on it",
    "binds.seconds|share": "seconds of the step that do, and their part of it",
    "binds.next.resource|seconds|share": "the same of what comes next; binds.next is null where nothing does",
    "binds.hidden_times": "how many times as long communication would be as long as the compute that it hides behind; "
    "null where most is exposed, or it is that long",
    "price_shares.*": "part of compute and communication time by rung of the price ladder",
    "price_grade": "the rung that most of that time rests on",
    "price_warning": "a line where most of it is roofline; else null",
    "comm.hold": "when communication has its SMs: always, or while_running",
    "comm.sms": "SMs that it holds then",
    "host_copy_s": "seconds in which averaged parameters are copied to the host, beside the step",
    "events": "events that the simulator handled",
    "peak_memory_bytes.*.*": "highest bytes of a device at each pipeline position, and by part at that moment",
    "peak_memory_ranks.*": "rank whose peak that is, where loads were drawn",
    "worst_memory.peak_bytes": "the highest of these peaks; worst_memory is null with chunk times",
    "worst_memory.capacity_bytes": "memory of a device",
    "worst_memory.position": "pipeline position of the highest peak",
    "worst_memory.rank": "rank of the highest peak, where loads were drawn",
    "memory_beside.cuda_context|nccl_buffers|fragmentation.*": "lowest and highest bytes that a device holds beside "
    "its peak, on stacks whose libraries these are: stated spreads, which decide nothing (sim.analysis.overheads)",
    "intervals_90.*": "90 % interval [low, high] of the figure of that name: by prices and by what the model leaves "
    "out; of phases_s and bubble_fraction by prices alone",
    "intervals_90.*.*": "its ends, or the interval of one of its parts",
    "intervals_90.*.*.*": "ends of that",
    "interval_parts.prices|left_out.*": "seconds of the step [low, high] by either part alone: prices as uncertain as "
    "their sources say, and what measured runs were off beyond that (sim.analysis.left_out)",
    "interval_parts.class.kind|stack|generation|scale": "the run's class: dense or mixture, software, GPUs, how many",
    "interval_parts.groups": "published layouts of its kind, whose errors the second part is learned from",
    "interval_parts.mfu": "its MFU, which widens that part where it is low",
    "interval_parts.unsaid.*": "deciding keys that the scenario leaves to the stack, each of which widens that part",
    "tornado.*.*": "causes of the interval, largest first: cause, spread, and seconds of the step when it is dearer by "
    "its spread (step_s) or cheaper (cheaper_s)",
    "communication.*.*": "each exchange, message and ring: name, where, seconds with its links to itself (alone_s), of "
    "an exchange beside the messages on its NICs (shared_s), beside all else (beside_s) and at its bandwidth bound, "
    "bytes as counted, on the NIC and on NVLink, and what limits it",
    "communication.*.way|sms": "how NCCL does it, and the SMs that it holds meanwhile; where comm.collectives is nccl",
    "communication_of": "of which ranks that is, where ranks differ",
    "layers_per_stage.*": "transformer layers of each stage, prediction modules aside: placement=[...] takes this list",
    "pair_s.*": "the pair (or the chunk) of the middle position: name, position, seconds alone; where ranks differ "
    "mean seconds, min and max by rank, steps, and balanced_seconds",
    "expert_rows.*": "expected, smallest and largest padded expert rows of a rank; where loads were drawn",
    "critical_ranks.*.*": "ranks that the step waits for, worst first: rank, node, replica, pipeline_position, seconds "
    "of the critical path, beyond_s more than in an even step, part of that",
    "documents.mean_length": "tokens of a document as sequences have it, mean; documents: where batch.lengths is given",
    "documents.mean_length_by_token": "the same of the document that a token is in, mean over tokens",
    "documents.per_sequence": "documents in a sequence, mean",
    "documents.padding": "part of sequences that is padding; where they are not packed",
    "documents.attention_share": "part of compute, kernels alone, that is attention",
    "documents.micro_batches_p95|ranks_p95": "compute of a micro-batch, and of a rank in the step: 95th percentile "
    "over mean; where documents differ",
    "documents.micro_batches_max|ranks_max": "the same, the most over the mean",
    "documents.even_step_time_s": "seconds of the same step with as much attention on every rank and micro-batch",
    "documents.imbalance_s": "seconds that the step takes longer than that",
    "shown_replica": "the replica that is drawn, where ranks differ",
    "faults_without_effect.*": "faults that change nothing, and why",
    "routing.*": "of drawn loads: kind, layers, rows_percentiles, nodes and ranks that a token reaches",
    "routing.*.*": "the same, by layer or percentile; max_vio: largest over mean tokens of an expert, less 1",
    "routing.*.*.*": "rank_imbalance: largest over mean of what a rank receives or computes, less 1",
    "routing.*.*.*.*": "the same by layer",
    "links.*": "the fabric, placement, routing, seconds of a bin, whether blocking is priced; left_out: why nothing is",
    "links.*.*": "kinds of traffic that are spread evenly over the step",
    "links.classes.*.*": "of each class of links: links, mean and busiest utilisation",
    "links.classes.*.bytes.*": "bytes by kind of traffic",
    "campaign.seeds|nodes|spares|steps|tokens": "of a campaign: seeds that were drawn, nodes of the job, spares beside "
    "them, steps and tokens of all phases",
    "campaign.phases.*.*": "each phase: name, learning rate, length, steps, tokens, work_s and gpu_hours of its steps, "
    "begins_days without failures, peak and capacity of a device, layout, how many of its batches were simulated",
    "campaign.phases.*.sequences|step_s.*": "sequences and seconds of its first and last step",
    "campaign.ideal.days|gpu_hours|dollars": "of the steps alone",
    "campaign.days|gpu_hours|goodput|dollars|energy_j.mean|p5|p25|p50|p75|p95": "over seeds, of the whole run: goodput "
    "is the steps' part of the wall clock, dollars are with spares, joules of the whole building",
    "campaign.intervals_90.days|gpu_hours|dollars|energy_j.*": "ends of the 90 % interval of chance and of what steps "
    "are uncertain by, which all phases share; dollars null where nobody says a price",
    "campaign.hours_s.work|checkpoints|evaluation|changes|recomputed|detection|replacement|restart|slow": "mean "
    "seconds by cause, which add up to the mean run",
    "campaign.interruptions.*.mean|p5|p25|p50|p75|p95": "how often by cause, over seeds",
    "campaign.interruptions.mean_s": "mean seconds between two, by the plan's rates",
    "campaign.checkpoint.kind|phase|count": "of checkpoints, those of the longest phase; how many without failures",
    "campaign.checkpoint.total_bytes|node_bytes": "bytes of a checkpoint, and of a node's part",
    "campaign.checkpoint.snapshot_s|write_s|send_s|stall_s|lag_s|stored_lag_s|load_s|reload_s": "seconds: copied to "
    "the host, to storage, to other nodes; in which training waits; until it can be loaded; to load it",
    "campaign.checkpoint.every_s|optimum_s|young_s": "seconds of work between two, and those that Daly and Young say",
    "campaign.published.*.what|published|simulated|error|source": "published GPU-hours beside those of the same steps",
    "campaign.seeds_by_days.first|last": "ends of the histogram of seeds",
    "campaign.seeds_by_days.seeds.*": "seeds in each of its parts",
    "campaign.slower": "how many times as long a step takes while a node is slow",
    "campaign.power_w.busy|idle": "watts of a GPU's part of the building, while it trains and while it waits",
    "serve.requests|span_s|load|gpus|in_system|preemptions|swapped|failures|down_s": "of a served load: requests, "
    "seconds from the first to the last answer, saturated (a closed loop) or averaged (over arrivals), GPUs of all "
    "pools, requests in the system on average, caches that were computed again, caches that went to host memory, "
    "instances that failed, and seconds that they were not there",
    "serve.ttft_s|tpot_s|inter_token_s|end_to_end_s|queue_s|transfer_s.mean|p50|p90|p99": "seconds to the first token, "
    "a later token, between tokens, to the last one, until a prompt is begun, of its cache's way",
    "serve.waiting_s.instance|prompt|transfer|answer": "mean seconds of a request by what it waits for",
    "serve.goodput.requests_per_s|part|ttft_part|tpot_part": "requests within objectives: a second (the rate at which "
    "requests come times their part; of a closed loop, over the whole run), of all, and those within one of them",
    "serve.tokens.*": "of prompts, those of them that others had left in HBM or in host memory, and of answers: in "
    "all, a second, GPU and node; dollars of a million",
    "serve.energy.joules|joules_per_million|joules_per_million_output": "of GPUs; of a million tokens, and of answers'",
    "serve.busy.*": "seconds of steps of a kind a second, over all instances",
    "serve.cache_used.mean|most": "part of an instance's blocks in use: over time and instances, and most of any",
    "serve.pools.*.*": "each pool: GPUs, bytes of weights, tokens that the cache of an attention group holds",
    "serve.decode_step.*": "a decode step at the mean load: sequences, keys, seconds, rows of the busiest rank "
    "over the mean rank's",
    "serve.decode_step.*.*": "the same by part of a layer",
    "serve.decode_step.kernels.*.*": "the same by kernel, with its launches",
    "serve.operating_points.*.sequences|tpot_s|output_per_s_gpu": "decode steps of more and more sequences: seconds a "
    "token, tokens a second and GPU",
    "rl.step_s": "of reinforcement learning: seconds of a step, from weights on their way to the next, on average",
    "rl.steps_s.*": "the same, step by step",
    "rl.steps|stale|answers|apart": "steps that are reported, updates that rollouts' weights are behind, answers of a "
    "step, whether rollouts have GPUs of their own",
    "rl.gpus.training|rollouts": "GPUs that do so",
    "rl.tokens.prompts|answers|per_s_gpu": "tokens of a step, and of both a second and GPU, all GPUs counted",
    "rl.parts_s.*": "mean seconds of each part of a step, whoever has it: tail is the part of the rollout in which an "
    "instance waits for the last answer, on average; sent_log_probs, sent_update: until workers have what these are "
    "over; away, back: optimizer states to the host and back; places: weights of rollouts and of the trainer that "
    "change places",
    "rl.lanes_s.*.*": "seconds of a step by what GPUs do or wait for; of each kind of GPUs they add up to the step",
    "rl.lengths.mean|p50|p90|p99|longest|longest_expected|cut_off": "tokens of answers: longest of a step as drawn and "
    "as expected, and the part of answers that are cut off",
    "rl.update.*": "mean of updates: sequences, their length, micro-batches of a pipeline, part that is padding, "
    "seconds, bubble",
    "rl.memory.*": "bytes on a GPU: peak of an update and what there is; the reference beside it; of a critic, which "
    "GRPO has not; weights and cache of rollouts",
    "rl.weights.bytes|sync_s": "of the model as rollouts have it, and seconds until all of them have new ones",
    "rl.preemptions": "answers that lost their cache and computed it again",
    "rl.published.step_s|error|source": "a published step beside ours",
    "rl.timeline.*.*": "periods from the first reported step on: lane, what, step, start_s, end_s",
    "files.*": "digest (BLAKE2b) of each other file of the run, by its name in the folder: one that differs is not "
    "replaced by another run; of a folder alone",
    "wall_seconds": "seconds that the run took; of the command line alone",
}
"""Dotted key -> what it is. Where a sentence speaks of positions, they are those of the pipeline."""


def legal(key: str, more: Iterable[str] = ()) -> bool:
    """Whether a run may have a figure under a dotted key, or under the start of one; more: keys beside FIGURES."""
    parts = key.split(".")
    patterns = (pattern.split(".") for pattern in (*FIGURES, *more))
    return any(len(parts) <= len(pattern) and all(map(_stands, pattern, parts)) for pattern in patterns)


def _stands(pattern: str, part: str) -> bool:
    return pattern == "*" or part in pattern.split("|")


def nearest(key: str, more: Iterable[str] = ()) -> str:
    """ ", did you mean ...?" for a key that is not legal, or ""."""
    plain = {".".join((*head, word)) for *head, last in map(_named, (*FIGURES, *more)) for word in last.split("|")}
    return did_you_mean(key, sorted(plain))


def _named(pattern: str) -> list[str]:
    """The parts of a pattern as far as they are names."""
    return list(takewhile(lambda part: part != "*", pattern.split(".")))


def table() -> str:
    """The keys as a table of Markdown."""
    rows = (f"| `{key.replace('|', ', ')}` | {text} |" for key, text in sorted(FIGURES.items()))
    return "\n".join(("| key | what it is |", "|---|---|", *rows)) + "\n"
