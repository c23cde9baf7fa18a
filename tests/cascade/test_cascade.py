"""A cascade as a classifier: who answers, what it computes, and what it refuses to load."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from kd.cascade.cascade import Cascade, checksum
from kd.cascade.threshold import confidence_of
from kd.classifier import TeacherFailed, load
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher
from tests.conftest import make_reviews, make_teacher, run_kd

TEXTS = [text for text, _ in make_reviews(60, seed=3)]


@pytest.fixture(scope="module")
def parts(trained_pair):
    return load(trained_pair / "dan"), load(trained_pair / "mlp"), load(own_teacher(RunDirectory(trained_pair / "dan")))


def test_each_text_is_answered_by_the_first_that_is_sure(parts):
    dan, mlp, teacher = parts
    own = [dan.logits(TEXTS) / 2.0, mlp.logits(TEXTS) / 1.5, teacher.logits(TEXTS)]
    sure = np.stack([np.exp(z).max(axis=1) / np.exp(z).sum(axis=1) for z in own])
    threshold = float(np.quantile(sure[:2], 0.8))
    cascade = Cascade([dan, mlp], teacher, [2.0, 1.5], threshold)
    expected = np.where(sure[0] >= threshold, 0, np.where(sure[1] >= threshold, 1, 2))
    logits, by = cascade.answered(TEXTS, 7)
    assert by.tolist() == expected.tolist() and len(set(by)) == 3
    np.testing.assert_allclose(logits, np.stack(own)[expected, range(60)], atol=1e-5)
    np.testing.assert_allclose(cascade.probabilities(TEXTS).sum(axis=1), 1, rtol=1e-6)
    assert cascade.answers(TEXTS)[1] == [("student 1", "student 2", "teacher")[stage] for stage in expected]
    assert cascade.logits([]).shape == (0, 2) and cascade.label_names == ["negative", "positive"]
    assert (cascade.text_column, cascade.max_length) == (dan.text_column, dan.max_length)
    outcomes = cascade.outcomes(TEXTS, np.full(60, -100))
    assert outcomes.answered_by(threshold).tolist() == expected.tolist()
    assert outcomes.answered(threshold).tolist() == logits.argmax(axis=1).tolist()


def test_without_a_threshold_no_student_is_asked(parts):
    class Unreachable:
        label_names = ("negative", "positive")

    cascade = Cascade([Unreachable()], parts[2], [1.0], math.inf)
    assert set(cascade.answers(TEXTS)[1]) == {"teacher"}


def test_labels_in_another_order_are_put_in_the_students_order(parts, tmp_path):
    class Turned:
        label_names = ("positive", "negative")

        def logits(self, texts, batch_size=64):
            return parts[2].logits(texts, batch_size)[:, ::-1]

    turned = Cascade([parts[0]], Turned(), [1.0], math.inf)
    np.testing.assert_array_equal(turned.logits(TEXTS), parts[2].logits(TEXTS))
    other = load(make_teacher(tmp_path / "other", num_labels=3))
    with pytest.raises(KDError, match=r"expected the labels negative, positive in every .* found LABEL_0"):
        Cascade([parts[0]], other, [1.0], 0.9)


class Broken:
    """A teacher that fails."""

    label_names = ("negative", "positive")

    def logits(self, texts, batch_size=64):
        raise OSError("the disk of the teacher is gone")


@pytest.mark.parametrize("teacher", [Broken(), None])
def test_where_the_teacher_fails_the_cascade_says_so_or_the_student_answers(parts, teacher):
    cascade = Cascade(parts[:2], teacher, [2.0, 1.5], 0.9)
    sure = np.stack([cascade.stage_logits(stage, TEXTS) for stage in (0, 1)])
    by = np.where(confidence_of(sure[0]) >= 0.9, 0, np.where(confidence_of(sure[1]) >= 0.9, 1, 3))
    with pytest.raises(
        TeacherFailed, match=r"the teacher of this cascade failed \((OS|KD)Error: the .* --fallback student"
    ):
        cascade.answered(TEXTS)
    logits, found = replace(cascade, fallback=True).answered(TEXTS)
    assert found.tolist() == by.tolist() and 3 in by
    np.testing.assert_allclose(logits, sure[np.minimum(by, 1), range(60)], atol=1e-5)
    everything = replace(cascade, fallback=True, threshold=math.inf)
    assert set(everything.answers(TEXTS)[1]) == {"fallback"} == {everything.stages[-1]}


def test_two_threads_ask_one_teacher_at_once(parts):
    cascade = Cascade(parts[:1], parts[2], [1.0], math.inf)
    expected, other = cascade.logits(TEXTS), cascade.for_another_thread()
    assert other.teacher.model is cascade.teacher.model
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda own: [own.logits(TEXTS[:9]) for _ in range(40)], (cascade, other)))
    np.testing.assert_allclose(found, np.broadcast_to(expected[:9], (2, 40, 9, 2)), atol=1e-5)
    label = cascade.label_names[expected[0].argmax()]
    asked = other.ask_teacher(TEXTS[0])
    assert max(asked, key=asked.get) == label and sum(asked.values()) == pytest.approx(1)


def test_a_cascade_that_is_missing_moved_or_changed(pair, tmp_path):
    run = pair / "dan"
    with pytest.raises(KDError, match=r"found no cascade\.json; make one with kd cascade"):
        Cascade.load(run)
    teacher = shutil.copytree(own_teacher(RunDirectory(run)), tmp_path / "teacher")
    assert run_kd("cascade", run, pair / "mlp", "--teacher", teacher, "--agreement", "0.8") == 0
    assert Cascade.load(run).stages == ["student 1", "student 2", "teacher"]
    moved = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-moved")
    assert Cascade.load(moved / "pair" / "dan").stages[-1] == "teacher", "its paths are relative"
    (teacher / "tokenizer_config.json").write_text("{}")
    with pytest.raises(KDError, match=r"is not the one that the cascade in .* was made with"):
        Cascade.load(run)
    shutil.rmtree(teacher)
    with pytest.raises(KDError, match=r"expected the teacher of the cascade in .* found no such folder"):
        Cascade.load(run)
    alone = Cascade.load(run, fallback=True)
    assert alone.teacher is None and "teacher" not in alone.answers(TEXTS)[1]
    content = (run / "cascade.json").read_text()
    (run / "cascade.json").write_text(content.replace('"target": 0.8', '"target": 0.9'))
    with pytest.raises(KDError, match="does not match its own checksum; run kd cascade again"):
        Cascade.load(run)


def test_the_teacher_of_a_run_is_found_by_its_checksum(pair, fine_tuned):
    run = RunDirectory(pair / "dan")
    assert own_teacher(run).parent.parent == fine_tuned
    assert checksum(pair / "dan") == checksum(pair / "dan" / "model") != checksum(pair / "mlp")
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace(str(fine_tuned.parent), "elsewhere"))
    with pytest.raises(
        KDError, match=r"expected the teacher of the run in .* below 'elsewhere/teachers', found no such"
    ):
        own_teacher(run)
    shutil.copytree(fine_tuned, pair / "teachers")  # the run was moved together with its outputs
    assert own_teacher(run).parent.parent == pair / "teachers"
