"""A detection in sentences: what was flagged, how that compares with other scores, how far it can be trusted."""

from collections.abc import Mapping
from typing import Any

from trilemma.explore.detection.images import ABNORMAL, NORMAL, UNKNOWN
from trilemma.explore.detection.threshold import SPREAD
from trilemma.words import capital, number, span

UPSIDE_DOWN = 0.4  # AUROC below which the abnormal images clearly score lower


def in_short(document: Mapping[str, Any]) -> list[str]:
    """What was found, the result first."""
    return [*_result(document), *_others(document), _threshold(document), _alarms(document), *document["notes"]]


def percent(share: Mapping[str, Any]) -> str:
    """A share with its interval.

    >>> percent({"value": 0.617, "interval": (0.6, 0.63)})
    '61.7% (60.0% to 63.0%)'
    """
    low, high = share["interval"]
    return f"{share['value']:.1%} ({low:.1%} to {high:.1%})"


def _result(document: Mapping[str, Any]) -> list[str]:
    kind, row = document["kind"], document["rows"][document["score"]]
    count, by = document["counts"][kind], f"by {row['title']}"
    if kind == NORMAL:
        return [f"{document['flagged']:,} of {count:,} held-out normal images are flagged as odd, {by}."]
    if kind == UNKNOWN:
        return [f"{document['flagged']:,} of {count:,} unknown images are flagged, {by}."]
    texts = [f"{percent(row['detection_rate'])} of {count:,} abnormal images are flagged, {by}: {_area(row)}."]
    if row["auroc"]["value"] < UPSIDE_DOWN:
        sure = "are" if row["auroc"]["interval"][1] < 0.5 else "seem to be"
        texts.append(
            f"The scores {sure} upside down: by this score most abnormal images look more normal than the normal ones, "
            "so it does not find them."
        )
    return texts


def _others(document: Mapping[str, Any]) -> list[str]:
    """Whether another score ranks the abnormal images better than the one that flags."""
    if document["kind"] != ABNORMAL:
        return []
    rows = document["rows"]
    best, own = max(rows.values(), key=lambda row: row["auroc"]["value"]), rows[document["score"]]
    if best["auroc"]["value"] <= own["auroc"]["value"]:
        return ["No other score has a higher AUROC."]
    if best["auroc"]["value"] < UPSIDE_DOWN:
        return ["Every score is upside down on these images."]
    without = ", which needs no model," if best["baseline"] else ""
    return [
        f"{capital(best['title'])}{without} ranks them better, {_area(best)}, and flags "
        f"{percent(best['detection_rate'])} (score={best['name']})."
    ]


def _area(row: Mapping[str, Any]) -> str:
    value, interval = row["auroc"]["value"], row["auroc"]["interval"]
    return f"AUROC {number(value, interval)} ({span(value, interval)})"


def _threshold(document: Mapping[str, Any]) -> str:
    count, rate = document["counts"]["calibration"], f"{100 * document['false_alarms']:.3g}%"
    above = f"The threshold is {number(document['threshold'])}"
    if document["threshold_by"] == SPREAD:
        return (
            f"{above}. {count:,} held-out normal images are too few to set one for {rate} false alarms by their rank: "
            f"the shape of the scores of training images helps ({document['images_behind']:,} images in all), and the "
            "rate holds as far as both are alike. More normal images in data= make it certain."
        )
    return f"{above}, set by {count:,} held-out normal images so that at most {rate} of new normal images are flagged."


def _alarms(document: Mapping[str, Any]) -> str:
    row = document["rows"][document["score"]]
    if document["counted"]:
        return f"Of {document['counts'][NORMAL]:,} other normal images {percent(row['false_alarm_rate'])} are flagged."
    if row["false_alarm_rate"] is None:
        return "There are no other normal images to count false alarms on."
    return (
        f"There are no other normal images to count false alarms on: {percent(row['false_alarm_rate'])} of new normal "
        "images are expected to be flagged."
    )
