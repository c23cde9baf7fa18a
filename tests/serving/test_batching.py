"""The batcher: its answers are those of the classifier, its batches are full or on time, its queue has an end."""

import asyncio
import time

import numpy as np
import pytest
import torch

from kd.errors import KDError
from kd.predictor import Predictor
from kd.serving.batching import Batcher, Full
from kd.serving.limits import Limits
from tests.conftest import make_reviews

TEXTS = [text for text, _ in make_reviews(50)]


def in_loop(classifier, limits, use):
    """Return what ``use(batcher)`` returns, and the sizes of the batches."""
    sizes = []

    async def run():
        batcher = Batcher(classifier.probabilities, limits, lambda texts, seconds: sizes.append(texts))
        try:
            return await use(batcher)
        finally:
            await batcher.close()
            assert batcher.waiting == 0 and not batcher.ready

    return asyncio.run(run()), sizes


def test_each_request_gets_its_own_rows_and_batches_are_full(loaded):
    requests = [TEXTS[:1], TEXTS[1:4], TEXTS[4:5], *([text] for text in TEXTS[5:])]

    async def use(batcher):
        return await asyncio.gather(*map(batcher.classify, requests))

    rows, sizes = in_loop(loaded, Limits(batch_size=8, batch_wait=1000), use)
    assert [len(each) for each in rows] == [len(each) for each in requests]
    np.testing.assert_allclose(np.concatenate(rows), loaded.probabilities(TEXTS), atol=1e-6)
    assert sizes == [8, 8, 8, 8, 8, 8, 2]


def test_a_batch_that_is_not_full_begins_in_time(loaded):
    async def use(batcher):
        start = time.perf_counter()
        await batcher.classify(TEXTS[:1])
        return time.perf_counter() - start

    assert in_loop(loaded, Limits(batch_wait=400), use)[0] >= 0.4
    assert in_loop(loaded, Limits(batch_wait=60_000, batch_size=1), use)[0] < 30


def test_requests_that_came_during_a_batch_do_not_wait_again(held):
    async def use(batcher):
        first = asyncio.create_task(batcher.classify(TEXTS[:1]))
        await asyncio.sleep(1.7)
        others = [asyncio.create_task(batcher.classify([text])) for text in TEXTS[1:4]]
        await asyncio.sleep(1.7)
        held.may.set()
        await first
        start = time.perf_counter()
        await asyncio.gather(*others)
        return time.perf_counter() - start

    seconds, sizes = in_loop(held, Limits(batch_wait=1500), use)
    assert sizes == [1, 3] and seconds < 1.2


def test_what_does_not_fit_is_refused_and_the_rest_is_answered(held):
    async def use(batcher):
        taken = [asyncio.create_task(batcher.classify([text])) for text in TEXTS[:6]]
        await asyncio.sleep(0.05)
        with pytest.raises(Full) as refused:
            await batcher.classify(TEXTS[6:9])
        taken.append(asyncio.create_task(batcher.classify(TEXTS[9:11])))
        await asyncio.sleep(0.05)
        assert batcher.waiting == 8
        held.may.set()
        await asyncio.gather(*taken)
        await batcher.classify(TEXTS[6:9])  # there is room again
        return refused.value.seconds

    assert in_loop(held, Limits(max_waiting=8, batch_size=2, batch_wait=0), use)[0] >= 1


def test_closing_answers_what_was_taken_without_waiting(held):
    async def use(batcher):
        taken = [asyncio.create_task(batcher.classify([text])) for text in TEXTS[:9]]
        await asyncio.sleep(0.05)
        held.may.set()
        start = time.perf_counter()
        await batcher.close()
        await asyncio.gather(*taken)
        return time.perf_counter() - start

    assert in_loop(held, Limits(batch_size=4, batch_wait=60_000), use)[0] < 30
    assert held.sizes == [4, 4, 1]


def test_a_text_that_fails_does_not_fail_the_others(teacher_folder):
    predictor = Predictor.load(teacher_folder)
    with torch.no_grad():
        predictor.model.bert.embeddings.word_embeddings.weight[predictor.tokenizer.vocab["dull"]] = float("nan")

    async def use(batcher):
        return await asyncio.gather(
            *(batcher.classify([text]) for text in ("film", "dull", "plot")), return_exceptions=True
        )

    found, sizes = in_loop(predictor, Limits(batch_wait=100), use)
    assert sizes == [3] and isinstance(found[1], KDError)
    np.testing.assert_allclose(
        np.concatenate([found[0], found[2]]), predictor.probabilities(["film", "plot"]), atol=1e-6
    )


def test_a_request_whose_client_is_gone_does_not_stop_the_others(held):
    async def use(batcher):
        gone, stays = (asyncio.create_task(batcher.classify([text])) for text in TEXTS[:2])
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        held.may.set()
        return len(await stays)

    assert in_loop(held, Limits(batch_wait=0), use) == (1, [2])
