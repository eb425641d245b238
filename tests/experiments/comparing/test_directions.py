"""Which way a metric is better: every name that a run here logs, and the field's usual ones."""

import pytest

from experiments.comparing import directions

HIGHER = """eval/episode_return eval/episode_return_median train/episode_return eval/human_normalised eval/accuracy
train/accuracy eval/precision eval/recall eval/precision_ratio eval/recall_ratio eval/elbo
time/frames_per_second time/images_per_second time/frames_per_second_overall speed/frames images/s
eval/inception_score psnr top1_accuracy valAccuracy eval/win_rate test/log_likelihood eval/reward_mean
success_rate f1 fps"""
LOWER = """loss/td loss/total loss/reconstruction loss/kl loss/gradient_penalty eval/loss eval/fid eval/kid
eval/fid_ratio eval/bits_per_dim eval/reconstruction eval/nll eval/nll_nats value/error train/squared_error
time/evaluation_seconds time/environment_seconds time/checkpoint_seconds time/act_seconds bits/dim bpd
eval/FID fid50k eval/fid_10k val_loss top1_error test/negative_log_likelihood perplexity eval/mse
seconds_per_step regret"""
UNKNOWN = """grad/norm grad/generator value/mean train/epsilon train/epoch train/episodes train/episode_frames
eval/episode_frames train/real_logit train/fake_logit loss/generator loss/discriminator eval/fid_floor
eval/kid_floor eval/recall_floor eval/kid_stderr eval/episode_return_stderr learning_rate policy/entropy
eval/kl eval/play replay/size"""


@pytest.mark.parametrize("told, names", [("higher", HIGHER), ("lower", LOWER), ("unknown", UNKNOWN)])
def test_names_say_which_way_is_better(told: str, names: str):
    assert {name: directions.of(name) for name in names.split()} == dict.fromkeys(names.split(), told)
