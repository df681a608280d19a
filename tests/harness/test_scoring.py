"""How well crops overlap what is asked about."""

from hypothesis import given
from hypothesis import strategies as st
from prh.harness.scoring import process_metrics
from prh.harness.types import Box

WHERE = Box(10, 10, 30, 30)
EDGES = st.integers(0, 60)
CROPS = st.lists(
    st.tuples(st.sampled_from((1, 2, 3, 4)), st.sampled_from((None, "bad_box")), EDGES, EDGES, EDGES, EDGES), max_size=4
)
# Images 1 and 2 are the question's, 3 was cut from 1 and 4 from 3.
ROOTS = {1: 1, 2: 2, 3: 1, 4: 1}


def operation(media, error, left, top, width, height):
    box = [left, top, left + width + 1, top + height + 1]
    return {"media": media, "error": error, "root_box": None if error else box}


def record(crops, *, boxes=(WHERE,)):
    return {
        **dict.fromkeys(("question", "answer_kind", "category", "cluster"), ""),
        "id": "1",
        "end": "answered",
        "choices": [],
        "gold": [],
        "slices": [],
        "evidence": [{"media": 1, "box": list(box) if box else None, "frames": [3]} for box in boxes],
        "operations": [operation(*crop) for crop in crops],
        "media": [{"index": index, "root": root, "digest": "x"} for index, root in ROOTS.items()],
        "segments": [],
        "usage": dict.fromkeys(("turns", "images", "prompt_tokens", "new_tokens"), 0),
        "seconds": {},
    }


@given(st.lists(CROPS, min_size=1, max_size=5))
def test_the_median_of_the_best_crop_of_each_episode(episodes):
    best = []
    for crops in episodes:
        found = []
        for media, error, left, top, width, height in crops:
            if error is None and media != 2:
                wide = max(0, min(30, left + width + 1) - max(10, left))
                high = max(0, min(30, top + height + 1) - max(10, top))
                found.append(wide * high / (400 + (width + 1) * (height + 1) - wide * high))
        best += [max(found)] if found else []
    best.sort()
    made = process_metrics(list(map(record, episodes))).get("crop_iou")
    if not best:
        assert made is None
        return
    middle = (best[(len(best) - 1) // 2] + best[len(best) // 2]) / 2
    assert made.n == len(best)
    assert abs(made.value - middle) < 1e-12


def test_nothing_is_said_where_no_box_is_known():
    crops = [(1, None, 10, 10, 19, 19)]
    assert process_metrics([record(crops)])["crop_iou"].value == 1
    assert "crop_iou" not in process_metrics([record(crops, boxes=(None,)), record(crops, boxes=()), record([])])
