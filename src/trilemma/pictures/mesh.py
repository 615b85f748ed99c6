"""Surfaces of triangles, as files: PLY (binary, with a colour at each vertex) and OBJ (text).

PLY: Turk (1994), "The PLY polygon file format". OBJ has no colours of its own; three numbers after the place of a
vertex are read as its colour by most programs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

MeshFormat = Literal["ply", "obj"]
HEAD = """ply
format binary_little_endian 1.0
comment made by trilemma
element vertex {vertices}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face {faces}
property list uchar int vertex_indices
end_header
"""
VERTEX = np.dtype([("place", "<f4", 3), ("colour", "u1", 3)])
FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


@dataclass(frozen=True)
class Mesh:
    """A surface: vertices float (N, 3); colours of them in [0, 1], as a screen shows them (sRGB), (N, 3); faces, the
    numbers of their three vertices, int (M, 3)."""

    vertices: np.ndarray
    colours: np.ndarray
    faces: np.ndarray


def mesh_content(mesh: Mesh, kind: MeshFormat) -> bytes:
    """The content of a file of that kind."""
    return _ply(mesh) if kind == "ply" else _obj(mesh)


def _ply(mesh: Mesh) -> bytes:
    vertices, faces = np.empty(len(mesh.vertices), VERTEX), np.empty(len(mesh.faces), FACE)
    vertices["place"], vertices["colour"] = mesh.vertices, np.rint(255 * mesh.colours)
    faces["count"], faces["corners"] = 3, mesh.faces
    head = HEAD.format(vertices=len(vertices), faces=len(faces))
    return head.encode() + vertices.tobytes() + faces.tobytes()


def _obj(mesh: Mesh) -> bytes:
    """Numbers of vertices begin at 1."""
    numbers = np.concatenate([mesh.vertices, mesh.colours], axis=1).tolist()
    lines = ["# made by trilemma", *(f"v {' '.join(f'{value:.6g}' for value in row)}" for row in numbers)]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()
