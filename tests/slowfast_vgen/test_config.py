"""What the schema refuses, and what is the paper's."""

import pytest

from common.errors import UserError
from common.run.results import hashed_keys
from common.run.schema import plain
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.settings import Stage
from tests.slowfast_vgen.small import config

REFUSED = {
    "model.window=3": "model.window=3 with chunks of 2 frames: past and new chunk are 4 frames",
    "model.window=5 method=retrieval": "past and new chunk, with method.context=retrieval, are 6 frames",
    "method.context=anchor model.window=6": "method.context=anchor is a baseline without memory",
    "runtime.dtype=float64": "runtime.dtype=float64, runtime.autocast=false: latents are float32 here",
    "fast.rank=0": "fast.rank=0: use 1 or more",
    "fast.weights=[A]": "A alone has no effect while B is 0",
    "fast.learned=true": "fast.learned=true with method.stage=none: nothing learns the rates",
    "fast.first_move=0.1": "fast.first_move=0.1 with fast.learned=false",
    "method.past=frame": "method.past=frame with slow.one_frame=0: no clip of one given frame is trained",
    "slow.no_past=1.5": "slow.no_past=1.5: it is a share",
    "slow.one_frame=0.9": "slow.no_past=0.2 with slow.one_frame=0.9: shares of one whole",
    "slow.ema=1": "slow.ema=1.0: it is the share of the past that is kept",
    "slow.steps=0": "slow.steps=0: use 1 or more",
    "slow.lr=-1": "slow.lr=-1.0: use a finite value of 0 or more",
    "outer.warmup=1": "outer.warmup=1.0: use a value in",
    "outer.episodes=1": "outer.episodes=1: use 2 or more",
    "outer.families=[]": "outer.families=\\[\\]: no episode to learn from",
    "inner.unroll=truncate": "inner.unroll=truncate: use stored, recompute or first_order",
    "evaluation.batch=1": "evaluation.batch=1: use 2 or more",
    "evaluation.longer=[0]": "evaluation.longer=\\[0\\]: lengths of 1 or more",
    "evaluation.videos=1": "evaluation.videos=1: an interval needs two; use 0 for none",
    "method=temp_lora method.copies=true": "method.copies=true with method.memory=true, method.stage=none: nothing",
    "evaluation.ahead=-1": "evaluation.ahead=-1: use 0 or more",
    "consolidate.batch=0": "consolidate.batch=0: use 1 or more",
}


@pytest.mark.parametrize(("word", "message"), REFUSED.items())
def test_what_cannot_work_is_refused_in_words(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(*word.split())


def test_a_loop_without_memory_and_an_outer_loss_of_nothing_are_refused():
    with pytest.raises(UserError, match="method.stage=loop with method.memory=false: it learns with memories"):
        config("method=loop", "method.memory=false")
    with pytest.raises(UserError, match="no chunk is scored"):
        config("outer.replay=0", "outer.returns=0")


def test_the_faithful_arm_is_the_papers_and_helps_for_small_sizes_are_not():
    assert not config().faithful
    words = ("diffusion=eps", "model.mask_channel=false", "fast.steps=1", "fast.draws=1", "fast.rank=32")
    assert config(*words).faithful
    assert not config(*words, "method=meta", "fast.rank=32").faithful
    assert not config(*words, "method=full_sequence").faithful
    for name in ("one_frame", "copy"):
        assert not config(*words, f"method={name}").faithful


def test_what_fast_learning_would_do_counts_only_where_there_is_any():
    words = ("diffusion=eps", "model.mask_channel=false", "fast.draws=4")
    assert config(*words, "method=slow").faithful and not config(*words, "method=temp_lora").faithful


def test_new_keys_leave_the_hash_of_a_run_as_it_was():
    keys = hashed_keys(plain(config()), TrainConfig)
    assert not [key for key in keys if key.startswith("features.") or key in ("evaluation.videos", "method.copies")]
    asked = hashed_keys(plain(config("evaluation.videos=2", "features.steps=9", "features.cache=x")), TrainConfig)
    assert {key: asked[key] for key in asked.keys() - keys.keys()} == {"evaluation.videos": 2, "features.steps": 9}


@pytest.mark.parametrize("word", ["slow.run=there/seed-${seed}", "slow.run=there/seed-$\\{seed\\}"])
def test_the_run_whose_slow_weights_are_taken_may_be_named_by_the_seed(word):
    assert config(word, "seed=2").slow.run == "there/seed-2"  # the second is what a sweep makes of the first


def test_only_a_second_stage_has_outer_steps():
    assert config("method=temp_lora").outer_steps == 0
    assert {config(f"method={name}").method.stage for name in ("meta", "loop_first_order")} == {Stage.meta}
    assert config("method=finetune").outer_steps == 3
