"""What the rows of the suite come to: a few answers, as data and as lines."""

from typing import Any

JUDGING = ("parity", "loading")  # sections that are about nothing but right results
BESIDE_PILLOW = "whole images, beside Pillow"
Sections = dict[str, dict[str, Any]]
GPU_DECODERS = {"nvjpeg": "torchvision nvJPEG", "nvimagecodec": "nvImageCodec", "dali": "DALI mixed"}


def verdict(sections: Sections) -> dict[str, Any]:
    """Answers, as far as there are rows for them.

    Returns:
        parity (passed, failed: names of rows), decoders (fastest and lightest that makes right pixels; beside_dali: of
        each other one its images/s and memory as ratios; keep: those that are faster or lighter than DALI), training
        (shares of the synthetic batches' images/s).
    """
    answers = {
        "parity": _parity(sections),
        "decoders": _decoders(sections),
        "training": {
            row["name"]: row["share_of_synthetic"] for row in _rows(sections, "training") if "share_of_synthetic" in row
        },
    }
    return {name: answer for name, answer in answers.items() if answer}


def _rows(sections: Sections, name: str) -> list[dict[str, Any]]:
    return sections.get(name, {}).get("rows", [])


def _parity(sections: Sections) -> dict[str, Any]:
    judged = [
        (f"{name}: {row['name']}", row["ok"]) for name in sections for row in _rows(sections, name) if "ok" in row
    ]
    # A path that gave nothing is no right one.
    broken = [
        f"{name}: {row['name']}"
        for name in sections
        for row in _rows(sections, name)
        if "error" in row and name in JUDGING
    ]
    broken += [f"{name}: {sections[name]['error']}" for name in JUDGING if "error" in sections.get(name, {})]
    if not judged and not broken:
        return {}
    return {"passed": sum(ok for _, ok in judged), "failed": [name for name, ok in judged if not ok] + broken}


def _decoders(sections: Sections) -> dict[str, Any]:
    found = {}
    for section, name in GPU_DECODERS.items():
        rows = {row["name"]: row for row in _rows(sections, section)}
        views, pixels = rows.get("views", {}), rows.get(BESIDE_PILLOW, {})
        if "images_per_s" in views:
            figures = {key: views[key] for key in ("images_per_s", "gpu_memory_mib")}
            found[name] = {**figures, "right_pixels": bool(pixels.get("right_pixels"))}
    right = {name: figures for name, figures in found.items() if figures["right_pixels"]}
    if not right:
        return {"measured": found} if found else {}
    answer: dict[str, Any] = {
        "measured": found,
        "fastest": max(right, key=lambda name: right[name]["images_per_s"]),
        "lightest": min(right, key=lambda name: right[name]["gpu_memory_mib"]),
    }
    dali = found.get(GPU_DECODERS["dali"])
    if dali is not None:
        others = {name: figures for name, figures in right.items() if name != GPU_DECODERS["dali"]}
        answer["keep"] = [
            name
            for name, figures in others.items()
            if figures["images_per_s"] > dali["images_per_s"] or figures["gpu_memory_mib"] < dali["gpu_memory_mib"]
        ]
    return answer


def lines(answers: dict[str, Any]) -> list[str]:
    """The same as sentences."""
    found = []
    if "parity" in answers:
        parity = answers["parity"]
        failed = parity["failed"]
        found.append(
            f"parity: {parity['passed']} checks passed, {len(failed)} rows failed"
            + (f" ({'; '.join(failed)})" if failed else "")
        )
    found += _about_decoders(answers.get("decoders", {}))
    for name, share in answers.get("training", {}).items():
        found.append(f"training, {name}: {share:.1%} of the speed on synthetic batches")
    return found


def _about_decoders(decoders: dict[str, Any]) -> list[str]:
    if not decoders:
        return []
    measured = decoders["measured"]

    def shown(name: str) -> str:
        return f"{name} ({measured[name]['images_per_s']:,.0f} images/s, {measured[name]['gpu_memory_mib']:,.0f} MiB)"

    if "fastest" not in decoders:
        return [f"GPU decoders: none makes right pixels of {', '.join(map(shown, measured))}"]
    found = [
        f"GPU decoders, to views: fastest {shown(decoders['fastest'])}, "
        f"lightest in GPU memory {shown(decoders['lightest'])}"
    ]
    if "keep" in decoders:
        keep = decoders["keep"]
        found.append(
            f"faster or lighter than DALI, and with right pixels: {', '.join(map(shown, keep)) if keep else 'none'}; "
            f"DALI: {shown(GPU_DECODERS['dali'])}"
        )
    return found
