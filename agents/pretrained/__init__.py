"""Trained teams that ship, by name: `agents/pretrained/NAME.safetensors`, each with the NAME.json that states which
command made it and how it learned."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".safetensors"
_FOLDER = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Name -> file."""
    return {path.stem: path for path in sorted(_FOLDER.glob(f"*{SUFFIX}"))}
