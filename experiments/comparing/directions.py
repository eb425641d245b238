"""Whether a metric is better the higher or the lower, by its name."""

import re

from experiments.comparing import scoring

# Of a name's parts between slashes the last that tells counts; of these lists the first that knows a word of it.
_NEITHER = r"floor|scale|norm|std|stderr|variance|weight|count|generator|discriminator|per_episode"
_RATE = r"per_second|throughput|fps|sps|speed|mfu"
_LOWER = (
    r"loss|losses|error|errors|err|mse|rmse|mae|fid|kid|nll|bpd|bits_per_dim|bits_per_dimension|perplexity|ppl"
    r"|negative_log_likelihood|neg_log_likelihood|cross_entropy|distance|divergence|lpips|mmd|regret|wer|cer|brier|ece"
    r"|latency|reconstruction|time|second|seconds|minutes|hours|ms|memory|failures"
)
_HIGHER = (
    r"return|returns|reward|rewards|score|scores|normalised|normalized|success|win|wins|accuracy|acc|precision|recall"
    r"|f1|auc|auroc|iou|elbo|likelihood|log_prob|psnr|ssim|inception|improvement"
)
_KINDS = ((_NEITHER, scoring.UNKNOWN), (_RATE, "higher"), (_LOWER, "lower"), (_HIGHER, "higher"))
_PATTERNS = [(re.compile(rf"(?:^|_)(?:{words})\d*k?(?:_|$)"), told) for words, told in _KINDS]


def of(metric: str) -> str:
    """Higher, lower, or unknown: of `loss/td`, `eval/accuracy`, `grad/norm`."""
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", metric).lower()
    name = re.sub(r"[^a-z0-9/]+", "_", name).replace("bits/dim", "bits_per_dim")
    name = re.sub(r"/s(ec|econd)?$", "_per_second", name)
    for part in reversed(name.split("/")):
        for pattern, told in _PATTERNS:
            if pattern.search(part):
                return told
    return scoring.UNKNOWN
