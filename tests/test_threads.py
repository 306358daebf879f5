"""Any number of threads, with one denoiser or several, attached or not: every picture is the one made alone."""

import copy
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from diffusers import StableDiffusionPipeline
from sampling import FILM, PROMPTS, build, sample, sharing

ROUNDS = 3


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Let threads interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def one_at_the_tokenizer(monkeypatch) -> None:
    """Encode prompts one at a time: fast tokenizers are not safe among threads, with or without adapters."""
    lock, encode = threading.Lock(), StableDiffusionPipeline.encode_prompt

    def locked(self, *args, **kwargs):
        with lock:
            return encode(self, *args, **kwargs)

    monkeypatch.setattr(StableDiffusionPipeline, "encode_prompt", locked)


def together(*jobs: Callable[[], object]) -> list[list]:
    """Return what each job gives when all run at the same time, several times over."""
    start, answers = threading.Barrier(len(jobs)), [[] for _ in jobs]

    def work(job, found):
        start.wait()
        for _ in range(ROUNDS):
            try:
                found.append(job())
            except BaseException as error:  # to be compared too
                found.append(error)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in zip(jobs, answers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"
    return answers


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("settings", [FILM, {}], ids=["folded", "live"])
def test_pictures_made_at_the_same_time_are_those_made_alone(pipe, settings):
    bare, before = sharing(pipe), weights(pipe.unet)
    adapter = build(pipe, **settings)
    pipes = [sharing(pipe) for _ in range(4)]
    for one in pipes:
        adapter.attach(one)
    alone_pipe = copy.deepcopy(pipes[3])

    def disabled():
        with adapter.disabled():
            return sample(pipes[2], scale=5.0)

    jobs = [
        lambda: sample(pipes[0], scale=2.0),
        lambda: sample(pipes[1], PROMPTS, [8.0, 3.0]),  # rows that differ take the live form
        disabled,
        lambda: sample(bare, scale=6.0),  # attached to nothing
        lambda: sample(alone_pipe, scale=4.0),  # a denoiser of its own, the same adapter
    ]
    alone = [job() for job in jobs]
    for found, wanted in zip(together(*jobs), alone, strict=True):
        assert all(torch.equal(one, wanted) for one in found)
    assert same(before, pipe.unet.state_dict()) and adapter.guidance_scale is None and adapter.enabled


def test_disabled_may_overlap_in_any_order_and_is_each_threads_own(pipe):
    teacher = sample(pipe)
    adapter = build(pipe, **FILM).attach(pipe)
    adapted, elsewhere = sample(pipe), []
    one, other = adapter.disabled(), adapter.disabled()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert torch.equal(sample(pipe), teacher)
    thread = threading.Thread(target=lambda: elsewhere.append(sample(pipe)))
    thread.start()
    thread.join()
    other.__exit__(None, None, None)
    assert torch.equal(elsewhere[0], adapted) and torch.equal(sample(pipe), adapted)


def test_scales_for_a_while_may_overlap_in_any_order(pipe):
    adapter = build(pipe, **FILM).attach(pipe.unet)
    adapter.guidance_scale = 4.0
    one, other = adapter.at(2.0), adapter.at(3.0)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert adapter.guidance_scale == 3.0
    other.__exit__(None, None, None)
    assert adapter.guidance_scale == 4.0


@pytest.mark.parametrize("bare", [True, False], ids=["denoiser", "pipeline"])
def test_a_thread_that_is_interrupted_leaves_the_denoiser_to_the_others(pipe, bare):
    call = torch.randn(1, 4, 8, 8), 500, torch.randn(1, 7, 24)
    before, adapter, victim = weights(pipe.unet), build(pipe, **FILM), threading.local()
    adapter.attach(pipe.unet if bare else pipe)
    if bare:
        adapter.guidance_scale = 5.0
    other = pipe if bare else adapter.attach(sharing(pipe)) and sharing(pipe)

    @torch.no_grad()
    def run():
        return pipe.unet(*call)[0] if bare else sample(pipe)

    def stop(*_):
        if getattr(victim, "here", False):
            raise SystemExit  # as Ctrl-C, no Exception: hooks that always run do not

    def interrupted():
        victim.here = True
        run()

    @torch.no_grad()
    def go_on():
        return pipe.unet(*call)[0] if bare else sample(other, scale=3.0)

    wanted = go_on()
    pipe.unet.up_blocks[0].register_forward_pre_hook(stop)
    errors, found = together(interrupted, go_on)
    assert all(isinstance(one, SystemExit) for one in errors)
    assert all(torch.equal(one, wanted) for one in found)
    assert same(before, pipe.unet.state_dict())


def test_what_an_interrupted_call_has_written_is_never_saved(pipe):
    before, adapter = weights(pipe.unet), build(pipe, **FILM).attach(pipe.unet)
    adapter.guidance_scale = 5.0

    def stop(*_):
        raise KeyboardInterrupt

    handle = pipe.unet.up_blocks[0].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt), torch.no_grad():
        pipe.unet(torch.randn(1, 4, 8, 8), 500, torch.randn(1, 7, 24))
    handle.remove()
    assert same(before, pipe.unet.state_dict())


def test_detaching_waits_for_the_running_pass_and_the_call_is_told(pipe):
    other, adapter = sharing(pipe), build(pipe, **FILM)
    adapter.attach(pipe).attach(other)
    teacher, reached, before = sample(sharing(pipe)), threading.Event(), weights(pipe.unet)

    def reach(*_):
        reached.set()
        threading.Event().wait(0.05)

    def wait(_pipe, step, timestep, tensors):
        thread.join()  # detached after the first pass, which it waits for
        return tensors

    pipe.unet.mid_block.register_forward_pre_hook(reach)
    thread = threading.Thread(target=lambda: (reached.wait(), adapter.detach()))
    thread.start()
    with pytest.warns(UserWarning, match="the adapter was detached during this call, whose last steps were not guided"):
        sample(pipe, callback_on_step_end=wait)
    assert same(before, pipe.unet.state_dict()) and torch.equal(sample(other), teacher)
