"""What HGCVAE changes from epoch to epoch: masked nodes, kinds of negatives, weight of the divergence."""

from gcl.methods.configs.hgcvae import HgcvaeConfig


def mask_rate_at(epoch: int, config: HgcvaeConfig) -> float:
    """Share of the nodes masked in an epoch.

    The linear schedule rounds its step to four decimals, as the released code does: 0.3, 0.3075, ... Masking
    stops at `mask_rate_end` where that is given; as released, it goes on growing beyond twice the first rate
    in a run of more than E epochs, up to `max_mask_rate`.

    Args:
        epoch: counter from 0.
        config: schedule, first and last rate, E.
    """
    first, top = config.mask_rate, config.max_mask_rate
    last = 2 * first if config.mask_rate_end is None else config.mask_rate_end
    rate = first
    if config.mask_schedule == "linear":
        rate = first + round((last - first) / config.schedule_epochs, 4) * epoch
    elif config.mask_schedule == "exponential":
        rate = first * (last / first) ** (epoch / config.schedule_epochs)
    elif config.mask_schedule == "step":
        rate = min(first + config.mask_step * epoch, last)
    if config.mask_rate_end is not None:
        top = min(top, last)
    return min(rate, top)


def copies_at(epoch: int, config: HgcvaeConfig) -> tuple[int, int]:
    """Copies of all nodes in the bank of an epoch: of dropout negatives, and of vi negatives.

    Args:
        epoch: counter from 0.
        config: kinds, size of the bank, ramp.
    """
    copies = 2 * config.num_negative_pairs
    if config.negatives != "progressive":
        return (copies, 0) if config.negatives == "dropout" else (0, copies)
    num_vi = copies * epoch // ramp_epochs(config)
    if config.clamp_negatives:
        num_vi = min(num_vi, copies)
    return max(0, copies - num_vi), num_vi


def ramp_epochs(config: HgcvaeConfig) -> int:
    """Epochs until all negatives are vi."""
    if config.negatives_ramp_epochs is not None:
        return config.negatives_ramp_epochs
    return max(1, round(0.6 * config.schedule_epochs)) if config.is_strict else 25


def kl_weight_at(epoch: int, config: HgcvaeConfig) -> float:
    """Weight of the divergence in an epoch, which grows linearly while it warms up.

    Args:
        epoch: counter from 0.
        config: weight, warm-up, E.
    """
    warmup = _warmup_rate(config) * config.schedule_epochs
    return config.kl_weight * (min(1.0, epoch / warmup) if warmup else 1.0)


def depends_on_schedule_epochs(config: HgcvaeConfig) -> bool:
    """Whether anything changes in step with E, so that another number of epochs is another schedule."""
    ramps = config.negatives == "progressive" and config.contrast_weight > 0
    return (
        config.mask_schedule in ("linear", "exponential")
        or (config.kl_weight > 0 and _warmup_rate(config) > 0)
        or (ramps and config.is_strict and config.negatives_ramp_epochs is None)
    )


def free_nats(config: HgcvaeConfig) -> float:
    """Divergence a dimension that is free."""
    if config.free_nats is not None:
        return config.free_nats
    return 0.02 if config.is_strict else 0.0


def _warmup_rate(config: HgcvaeConfig) -> float:
    if config.kl_warmup_rate is not None:
        return config.kl_warmup_rate
    return 0.3 if config.is_strict else 0.0
